//! Cancellation, kept away from calls that may be cancellation points.
//!
//! POSIX does not let malloc and its kind be cancellation points: a thread that is cancelled
//! within one leaves a lock held. So the library calls none of POSIX's (`tests/abi/test_symbols.py`
//! checks what it imports), and makes such system calls by `syscall`, which is none. Where a
//! function of the C library has to be called that may be one, an [`Uncancelled`] lives
//! meanwhile.

use core::ffi::c_int;
#[cfg(not(miri))]
use core::ptr;

/// While it lives, the calling thread is not cancelled. A request that comes meanwhile stays
/// pending, for the program's own cancellation points.
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
        // SAFETY: DISABLE is a state, and `before` is a place for the one it replaces.
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
        // SAFETY: the state that `begin` replaced; NULL: the present one is not needed.
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
        // SAFETY: states, and places for those that they replace.
        unsafe { pthread_setcancelstate(DISABLE, &raw mut now) };
        // SAFETY: as in the call before, back to what it replaced.
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
