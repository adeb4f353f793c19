//! Clocks: one as coarse as the kernel's tick, which costs nanoseconds to read, and a precise one.

use super::errno;

/// The time of a clock of the kernel in nanoseconds; 0 if the clock does not exist.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` has room for the result.
    let known = errno::kept(|| unsafe { libc::clock_gettime(clock, &raw mut time) }) == 0;
    if known {
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    } else {
        0
    }
}

/// Nanoseconds since some moment before the process started.
pub(crate) fn nanoseconds() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Milliseconds since 1970.
pub(crate) fn real_time() -> u64 {
    read(libc::CLOCK_REALTIME) / 1_000_000
}

/// The processor time of the thread with this id in nanoseconds; 0 if it is unknown.
#[cfg_attr(loom, allow(dead_code))]
pub(crate) fn of_thread(number: i32) -> u64 {
    const OF_THREAD: i32 = 4;
    const TIME_ON_PROCESSORS: i32 = 2;
    read(!number << 3 | OF_THREAD | TIME_ON_PROCESSORS)
}

/// Milliseconds since some moment before the process started. Monotonic; it stands still while the
/// machine sleeps.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` has room for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    let now = time.tv_sec.cast_unsigned() * 1000 + time.tv_nsec.cast_unsigned() / 1_000_000;
    #[cfg(feature = "model")]
    let now = now + AHEAD.load(core::sync::atomic::Ordering::Relaxed);
    now
}

/// Milliseconds that the model (`fuzz/`) has added to the clock.
#[cfg(feature = "model")]
pub static AHEAD: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::thread;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no clocks of threads")]
    fn a_thread_has_run_and_none_that_is_not_there() {
        let (own, begin) = (thread::number(), nanoseconds());
        let before = of_thread(own);
        while of_thread(own) == before && nanoseconds() < begin + 10_000_000_000 {}
        assert!(of_thread(own) > before);
        assert_eq!(of_thread(i32::MAX >> 3), 0);
    }
}
