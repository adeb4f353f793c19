//! Which system calls the library may make in this process.
//!
//! A program may restrict itself after it has started, by a filter of system calls (seccomp) that
//! ends the process at the first call that is not on its list. The list has the calls that CPython
//! needs. So a call that CPython's own allocator does not make (any but `mmap` and `munmap`, and
//! `futex`, by which CPython's GIL waits) is made only if [`allows`] returns true:
//!
//! ```text
//!    Unknown      not decided yet                                     allowed
//!    Watched      no filter at start       --> the thread's mode now: 0 allowed
//!       |                                                             2 Restricted
//!       v
//!    Restricted   a thread has found a filter, or a setting says so   not allowed, for good
//!
//!    Filtered     a filter at start, as in every container: a later
//!                 one goes unnoticed                                  allowed
//! ```
//!
//! The check is a system call of its own, `prctl(PR_GET_SECCOMP)`, of some 60 ns. A list without
//! `prctl` needs the setting (`config.rs`), with which there is no check.
//!
//! # Threads
//!
//! Any thread. The mode is that of the calling thread, as filters are; the state that follows is
//! the process's, and its children inherit it with the filter.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

#[cfg(not(miri))]
use super::errno;

/// Whether there are filters of system calls, and which calls are allowed.
#[repr(u8)]
enum State {
    /// [`begin`] was not called.
    Unknown,
    /// There was no filter at start: each thread checks its own mode.
    Watched,
    /// There was a filter at start, or the kernel has no filters: no check.
    Filtered,
    /// Only the calls of CPython's own allocator.
    Restricted,
}

/// Not an atomic of `crate::sync`: the models have no filter, and each load would double the orders
/// that they try.
static STATE: AtomicU8 = AtomicU8::new(State::Unknown as u8);

/// Sets whether the process has a filter now, at start; `None`: the thread's mode decides. Only the
/// first call has an effect.
#[cold]
pub(crate) fn begin(filtered: Option<bool>) {
    // qemu's emulation of a process refuses the query of the mode: there no filter is seen, either.
    let state = if filtered != Some(true) && mode() == Some(0) {
        State::Watched
    } else {
        State::Filtered
    };
    let _ = STATE.compare_exchange(State::Unknown as u8, state as u8, Relaxed, Relaxed);
}

/// Allows only the calls of CPython's own allocator, for good.
#[cold]
pub(crate) fn restrict() {
    STATE.store(State::Restricted as u8, Relaxed);
}

/// Whether only these calls are allowed, by the state that is known, without a check.
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

/// The calling thread's mode: 0 without a filter, 2 with one. `None` if the kernel has no filters,
/// or a filter refuses the call.
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
        // The other tests of this process share the state, which is as good for them.
        assert!(allows() && !is_restricted());
        begin(None);
        assert!(allows() && !is_restricted());
    }
}
