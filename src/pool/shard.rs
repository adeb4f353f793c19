//! Lanes: which threads take their blocks from the same pools.
//!
//! ```text
//!    threads that take turns, under a GIL      threads that run at once
//!
//!       t0   t1   t2   t3                         t0    t1    t2    t3
//!        |    |    |    |                         |     |     |     |
//!        +----+-+--+----+                         |     |     |     |
//!             lane 0                            lane 0  1     2     3
//! ```
//!
//! A lane has used pools of its own in every size class, with locks of their own.
//! Two processors that write to neighbouring blocks take the cache line, and what
//! they fetch ahead, from each other again and again: two threads that shared pools
//! needed one and a half times the processors' time for the same work. Where only one
//! thread runs at a time, nothing is to be gained, and one set of pools is the
//! densest: so a process that has a CPython with a GIL has one lane. If its threads find
//! each other's locks held again and again all the same, they do not take turns (its
//! interpreters have a GIL each), and get lanes after all.
//!
//! Blocks go back to the lane of their pool, whoever frees them.
//!
//! # Invariants
//!
//! E1  No thread takes blocks from a lane that is not open. Lanes open while the
//!     threads' lock is held, so a fork, which holds it, knows them all.
#![forbid(unsafe_code)]

use crate::os::{clock, lock};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Lanes that there are at the most; more threads share.
pub const LANES: usize = 16;

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
/// How many lanes are open (E1).
static OPEN: AtomicUsize = AtomicUsize::new(1);

/// The index of a lane, below [`LANES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lane(u8);

impl Lane {
    /// The one that is always open.
    pub const FIRST: Lane = Lane(0);

    /// The lane of the thread that was the `number`th to come, from 0. It and those before it are
    /// open then, if `open` has what belongs to each; else the thread shares the first. To be
    /// asked under the threads' lock (E1).
    pub fn of_thread(number: usize, open: impl Fn(Lane) -> bool) -> Lane {
        if TURNS.load(Relaxed) {
            return Lane::FIRST;
        }
        let index = number % LANES;
        if !(1..=index).all(|lane| open(Lane(lane as u8))) {
            return Lane::FIRST;
        }
        OPEN.fetch_max(index + 1, Relaxed);
        Lane(index as u8)
    }

    /// The lane with this index.
    pub fn from_index(index: u8) -> Lane {
        Lane(index % LANES as u8)
    }

    /// The index.
    #[inline(always)]
    pub fn index(self) -> usize {
        usize::from(self.0) % LANES
    }

    /// All that are open.
    pub fn open() -> impl DoubleEndedIterator<Item = Lane> {
        (0..OPEN.load(Relaxed)).map(|index| Lane(index as u8))
    }

    /// Whether there is only the first.
    #[inline]
    pub fn is_one() -> bool {
        OPEN.load(Relaxed) == 1
    }
}

/// Says that the process's threads take turns: those that come from now on share
/// the first lane.
pub fn take_turns() {
    TURNS.store(true, Relaxed);
}

/// Says that they run at once.
pub fn run_at_once() {
    TURNS.store(false, Relaxed);
}

/// Whether threads that are said to take turns do not.
#[inline]
pub fn is_crowded() -> bool {
    lock::waits() >= CROWD && TURNS.load(Relaxed) && were_at_once()
}

/// Whether the locks found held were so within [`WITHIN`]; counts anew.
#[cold]
fn were_at_once() -> bool {
    let now = clock::now();
    lock::forget_waits();
    now.saturating_sub(SINCE.swap(now, Relaxed)) <= WITHIN
}
