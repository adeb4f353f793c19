//! A lock around state that all threads share, and what fork does to it.
//!
//! ```text
//!    OPEN  --- lock --->  HELD  --- another waits --->  WAITED_FOR
//!      ^                    |                               |
//!      +------ open --------+------ open, wake one ---------+
//! ```
//!
//! One word: taking it is one instruction, giving it back another, where the C
//! library's mutex takes 75 for both. A thread that finds it held looks a few
//! times more, for it is held for microseconds, then sleeps in the kernel (futex).
//! No lock is taken on the hit path.
//!
//! # Threads
//!
//! Fork takes every lock, in the order that `fork.rs` states, so that the
//! child finds the state whole. **Tricky:** other libraries' fork handlers may
//! run between that and the fork itself, and may allocate. Their thread holds
//! all locks already; it is let through without taking one again.

use core::ops::Deref;

use super::wait::{self, this_thread};
use crate::sync::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
    spin_loop,
};

/// The thread that holds all locks because it is forking; 0 if none does.
/// Only that thread compares it with itself, so no ordering is needed.
static FORKING: AtomicUsize = AtomicUsize::new(0);

/// How often a request found a lock held by another one, of late.
static WAITS: AtomicUsize = AtomicUsize::new(0);
/// Threads that look after the heap now.
static TENDING: AtomicUsize = AtomicUsize::new(0);

/// How often a request of the program found a lock held by another one since this was
/// forgotten.
#[inline]
pub fn waits() -> usize {
    WAITS.load(Relaxed)
}

/// Counts anew.
pub fn forget_waits() {
    WAITS.store(0, Relaxed);
}

/// That this thread looks after the heap, and does not serve a request: who waits for it
/// meanwhile, or for whom it waits, is not counted.
pub struct Tending(());

impl Tending {
    /// From now on, until this is dropped.
    pub fn begin() -> Tending {
        TENDING.fetch_add(1, Relaxed);
        Tending(())
    }

    /// In a forked child: those who did are not there.
    pub fn forked() {
        TENDING.store(0, Relaxed);
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        TENDING.fetch_sub(1, Relaxed);
    }
}

/// How often a thread looks again before it sleeps.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 100 };

const OPEN: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;

/// `T`, to be touched only by who holds the lock.
pub struct Lock<T> {
    /// Acquire by who takes it, pairs with the Release of who opened it.
    state: AtomicU32,
    value: T,
}

// SAFETY: `value` is reached only through `Held`, by one thread at a time, and
// the state is made for being used by many. `T` itself need not be Send: what
// it holds are cells and references to records that live as long as the
// process, and all of them are reached under this lock.
unsafe impl<T> Sync for Lock<T> {}

/// Proof that the lock is held; gives it back when dropped.
pub struct Held<'a, T> {
    lock: &'a Lock<T>,
    /// Whether it was taken here, and not by this thread's fork.
    taken: bool,
}

impl<T> Lock<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Lock<T> {
        Lock {
            state: AtomicU32::new(OPEN),
            value,
        }
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> Held<'_, T> {
        if self.try_take() {
            Held {
                lock: self,
                taken: true,
            }
        } else {
            self.wait()
        }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<Held<'_, T>> {
        // Not `then_some`: made and dropped in any case, it would open another's lock.
        self.try_take().then(|| Held {
            lock: self,
            taken: true,
        })
    }

    #[inline]
    fn try_take(&self) -> bool {
        self.state
            .compare_exchange(OPEN, HELD, Acquire, Relaxed)
            .is_ok()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) -> Held<'_, T> {
        let taken = !this_thread_forks();
        if taken {
            if TENDING.load(Relaxed) == 0 {
                WAITS.fetch_add(1, Relaxed);
            }
            self.take();
        }
        Held { lock: self, taken }
    }

    fn take(&self) {
        for _ in 0..LOOKS {
            if self.state.load(Relaxed) == OPEN && self.try_take() {
                return;
            }
            spin_loop();
        }
        while self.state.swap(WAITED_FOR, Acquire) != OPEN {
            wait::wait(&self.state, WAITED_FOR);
        }
    }

    #[inline]
    fn open(&self) {
        if self.state.swap(OPEN, Release) == WAITED_FOR {
            wait::wake(&self.state);
        }
    }

    /// Takes the lock for the fork that is about to happen. A thread that forks
    /// holds none of our locks.
    pub fn hold_for_fork(&self) {
        self.take();
    }

    /// What is in it.
    ///
    /// # Safety
    /// This thread holds the lock by `hold_for_fork`.
    pub unsafe fn held(&self) -> &T {
        &self.value
    }

    /// Opens the lock after the fork, in the parent and in the child, where this
    /// thread is the copy of the one that took it.
    pub fn open_after_fork(&self) {
        self.open();
    }
}

/// Whether this thread is in the midst of a fork, and holds all locks.
pub fn this_thread_forks() -> bool {
    FORKING.load(Relaxed) == this_thread()
}

/// Says that this thread now holds all locks for its fork.
pub fn fork_begins() {
    FORKING.store(this_thread(), Relaxed);
}

/// Says that it is about to open them again.
pub fn fork_ends() {
    FORKING.store(0, Relaxed);
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.lock.value
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.taken {
            self.lock.open();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Cell;

    #[test]
    fn one_thread_at_a_time() {
        static COUNT: Lock<Cell<u32>> = Lock::new(Cell::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let count = COUNT.lock();
                        count.set(count.get() + 1);
                    }
                });
            }
        });
        assert_eq!(COUNT.lock().get(), 40_000);
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken_again() {
        static ONE: Lock<()> = Lock::new(());
        let held = ONE.try_lock();
        assert!(held.is_some());
        assert!(ONE.try_lock().is_none());
        assert!(ONE.try_lock().is_none(), "trying does not open it");
        drop(held);
        assert!(ONE.try_lock().is_some());
    }
}
