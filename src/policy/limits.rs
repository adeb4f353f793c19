//! The soft and the hard limit of the process's memory.
//!
//! ```text
//!    0                                          soft             hard
//!    |------------------------------------|------|----------------|
//!      free pages are returned by decay     near: they are       requests
//!                                           returned at once     fail
//! ```
//!
//! Both limit the resident memory of the whole process, mapped libraries and files included, as
//! the kernel counts it for the OOM killer. With `auto` the limits are the cgroup's, and the memory
//! of all processes of the cgroup counts.
//!
//! The usage is read from the kernel when an arena is added, at intervals while blocks are
//! freed, and once per `STEP` bytes of requests that pools do not serve; so the process
//! may exceed a limit by as much. One reading takes microseconds, and some tens of them where
//! other threads run (`os/apart.rs`). So far from a limit it is read less often: when the
//! arenas added, or the bytes requested, amount to an eighth of the distance to the limit;
//! to a thirty-second of it for a cgroup, whose memory other processes use, too.
//!
//! # Threads
//!
//! Written at start; atomics that any thread may read and write.

use core::cell::UnsafeCell;

use crate::os::cgroup::{self, Group};
use crate::os::{clock, process};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes of requests that pools do not serve between two readings, near the hard limit.
const STEP: usize = 1 << 20;
/// Milliseconds between two readings for the soft limit, unless the heap grows.
const BETWEEN: u64 = 10;

/// Maximum size of a request that may exceed the hard limit after one request has failed, so
/// that the handler of a MemoryError does not meet the next one.
const GRACE_EACH: usize = 8 << 10;
/// Maximum sum of these requests, until the process is within the limit again.
const GRACE_MAX: usize = 1 << 20;

/// The limits in bytes, 0 for none.
static SOFT: AtomicUsize = AtomicUsize::new(0);
static HARD: AtomicUsize = AtomicUsize::new(0);
/// The process is near the soft limit.
static NEAR: AtomicBool = AtomicBool::new(false);
/// Whether the last request that was checked would have exceeded the hard limit.
static OVER: AtomicBool = AtomicBool::new(false);
/// Bytes left of `GRACE_MAX`: 0 before a request has failed, 1 when used up.
static GRACE: AtomicUsize = AtomicUsize::new(0);
/// Bytes of requests that pools do not serve since the last reading for the hard limit, and the
/// number at which the next reading is due.
static ASKED: AtomicUsize = AtomicUsize::new(0);
static ASKED_NEXT: AtomicUsize = AtomicUsize::new(STEP);
/// Bytes of arenas added since the last reading for the soft limit, and the number at which
/// the next reading is due; and the time at which one is due while blocks are freed.
static GREW: AtomicUsize = AtomicUsize::new(0);
static GREW_NEXT: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The cgroup whose usage counts, if a limit is `auto`.
static GROUP: Place = Place(UnsafeCell::new(None));

struct Place(UnsafeCell<Option<Group>>);

// SAFETY: written once, while settings are read. Limits are checked only after one is set, which
// is later (see `bytes`).
unsafe impl Sync for Place {}

/// A limit as a user gives it.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// Bytes.
    Bytes(usize),
    /// The cgroup's limit.
    Auto,
}

/// Sets the soft limit. The cgroup's is where the kernel begins to reclaim, or
/// a sixteenth before it kills.
pub(crate) fn set_soft(limit: Limit) {
    let of_group = |limits: cgroup::Limits| limits.high.min(limits.max - limits.max / 16);
    SOFT.store(bytes(limit, of_group), Relaxed);
}

/// Sets the hard limit. The cgroup's is a thirty-second before it kills.
pub(crate) fn set_hard(limit: Limit) {
    HARD.store(bytes(limit, |limits| limits.max - limits.max / 32), Relaxed);
}

