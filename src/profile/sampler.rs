//! The sampler: which bytes of a thread's allocations are sampled.
//!
//! ```text
//!    bytes of blocks   |----o-------------------o-o------------|     o  a point of the process
//!    blocks            [  ][#][  ][  ][  ][  ][ # ][  ][  ][  ]      #  sampled
//! ```
//!
//! A Poisson process over the bytes: distances are exponential with the interval as their mean. So
//! each block of `size` bytes is sampled with probability 1 - exp(-size / interval), whatever was
//! sampled before it, and a distance can be drawn anew at any moment: when the interval changes, and
//! when a thread begins.

use crate::os::clock;
use crate::sync::{AtomicU64, AtomicUsize, Cell, Ordering::Relaxed};

/// Mean bytes between two samples; 0 while the profiler is off.
static INTERVAL: AtomicUsize = AtomicUsize::new(0);
/// The last interval that was not 0.
static LAST: AtomicUsize = AtomicUsize::new(1);
/// The number of times that the interval was set.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// The number of times that the profiler was started.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// Starts with this mean number of bytes between two samples.
pub(super) fn start(interval: usize) {
    set_interval(interval);
    STARTS.fetch_add(1, Relaxed);
}

/// Sets the mean number of bytes between two samples; 0: none is taken.
pub(super) fn set_interval(bytes: usize) {
    INTERVAL.store(bytes, Relaxed);
    if bytes != 0 {
        LAST.store(bytes, Relaxed);
    }
    EPOCH.fetch_add(1, Relaxed);
}

/// Mean bytes between two samples; 0 while the profiler is off.
#[inline]
pub(super) fn interval() -> usize {
    INTERVAL.load(Relaxed)
}

/// The mean number of bytes between two samples while the profiler was last on.
pub(super) fn last_interval() -> usize {
    LAST.load(Relaxed)
}

/// The probability with which a block of `size` bytes is sampled.
fn probability(size: usize, interval: usize) -> f64 {
    if interval <= 1 {
        return 1.0;
    }
    one_less_exp(size as f64 / interval as f64)
}

/// The probability with which a block of `size` bytes is sampled at the present interval, or the last.
pub(crate) fn probability_now(size: usize) -> f64 {
    probability(size, last_interval())
}

/// The probability with which a sample of `size` bytes is one, too, if the interval is doubled:
/// (1 - exp(-x / 2)) / (1 - exp(-x)).
pub(super) fn stays_if_doubled(size: usize, interval: usize) -> f64 {
    if interval <= 1 {
        return probability(size, 2);
    }
    1.0 / (2.0 - one_less_exp(size as f64 / (2.0 * interval as f64)))
}

/// A thread's position in the process. All zero is a valid one.
pub(crate) struct Countdown {
    /// Bytes until the next point.
    left: Cell<u64>,
    epoch: Cell<u64>,
    /// Starts of the profiler that the thread has seen.
    starts: Cell<u64>,
    random: Cell<u64>,
    /// Whether the thread's requests pass through another domain, which is not to count them again.
    suspended: Cell<bool>,
}

impl Countdown {
    pub(crate) const fn new() -> Countdown {
        Countdown {
            left: Cell::new(0),
            epoch: Cell::new(0),
            starts: Cell::new(0),
            random: Cell::new(0),
            suspended: Cell::new(false),
        }
    }

    /// Advances by at most `blocks` blocks of `size` bytes, up to the first that is sampled. Returns the
    /// number of blocks before it; `None` if none of them is sampled.
    #[inline]
    pub(crate) fn next(&self, size: usize, blocks: usize) -> Option<usize> {
        let epoch = EPOCH.load(Relaxed);
        if self.epoch.replace(epoch) != epoch {
            self.left.set(self.distance());
        }
        let (left, all) = (self.left.get(), (size as u64).saturating_mul(blocks as u64));
        if left >= all {
            self.left.set(left - all);
            return None;
        }
        self.left.set(self.distance());
        Some((left / (size.max(1) as u64)) as usize)
    }

    /// Whether the profiler has started since the last call: blocks that the thread has cached were not
    /// counted.
    #[inline]
    pub(crate) fn sees_start(&self) -> bool {
        let starts = STARTS.load(Relaxed);
        self.starts.replace(starts) != starts
    }

    /// Advances by a block of `size` bytes. Returns whether it is sampled.
    pub(crate) fn is_due(&self, size: usize) -> bool {
        self.next(size, 1).is_some()
    }

    /// Advances by a block of `size` bytes, if it is certain that it is not sampled, or not counted.
    /// Returns whether it is. (False, and unchanged, for a countdown that was never used.)
    #[inline]
    pub(crate) fn passes(&self, size: usize) -> bool {
        let (left, size) = (self.left.get(), size as u64);
        if self.suspended.get() {
            return true;
        }
        let passes = left > size && self.epoch.get() == EPOCH.load(Relaxed);
        if passes {
            self.left.set(left - size);
        }
        passes
    }

