//! Decay: pages that stay free go back to the kernel, after a while.
//!
//! ```text
//!    a flush, or  -->  tick  -->  enough is free?  -->  the helper thread, or,
//!    a thread's end    (at most some times             where there is none, a part
//!                      in each interval)               of the work here and now
//!
//!    each half interval, all pools:   free, was free the last time   -> goes back
//!                                     free for the first time        -> is noted
//!                                     not free any more              -> is forgotten
//! ```
//!
//! So a page goes back between a half and a whole interval after its last block
//! was freed, and only if no block on it was taken in between: a program that
//! builds and drops the same things again and again keeps its pages.
//!
//! The helper thread starts when `WORTH` bytes are free, and leaves when some
//! rounds in a row have found nothing to do. It takes no block and needs no GIL.
//! Each page that goes back interrupts the processors that run the program, so
//! the thread takes a breath after each pool. Where no thread may be started, each
//! tick does a small part of a round.
//!
//! A fork ends the thread before (`fork.rs`), with a round that waits for nothing:
//! the program may fork and then do nothing any more. The parent gets no thread for a
//! moment, as CPython counts threads right after it has forked; what is freed in that
//! moment goes back at once, for nobody may come later to see to it.
//!
//! # Threads
//!
//! Any thread may tick, with no lock held.

use crate::arenas;
use crate::geometry::ARENA_SIZE;
use crate::heap::{self, HEAP};
use crate::huge_pages;
use crate::limits;
use crate::live;
use crate::os::clock;
use crate::os::helper::Helper;
use crate::os::lock::{self, Lock, Tending};
use crate::os::sandbox;
use crate::pages;
use crate::purge::Walk;
use crate::sync::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Cell, Ordering::Relaxed};
use crate::threads;

/// Free bytes that may stay in a program that does nothing, at the most.
const MAY_STAY: usize = 4 << 20;
/// Free bytes from which on returning them is worth a thread: so many that what comes
/// back before the next look is no more than may stay.
const WORTH: usize = MAY_STAY - CAME_BACK - STEP;
/// Free bytes that a growing heap does not keep.
const SPARE: usize = 2 << 20;
/// Free bytes that may make room for a request at the hard limit.
const ROOM: usize = 64 << 10;
/// Where there is no thread: pools that one tick looks at, at the most, and bytes
/// after whose return it ends.
const PART: usize = 64;
const PART_BYTES: usize = 64 << 10;
/// Microseconds of a breath of the helper thread.
const BREATH: u64 = 50;
/// Breaths in a round, about: in a heap of many pools each is for several.
const BREATHS: usize = 4096;
/// Microseconds that it sleeps in a sandbox.
const LONG: u64 = 1 << 40;
/// Rounds without anything to do after which the thread leaves.
const QUIET: u32 = 3;
/// Rounds in each interval.
const ROUNDS: u64 = 2;
/// How often in each interval a tick looks whether there is enough.
const LOOKS: u64 = 4;
/// Bytes that came back after which a tick looks at the clock.
const STEP: usize = 32 << 10;
/// Bytes that came back after which it looks in any case: the program may do
/// nothing any more afterwards.
const CAME_BACK: usize = 1 << 20;

/// Milliseconds that a page stays free before it goes back; negative: for ever.
static INTERVAL: AtomicI64 = AtomicI64::new(1000);
/// Whether a helper thread may be started.
static THREAD: AtomicBool = AtomicBool::new(true);
/// Whether blocks came back to pools since the last round.
static STIRRED: AtomicBool = AtomicBool::new(false);
/// Bytes that came back since the last step, and since the last look; when the next
/// look is due. (Ticks of several threads at once may count as one.)
static BACK: AtomicUsize = AtomicUsize::new(0);
static SINCE: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Milliseconds after a fork in which the parent starts no thread, or one interval.
const AFTER_FORK: u64 = 20;
/// Until when that is.
static FORKED: AtomicU64 = AtomicU64::new(0);
/// Whether blocks came back to pools since the last round before a fork.
static FORK_STIRRED: AtomicBool = AtomicBool::new(false);

static HELPER: Helper = Helper::new(work);

