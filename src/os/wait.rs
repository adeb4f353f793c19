//! How a thread waits for another one: it sleeps on a word that the other changes (futex), always
//! with a time limit. And the number that identifies a thread.
//!
//! In the models of `tests/loom/` the words are loom's, and loom plays the kernel.

#[cfg(not(any(all(test, loom), miri)))]
use super::arch;
#[cfg(not(all(test, loom)))]
use super::{errno, memory};
#[cfg(all(test, loom))]
use crate::sync::execution;
use crate::sync::{AtomicU32, AtomicUsize};

/// Sleeps on the word at `address` while it is `value`, at most `microseconds`.
#[cfg(not(all(test, loom)))]
fn futex_wait(address: *const u32, value: u32, microseconds: u64) {
    let what = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let time = libc::timespec {
        tv_sec: (microseconds / 1_000_000).cast_signed(),
        tv_nsec: (microseconds % 1_000_000 * 1000).cast_signed(),
    };
    let _ = errno::checked(|| {
        // SAFETY: the kernel reads the word, which the caller borrows, and the time.
        unsafe { libc::syscall(libc::SYS_futex, address, what, value, &raw const time) }
    });
}

#[cfg(not(all(test, loom)))]
fn futex_wake(address: *const u32) {
    let what = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    let _ = errno::checked(|| {
        // SAFETY: the kernel compares the address with those that threads sleep on, and does not
        // read it.
        unsafe { libc::syscall(libc::SYS_futex, address, what, 1) }
    });
}

/// Sleeps while `word` is `value`, until [`wake`], at most `microseconds`. May return early: the
/// caller reads the word again.
#[cfg(not(all(test, loom)))]
pub(crate) fn wait_for(word: &AtomicU32, value: u32, microseconds: u64) {
    futex_wait(word.as_ptr(), value, microseconds);
}

/// Wakes one thread that sleeps on `word`, if there is one.
#[cfg(not(all(test, loom)))]
pub(crate) fn wake(word: &AtomicU32) {
    futex_wake(word.as_ptr());
}

/// The half of a word that the kernel compares: the low one.
#[cfg(not(any(all(test, loom), miri)))]
fn half(word: &AtomicUsize) -> *const u32 {
    const _: () = assert!(cfg!(target_endian = "little"));
    word.as_ptr().cast()
}

/// As [`wait_for`], on a whole word. The kernel compares the low half only, so a change of the
/// high half may go unnoticed until the time is over.
#[cfg(not(any(all(test, loom), miri)))]
pub(crate) fn wait_word(word: &AtomicUsize, value: usize, microseconds: u64) {
    futex_wait(half(word), value as u32, microseconds);
}

/// Wakes one thread that sleeps on `word`, if there is one.
#[cfg(not(any(all(test, loom), miri)))]
pub(crate) fn wake_word(word: &AtomicUsize) {
    futex_wake(half(word));
}

/// See above: returns early. (Miri takes the kernel's load of a half for one of the program's.)
#[cfg(miri)]
pub(crate) fn wait_word(_: &AtomicUsize, _: usize, _: u64) {
    std::thread::yield_now();
}

/// See above.
#[cfg(miri)]
pub(crate) fn wake_word(_: &AtomicUsize) {}

/// Sleeps for `microseconds`. (Not by `nanosleep`, which is a cancellation point.)
#[cfg(not(all(test, loom)))]
pub(crate) fn pause(microseconds: u64) {
    wait_for(&AtomicU32::new(0), 0, microseconds);
}

/// A number that identifies this thread in the process: the address of its control block, whose
/// three lowest bits are 0. In a forked child the thread that forked keeps it.
#[cfg(not(any(all(test, loom), miri)))]
#[inline(always)]
pub(crate) fn this_thread() -> usize {
    arch::control_block()
}

/// See above.
#[cfg(miri)]
pub(crate) fn this_thread() -> usize {
    // SAFETY: the function has no conditions.
    let thread = unsafe { libc::pthread_self() };
    (thread as usize + 1) << 6
}

/// Returns when no thread is copying the process's memory for a fork: while one is, the kernel
/// blocks queries of mappings (here of the page of `address`, which is mapped).
#[cfg(not(all(test, loom)))]
pub(crate) fn until_memory_is_not_copied(address: usize) {
    let page = address & !(memory::page_size() - 1);
    let mut resident = [0u8; 1];
    let _ = errno::checked(|| {
        // SAFETY: a query of one mapped page, with room for the result.
        unsafe { libc::syscall(libc::SYS_mincore, page, 1, resident.as_mut_ptr()) }
    });
}

/// See above.
#[cfg(all(test, loom))]
pub(crate) fn this_thread() -> usize {
    execution::this_thread() << 6
}

/// See above; the time is over at once.
#[cfg(all(test, loom))]
pub(crate) fn wait_for(_: &AtomicU32, _: u32, _: u64) {
    execution::spin_loop();
}

/// See above.
#[cfg(all(test, loom))]
pub(crate) fn pause(_: u64) {
    execution::spin_loop();
}

/// See above.
#[cfg(all(test, loom))]
pub(crate) fn wake(word: &AtomicU32) {
    execution::wake(word.as_ptr().addr());
}

/// See above; the time is never over, so that a model finds a thread that is not woken.
#[cfg(all(test, loom))]
pub(crate) fn wait_word(word: &AtomicUsize, value: usize, _: u64) {
    let still = || word.load(crate::sync::Ordering::Relaxed) == value;
    execution::wait(word.as_ptr().addr(), still);
}

/// See above.
#[cfg(all(test, loom))]
pub(crate) fn wake_word(word: &AtomicUsize) {
    execution::wake(word.as_ptr().addr());
}
