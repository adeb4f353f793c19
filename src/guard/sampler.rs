//! Whose turn it is: one allocation in `rate`, on average.
//!
//! ```text
//!   LEFT   7 6 5 4 3 2 1  turn: drawn anew, from 1 to 2 x rate - 1  12 11 10 ...
//! ```
//!
//! The distance is drawn, so that no loop of a program is in step with it, and the
//! first one too. All threads count down one number: an atomic subtraction is what
//! an allocation pays that is not sampled.

use crate::os::{clock, errno};
use crate::sync::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// One in so many; 0: none.
static RATE: AtomicUsize = AtomicUsize::new(0);
/// How many allocations until the next turn. Threads that meet there may each take
/// one: nobody counts on an exact number.
static LEFT: AtomicI64 = AtomicI64::new(0);
/// Where the sequence of random numbers stands.
static RANDOM: AtomicU64 = AtomicU64::new(0);

/// Larger ones are taken for this.
const RATE_MAX: usize = 1 << 40;
/// Odd, and its bits are spread: 2^64 by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Has one allocation in `n` sampled from now on; 0: none.
pub(super) fn set_rate(n: usize) {
    let n = n.min(RATE_MAX);
    RANDOM.fetch_xor(seed(), Relaxed);
    if n > 0 {
        LEFT.store(distance(n), Relaxed);
    }
    RATE.store(n, Relaxed);
}

/// One in how many is sampled; 0: none.
pub(super) fn rate() -> usize {
    RATE.load(Relaxed)
}

/// Counts an allocation; whether it is to be sampled.
#[inline]
pub(super) fn is_turn() -> bool {
    let rate = rate();
    if rate == 0 || LEFT.fetch_sub(1, Relaxed) > 1 {
        return false;
    }
    LEFT.store(distance(rate), Relaxed);
    true
}

fn distance(rate: usize) -> i64 {
    let span = 2 * rate as u64 - 1;
    (1 + random() % span).cast_signed()
}

/// In a forked child, which goes on with other numbers than its parent.
pub(super) fn forked() {
    RANDOM.fetch_xor(clock::nanoseconds(), Relaxed);
}

/// A number that nobody expects, but an attacker could find out. Makes no system call: in a
/// sandbox the first number is drawn before the look for a filter.
pub(super) fn random() -> u64 {
    let mut n = RANDOM.fetch_add(STEP, Relaxed);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// What the kernel gives each program that starts, and the time.
fn seed() -> u64 {
    // SAFETY: a question without conditions; errno says whether there is such an entry.
    let address = errno::kept(|| unsafe { libc::getauxval(libc::AT_RANDOM) });
    let bytes: *const u64 = core::ptr::with_exposed_provenance(address as usize);
    let given = if bytes.is_null() {
        0
    } else {
        // SAFETY: the kernel's sixteen bytes, which stay.
        unsafe { bytes.read_unaligned() }
    };
    given ^ clock::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn distances_have_the_rate_as_their_mean() {
        for rate in [1, 2, 10, 1000] {
            let drawn: Vec<i64> = (0..20_000).map(|_| distance(rate)).collect();
            let most = 2 * rate as i64 - 1;
            assert!(drawn.iter().all(|&n| (1..=most).contains(&n)));
            let mean = drawn.iter().sum::<i64>() as f64 / drawn.len() as f64;
            // Six deviations of the mean.
            let slack = 6.0 * rate as f64 / (3.0 * 20_000.0_f64).sqrt();
            assert!((mean - rate as f64).abs() <= slack, "{rate}: {mean}");
            assert_eq!(
                drawn
                    .iter()
                    .collect::<std::collections::BTreeSet<_>>()
                    .len()
                    > 1,
                rate > 1
            );
        }
    }

    #[test]
    fn the_largest_rate_has_a_distance() {
        assert!(distance(RATE_MAX) > 0);
    }
}
