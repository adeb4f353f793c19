//! A callback slot: a lower folder calls a higher one without depending on it. The higher folder
//! sets the function; `lib.rs` lists all slots.

use core::marker::PhantomData;
use core::mem;
use core::ptr;

use crate::sync::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

/// Function types that a slot can hold.
///
/// # Safety
///
/// Only for plain function pointers: they are never null, and as large as a pointer.
pub(crate) unsafe trait Function: Copy {}

// SAFETY: a plain function pointer.
unsafe impl<R> Function for fn() -> R {}
// SAFETY: a plain function pointer.
unsafe impl<A, R> Function for fn(A) -> R {}

/// A slot for a function, empty at first.
pub(crate) struct Callback<F> {
    function: AtomicPtr<()>,
    kind: PhantomData<F>,
}

impl<F: Function> Callback<F> {
    /// An empty slot.
    pub(crate) const fn unset() -> Callback<F> {
        const { assert!(size_of::<F>() == size_of::<*mut ()>()) };
        Callback {
            function: AtomicPtr::new(ptr::null_mut()),
            kind: PhantomData,
        }
    }

    /// Sets the function, in place of an earlier one.
    pub(crate) fn set(&self, function: F) {
        // SAFETY: by the contract of `Function`, an `F` is as large as a pointer.
        let function = unsafe { mem::transmute_copy::<F, *mut ()>(&function) };
        self.function.store(function, Release);
    }

    /// The function, if one was set.
    #[inline]
    pub(crate) fn get(&self) -> Option<F> {
        let function = self.function.load(Acquire);
        if function.is_null() {
            return None;
        }
        // SAFETY: not null, so `set` has stored it, from an `F`.
        Some(unsafe { mem::transmute_copy::<*mut (), F>(&function) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_function_is_called() {
        static CALLBACK: Callback<fn(u32) -> u32> = Callback::unset();
        assert!(CALLBACK.get().is_none());
        CALLBACK.set(|n| n + 1);
        assert_eq!(CALLBACK.get().map(|callback| callback(1)), Some(2));
        CALLBACK.set(|n| n + 2);
        assert_eq!(CALLBACK.get().map(|callback| callback(1)), Some(3));
    }
}
