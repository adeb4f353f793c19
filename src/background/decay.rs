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
//! The helper thread starts when `HELPER_THRESHOLD` bytes are free, and leaves when some
//! rounds in a row have found nothing to do. It takes no block and needs no GIL.
//! Each page that goes back interrupts the processors that run the program, so
//! the thread takes a breath after each pool. Where no thread may be started, each
//! tick does a small part of a round.
//!
//! A fork ends the thread before (`background/fork.rs`), with a round that waits for nothing, as far as
//! that takes no time: the child would have the free pages, too. The parent gets no thread
//! for a moment, as CPython counts threads right after it has forked; what is freed in that
//! moment goes back at once, for nobody may come later to see to it, and with it what the
//! round has left. Only where that is very much, and the host is none that counts, a thread
//! starts behind the fork and does the rest.
//!
//! # Threads
//!
//! Any thread may tick, with no lock held.

use crate::arena::set;
use crate::background::round;
use crate::base::layout::ARENA_SIZE;
use crate::heap::{self, HEAP};
use crate::os::clock;
use crate::os::forker;
use crate::os::helper::Helper;
use crate::os::lock::Word;
use crate::os::sandbox;
use crate::policy::huge_pages;
use crate::policy::limits;
use crate::pool::pages;
use crate::stats_page;
use crate::sync::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::tcache::registry;

/// Free bytes that may stay in a program that does nothing, at the most.
const MAY_STAY: usize = 4 << 20;
/// Free bytes from which on returning them is worth a thread: so many that what comes
/// back before the next look is no more than may stay.
const HELPER_THRESHOLD: usize = MAY_STAY - CAME_BACK - STEP;
/// Free bytes that a fork may leave to a program that does nothing afterwards. (More than that
/// is worth a thread behind the fork, where none is expected.)
const FORK_MAY_LEAVE: usize = 8 * MAY_STAY;
/// Free bytes that a growing heap does not keep.
const SPARE: usize = 2 << 20;
/// Free bytes that may make room for a request at the hard limit.
const RECLAIM_MIN_FREE: usize = 64 << 10;
/// Microseconds of a breath of the helper thread.
const PURGE_PAUSE: u64 = 50;
/// Breaths in a round, about: in a heap of many pools each is for several.
const PAUSES_PER_ROUND: usize = 4096;
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
/// Whether a fork has left free memory for later.
static LEFT: AtomicBool = AtomicBool::new(false);
/// Whether the host counts threads when it has forked.
static COUNTED: AtomicBool = AtomicBool::new(false);
/// Nanoseconds that a tick takes to give free memory back.
const FOR_TICK: u64 = 400_000;

static HELPER: Helper = Helper::new(work);

/// Sets the interval in milliseconds; negative: nothing goes back by time; 0:
/// pages go back as soon as they are free.
pub(crate) fn set_interval(milliseconds: i64) {
    INTERVAL.store(if milliseconds == 0 { -1 } else { milliseconds }, Relaxed);
    heap::purge_at_once(milliseconds == 0);
    say_what_goes_by_time();
}

/// Allows a helper thread, or not.
pub(crate) fn allow_thread(allowed: bool) {
    THREAD.store(allowed, Relaxed);
    say_what_goes_by_time();
}

/// Says whether the host counts threads when it has forked.
pub(crate) fn host_counts_threads(so: bool) {
    COUNTED.store(so, Relaxed);
}

fn say_what_goes_by_time() {
    set::go_by_time(THREAD.load(Relaxed) && INTERVAL.load(Relaxed) > 0);
}

/// To be called after blocks of so many bytes came back to pools, with no lock
/// held.
#[inline]
pub(crate) fn tick(bytes: usize) {
    let back = BACK.load(Relaxed) + bytes;
    BACK.store(back, Relaxed);
    if back >= STEP {
        step(back);
    }
}

