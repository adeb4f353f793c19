//! Time, as coarse as the kernel's tick: reading it costs nanoseconds.

/// Milliseconds since some moment before the process started. Never less than
/// it was, and standing still while the machine sleeps.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    let now = time.tv_sec.cast_unsigned() * 1000 + time.tv_nsec.cast_unsigned() / 1_000_000;
    #[cfg(feature = "model")]
    let now = now + AHEAD.load(core::sync::atomic::Ordering::Relaxed);
    now
}

/// Milliseconds by which the model (`fuzz/`) has had time pass.
#[cfg(feature = "model")]
pub static AHEAD: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
