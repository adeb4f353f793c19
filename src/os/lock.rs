//! A lock around state that all threads share, and what fork does to it.
//!
//! The mutex is the C library's: it needs no initialisation, allocates
//! nothing, and valgrind and the sanitizers know it. No lock is taken on the
//! hit path.
//!
//! # Threads
//!
//! Fork takes every lock, in the order that `fork.rs` states, so that the
//! child finds the state whole. **Tricky:** other libraries' fork handlers may
//! run between that and the fork itself, and may allocate. Their thread holds
//! all locks already; it is let through without taking one again.

use core::cell::UnsafeCell;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The thread that holds all locks because it is forking; 0 if none does.
/// Only that thread compares it with itself, so no ordering is needed.
static FORKING: AtomicUsize = AtomicUsize::new(0);

fn this_thread() -> usize {
    // SAFETY: a question without conditions.
    unsafe { libc::pthread_self() as usize }
}

/// `T`, to be touched only by who holds the lock.
pub struct Lock<T> {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    value: T,
}

// SAFETY: `value` is reached only through `Held`, by one thread at a time, and
// the mutex is made for being used by many. `T` itself need not be Send: what
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
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            value,
        }
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> Held<'_, T> {
        // SAFETY: the mutex was initialised by its constant and never moves
        // while it is shared.
        let free = unsafe { libc::pthread_mutex_trylock(self.mutex.get()) } == 0;
        if free {
            Held {
                lock: self,
                taken: true,
            }
        } else {
            self.wait()
        }
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) -> Held<'_, T> {
        let taken = !this_thread_forks();
        if taken {
            // SAFETY: as in `lock`; this thread does not hold it.
            unsafe { libc::pthread_mutex_lock(self.mutex.get()) };
        }
        Held { lock: self, taken }
    }

    /// Takes the lock for the fork that is about to happen.
    pub fn hold_for_fork(&self) {
        // SAFETY: as in `lock`; a thread that forks holds none of our locks.
        unsafe { libc::pthread_mutex_lock(self.mutex.get()) };
    }

    /// What is in it.
    ///
    /// # Safety
    /// This thread holds the lock by `hold_for_fork`.
    pub unsafe fn held(&self) -> &T {
        &self.value
    }

    /// Opens the lock after the fork, in the parent and in the child.
    pub fn open_after_fork(&self) {
        // SAFETY: taken by this thread in `hold_for_fork`; in the child this
        // thread is its copy, and a plain mutex does not ask who opens it.
        unsafe { libc::pthread_mutex_unlock(self.mutex.get()) };
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
            // SAFETY: this guard took it.
            unsafe { libc::pthread_mutex_unlock(self.lock.mutex.get()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

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
}