#[cold]
fn step(back: usize) {
    BACK.store(0, Relaxed);
    stats_page::tick();
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
    if forker::is_this_thread() {
        return;
    }
    SINCE.store(0, Relaxed);
    if sandbox::is_restricted() {
        return whole_arenas(now, interval);
    }
    check_soft_limit(0);
    NEXT.store(now + interval / LOOKS, Relaxed);
    if HELPER.is_there() || HEAP.free_bytes() < HELPER_THRESHOLD {
        return;
    }
    let threaded = THREAD.load(Relaxed);
    let is_fresh = now < FORKED.load(Relaxed);
    if threaded && is_fresh || !threaded && LEFT.load(Relaxed) {
        NEXT.store(now, Relaxed);
        HEAP.empty_depots(true);
        LEFT.store(!round::until(clock::nanoseconds() + FOR_TICK), Relaxed);
    } else if !(threaded && HELPER.start()) {
        let next = round::part(now, interval / ROUNDS);
        NEXT.store(next.unwrap_or(now), Relaxed);
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

/// The helper thread's work.
fn work(helper: &Helper) {
    let mut quiet = 0;
    if LEFT.swap(false, Relaxed) {
        HEAP.empty_depots(true);
        if !round_of_helper(helper, true) {
            LEFT.store(true, Relaxed);
            return;
        }
    }
    while let Ok(interval) = u64::try_from(INTERVAL.load(Relaxed)) {
        if !helper.sleep(interval.saturating_mul(1000) / ROUNDS) {
            return;
        }
        if !sandbox::allows() {
            return; // nothing may go back any more
        }
        let stirred = STIRRED.swap(false, Relaxed);
        let before = pages::returned();
        HEAP.empty_depots(false);
        HEAP.release(false);
        if !round_of_helper(helper, false) {
            return;
        }
        check_soft_limit(0);
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

/// A round of the helper thread, with breaths. False if it is to stop.
fn round_of_helper(helper: &Helper, at_once: bool) -> bool {
    let pools_per_breath = 1 + HEAP.arena_counts().pools / PAUSES_PER_ROUND;
    let (mut walk, mut returned_from) = (HEAP.walk(), 0);
    while let Some(bytes) = HEAP.purge_next(&mut walk, at_once) {
        returned_from += usize::from(bytes > 0);
        if returned_from >= pools_per_breath {
            returned_from = 0;
            if !helper.sleep(PURGE_PAUSE) {
                return false;
            }
        }
    }
    true
}

/// Gives free pages back now, until no more than `keep` bytes are free that
/// are with us.
fn give_back(keep: usize) {
    HEAP.empty_depots(true);
    if keep == 0 {
        HEAP.release(true);
    }
    round::at_once(keep);
}

/// Gives memory that is free back to the kernel now, until no more than `keep`
/// bytes are left that are free and with us. Returns how many bytes went back.
/// What other threads have in their magazines stays.
pub(crate) fn trim(keep: usize) -> usize {
    let before = pages::returned();
    if !registry::is_new()
        && let Some(magazines) = registry::mine()
    {
        magazines.empty(&HEAP);
    }
    give_back(keep);
    pages::returned() - before
}

/// Looks whether the process has come near its soft limit, after the heap has `grown` by so
/// many bytes: then what is free goes back now. (While it is near, whatever becomes free goes back at once.)
#[cold]
fn check_soft_limit(grown: usize) {
    if limits::came_near(grown) {
        give_back(0);
    }
}

/// To be called when the heap has got one more arena: before it becomes larger
/// than it ever was, pages that are free and of no use for the request go back,
/// if there are `SPARE` bytes of them. A steady program never comes here. (A new
/// arena with huge pages is in memory as a whole, and not to be split at once.)
#[cold]
pub(crate) fn purge_before_growth() {
    check_soft_limit(ARENA_SIZE);
    let counts = HEAP.arena_counts();
    if INTERVAL.load(Relaxed) >= 0
        && counts.mapped == counts.highwater
        && !huge_pages::are_wanted()
        && !pages::were_refused()
        && HEAP.free_bytes() >= SPARE
    {
        round::at_once(0);
    }
}

/// Gives back what is free, for a request that would go beyond the hard limit.
/// Whether there was anything.
#[cold]
pub(crate) fn reclaim() -> bool {
    let any = HEAP.free_bytes() >= RECLAIM_MIN_FREE;
    if any {
        give_back(0);
    }
    any
}

/// The locks, in their order, for forks.
pub(crate) fn each_lock(see: &mut dyn FnMut(&'static Word)) {
    see(HELPER.word());
    see(round::word());
}

/// Of these, the one under which the helper thread starts.
pub(crate) fn lock_of_helper(see: &mut dyn FnMut(&'static Word)) {
    see(HELPER.word());
}

/// Before a fork that holds that one: tells the helper thread to stop, which cannot be
/// started before it is open.
pub(crate) fn stop_for_fork() {
    HELPER.stop_for_fork();
}

/// Waits for the end of the helper thread, for `patience` nanoseconds.
pub(crate) fn wait_until_gone(patience: u64) {
    HELPER.wait_until_gone(patience);
}

/// What is free at a fork goes back first, as far as that is done at `until` (nanoseconds of
/// the clock), if it is worth it and has become free since the fork before: the child would
/// have it, too, and the helper thread ends. (A page that is used again costs less so than
/// one that is copied because of the child.)
pub(crate) fn purge_before_fork(until: u64) {
    if INTERVAL.load(Relaxed) >= 0
        && (FORK_STIRRED.swap(false, Relaxed) || LEFT.load(Relaxed))
        && HEAP.free_bytes() >= HELPER_THRESHOLD
    {
        LEFT.store(!round::until(until), Relaxed);
    }
}

/// After a fork, in the parent (or where it failed): the helper thread is not started
/// again for a moment, or does at once what the fork has left, if locks `may_be_taken`.
pub(crate) fn go_on_after_fork(may_be_taken: bool) {
    let interval = INTERVAL.load(Relaxed).max(0).cast_unsigned();
    let starts = may_be_taken
        && LEFT.load(Relaxed)
        && THREAD.load(Relaxed)
        && !COUNTED.load(Relaxed)
        && HEAP.free_bytes() >= FORK_MAY_LEAVE
        && HELPER.start();
    go_on(if starts { 0 } else { interval.min(AFTER_FORK) });
}

/// In a forked child, under the locks: there is no helper thread.
pub(crate) fn forked() {
    HELPER.forked();
}

/// After a fork, in the child, when the locks are open.
pub(crate) fn go_on_in_child() {
    go_on(0);
}

fn go_on(without_thread: u64) {
    let now = clock::now();
    NEXT.store(now, Relaxed);
    FORKED.store(now + without_thread, Relaxed);
    if LEFT.load(Relaxed) {
        // The next block that comes back has the rest seen to.
        BACK.store(STEP, Relaxed);
    }
}
