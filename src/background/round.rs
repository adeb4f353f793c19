//! Rounds over all pools that return free pages: in parts, or at once until a time limit. (The
//! helper thread's rounds are in `background/decay.rs`.)
//!
//! # Threads
//!
//! Any thread, with no lock held. The position of a round is under the lock `ROUND`, which comes
//! before the heap's locks.

use crate::heap::HEAP;
use crate::heap::Walk;
use crate::os::clock;
use crate::os::lock::{Lock, Word};
use crate::os::sandbox;
use crate::sync::Cell;

/// Pools between two readings of the clock, if no page was returned.
const LOOKED_AT: usize = 16;
/// Without a thread: maximum pools that one tick visits, and bytes after whose return it ends.
const PART: usize = 64;
const PART_BYTES: usize = 64 << 10;
/// A round that is done in parts.
struct Round {
    /// The position, if a round is under way.
    at: Cell<Option<Walk>>,
    /// The position of a round that returns all free pages at once.
    at_once: Cell<Option<Walk>>,
    /// When the next round may begin.
    next: Cell<u64>,
}
static ROUND: Lock<Round> = Lock::new(Round {
    at: Cell::new(None),
    at_once: Cell::new(None),
    next: Cell::new(0),
});

/// Does a part of a round. A round begins every `between` milliseconds at most. Returns when the
/// next one may begin, if none is due now.
pub(crate) fn part(now: u64, between: u64) -> Option<u64> {
    let round = ROUND.lock();
    let mut walk = match round.at.get() {
        Some(walk) => walk,
        None if now < round.next.get() => {
            return Some(round.next.get());
        }
        None => {
            round.next.set(now + between);
            HEAP.empty_depots(false);
            HEAP.release(false);
            HEAP.walk()
        }
    };
    let mut bytes = 0;
    for _ in 0..PART {
        match HEAP.purge_next(&mut walk, false) {
            Some(more) => bytes += more,
            None => {
                round.at.set(None);
                return None;
            }
        }
        if bytes >= PART_BYTES {
            break;
        }
    }
    round.at.set(Some(walk));
    None
}

/// Returns all free pages at once, until at most `keep` bytes are free.
pub(crate) fn at_once(keep: usize) {
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

/// Returns free pages until `until` (nanoseconds of the clock): first those of empty pools, then
/// the others, from where the last call has ended. Returns whether that was all.
pub(crate) fn until(until: u64) -> bool {
    let is_time_left = |sampled: usize, bytes: usize| {
        bytes == 0 && !sampled.is_multiple_of(LOOKED_AT) || clock::nanoseconds() < until
    };
    let mut walk = HEAP.walk();
    for sampled in 1.. {
        match HEAP.purge_next_empty(&mut walk) {
            Some(bytes) if is_time_left(sampled, bytes) => {}
            Some(_) => return false,
            None => break,
        }
    }
    let Some(round) = ROUND.try_lock() else {
        return false;
    };
    let mut walk = round.at_once.take().unwrap_or_else(|| HEAP.walk());
    for sampled in 1.. {
        match HEAP.purge_next(&mut walk, true) {
            Some(bytes) if is_time_left(sampled, bytes) => {}
            Some(_) => {
                round.at_once.set(Some(walk));
                return false;
            }
            None => break,
        }
    }
    true
}

/// The lock, for forks.
pub(crate) fn word() -> &'static Word {
    ROUND.word()
}