/// A round that is done in parts.
struct Round {
    /// How far it is, if one is under way.
    at: Cell<Option<Walk>>,
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
    say_what_goes_by_time();
}

/// Allows a helper thread, or not.
pub fn allow_thread(allowed: bool) {
    THREAD.store(allowed, Relaxed);
    say_what_goes_by_time();
}

fn say_what_goes_by_time() {
    arenas::go_by_time(THREAD.load(Relaxed) && INTERVAL.load(Relaxed) > 0);
}

/// To be called after blocks of so many bytes came back to pools, with no lock
/// held.
#[inline]
pub fn tick(bytes: usize) {
    let back = BACK.load(Relaxed) + bytes;
    BACK.store(back, Relaxed);
    if back >= STEP {
        step(back);
    }
}

#[cold]
fn step(back: usize) {
    BACK.store(0, Relaxed);
    live::tick();
    let Ok(interval) = u64::try_from(INTERVAL.load(Relaxed)) else {
        return;
    };
    STIRRED.store(true, Relaxed);
    FORK_STIRRED.store(true, Relaxed);
    let (now, since) = (clock::now(), SINCE.load(Relaxed) + back);
    SINCE.store(since, Relaxed);
    if now >= NEXT.load(Relaxed) || since >= CAME_BACK {
        look(now, interval);
    }
}

fn look(now: u64, interval: u64) {
    // Other libraries' fork handlers may free: no thread is started under them.
    if lock::this_thread_forks() {
        return;
    }
    SINCE.store(0, Relaxed);
    if sandbox::is_restricted() {
        return whole_arenas(now, interval);
    }
    heed_limit(0);
    NEXT.store(now + interval / LOOKS, Relaxed);
    if HELPER.is_there() || HEAP.free_bytes() < WORTH {
        return;
    }
    let threaded = THREAD.load(Relaxed);
    if threaded && now < FORKED.load(Relaxed) {
        NEXT.store(now, Relaxed);
        give_back(0);
    } else if !(threaded && HELPER.start()) {
        NEXT.store(now, Relaxed);
        part_of_a_round(now, interval);
    }
}

/// What goes back where a sandbox has no call for pages: arenas that stay wholly empty.
fn whole_arenas(now: u64, interval: u64) {
    if now >= NEXT.load(Relaxed) {
        NEXT.store(now + interval / ROUNDS, Relaxed);
        HEAP.empty_depots(false);
        HEAP.release(false);
    }
}

fn part_of_a_round(now: u64, interval: u64) {
    let round = ROUND.lock();
    let mut walk = match round.at.get() {
        Some(walk) => walk,
        None if now < round.next.get() => {
            NEXT.store(round.next.get(), Relaxed);
            return;
        }
        None => {
            round.next.set(now + interval / ROUNDS);
            HEAP.empty_depots(false);
            HEAP.release(false);
            HEAP.walk()
        }
    };
    let mut bytes = 0;
    for _ in 0..PART {
        match HEAP.purge_next(&mut walk, false) {
            Some(more) => bytes += more,
            None => return round.at.set(None),
        }
        if bytes >= PART_BYTES {
            break;
        }
    }
    round.at.set(Some(walk));
}

/// The helper thread's work.
fn work(helper: &Helper) {
    let mut quiet = 0;
    while let Ok(interval) = u64::try_from(INTERVAL.load(Relaxed)) {
        if !helper.sleep(interval.saturating_mul(1000) / ROUNDS) {
            return;
        }
        if !sandbox::allows() {
            // Nothing may go back, and a detached thread may not end: see `end_at_once`.
            while helper.sleep(LONG) {}
            return;
        }
        let stirred = STIRRED.swap(false, Relaxed);
        let before = pages::returned();
        if !calm_round(helper) {
            return;
        }
        heed_limit(0);
        quiet = if stirred || pages::returned() != before {
            0
        } else {
            quiet + 1
        };
        if quiet >= QUIET && helper.leave(|| !STIRRED.load(Relaxed)) {
            return;
        }
    }
    helper.leave(|| true);
}