fn bytes(limit: Limit, of_group: impl Fn(cgroup::Limits) -> usize) -> usize {
    match limit {
        Limit::Bytes(bytes) => bytes,
        Limit::Auto => match cgroup::find() {
            Some((group, limits)) => {
                // SAFETY: settings are read by one thread at a time, and a second reading finds
                // the group and does not write.
                unsafe { (*GROUP.0.get()).get_or_insert(group) };
                of_group(limits)
            }
            None => 0,
        },
    }
}

/// The bytes that count; `None` if the kernel does not report them.
fn in_use() -> Option<usize> {
    // SAFETY: `GROUP` is written only while settings are read, and the first limit is set after
    // that: no limit is checked while it is written.
    match unsafe { &*GROUP.0.get() } {
        Some(group) => group.in_use(),
        None => process::resident(),
    }
}

/// The part of the distance to a limit that may be used up before the next reading.
fn part_of(left: usize) -> usize {
    // SAFETY: `GROUP` is written only while settings are read, and the first limit is set
    // after that: no limit is checked while it is written.
    match unsafe { &*GROUP.0.get() } {
        Some(_) => left / 32,
        None => left / 8,
    }
}

/// Checks the soft limit if a reading is due; `grown` is the size of an arena that was just
/// added, or 0. Returns whether the process has come near the limit since the last reading.
pub(crate) fn came_near(grown: usize) -> bool {
    let soft = SOFT.load(Relaxed);
    if soft == 0 || !is_due(grown) {
        return false;
    }
    GREW.store(0, Relaxed);
    let used = in_use();
    NEXT.store(clock::now() + BETWEEN, Relaxed);
    let Some(used) = used else {
        return false;
    };
    let was_near = is_near();
    // Hysteresis: near within an eighth of the limit, away again beyond three sixteenths.
    let margin = if was_near { soft / 16 * 3 } else { soft / 8 };
    let near = used > soft - margin;
    NEAR.store(near, Relaxed);
    GREW_NEXT.store(part_of((soft - margin).saturating_sub(used)), Relaxed);
    near && !was_near
}

fn is_due(grown: usize) -> bool {
    if grown == 0 {
        clock::now() >= NEXT.load(Relaxed)
    } else {
        GREW.fetch_add(grown, Relaxed) + grown >= GREW_NEXT.load(Relaxed)
    }
}

/// Whether the process was near the soft limit at the last reading.
pub(crate) fn is_near() -> bool {
    NEAR.load(Relaxed)
}

/// Whether `n` bytes more would stay within the hard limit.
#[inline]
pub(crate) fn allow(n: usize) -> bool {
    let hard = HARD.load(Relaxed);
    hard == 0 || allow_up_to(hard, n)
}

#[cold]
fn allow_up_to(hard: usize, n: usize) -> bool {
    let next = ASKED_NEXT.load(Relaxed);
    let asked = ASKED.fetch_add(n.min(next), Relaxed) + n.min(next);
    if asked < next && !OVER.load(Relaxed) {
        return true;
    }
    ASKED.store(0, Relaxed);
    let used = in_use();
    let allowed = used.is_none_or(|used| used.saturating_add(n) <= hard);
    let left = used.map_or(0, |used| hard.saturating_sub(used.saturating_add(n)));
    ASKED_NEXT.store(STEP.max(part_of(left)), Relaxed);
    OVER.store(!allowed, Relaxed);
    if allowed {
        GRACE.store(0, Relaxed);
    }
    allowed || n <= GRACE_EACH && take_grace(n)
}

/// Whether the last request that was checked would have exceeded the hard limit.
pub(crate) fn is_over() -> bool {
    OVER.load(Relaxed)
}

/// Notes that a request failed: small ones may exceed the hard limit from now on.
#[cold]
pub(crate) fn refused() {
    let _ = GRACE.compare_exchange(0, GRACE_MAX, Relaxed, Relaxed);
}

fn take_grace(n: usize) -> bool {
    let take = |grace: usize| grace.checked_sub(n).filter(|&rest| rest > 0);
    GRACE.fetch_update(Relaxed, Relaxed, take).is_ok()
}
