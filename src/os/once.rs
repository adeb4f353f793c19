//! Something that is done once in a process, before any thread goes on that wants it
//! done.
//!
//! ```text
//!    NOT_YET  --- the first one begins --->  its process and thread  --- done --->  DONE
//!                                              |             ^
//!                                              +-------------+
//!                       the thread is not there: whoever comes does it anew
//! ```
//!
//! The thread that does it may be gone before it is done: it was another thread of the
//! process that this one was forked from, or it has ended in the midst (`exit` within a
//! thread's cancellation). Whoever waits looks whether it is still there. The thread itself
//! may come again, from a signal handler or from what it does: then it goes on without, for
//! nobody else can.

use core::cell::UnsafeCell;

use crate::os::{sandbox, text, thread, wait};
use crate::sync::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Whether something is done.
pub(crate) struct Once {
    /// Release says that it is done; pairs with the Acquire of who goes on.
    state: AtomicU64,
    /// Grows when it is done: what waiting threads sleep on.
    done: AtomicU32,
}

const NOT_YET: u64 = 0;
const DONE: u64 = u64::MAX;

/// Microseconds after which a thread that waits looks whether it waits for anybody.
const SLEEP: u64 = 2000;

/// The calling thread, as no other thread of any process is called.
fn me() -> u64 {
    let number = |id: i32| u64::from(id.cast_unsigned());
    number(text::pid()) << 32 | number(thread::number())
}

/// Whether the thread that is called so is one of this process.
fn is_there(name: u64) -> bool {
    // Loom's own threads are there until the model's end.
    let is_there = |number| cfg!(all(test, loom)) || thread::is_there(number);
    name >> 32 == u64::from(text::pid().cast_unsigned()) && is_there(name as i32)
}

impl Once {
    /// Not done yet.
    pub(crate) const fn new() -> Once {
        Once {
            state: AtomicU64::new(NOT_YET),
            done: AtomicU32::new(0),
        }
    }

    /// Has `work` done, if it is not; it is when this returns, whoever did it. (Not where
    /// this thread is in the midst of it already.)
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

    /// Whether this thread is to do it.
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

    /// Says that it is done, in a forked child that has it from its parent, or before there
    /// are several threads.
    pub(crate) fn set_done(&self) {
        self.state.store(DONE, Relaxed);
    }

    /// As one finds it whose thread is gone, for tests: a thread of another process, which
    /// this one was forked from.
    #[cfg(test)]
    pub(crate) fn of_another_process() -> Once {
        Once {
            state: AtomicU64::new(me() + (1 << 32)),
            done: AtomicU32::new(0),
        }
    }
}

/// A place for what is made once, when somebody first needs it.
pub(crate) struct Made<T: Copy> {
    value: UnsafeCell<T>,
    once: Once,
}

// SAFETY: the value is written by the one thread that `once` lets make it, before that says
// that it is done, and afterwards only read.
unsafe impl<T: Copy> Sync for Made<T> {}

impl<T: Copy> Made<T> {
    /// A place that holds `before` until the value is made.
    pub(crate) const fn new(before: T) -> Made<T> {
        Made {
            value: UnsafeCell::new(before),
            once: Once::new(),
        }
    }

    /// The value, if it is made.
    #[inline]
    pub(crate) fn made(&self) -> Option<&T> {
        // SAFETY: once it is made, the value is only read.
        self.once.is_done().then(|| unsafe { &*self.value.get() })
    }

    /// The value, made by `make` if that has not happened. Threads that come at once may all
    /// call `make`, and one result is kept: `make` may wait for the loader, whose lock another
    /// thread may hold that comes here.
    #[inline]
    pub(crate) fn or_make(&self, make: impl FnOnce() -> T) -> &T {
        if !self.once.is_done() {
            let value = make();
            // SAFETY: `once` lets one thread come here, and no thread reads the value yet.
            self.once.call(|| unsafe { *self.value.get() = value });
        }
        // SAFETY: it is not written any more. (Or this thread is a signal handler that
        // interrupted the write itself: it reads what is there, which is `Copy`.)
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

    /// A thread that ends in the midst, as one that is cancelled does.
    #[test]
    #[cfg_attr(miri, ignore = "a thread ends without returning")]
    fn who_waits_for_a_thread_that_is_gone_does_it() {
        extern "C" fn ends_in_the_midst(once: *mut libc::c_void) -> *mut libc::c_void {
            // SAFETY: what the test hands over, which outlives the thread.
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