    /// Whether [`suspend`](Countdown::suspend) is under way.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.get()
    }

    /// Runs `request`, in which no request of this thread is counted.
    pub(crate) fn suspend<T>(&self, request: impl FnOnce() -> T) -> T {
        let before = self.suspended.replace(true);
        let result = request();
        self.suspended.set(before);
        result
    }

    #[cold]
    #[inline(never)]
    fn distance(&self) -> u64 {
        match interval() {
            0 => u64::MAX,
            1 => 0,
            interval => (-ln(self.uniform()) * interval as f64) as u64,
        }
    }

    /// A number in (0, 1].
    fn uniform(&self) -> f64 {
        let mut x = self.random.get();
        if x == 0 {
            x = (clock::nanoseconds() ^ (&raw const *self).addr() as u64) | 1;
        }
        // xorshift64*
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        unit(x.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// In a forked child: continues with other numbers than the parent.
    pub(crate) fn forked(&self) {
        self.random.set(0);
        self.epoch.set(u64::MAX);
    }
}

/// The upper 53 bits of a number as a number in (0, 1].
pub(super) fn unit(random: u64) -> f64 {
    const STEPS: f64 = (1u64 << 53) as f64;
    ((random >> 11) + 1) as f64 / STEPS
}

/// 1 - exp(-x) for x >= 0.
fn one_less_exp(x: f64) -> f64 {
    // For a small x by its series; 1 - exp(-2 y) == (1 - exp(-y)) * (2 - (1 - exp(-y))) else.
    const SMALL: f64 = 1.0 / 64.0;
    if x > 40.0 {
        return 1.0;
    }
    let (mut y, mut doublings) = (x, 0);
    while y > SMALL {
        y /= 2.0;
        doublings += 1;
    }
    let mut result = y * (1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0 * (1.0 - y / 5.0))));
    for _ in 0..doublings {
        result *= 2.0 - result;
    }
    result
}

/// The natural logarithm of x in (0, 1].
fn ln(x: f64) -> f64 {
    // x == m * 2^exponent with m in [1, 2), and ln m == 2 artanh((m - 1) / (m + 1)).
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1023;
    let m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let s = (m - 1.0) / (m + 1.0);
    let (mut power, mut sum) = (s, 0.0);
    for n in 0..12 {
        sum += power / f64::from(2 * n + 1);
        power *= s * s;
    }
    f64::from(exponent) * core::f64::consts::LN_2 + 2.0 * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_those_of_the_c_library() {
        for i in 1..2000 {
            let x = f64::from(i) / 2000.0;
            assert!((ln(x) - x.ln()).abs() < 1e-10, "{x}");
            for x in [x, x * 1e-6, x * 50.0] {
                let expected = -(-x).exp_m1();
                assert!((one_less_exp(x) / expected - 1.0).abs() < 1e-9, "{x}");
            }
        }
        assert_eq!(
            (one_less_exp(0.0), one_less_exp(1e9), ln(1.0)),
            (0.0, 1.0, 0.0)
        );
        assert!(unit(0) > 0.0 && unit(u64::MAX) <= 1.0);
    }

    /// The interval is the process's: one test uses it.
    #[test]
    fn blocks_are_sampled_with_their_probability() {
        let countdown = Countdown::new();
        for (interval, size) in [
            (1, 16),
            (100, 16),
            (1000, 64),
            (1000, 5000),
            (512 << 10, 1 << 16),
        ] {
            set_interval(interval);
            let (mut sampled, blocks) = (0, 40_000);
            let mut left = blocks;
            while left > 0 {
                let Some(before) = countdown.next(size, left.min(64)) else {
                    left -= left.min(64);
                    continue;
                };
                left -= before + 1;
                sampled += 1;
            }
            let p = probability(size, interval);
            let (mean, n) = (p * blocks as f64, f64::from(sampled));
            // Six standard deviations.
            let slack = 6.0 * (mean * (1.0 - p)).sqrt();
            assert!(
                (n - mean).abs() <= slack + 1e-6,
                "{interval} {size}: {n}, {mean}"
            );
        }
        set_interval(0);
        assert_eq!(countdown.next(1 << 40, 64), None);
    }

    #[test]
    fn a_doubled_interval_keeps_the_right_share() {
        for interval in [1, 2, 1000, 1 << 20] {
            for size in [1, 16, 512, 4096, 1 << 22] {
                let share = probability(size, 2 * interval) / probability(size, interval);
                let stays = stays_if_doubled(size, interval);
                assert!((stays / share - 1.0).abs() < 1e-6, "{interval} {size}");
            }
        }
    }

    #[test]
    fn a_suspended_thread_does_not_count() {
        let countdown = Countdown::new();
        countdown.suspend(|| {
            assert!(countdown.is_suspended());
            countdown.suspend(|| ());
            assert!(countdown.is_suspended());
        });
        assert!(!countdown.is_suspended());
    }
}
