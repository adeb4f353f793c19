//! Thread cancellation, disabled around calls that may be cancellation points.
//!
//! POSIX does not allow malloc, calloc, realloc and free to be cancellation points: a thread that
//! is cancelled in one leaves a lock held. So the library calls no function that is one
//! (`tests/abi/test_symbols.py` checks its imports), and makes these system calls by `syscall`, which
//! is none. An [`Uncancelled`] is held around a function of the C library that may be one.

use core::ffi::c_int;
#[cfg(not(miri))]
use core::ptr;

/// Keeps the calling thread from being cancelled, until it is dropped. A request stays pending for
/// the program's own cancellation points.
pub(crate) struct Uncancelled {
    before: c_int,
}

#[cfg(not(miri))]
const DISABLE: c_int = 1; // PTHREAD_CANCEL_DISABLE, the same in every C library of Linux

#[cfg(not(miri))]
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

impl Uncancelled {
    /// Disables cancellation of the calling thread.
    pub(crate) fn begin() -> Uncancelled {
        let mut before = 0;
        // SAFETY: DISABLE is a valid state, and `before` has room for the old one.
        #[cfg(not(miri))]
        unsafe {
            pthread_setcancelstate(DISABLE, &raw mut before)
        };
        #[cfg(miri)]
        core::hint::black_box(&mut before);
        Uncancelled { before }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: the state that `begin` replaced is valid; NULL discards the present one.
        #[cfg(not(miri))]
        unsafe {
            pthread_setcancelstate(self.before, ptr::null_mut())
        };
        #[cfg(miri)]
        core::hint::black_box(self.before);
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    /// The thread's state, which can only be read by setting it.
    fn state() -> c_int {
        let (mut now, mut disabled) = (0, 0);
        // SAFETY: valid states, and room for the old ones.
        unsafe { pthread_setcancelstate(DISABLE, &raw mut now) };
        // SAFETY: the state that the call before replaced is valid.
        unsafe { pthread_setcancelstate(now, &raw mut disabled) };
        assert_eq!(disabled, DISABLE);
        now
    }

    #[test]
    fn the_state_is_what_it_was_afterwards() {
        assert_ne!(state(), DISABLE);
        {
            let _outer = Uncancelled::begin();
            {
                let _inner = Uncancelled::begin();
                assert_eq!(state(), DISABLE);
            }
            assert_eq!(state(), DISABLE);
        }
        assert_ne!(state(), DISABLE);
    }
}
