//! Rounds over all pools, that give free pages back: in parts, or at once and as far as
//! there is time. (The helper thread has a way of its own, `background/decay.rs`.)
//!
//! # Threads
//!
//! Any thread, with no lock held. How far a round is stands under `ROUND`, which comes before
//! the heap's locks.

use crate::heap::HEAP;
use crate::heap::Walk;
use crate::os::clock;
use crate::os::lock::{Lock, Word};
use crate::os::sandbox;
use crate::sync::Cell;

/// Pools after which a look at the clock follows, where none is given back.
const LOOKED_AT: usize = 16;
/// Where there is no thread: pools that one tick looks at, at the most, and bytes
/// after whose return it ends.
const PART: usize = 64;
const PART_BYTES: usize = 64 << 10;
/// A round that is done in parts.
struct Round {
    /// How far it is, if one is under way.
    at: Cell<Option<Walk>>,
    /// The same of one that waits for nothing.
    at_once: Cell<Option<Walk>>,
    /// When the next round may begin.
    next: Cell<u64>,
}
static ROUND: Lock<Round> = Lock::new(Round {
    at: Cell::new(None),
    at_once: Cell::new(None),
    next: Cell::new(0),
});

/// Does a part of a round, of which one begins every `between` milliseconds. Returns when
/// the next one may begin if none is due now.
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

/// A round over all pools that waits for nothing, or as much of it as is needed
/// until no more than `keep` bytes are free.
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

/// As much of a round that waits for nothing as can be done until `until` (nanoseconds of
/// the clock): first pools that are wholly empty, then the others, from where the last such
/// round has ended. Whether that was all.
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
