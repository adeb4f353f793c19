//! The stats page: statistics that other processes read while this one runs. Off by default.
//!
//! ```text
//!    a reader, such as `obmalloc top`                 this process
//!      opens /proc/PID/fd/N, maps the page
//!      request + 1, wakes  ------------------------>  the thread `obmalloc-live`
//!                                                       writes the statistics (encode)
//!      copies them         <------------------------  answered, wakes
//! ```
//!
//! Pull, not push: without a request the thread sleeps in the kernel, and no call of the
//! program does anything for the page. As every helper thread, it ends before a fork; the page
//! is written once more then. A tick starts it again when the program frees blocks 250 ms or
//! more after the fork; until then the page is as old as `made_ms`. Where no thread is allowed,
//! ticks answer.
//!
//! A forked child creates its own page. A program that closes all descriptors closes the
//! page's, too; the next tick creates another. A program that sleeps does not tick, so its page
//! cannot be opened, but it is still mapped under the name [`LINK`](format::layout::LINK) in
//! `/proc/PID/maps`: this distinguishes it from a program that was started without a page.
//!
//! On request the thread writes a snapshot of the heap after the page; `obmalloc_snapshot`
//! writes one to a file (`snapshot.rs`).
//!
//! # Threads
//!
//! Any thread may tick, with no lock held. `SERVER`'s lock, then `PAGE`, are first in the
//! order of locks.

use format::options;

use crate::base::callback::Callback;
use crate::os::clock;
use crate::os::forker;
use crate::os::lock::Word;
use crate::os::sandbox;
use crate::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub(crate) mod encode;

pub(crate) mod writer;

pub(crate) mod snapshot;

pub(crate) mod mapping;

pub(crate) mod server;

/// Whether a page is wanted.
static WANTED: AtomicBool = AtomicBool::new(options::STATS_PAGE.default.is_on());
/// Whether a thread may be started.
static THREAD: AtomicBool = AtomicBool::new(options::BACKGROUND_THREAD.default.is_on());
/// The time from which a tick checks the page again.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Returns the host's version.
static HOST: Callback<fn() -> Option<&'static str>> = Callback::unset();

/// Milliseconds between two checks by ticks.
const BETWEEN: u64 = 250;
/// Milliseconds after a fork in which no thread is started: CPython counts the threads of the
/// process right after a fork.
const AFTER_FORK: u64 = 250;

/// Sets whether there is a page. Called before the first allocation.
pub(crate) fn want(wanted: bool) {
    WANTED.store(wanted, Relaxed);
}

/// Sets whether a thread may be started.
pub(crate) fn allow_thread(allowed: bool) {
    THREAD.store(allowed, Relaxed);
}

/// Sets the callback that returns the host's version.
pub(crate) fn ask_for_host(host: fn() -> Option<&'static str>) {
    HOST.set(host);
}

/// The host's version, if there is a host.
#[cold]
pub(crate) fn host() -> Option<&'static str> {
    HOST.get()?()
}

#[inline]
fn is_wanted() -> bool {
    WANTED.load(Relaxed)
}

/// At the first allocation, with no lock held: creates the page and starts the server.
pub(crate) fn begin() {
    if is_wanted() {
        look(clock::now());
    }
}

/// Called at some of the frees, with no lock held.
#[inline]
pub(crate) fn tick() {
    if is_wanted() {
        tick_now();
    }
}

#[cold]
#[inline(never)]
fn tick_now() {
    let now = clock::now();
    // Other libraries' fork handlers may free: no thread is started under them.
    if now >= NEXT.load(Relaxed) && !forker::is_this_thread() {
        look(now);
    }
}

#[cold]
#[inline(never)]
fn look(now: u64) {
    NEXT.store(now + BETWEEN, Relaxed);
    if sandbox::allows() {
        server::heed(THREAD.load(Relaxed));
    }
}

/// The locks, in their order, for forks.
pub(crate) fn each_lock(see: &mut dyn FnMut(&'static Word)) {
    if is_wanted() {
        see(server::word());
        see(mapping::word());
    }
}

/// The lock under which the thread starts.
pub(crate) fn lock_of_helper(see: &mut dyn FnMut(&'static Word)) {
    if is_wanted() {
        see(server::word());
    }
}

/// Before a fork that holds the lock of [`lock_of_helper`]: stops the thread, which cannot be
/// started while the lock is held. Returns whether a request was pending.
pub(crate) fn stop_for_fork() -> bool {
    is_wanted() && server::stop_for_fork()
}

/// Waits for the thread's end, for `patience` nanoseconds.
pub(crate) fn wait_until_gone(patience: u64) {
    if is_wanted() {
        server::wait_until_gone(patience);
    }
}

/// Before a fork that holds all locks: the page is written.
pub(crate) fn write_before_fork(was_asked: bool) {
    if is_wanted() {
        mapping::write_before_fork(was_asked);
    }
}

/// After a fork, on both sides.
pub(crate) fn go_on_after_fork() {
    if is_wanted() {
        NEXT.store(clock::now() + AFTER_FORK, Relaxed);
    }
}

/// In a forked child, under the locks: there is no thread. If all locks are held, a page of the
/// child's own replaces the parent's.
pub(crate) fn forked(all_held: bool) {
    if is_wanted() {
        server::forked();
        if all_held {
            mapping::forked();
        }
    }
}