/// A round of the helper thread. False if it is to stop.
fn calm_round(helper: &Helper) -> bool {
    HEAP.empty_depots(false);
    HEAP.release(false);
    let pools_per_breath = 1 + HEAP.arena_counts().pools / BREATHS;
    let (mut walk, mut returned_from) = (HEAP.walk(), 0);
    while let Some(bytes) = HEAP.purge_next(&mut walk, false) {
        returned_from += usize::from(bytes > 0);
        if returned_from >= pools_per_breath {
            returned_from = 0;
            if !helper.sleep(BREATH) {
                return false;
            }
        }
    }
    true
}

/// A round over all pools that waits for nothing, or as much of it as is needed
/// until no more than `keep` bytes are free.
fn round_at_once(keep: usize) {
    let mut rest = match keep {
        _ if sandbox::is_restricted() => 0,
        0 => usize::MAX,
        keep => HEAP.free_bytes().saturating_sub(keep),
    };
    let mut walk = HEAP.walk();
    while rest > 0
        && let Some(bytes) = HEAP.purge_next(&mut walk, true)
    {
        rest = rest.saturating_sub(bytes);
    }
}

/// Gives free pages back now, until no more than `keep` bytes are free that
/// are with us.
fn give_back(keep: usize) {
    HEAP.empty_depots(true);
    if keep == 0 {
        HEAP.release(true);
    }
    round_at_once(keep);
}

/// Gives memory that is free back to the kernel now, until no more than `keep`
/// bytes are left that are free and with us. Returns how many bytes went back.
/// What other threads have in their magazines stays.
pub fn trim(keep: usize) -> usize {
    let before = pages::returned();
    if !threads::is_new()
        && let Some(magazines) = threads::mine()
    {
        magazines.empty(&HEAP);
    }
    give_back(keep);
    pages::returned() - before
}

/// Looks whether the process has come near its soft limit, after the heap has `grown` by so
/// many bytes: then what is free goes back now. (While it is near, whatever becomes free goes back at once.)
#[cold]
fn heed_limit(grown: usize) {
    if limits::came_near(grown) {
        give_back(0);
    }
}

/// To be called when the heap has got one more arena: before it becomes larger
/// than it ever was, pages that are free and of no use for the request go back,
/// if there are `SPARE` bytes of them. A steady program never comes here. (A new
/// arena with huge pages is in memory as a whole, and not to be split at once.)
#[cold]
pub fn heed_growth() {
    heed_limit(ARENA_SIZE);
    let counts = HEAP.arena_counts();
    if INTERVAL.load(Relaxed) >= 0
        && counts.mapped == counts.highwater
        && !huge_pages::are_wanted()
        && !pages::were_refused()
        && HEAP.free_bytes() >= SPARE
    {
        round_at_once(0);
    }
}

/// Gives back what is free, for a request that would go beyond the hard limit.
/// Whether there was anything.
#[cold]
pub fn make_room() -> bool {
    let any = HEAP.free_bytes() >= ROOM;
    if any {
        give_back(0);
    }
    any
}

/// What is free at a fork goes back first, if it is worth it and has become free since
/// the fork before: the child would have it, too, and the helper thread ends. (A page
/// that is used again costs less so than one that is copied because of the child.)
fn round_before_fork() {
    if INTERVAL.load(Relaxed) >= 0
        && FORK_STIRRED.swap(false, Relaxed)
        && HEAP.free_bytes() >= WORTH
    {
        round_at_once(0);
    }
}

/// Before a fork: ends the helper thread, and keeps it from being started.
pub fn stop_for_fork() {
    round_before_fork();
    HELPER.stop();
    ROUND.hold_for_fork();
}

/// After a fork, in the parent (or where it failed): the helper thread is not started
/// again for a moment.
pub fn go_on_after_fork() {
    let interval = INTERVAL.load(Relaxed).max(0).cast_unsigned();
    go_on(interval.min(AFTER_FORK));
}

/// After a fork, in the child.
pub fn go_on_in_child() {
    Tending::forked();
    go_on(0);
}

fn go_on(without_thread: u64) {
    ROUND.open_after_fork();
    let now = clock::now();
    NEXT.store(now, Relaxed);
    FORKED.store(now + without_thread, Relaxed);
    HELPER.open();
}
