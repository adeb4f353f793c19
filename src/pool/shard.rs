//! Lanes: which threads take their blocks from the same pools.
//!
//! ```text
//!    threads that take turns, under a GIL      threads that run at once
//!
//!       t0   t1   t2   t3                         t0    t1    t2    t3
//!        |    |    |    |                         |     |     |     |
//!        +----+-+--+----+                         |     |     |     |
//!             shard 0                            shard 0  1     2     3
//! ```
//!
//! A shard has used pools of its own in every size class, with locks of their own.
//! Two processors that write to neighbouring blocks take the cache line, and what
//! they fetch ahead, from each other again and again: two threads that shared pools
//! needed one and a half times the processors' time for the same work. Where only one
//! thread runs at a time, nothing is to be gained, and one set of pools is the
//! densest: so a process that has a CPython with a GIL has one shard. If its threads find
//! each other's locks held again and again all the same, they do not take turns (its
//! interpreters have a GIL each), and get shards after all.
//!
//! Blocks go back to the shard of their pool, whoever frees them.
//!
//! # Invariants
//!
//! SHARD-1  No thread takes blocks from a shard that is not open. Lanes open while the
//!     threads' lock is held, so a fork, which holds it, knows them all.
#![forbid(unsafe_code)]

use crate::os::{clock, lock};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Lanes that there are at the most; more threads share.
pub(crate) const SHARDS: usize = 16;

/// Locks that requests found held by each other's, within [`WITHIN`], by which it shows
/// that threads do not take turns: two interpreters that do nothing but allocate come to
/// 2500.
const CROWD: usize = 50;
/// Milliseconds.
const WITHIN: u64 = 250;

/// Whether threads take turns.
static TURNS: AtomicBool = AtomicBool::new(false);
/// When the locks found held were counted from, last.
static SINCE: AtomicU64 = AtomicU64::new(0);
/// How many shards are open (SHARD-1).
static OPEN: AtomicUsize = AtomicUsize::new(1);

/// The index of a shard, below [`SHARDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shard(u8);

impl Shard {
    /// The one that is always open.
    pub(crate) const FIRST: Shard = Shard(0);

    /// The shard of the thread that was the `number`th to come, from 0. It and those before it are
    /// open then, if `open` has what belongs to each; else the thread shares the first. To be
    /// asked under the threads' lock (SHARD-1).
    pub(crate) fn of_thread(number: usize, open: impl Fn(Shard) -> bool) -> Shard {
        if TURNS.load(Relaxed) {
            return Shard::FIRST;
        }
        let index = number % SHARDS;
        if !(1..=index).all(|shard| open(Shard(shard as u8))) {
            return Shard::FIRST;
        }
        OPEN.fetch_max(index + 1, Relaxed);
        Shard(index as u8)
    }

    /// The shard with this index.
    pub(crate) fn from_index(index: u8) -> Shard {
        Shard(index % SHARDS as u8)
    }

    /// The index.
    #[inline(always)]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0) % SHARDS
    }

    /// All that are open.
    pub(crate) fn open() -> impl DoubleEndedIterator<Item = Shard> {
        (0..OPEN.load(Relaxed)).map(|index| Shard(index as u8))
    }

    /// Whether there is only the first.
    #[inline]
    pub(crate) fn is_one() -> bool {
        OPEN.load(Relaxed) == 1
    }
}

/// Says that the process's threads take turns: those that come from now on share
/// the first shard.
pub(crate) fn assume_gil() {
    TURNS.store(true, Relaxed);
}

/// Says that they run at once.
pub(crate) fn assume_parallel() {
    TURNS.store(false, Relaxed);
}

/// Whether threads that are said to take turns do not.
#[inline]
pub(crate) fn is_contended() -> bool {
    lock::waits() >= CROWD && TURNS.load(Relaxed) && contended_recently()
}

/// Whether the locks found held were so within [`WITHIN`]; counts anew.
#[cold]
fn contended_recently() -> bool {
    let now = clock::now();
    lock::forget_waits();
    now.saturating_sub(SINCE.swap(now, Relaxed)) <= WITHIN
}
