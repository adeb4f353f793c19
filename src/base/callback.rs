//! A function that a file above leaves with one below, to be called from there: the one
//! below need not know of the one above.

use core::marker::PhantomData;
use core::mem;
use core::ptr;

use crate::sync::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

/// Functions that can be left.
///
/// # Safety
///
/// Only for plain function pointers: they are never null, and as large as a pointer.
pub(crate) unsafe trait Function: Copy {}

// SAFETY: a function pointer.
unsafe impl<R> Function for fn() -> R {}
// SAFETY: a function pointer.
unsafe impl<A, R> Function for fn(A) -> R {}

/// Who is to be called, if anybody.
pub(crate) struct Callback<F> {
    function: AtomicPtr<()>,
    kind: PhantomData<F>,
}

impl<F: Function> Callback<F> {
    /// Nobody yet.
    pub(crate) const fn unset() -> Callback<F> {
        const { assert!(size_of::<F>() == size_of::<*mut ()>()) };
        Callback {
            function: AtomicPtr::new(ptr::null_mut()),
            kind: PhantomData,
        }
    }

    /// Leaves a function, in the place of the one before.
    pub(crate) fn set(&self, function: F) {
        // SAFETY: `Function`.
        let function = unsafe { mem::transmute_copy::<F, *mut ()>(&function) };
        self.function.store(function, Release);
    }

    /// The function that was left.
    #[inline]
    pub(crate) fn get(&self) -> Option<F> {
        let function = self.function.load(Acquire);
        if function.is_null() {
            return None;
        }
        // SAFETY: from `set`, which made it of an `F`.
        Some(unsafe { mem::transmute_copy::<*mut (), F>(&function) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_called() {
        static LISTENER: Callback<fn(u32) -> u32> = Callback::unset();
        assert!(LISTENER.get().is_none());
        LISTENER.set(|n| n + 1);
        assert_eq!(LISTENER.get().map(|listener| listener(1)), Some(2));
        LISTENER.set(|n| n + 2);
        assert_eq!(LISTENER.get().map(|listener| listener(1)), Some(3));
    }
}
