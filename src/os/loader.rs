//! Calls of the dynamic loader that no fork may interrupt.
//!
//! `dlsym`, `dl_iterate_phdr` and `dladdr` take the loader's lock. The C library's fork does
//! not: a child that is copied while one of these calls holds the lock never gets it, and
//! hangs at its own first look-up, which is its first allocation. So a fork waits until no
//! thread is in the loader on this library's behalf, and a thread that wants to call the loader
//! waits until no other thread forks.
//!
//! Both waits end after [`PATIENCE`]: the caller may wait for a thread of the program that has
//! the loader's lock, and that thread may fork in a constructor. What the program itself does in
//! the loader while another of its threads forks is as it is without this library.
#![forbid(unsafe_code)]

use super::clock;
use super::roster::Roster;

/// Maximum nanoseconds that a fork, or a call of the loader, waits.
const PATIENCE: u64 = 1_000_000_000;

/// Threads in the loader, and threads that fork.
static CALLERS: Roster<16> = Roster::new();
static FORKS: Roster<16> = Roster::new();

/// Runs `call`, which calls the loader.
pub(crate) fn with<T>(call: impl FnOnce() -> T) -> T {
    if CALLERS.has_this_thread() {
        return call();
    }
    let begin = clock::nanoseconds();
    while CALLERS.enter() && FORKS.has_others() {
        CALLERS.leave();
        let waited = clock::nanoseconds().saturating_sub(begin);
        if waited >= PATIENCE {
            return call();
        }
        FORKS.wait_for_others(PATIENCE - waited);
    }
    let result = call();
    CALLERS.leave();
    result
}

/// Runs `call` on a thread that is in the loader already, for the program: waits for no fork,
/// because another caller may wait for this thread.
pub(crate) fn within<T>(call: impl FnOnce() -> T) -> T {
    let is_entered = CALLERS.enter();
    let result = call();
    if is_entered {
        CALLERS.leave();
    }
    result
}

/// Before a fork: waits until no other thread is in the loader.
pub(crate) fn begin_fork() {
    FORKS.enter();
    CALLERS.wait_for_others(PATIENCE);
}

/// After it, in the parent.
pub(crate) fn end_fork() {
    FORKS.leave();
}

/// After it, in the child.
pub(crate) fn forked() {
    FORKS.forked();
    FORKS.leave();
    CALLERS.forked();
}
