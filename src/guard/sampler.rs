//! The sampler: one allocation in `rate`, on average.
//!
//! ```text
//!   LEFT   7 6 5 4 3 2 1  sample: drawn anew, from 1 to 2 x rate - 1  12 11 10 ...
//! ```
//!
//! Every distance, the first too, is drawn at random, so that no loop of a program is in step with
//! it. All threads count down one number: an allocation that is not sampled costs one atomic
//! subtraction.

use format::options;

use crate::os::{clock, errno};
use crate::sync::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// One allocation in this many; 0: none.
static RATE: AtomicUsize = AtomicUsize::new(options::GUARD_SAMPLE_RATE.default.number() as usize);
/// Allocations until the next sample. Threads that race may each take one: the number need not be
/// exact.
static LEFT: AtomicI64 = AtomicI64::new(0);
/// The state of the random numbers.
static RANDOM: AtomicU64 = AtomicU64::new(0);

/// Maximum rate.
const RATE_MAX: usize = 1 << 40;
/// Odd, and its bits are spread: 2^64 by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Sets the rate: one allocation in `n` is sampled; 0: none.
pub(super) fn set_rate(n: usize) {
    let n = n.min(RATE_MAX);
    RANDOM.fetch_xor(seed(), Relaxed);
    if n > 0 {
        LEFT.store(distance(n), Relaxed);
    }
    RATE.store(n, Relaxed);
}

/// The rate.
pub(super) fn rate() -> usize {
    RATE.load(Relaxed)
}

/// Counts an allocation. Returns whether it is sampled.
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

/// In a forked child: continues with other numbers than the parent.
pub(super) fn forked() {
    RANDOM.fetch_xor(clock::nanoseconds(), Relaxed);
}

/// A seed that differs between processes, but that an attacker could find out. Makes no system call:
/// in a sandbox the first number is drawn before the check for a filter.
pub(super) fn random() -> u64 {
    let mut n = RANDOM.fetch_add(STEP, Relaxed);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The random bytes that the kernel passes to each program, and the time.
fn seed() -> u64 {
    // SAFETY: getauxval has no preconditions.
    let address = errno::kept(|| unsafe { libc::getauxval(libc::AT_RANDOM) });
    let bytes: *const u64 = core::ptr::with_exposed_provenance(address as usize);
    let given = if bytes.is_null() {
        0
    } else {
        // SAFETY: the kernel's sixteen bytes, which live as long as the process.
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
            // Six standard deviations of the mean.
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
