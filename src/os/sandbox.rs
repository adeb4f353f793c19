//! Which system calls the library may make in this process.
//!
//! A program may restrict itself after it has started, by a filter of system calls
//! (seccomp) that ends the process at the first call that is not on its list. Such a list
//! has what CPython needs. So the calls that CPython's own allocator does not make
//! (everything but `mmap` and `munmap`, and `futex`, by which CPython's GIL waits) are made
//! only after a look at [`allows`]:
//!
//! ```text
//!    Unknown      nothing was decided yet                             allowed
//!    Watched      no filter at start       --> the thread's mode now: 0 allowed
//!       |                                                             2 Restricted
//!       v
//!    Restricted   a thread has found a filter, or a setting asks      not allowed, for good
//!
//!    Filtered     a filter at start, as in every container: a later one
//!                 cannot be told from it                              allowed
//! ```
//!
//! The look is a call of its own, `prctl(PR_GET_SECCOMP)`, of some 60 ns. A list without
//! `prctl` needs the setting (`config.rs`), with which there is no look.
//!
//! # Threads
//!
//! Any thread. The mode is the calling thread's, as filters are; what follows from it holds
//! for the process, and for its children: they inherit the filter, and this state.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

#[cfg(not(miri))]
use super::errno;

/// Whether there are filters of system calls, and what follows.
#[repr(u8)]
enum State {
    /// Nothing: [`begin`] was not called.
    Unknown,
    /// There was no filter at start: each thread looks at its own mode.
    Watched,
    /// There was one at start, or the kernel has none: no look.
    Filtered,
    /// Only what CPython's own allocator calls.
    Restricted,
}

/// Not one of `crate::sync`: the models know no filter, and each look at it would double
/// the orders that they go through.
static STATE: AtomicU8 = AtomicU8::new(State::Unknown as u8);

/// Says whether the process has a filter now, at start; `None`: the thread's mode says so.
/// Once; what was decided stays.
#[cold]
pub(crate) fn begin(filtered: Option<bool>) {
    let state = match filtered.unwrap_or_else(|| mode() != Some(0)) {
        true => State::Filtered,
        false => State::Watched,
    };
    let _ = STATE.compare_exchange(State::Unknown as u8, state as u8, Relaxed, Relaxed);
}

/// Allows only what CPython's own allocator calls, for good.
#[cold]
pub(crate) fn restrict() {
    STATE.store(State::Restricted as u8, Relaxed);
}

/// Whether only these calls may be made, as far as is known: for what is not worth a look.
#[inline]
pub(crate) fn is_restricted() -> bool {
    STATE.load(Relaxed) == State::Restricted as u8
}

/// Whether the calling thread may make other system calls now.
pub(crate) fn allows() -> bool {
    let state = STATE.load(Relaxed);
    if state == State::Watched as u8 {
        look()
    } else {
        state != State::Restricted as u8
    }
}

fn look() -> bool {
    let free = mode() == Some(0);
    if !free {
        restrict();
    }
    free
}

/// The calling thread's mode: 0 is no filter, 2 is one. `None` if the kernel has no filters,
/// or a filter refuses the question.
#[cfg(not(miri))]
fn mode() -> Option<usize> {
    // SAFETY: `PR_GET_SECCOMP` reads no argument, and changes nothing.
    errno::checked(|| unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_SECCOMP, 0, 0, 0, 0) })
        .ok()
}

/// Miri has no kernel: there is no filter.
#[cfg(miri)]
fn mode() -> Option<usize> {
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_at_start_is_allowed() {
        // The other tests of this process share the state: it stays as good.
        assert!(allows() && !is_restricted());
        begin(None);
        assert!(allows() && !is_restricted());
    }
}
