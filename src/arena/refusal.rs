//! After the kernel has refused a mapping: for how long it is not asked again.
//!
//! A process whose mappings all fail would otherwise make a system call that fails for every
//! request, and then the C library's own. What is below serves requests meanwhile, as it
//! does without us.
//!
//! # Threads
//!
//! An atomic that any thread may read and write. Threads that count at once may skip a few more or
//! fewer requests, which changes nothing.
#![forbid(unsafe_code)]

use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// Requests for a mapping that are refused without asking the kernel, after it has refused one.
/// (A count, not a time: no clock is read, and a program that asks rarely loses little.)
pub(crate) const SKIPPED: usize = 100;

/// Mappings of one kind.
pub(crate) struct Refusal {
    /// Requests that are still to be refused.
    left: AtomicUsize,
}

impl Refusal {
    /// The kernel has refused none yet.
    pub(crate) const fn new() -> Refusal {
        Refusal {
            left: AtomicUsize::new(0),
        }
    }

    /// What `map` gives, if the kernel may be asked again. `None` if not, or if it refuses.
    pub(crate) fn ask<T>(&self, map: impl FnOnce() -> Option<T>) -> Option<T> {
        let left = self.left.load(Relaxed);
        if left > 0 {
            self.left.store(left - 1, Relaxed);
            return None;
        }
        let mapped = map();
        if mapped.is_none() {
            self.left.store(SKIPPED, Relaxed);
        }
        mapped
    }

    /// Says that there is room again, as far as is known here.
    pub(crate) fn forget(&self) {
        if self.left.load(Relaxed) != 0 {
            self.left.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked_again_after_some_requests() {
        let (refusal, asked) = (Refusal::new(), core::cell::Cell::new(0));
        let refuse = || {
            asked.set(asked.get() + 1);
            None::<()>
        };
        for _ in 0..10 * (SKIPPED + 1) {
            assert!(refusal.ask(refuse).is_none());
        }
        assert_eq!(asked.get(), 10);
        assert!(refusal.ask(refuse).is_none());
        refusal.forget();
        assert_eq!(refusal.ask(|| Some(1)), Some(1));
        assert_eq!(refusal.ask(|| Some(2)), Some(2));
    }
}
