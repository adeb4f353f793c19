//! The live page: statistics that other processes read while this one runs. Off unless
//! a setting asks.
//!
//! ```text
//!    a reader, such as `obmalloc top`                 this process
//!      opens /proc/PID/fd/N, maps the page
//!      request + 1, wakes  ------------------------>  the thread `obmalloc-live`
//!                                                       makes the statistics (encode)
//!      copies them         <------------------------  answered, wakes
//! ```
//!
//! Pull, not push: while nobody asks, the thread sleeps in the kernel, and no call of the
//! program does anything for it. As for each helper thread, there is none during a fork;
//! before it, the page is written once more. The thread comes back by a tick, when the
//! program gives blocks back some time after the fork; until then the page is as old as
//! it says. Where there may be no thread, ticks answer.
//!
//! A forked child makes a page of its own. A program that closes all descriptors closes
//! the page's, too; a tick finds that, and makes another. While such a program sleeps it
//! does not tick, and no reader can ask: its page cannot be opened. But it is still mapped,
//! under the name of [`LINK`](format::layout::LINK) in `/proc/PID/maps`; so a reader can tell such a
//! program from one that was not started with a page.
//!
//! The same thread writes a snapshot of the heap behind the page, if that is asked for,
//! and `obmalloc_snapshot` writes one to a file (`snapshot.rs`).
//!
//! # Threads
//!
//! Any thread may tick, with no lock held. `SERVER`'s lock, then `PAGE`, come first in
//! the order of locks.

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

pub(crate) mod page;

pub(crate) mod server;

/// Whether a page is wanted.
static WANTED: AtomicBool = AtomicBool::new(options::STATS_PAGE.default.is_on());
/// Whether a thread may be started.
static THREAD: AtomicBool = AtomicBool::new(options::BACKGROUND_THREAD.default.is_on());
/// When the next tick looks.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Who knows the host's version.
static HOST: Callback<fn() -> Option<&'static str>> = Callback::unset();

/// Milliseconds between two looks of ticks.
const BETWEEN: u64 = 250;
/// Milliseconds after a fork in which no thread is started: CPython counts threads right
/// after it has forked.
const AFTER_FORK: u64 = 250;

/// Wants a page, or not. To be called before the first block is asked for.
pub(crate) fn want(wanted: bool) {
    WANTED.store(wanted, Relaxed);
}

/// Allows a thread, or not.
pub(crate) fn allow_thread(allowed: bool) {
    THREAD.store(allowed, Relaxed);
}

/// Says who knows the host's version.
pub(crate) fn ask_for_host(host: fn() -> Option<&'static str>) {
    HOST.set(host);
}

/// The host's version, if there is a host.
#[cold]
fn host() -> Option<&'static str> {
    HOST.get()?()
}

#[inline]
fn is_wanted() -> bool {
    WANTED.load(Relaxed)
}

/// At the first block that is asked for, with no lock held: makes the page, and has it
/// answered.
pub(crate) fn begin() {
    if is_wanted() {
        look(clock::now());
    }
}

/// To be called now and then when blocks came back, with no lock held.
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
        see(page::word());
    }
}

/// Of these, the one under which the thread starts.
pub(crate) fn lock_of_helper(see: &mut dyn FnMut(&'static Word)) {
    if is_wanted() {
        see(server::word());
    }
}

/// Before a fork that holds that one: tells the thread to stop, which cannot be
/// started before that lock is open. Whether a reader had asked.
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
        page::write_before_fork(was_asked);
    }
}

/// After a fork, on both sides.
pub(crate) fn go_on_after_fork() {
    if is_wanted() {
        NEXT.store(clock::now() + AFTER_FORK, Relaxed);
    }
}

/// In a forked child, under the locks: there is no thread; and if all locks are held, the
/// parent's page makes place for one of the child's own.
pub(crate) fn forked(all_held: bool) {
    if is_wanted() {
        server::forked();
        if all_held {
            page::forked();
        }
    }
}
