//! Faults: has the kernel refuse at chosen points, for the model (`fuzz/`). It is in no
//! library that is released.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Calls of one kind that are refused.
pub struct Fault {
    /// Calls that pass before the first is refused.
    pass: AtomicUsize,
    /// Calls that are refused then.
    refuse: AtomicUsize,
    /// Calls that were refused so far.
    struck: AtomicUsize,
}

/// New mappings.
pub static MAP: Fault = Fault::none();
/// Mappings given back.
pub static UNMAP: Fault = Fault::none();
/// Pages given back or asked for: advice of any kind.
pub static ADVISE: Fault = Fault::none();

impl Fault {
    /// Nothing is refused.
    pub const fn none() -> Fault {
        Fault {
            pass: AtomicUsize::new(0),
            refuse: AtomicUsize::new(0),
            struck: AtomicUsize::new(0),
        }
    }

    /// Has `refuse` calls refused, after `pass` more.
    pub fn arm(&self, pass: usize, refuse: usize) {
        self.refuse.store(0, Relaxed);
        self.pass.store(pass, Relaxed);
        self.refuse.store(refuse, Relaxed);
    }

    /// Whether this call is refused.
    pub fn strikes(&self) -> bool {
        let one_less = |n: usize| n.checked_sub(1);
        if self.refuse.load(Relaxed) == 0
            || self.pass.fetch_update(Relaxed, Relaxed, one_less).is_ok()
            || self
                .refuse
                .fetch_update(Relaxed, Relaxed, one_less)
                .is_err()
        {
            return false;
        }
        self.struck.fetch_add(1, Relaxed);
        true
    }

    /// Calls that were refused so far.
    pub fn struck(&self) -> usize {
        self.struck.load(Relaxed)
    }
}
