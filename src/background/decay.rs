//! Decay: pages that stay free are returned to the OS after a while.
//!
//! ```text
//!    a flush, or  -->  tick  -->  enough is free?  -->  the helper thread, or,
//!    a thread's end    (at most 4 times                without one, a part of the
//!                      in each interval)               round on the calling thread
//!
//!    each half interval, all pools:   free, and was free at the last round  -> returned
//!                                     free for the first time               -> marked
//!                                     not free any more                     -> unmarked
//! ```
//!
//! So a page is returned between a half and a whole interval after its last block was freed, and
//! only if no block on it was taken in between: a program that builds and drops the same objects
//! again and again keeps its pages.
//!
//! The helper thread starts when `HELPER_THRESHOLD` bytes are free, and ends when `QUIET` rounds in
//! a row have found nothing to do. It takes no block and needs no GIL. Each page that is returned
//! interrupts the processors that run the program, so the thread pauses after each pool, in a large heap after several. Where no
//! thread may be started, each tick does a small part of a round.
//!
//! A fork stops the thread first (`background/fork.rs`) and returns free memory for a bounded time,
//! because the child would have the free pages, too. The parent starts no thread for a moment
//! afterwards, as CPython counts threads right after it has forked. Memory that is freed in that
//! moment is returned at once, since no later call is certain to do it, and with it the memory that
//! the fork had no time for. Only if that is more than `FORK_MAY_LEAVE`, and the host does not
//! count threads, does a thread start right after the fork and return the rest.
//!
//! # Threads
//!
//! Any thread may tick, with no lock held.

use format::options;

use crate::arena::set;
use crate::background::round;
use crate::base::layout::ARENA_SIZE;
use crate::heap::{self, HEAP};
use crate::os::clock;
use crate::os::forker;
use crate::os::helper::Helper;
use crate::os::lock::{MaintenanceScope, Word};
use crate::os::sandbox;
use crate::policy::huge_pages;
use crate::policy::limits;
use crate::pool;
use crate::stats::{dumps, page};
use crate::sync::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::tcache::registry;

/// Maximum free bytes that stay resident in an idle program.
const MAY_STAY: usize = 4 << 20;
/// Minimum free bytes before the helper thread starts: `MAY_STAY` less the bytes that can be freed
/// between two checks.
const HELPER_THRESHOLD: usize = MAY_STAY - CAME_BACK - STEP;
/// Maximum free bytes that a fork leaves resident without starting a thread after it.
const FORK_MAY_LEAVE: usize = 8 * MAY_STAY;
/// Minimum free bytes that are returned before the heap grows.
const SPARE: usize = 2 << 20;
/// Minimum free bytes that are returned for a request at the hard limit.
const RECLAIM_MIN_FREE: usize = 64 << 10;
/// Microseconds that the helper thread pauses.
const PURGE_PAUSE: u64 = 50;
/// Pauses in a round, approximately: in a heap of many pools one pause is for several pools.
const PAUSES_PER_ROUND: usize = 4096;
/// Rounds without anything to do after which the thread ends.
const QUIET: u32 = 3;
/// Rounds in each interval.
const ROUNDS: u64 = 2;
/// Checks in each interval of whether enough is free.
const LOOKS: u64 = 4;
/// Freed bytes after which a tick reads the clock.
const STEP: usize = 32 << 10;
/// Freed bytes after which it checks in any case: there may be no later tick.
const CAME_BACK: usize = 1 << 20;

/// Milliseconds that a page stays free before it is returned; negative: for ever.
static INTERVAL: AtomicI64 = AtomicI64::new(options::DECAY_MS.default.milliseconds());
/// Whether a helper thread may be started.
static THREAD: AtomicBool = AtomicBool::new(options::BACKGROUND_THREAD.default.is_on());
/// Whether blocks were freed to pools since the last round.
static STIRRED: AtomicBool = AtomicBool::new(false);
/// Bytes freed since the last step, and since the last check; when the next check is due. (Ticks
/// of several threads at once may count as one.)
static BACK: AtomicUsize = AtomicUsize::new(0);
static SINCE: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Milliseconds after a fork in which the parent starts no thread, or one interval.
const AFTER_FORK: u64 = 20;
/// The end of that time, in milliseconds of the clock.
static FORKED: AtomicU64 = AtomicU64::new(0);
/// Whether blocks were freed to pools since the last fork.
static FORK_STIRRED: AtomicBool = AtomicBool::new(false);
/// Whether the last fork had no time to return all free memory.
static LEFT: AtomicBool = AtomicBool::new(false);
/// Whether the host counts threads after a fork.
static COUNTED: AtomicBool = AtomicBool::new(false);
/// Maximum nanoseconds for which a tick returns free memory.
const FOR_TICK: u64 = 400_000;

static HELPER: Helper = Helper::new(work);

/// Sets the interval in milliseconds. Negative: no decay. 0: pages are returned as soon as they
/// are free.
pub(crate) fn set_interval(milliseconds: i64) {
    INTERVAL.store(if milliseconds == 0 { -1 } else { milliseconds }, Relaxed);
    heap::purge_at_once(milliseconds == 0);
    say_what_goes_by_time();
}

/// Sets whether a helper thread may be started.
pub(crate) fn allow_thread(allowed: bool) {
    THREAD.store(allowed, Relaxed);
    say_what_goes_by_time();
}

