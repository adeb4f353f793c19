//! How a thread waits for another one: it sleeps on a word that the other changes
//! (futex), or lets others run in between; and by which number it is known.
//!
//! In the models of `tests/loom/` the words are loom's, and it plays the kernel.

#[cfg(not(all(test, loom)))]
use core::ptr;

use crate::sync::AtomicU32;
#[cfg(all(test, loom))]
use crate::sync::execution;

/// Sleeps while `word` is `value`, until [`wake`]. Returns whenever it likes: the caller
/// looks again.
#[cfg(not(all(test, loom)))]
pub fn wait(word: &AtomicU32, value: u32) {
    let (what, no_limit) = (
        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
        ptr::null::<libc::timespec>(),
    );
    // SAFETY: a word of ours. Returns at once if it is not `value` any more.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what, value, no_limit) };
}

/// The same for so many microseconds at the most.
#[cfg(not(all(test, loom)))]
pub fn wait_for(word: &AtomicU32, value: u32, microseconds: u64) {
    let what = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let time = libc::timespec {
        tv_sec: (microseconds / 1_000_000).cast_signed(),
        tv_nsec: (microseconds % 1_000_000 * 1000).cast_signed(),
    };
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what, value, &raw const time) };
}

/// Wakes one thread that sleeps on `word`, if there is one.
#[cfg(not(all(test, loom)))]
pub fn wake(word: &AtomicU32) {
    let what = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a word of ours, or what was one: the kernel only compares addresses.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what, 1) };
}

/// Lets other threads run.
#[cfg(not(all(test, loom)))]
pub fn give_way() {
    // SAFETY: no conditions.
    unsafe { libc::sched_yield() };
}

/// A number of this thread that no other one has, never 0.
#[cfg(not(all(test, loom)))]
pub fn this_thread() -> usize {
    // SAFETY: a question without conditions.
    unsafe { libc::pthread_self() as usize }
}

#[cfg(all(test, loom))]
pub use execution::{spin_loop as give_way, this_thread};

/// See above.
#[cfg(all(test, loom))]
pub fn wait(word: &AtomicU32, value: u32) {
    let still = || word.load(crate::sync::Ordering::Relaxed) == value;
    execution::wait(word.as_ptr().addr(), still);
}

/// See above; time is up at once.
#[cfg(all(test, loom))]
pub fn wait_for(_: &AtomicU32, _: u32, _: u64) {
    execution::spin_loop();
}

/// See above.
#[cfg(all(test, loom))]
pub fn wake(word: &AtomicU32) {
    execution::wake(word.as_ptr().addr());
}
