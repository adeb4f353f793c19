//! Work that is done once in a process, before any thread that needs it continues.
//!
//! ```text
//!    NOT_YET  --- the first one begins --->  its process and thread  --- done --->  DONE
//!                                              |             ^
//!                                              +-------------+
//!                       the thread is gone: the next thread does it anew
//! ```
//!
//! The thread that does the work may be gone before it is done: it was another thread of the
//! process that this one was forked from, or it ended in the middle (`exit` within a thread's
//! cancellation). A waiting thread checks whether it still exists. The thread itself may come here
//! again, from a signal handler or from the work: then it continues without the result, which no
//! other thread can make.

use core::cell::UnsafeCell;

use crate::os::{sandbox, text, thread, wait};
use crate::sync::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Whether the work is done.
pub(crate) struct Once {
    /// DONE is stored with Release, which pairs with the Acquire of the threads that continue.
    state: AtomicU64,
    /// Grows when it is done; waiting threads sleep on it.
    done: AtomicU32,
}

const NOT_YET: u64 = 0;
const DONE: u64 = u64::MAX;

/// Microseconds after which a waiting thread checks whether the other thread exists.
const SLEEP: u64 = 2000;

/// An identity of the calling thread that no other thread of any process has.
fn me() -> u64 {
    let number = |id: i32| u64::from(id.cast_unsigned());
    number(text::pid()) << 32 | number(thread::number())
}

/// Whether a thread with this identity is in this process.
fn is_there(name: u64) -> bool {
    // Loom's threads exist until the end of the model; Miri does not make the call.
    let is_there = |number| cfg!(any(all(test, loom), miri)) || thread::is_there(number);
    name >> 32 == u64::from(text::pid().cast_unsigned()) && is_there(name as i32)
}

impl Once {
    pub(crate) const fn new() -> Once {
        Once {
            state: AtomicU64::new(NOT_YET),
            done: AtomicU32::new(0),
        }
    }

    /// Does `work`, unless it is done. It is done when this returns, by whichever thread, unless
    /// this thread is doing it already.
    #[inline]
    pub(crate) fn call(&self, work: impl FnOnce()) {
        if self.state.load(Acquire) != DONE && self.begin() {
            work();
            self.end();
        }
    }

    /// Whether it is done.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Acquire) == DONE
    }

    /// Whether this thread does it. Else it is done.
    #[cold]
    #[inline(never)]
    fn begin(&self) -> bool {
        let me = me();
        loop {
            let known = self.state.load(Acquire);
            if known == DONE || known == me {
                return false;
            }
            if known != NOT_YET && (!sandbox::allows() || is_there(known)) {
                wait::wait_for(&self.done, 0, SLEEP);
                continue;
            }
            let begun = self.state.compare_exchange(known, me, Acquire, Relaxed);
            if begun.is_ok() {
                return true;
            }
        }
    }

    #[cold]
    fn end(&self) {
        self.state.store(DONE, Release);
        self.done.store(1, Relaxed);
    }

    /// Marks it as done, in a forked child that inherits the result, or before there are several
    /// threads.
    pub(crate) fn set_done(&self) {
        self.state.store(DONE, Release);
    }

    /// For tests: as a child finds it that was forked while another thread did the work.
    #[cfg(test)]
    pub(crate) fn of_another_process() -> Once {
        Once {
            state: AtomicU64::new(me() + (1 << 32)),
            done: AtomicU32::new(0),
        }
    }
}

/// A value that is made once, when it is first needed.
pub(crate) struct Made<T: Copy> {
    value: UnsafeCell<T>,
    once: Once,
}

// SAFETY: the value is written by the one thread that `once` admits, before it is marked as done,
// and only read afterwards.
unsafe impl<T: Copy> Sync for Made<T> {}

impl<T: Copy> Made<T> {
    /// A value that is `before` until it is made.
    pub(crate) const fn new(before: T) -> Made<T> {
        Made {
            value: UnsafeCell::new(before),
            once: Once::new(),
        }
    }

    /// The value, if it is made.
    #[inline]
    pub(crate) fn made(&self) -> Option<&T> {
        // SAFETY: after it is made, the value is only read.
        self.once.is_done().then(|| unsafe { &*self.value.get() })
    }

    /// The value, made by `make` if it has not been. Several threads may call `make` at once, and
    /// one result is kept: `make` may wait for the loader, whose lock another thread may hold that
    /// comes here.
    #[inline]
    pub(crate) fn or_make(&self, make: impl FnOnce() -> T) -> &T {
        if !self.once.is_done() {
            let value = make();
            // SAFETY: `once` admits one thread, and no thread reads the value yet.
            self.once.call(|| unsafe { *self.value.get() = value });
        }
        // SAFETY: it is written no more. (Or this is a signal handler that interrupted the write
        // of its own thread: it reads a `Copy` value that was there before.)
        unsafe { &*self.value.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_once_and_in_a_forked_child_anew() {
        for once in [Once::new(), Once::of_another_process()] {
            let mut times = 0;
            once.call(|| times += 1);
            once.call(|| times += 1);
            assert_eq!(times, 1);
            assert!(once.is_done());
        }
        let once = Once::new();
        once.set_done();
        once.call(|| unreachable!());
    }

    /// A thread that ends in the middle, like one that is cancelled.
    #[test]
    #[cfg_attr(miri, ignore = "a thread ends without returning")]
    fn who_waits_for_a_thread_that_is_gone_does_it() {
        extern "C" fn ends_in_the_midst(once: *mut libc::c_void) -> *mut libc::c_void {
            // SAFETY: the test's value, which outlives the thread.
            let once = unsafe { &*once.cast::<Once>() };
            if once.begin() {
                // SAFETY: the kernel ends this thread, which owns nothing.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
            core::ptr::null_mut()
        }
        let once = Once::new();
        let argument = (&raw const once).cast_mut().cast();
        // SAFETY: the function may be called with it.
        let started =
            thread::without_signals(|| unsafe { thread::start(ends_in_the_midst, argument) });
        assert!(started);
        while once.state.load(Acquire) == NOT_YET {
            std::thread::yield_now();
        }
        let mut times = 0;
        once.call(|| times += 1);
        assert_eq!(times, 1);
    }

    #[test]
    fn who_comes_again_in_the_midst_goes_on() {
        let once = Once::new();
        let mut inner = 0;
        once.call(|| once.call(|| inner += 1));
        assert_eq!(inner, 0);
        assert!(once.is_done());
        static MADE: Made<u32> = Made::new(7);
        assert!(MADE.made().is_none());
        let made = *MADE.or_make(|| *MADE.or_make(|| 8) + 1);
        assert_eq!(
            (made, *MADE.or_make(|| unreachable!())),
            (8, 8),
            "the first to end counts"
        );
        assert_eq!(MADE.made(), Some(&8));
    }

    #[test]
    fn other_threads_wait_until_it_is_done() {
        static ONCE: Once = Once::new();
        static DONE_NOW: AtomicU32 = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    ONCE.call(|| {
                        std::thread::sleep(core::time::Duration::from_millis(20));
                        DONE_NOW.store(1, Release);
                    });
                    assert_eq!(DONE_NOW.load(Acquire), 1);
                });
            }
        });
    }
}