/// Sets whether the host counts threads after a fork.
pub(crate) fn host_counts_threads(so: bool) {
    COUNTED.store(so, Relaxed);
}

fn say_what_goes_by_time() {
    set::set_decay(THREAD.load(Relaxed) && INTERVAL.load(Relaxed) > 0);
}

/// Notes that blocks of `bytes` bytes were freed to pools. Called with no lock held.
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
    page::tick();
    dumps::tick();
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
    // Fork handlers of other libraries may free: no thread starts while the locks are held.
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

/// Decay in a sandbox that forbids calls for pages: arenas that stay wholly empty are unmapped.
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
            return; // the kernel refuses the calls from now on
        }
        let stirred = STIRRED.swap(false, Relaxed);
        let before = pool::purged_bytes();
        HEAP.empty_depots(false);
        HEAP.release(false);
        if !round_of_helper(helper, false) {
            return;
        }
        check_soft_limit(0);
        quiet = if stirred || pool::purged_bytes() != before {
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

/// A round of the helper thread, with pauses. False if the thread is to stop.
fn round_of_helper(helper: &Helper, at_once: bool) -> bool {
    let pools_per_pause = 1 + HEAP.arena_counts().pools / PAUSES_PER_ROUND;
    let (mut walk, mut returned_from) = (HEAP.walk(), 0);
    while let Some(bytes) = HEAP.purge_next(&mut walk, at_once) {
        returned_from += usize::from(bytes > 0);
        if returned_from >= pools_per_pause {
            returned_from = 0;
            if !helper.sleep(PURGE_PAUSE) {
                return false;
            }
        }
    }
    true
}

/// Returns free pages now, until at most `keep` free bytes are resident.
fn give_back(keep: usize) {
    HEAP.empty_depots(true);
    if keep == 0 {
        HEAP.release(true);
    }
    round::at_once(keep);
}

/// Returns free memory to the OS now, until at most `keep` free bytes are resident. The magazines
/// of other threads stay as they are. The result is the number of bytes.
pub(crate) fn trim(keep: usize) -> usize {
    // As a whole: a thread that found a pool's lock held may get a processor between two pools.
    let _maintenance = MaintenanceScope::begin();
    let before = pool::purged_bytes();
    if !registry::is_new()
        && let Some(magazines) = registry::current()
    {
        magazines.flush_all(&HEAP);
    }
    give_back(keep);
    pool::purged_bytes() - before
}

/// Returns all free memory if the process has come near its soft limit since the last check.
/// `grown` is the size of an arena that was just added, or 0. (While it is near, pages are
/// returned as soon as they are free.)
#[cold]
fn check_soft_limit(grown: usize) {
    if limits::came_near(grown) {
        dumps::limit();
        give_back(0);
    }
}

/// Returns free pages when the heap has grown to a new maximum of arenas, if there are `SPARE`
/// bytes of them: they are of no use for the request. A steady program never comes here. (A new
/// arena with huge pages is resident as a whole, and must not be split at once.)
#[cold]
pub(crate) fn purge_before_growth() {
    check_soft_limit(ARENA_SIZE);
    let counts = HEAP.arena_counts();
    if INTERVAL.load(Relaxed) >= 0
        && counts.mapped == counts.highwater
        && !huge_pages::are_wanted()
        && !pool::purge_was_refused()
        && HEAP.free_bytes() >= SPARE
    {
        round::at_once(0);
    }
}

/// Returns all free memory, for a request that would exceed the hard limit. Returns whether there
/// was enough to return.
#[cold]
pub(crate) fn reclaim() -> bool {
    let any = HEAP.free_bytes() >= RECLAIM_MIN_FREE;
    if any {
        give_back(0);
    }
    any
}

/// Visits the locks in their order, for forks.
pub(crate) fn each_lock(see: &mut dyn FnMut(&'static Word)) {
    see(HELPER.word());
    see(round::word());
}

/// Visits the lock under which the helper thread starts.
pub(crate) fn lock_of_helper(see: &mut dyn FnMut(&'static Word)) {
    see(HELPER.word());
}

/// Before a fork that holds the helper's lock: stops the helper thread. None can start until the
/// lock is open.
pub(crate) fn stop_for_fork() {
    HELPER.stop_for_fork();
}

/// Waits for the end of the helper thread, at most `patience` nanoseconds.
pub(crate) fn wait_until_gone(patience: u64) {
    HELPER.wait_until_gone(patience);
}

/// Before a fork: returns free memory until `until` (nanoseconds of the clock), if enough is free
/// and blocks were freed since the last fork. The child would have the free pages, too, and the
/// helper thread ends. (To fault a page in again costs less than to copy it for the child.)
pub(crate) fn purge_before_fork(until: u64) {
    if INTERVAL.load(Relaxed) >= 0
        && (FORK_STIRRED.swap(false, Relaxed) || LEFT.load(Relaxed))
        && HEAP.free_bytes() >= HELPER_THRESHOLD
    {
        LEFT.store(!round::until(until), Relaxed);
    }
}

/// After a fork, in the parent, or after a fork that failed: no helper thread starts for a moment;
/// or, if locks `may_be_taken` and the fork has left much, one starts now and returns it.
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
        // The next block that is freed makes a tick return the rest.
        BACK.store(STEP, Relaxed);
    }
}
