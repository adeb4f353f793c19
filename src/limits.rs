//! Limits that a user sets to the memory of the process.
//!
//! ```text
//!    0                                          soft             hard
//!    |------------------------------------|------|----------------|
//!      free pages go back after a while      near: they go back     requests
//!                                            at once                get null
//! ```
//!
//! Both are about what the process as a whole has in memory, libraries and files
//! it maps included, as the kernel counts it: that is what it is killed for. With
//! `auto` they are the cgroup's, and what counts is what all of the cgroup's
//! processes have.
//!
//! The kernel is asked when an arena is added, some times in each interval while
//! blocks come back, and once for each [`STEP`] bytes that come from below; so
//! the process may go beyond a limit by as much.
//!
//! # Threads
//!
//! Written at start; atomics that any thread may read and write.

use core::cell::UnsafeCell;

use crate::os::cgroup::{self, Group};
use crate::os::process;
use crate::sync::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Small requests from below are looked at when they have come to so many bytes.
const STEP: usize = 1 << 20;

/// After one refusal, small requests of so many bytes at the most go beyond the
/// hard limit, so that what handles the MemoryError does not meet the next one;
/// and so many in all, until the process is within the limit again.
const GRACE_EACH: usize = 8 << 10;
const GRACE_MAX: usize = 1 << 20;

/// The limits in bytes, 0 for none.
static SOFT: AtomicUsize = AtomicUsize::new(0);
static HARD: AtomicUsize = AtomicUsize::new(0);
/// The process is near the soft limit.
static NEAR: AtomicBool = AtomicBool::new(false);
/// The last request that was looked at would have gone beyond the hard limit.
static OVER: AtomicBool = AtomicBool::new(false);
/// Bytes allowed beyond the hard limit: 0 before a refusal, 1 when used up.
static GRACE: AtomicUsize = AtomicUsize::new(0);
/// Bytes asked from below since the hard limit was looked at.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// The cgroup whose usage counts, if its limits were asked for.
static GROUP: Place = Place(UnsafeCell::new(None));

struct Place(UnsafeCell<Option<Group>>);

// SAFETY: written once, before settings are read and so before anyone looks.
unsafe impl Sync for Place {}

/// A limit as a user gives it.
#[derive(Clone, Copy)]
pub enum Limit {
    /// So many bytes.
    Bytes(usize),
    /// What the cgroup says.
    Auto,
}

/// Sets the soft limit. The cgroup's is where the kernel begins to reclaim, or
/// a sixteenth before it kills.
pub fn set_soft(limit: Limit) {
    let of_group = |limits: cgroup::Limits| limits.high.min(limits.max - limits.max / 16);
    SOFT.store(bytes(limit, of_group), Relaxed);
}

/// Sets the hard limit. The cgroup's is a thirty-second before it kills.
pub fn set_hard(limit: Limit) {
    HARD.store(bytes(limit, |limits| limits.max - limits.max / 32), Relaxed);
}

fn bytes(limit: Limit, of_group: impl Fn(cgroup::Limits) -> usize) -> usize {
    match limit {
        Limit::Bytes(bytes) => bytes,
        Limit::Auto => match cgroup::find() {
            Some((group, limits)) => {
                // SAFETY: once, while settings are read; whoever reads settings a second
                // time has seen that.
                unsafe { (*GROUP.0.get()).get_or_insert(group) };
                of_group(limits)
            }
            None => 0,
        },
    }
}

/// Bytes that count; `None` if nobody says.
fn in_use() -> Option<usize> {
    // SAFETY: nobody writes any more.
    match unsafe { &*GROUP.0.get() } {
        Some(group) => group.in_use(),
        None => process::resident(),
    }
}

/// Looks at the soft limit. Whether the process has come near it since the last
/// time.
pub fn came_near() -> bool {
    let soft = SOFT.load(Relaxed);
    if soft == 0 {
        return false;
    }
    let Some(used) = in_use() else {
        return false;
    };
    let was_near = is_near();
    // Nearer than an eighth; and away again beyond three sixteenths.
    let margin = if was_near { soft / 16 * 3 } else { soft / 8 };
    let near = used > soft - margin;
    NEAR.store(near, Relaxed);
    near && !was_near
}

/// Whether the process was near the soft limit when it was looked at.
pub fn is_near() -> bool {
    NEAR.load(Relaxed)
}

/// Whether `n` bytes more would stay within the hard limit.
#[inline]
pub fn allow(n: usize) -> bool {
    let hard = HARD.load(Relaxed);
    hard == 0 || allow_up_to(hard, n)
}

#[cold]
fn allow_up_to(hard: usize, n: usize) -> bool {
    let asked = ASKED.fetch_add(n.min(STEP), Relaxed) + n.min(STEP);
    if asked < STEP && !OVER.load(Relaxed) {
        return true;
    }
    ASKED.store(0, Relaxed);
    let allowed = in_use().is_none_or(|used| used.saturating_add(n) <= hard);
    OVER.store(!allowed, Relaxed);
    if allowed {
        GRACE.store(0, Relaxed);
    }
    allowed || n <= GRACE_EACH && take_grace(n)
}

/// Whether the last request that was looked at would have gone beyond the hard
/// limit.
pub fn is_over() -> bool {
    OVER.load(Relaxed)
}

/// To be told that the program gets null for a request.
#[cold]
pub fn refused() {
    let _ = GRACE.compare_exchange(0, GRACE_MAX, Relaxed, Relaxed);
}

fn take_grace(n: usize) -> bool {
    let take = |grace: usize| grace.checked_sub(n).filter(|&rest| rest > 0);
    GRACE.fetch_update(Relaxed, Relaxed, take).is_ok()
}
