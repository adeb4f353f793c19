//! Decay: pages that stay free go back to the kernel, after a while.
//!
//! ```text
//!    a flush  -->  tick  -->  enough is free?  -->  the helper thread, or,
//!                  (at most some times             where there is none, a part
//!                  in each interval)               of the work here and now
//!
//!    each interval, all pools:   free, was free the last time   -> goes back
//!                                free for the first time        -> is noted
//!                                not free any more              -> is forgotten
//! ```
//!
//! So a page goes back between one and two intervals after its last block was
//! freed, and only if no block on it was taken in between: a program that
//! builds and drops the same things again and again keeps its pages.
//!
//! The helper thread starts when [`WORTH`] bytes are free, and leaves when two
//! rounds in a row have found nothing to do. A fork ends it before (`fork.rs`).
//! It takes no block and needs no GIL. Where no thread may be started, each
//! tick does a part of a round.
//!
//! # Threads
//!
//! Any thread may tick, with no lock held.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::arena::Arena;
use crate::heap::{self, HEAP};
use crate::os::clock;
use crate::os::helper::Helper;
use crate::os::lock::{self, Lock};

/// Free bytes from which on returning them is worth a thread.
const WORTH: usize = 4 << 20;
/// Arenas that one tick looks at where there is no thread.
const PART: usize = 4;
/// How often in each interval a tick looks whether there is enough.
const LOOKS: u64 = 4;
/// Ticks after which one looks in any case: a flush brings some 4 KiB, so that
/// is 2 MiB, and the program may do nothing any more afterwards.
const TICKS: u32 = 512;

/// Milliseconds that a page stays free before it goes back; negative: for ever.
static INTERVAL: AtomicI64 = AtomicI64::new(1000);
/// Whether a helper thread may be started.
static THREAD: AtomicBool = AtomicBool::new(true);
/// Whether blocks came back to pools since the last round.
static STIRRED: AtomicBool = AtomicBool::new(false);
/// When the next tick looks, and how many there were since one did. (Ticks of
/// several threads at once may count as one.)
static NEXT: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Until when no thread is started, after a fork.
static FORKED: AtomicU64 = AtomicU64::new(0);

static HELPER: Helper = Helper::new(work);

/// A round that is done in parts.
struct Round {
    /// The arena to go on with.
    at: Cell<Option<&'static Arena>>,
    /// When the next round may begin.
    next: Cell<u64>,
}
static ROUND: Lock<Round> = Lock::new(Round {
    at: Cell::new(None),
    next: Cell::new(0),
});

/// Sets the interval in milliseconds; negative: nothing goes back by time; 0:
/// pages go back as soon as they are free.
pub fn set_interval(milliseconds: i64) {
    INTERVAL.store(if milliseconds == 0 { -1 } else { milliseconds }, Relaxed);
    heap::purge_at_once(milliseconds == 0);
}

/// Allows a helper thread, or not.
pub fn allow_thread(allowed: bool) {
    THREAD.store(allowed, Relaxed);
}

/// To be called after blocks came back to pools, with no lock held.
#[inline]
pub fn tick() {
    let Ok(interval) = u64::try_from(INTERVAL.load(Relaxed)) else {
        return;
    };
    if !STIRRED.load(Relaxed) {
        STIRRED.store(true, Relaxed);
    }
    let (now, count) = (clock::now(), COUNT.load(Relaxed) + 1);
    COUNT.store(count, Relaxed);
    if now >= NEXT.load(Relaxed) || count >= TICKS {
        look(now, interval);
    }
}

#[cold]
fn look(now: u64, interval: u64) {
    // Other libraries' fork handlers may free: no thread is started under them.
    if lock::this_thread_forks() {
        return;
    }
    // Who forks again and again has no thread, but ticks.
    let threaded = THREAD.load(Relaxed) && now >= FORKED.load(Relaxed);
    COUNT.store(0, Relaxed);
    NEXT.store(now + interval / LOOKS, Relaxed);
    if HEAP.free_bytes() < WORTH {
        return;
    }
    if !(threaded && HELPER.start()) {
        NEXT.store(now, Relaxed);
        part_of_a_round(now, interval);
    }
}

fn part_of_a_round(now: u64, interval: u64) {
    let round = ROUND.lock();
    if round.at.get().is_none() {
        if now < round.next.get() {
            NEXT.store(round.next.get(), Relaxed);
            return;
        }
        round.next.set(now + interval);
        HEAP.release_idle();
        round.at.set(HEAP.newest_arena());
    }
    let mut at = round.at.get();
    HEAP.purge(&mut at, PART, false);
    round.at.set(at);
}

/// The helper thread's work.
fn work(helper: &Helper) {
    let mut quiet = 0;
    while let Ok(interval) = u64::try_from(INTERVAL.load(Relaxed)) {
        if !helper.sleep(interval.max(1)) {
            return;
        }
        let stirred = STIRRED.swap(false, Relaxed);
        let returned = round(false);
        quiet = if stirred || returned > 0 {
            0
        } else {
            quiet + 1
        };
        if quiet > 1 && helper.leave(|| !STIRRED.load(Relaxed)) {
            return;
        }
    }
    helper.leave(|| true);
}

/// One round over all pools. Returns how many bytes went back.
fn round(at_once: bool) -> usize {
    let mut bytes = if at_once { 0 } else { HEAP.release_idle() };
    let mut at = HEAP.newest_arena();
    while at.is_some() {
        bytes += HEAP.purge(&mut at, 1, at_once);
    }
    bytes
}

/// Gives free pages back now, until no more than `keep` bytes are free that
/// are with us. Returns how many bytes went back.
pub fn trim(keep: usize) -> usize {
    let mut rest = HEAP.free_bytes().saturating_sub(keep);
    let mut bytes = 0;
    let mut at = HEAP.newest_arena();
    while at.is_some() && rest > 0 {
        let returned = HEAP.purge(&mut at, 1, true);
        rest = rest.saturating_sub(returned);
        bytes += returned;
    }
    bytes
}

/// Before a fork: ends the helper thread, and keeps it from being started.
pub fn stop_for_fork() {
    HELPER.stop();
    ROUND.hold_for_fork();
}

/// After a fork, on both sides. The helper thread is not started again for one
/// interval: CPython counts threads right after it has forked.
pub fn go_on_after_fork() {
    ROUND.open_after_fork();
    let interval = u64::try_from(INTERVAL.load(Relaxed)).unwrap_or(0);
    NEXT.store(clock::now() + interval, Relaxed);
    FORKED.store(NEXT.load(Relaxed), Relaxed);
    HELPER.open();
}
