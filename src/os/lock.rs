//! A lock around state that all threads share, and what fork does to it.
//!
//! ```text
//!             take                          a fork of the owner's takes it
//!    OPEN ----------> owner        OPEN ------------------> owner + FORK
//!      ^               |             ^                        |      ^
//!      +---- open -----+             +---- open after fork ---+      |  given back, while
//!      |                                         borrow       |      |  the fork goes on
//!      +---- given back, when the fork is over ---- borrower + FORK + LENT
//! ```
//!
//! One word: the owner's thread pointer, and flags in its low bits. Taking the lock is one
//! atomic instruction, giving it back another, where the C library's mutex takes 75
//! instructions for both. A thread that finds it held looks a few times more, for it is
//! held for microseconds, then sleeps in the kernel (futex) and sets CONTENDED, by which
//! the owner knows that it is to wake somebody. No lock is taken on the hit path.
//!
//! # Fork
//!
//! Fork takes every lock, in the order that `background/fork.rs` states, so that the child finds the
//! state whole. The word says whose each lock is, which four cases need:
//!
//! - Other libraries' fork handlers run while the fork holds the locks, and may allocate.
//!   Their thread is let through without taking a lock again.
//! - A signal handler may fork that interrupted its own thread in the midst of an
//!   allocation. What the thread holds stays as it is: the interrupted code goes on with
//!   it, in the parent and in the child.
//! - Such a fork cannot wait for ever for the other threads, which may wait for what its
//!   own thread holds. Locks that it did not get belong to threads that the child does not
//!   have: there they are POISONED, and whoever takes one ends the child with a line that
//!   says why. A half changed heap is never used.
//! - Other libraries' handlers may wait for threads of theirs to end, which need a lock
//!   first. A thread that waits for a lock of a fork borrows it when the forking thread has
//!   not run for a while ([`Patience`]), and gives it back. If the process is copied in
//!   between, the child sees a lock of another thread: POISONED.

use core::ops::Deref;

use super::clock;
use super::forker::Patience;
use super::text;
use super::wait::{self, this_thread};
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
    spin_loop,
};

/// How often a request found a lock held by another one, of late.
static WAITS: AtomicUsize = AtomicUsize::new(0);
/// Threads that look after the heap now.
static MAINTAINING: AtomicUsize = AtomicUsize::new(0);

/// How often a request of the program found a lock held by another one since this was
/// forgotten.
#[inline]
pub(crate) fn waits() -> usize {
    WAITS.load(Relaxed)
}

/// Counts anew.
pub(crate) fn forget_waits() {
    WAITS.store(0, Relaxed);
}

/// That this thread looks after the heap, and does not serve a request: who waits for it
/// meanwhile, or for whom it waits, is not counted.
pub(crate) struct MaintenanceScope(());

impl MaintenanceScope {
    /// From now on, until this is dropped.
    pub(crate) fn begin() -> MaintenanceScope {
        MAINTAINING.fetch_add(1, Relaxed);
        MaintenanceScope(())
    }

    /// In a forked child: those who did are not there.
    pub(crate) fn forked() {
        MAINTAINING.store(0, Relaxed);
    }
}

impl Drop for MaintenanceScope {
    fn drop(&mut self) {
        MAINTAINING.fetch_sub(1, Relaxed);
    }
}

/// How often a thread looks again before it sleeps.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 100 };

/// Microseconds after which a thread that sleeps on a lock looks again: a fork may have
/// begun meanwhile, whose locks can be borrowed.
const SLEEP: u64 = 5_000;

const OPEN: usize = 0;
/// Somebody sleeps on the lock.
const CONTENDED: usize = 1;
/// It was taken for a fork, which is under way.
const FORK: usize = 2;
/// Its owner has borrowed it from a fork.
const LENT: usize = 4;
const FLAGS: usize = CONTENDED | FORK | LENT;
/// In a forked child: it was held by a thread that does not exist there.
const POISONED: usize = 1 << (usize::BITS - 1);

/// The part of a lock that says whose it is.
pub(crate) struct Word(AtomicUsize);

/// `T`, to be touched only by who holds the lock.
pub(crate) struct Lock<T> {
    /// Acquire by who takes it, pairs with the Release of who opened it.
    word: Word,
    value: T,
}

// SAFETY: `value` is reached only through `LockGuard`, by one thread at a time, and
// the word is made for being used by many. `T` itself need not be Send: what
// it holds are cells and references to records that live as long as the
// process, and all of them are reached under this lock.
unsafe impl<T> Sync for Lock<T> {}

/// Whose the lock was before it was taken: nobody's.
const NOBODYS: usize = 0;
/// Its own thread's fork holds it, and goes on holding it.
const PASSED: usize = 1;

/// Proof that the lock is held; gives it back when dropped.
pub(crate) struct LockGuard<'a, T> {
    lock: &'a Lock<T>,
    /// [`NOBODYS`], [`PASSED`], or the word of the fork that it is borrowed from.
    lender: usize,
}

impl<T> Lock<T> {
    /// An open lock around `value`.
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock {
            word: Word(AtomicUsize::new(OPEN)),
            value,
        }
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub(crate) fn lock(&self) -> LockGuard<'_, T> {
        let lender = if self.word.take() {
            NOBODYS
        } else {
            self.word.wait()
        };
        LockGuard { lock: self, lender }
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        // Not `then_some`: made and dropped in any case, it would open another's lock.
        self.word.take().then(|| LockGuard {
            lock: self,
            lender: NOBODYS,
        })
    }

    /// The word, for forks.
    pub(crate) fn word(&self) -> &Word {
        &self.word
    }

    /// What is in it, if this thread's fork holds the lock.
    pub(crate) fn of_fork(&self) -> Option<&T> {
        self.word.is_of_my_fork().then_some(&self.value)
    }
}

/// The thread that a word names.
fn owner(word: usize) -> usize {
    word & !FLAGS
}

impl Word {
    #[inline]
    fn take(&self) -> bool {
        self.0
            .compare_exchange(OPEN, this_thread(), Acquire, Relaxed)
            .is_ok()
    }

    #[inline]
    fn open(&self, lender: usize) {
        let change = |from| self.0.compare_exchange(from, OPEN, Release, Relaxed);
        if lender != NOBODYS || change(this_thread()).is_err() {
            self.give_back(lender);
        }
    }

    /// Opens the lock, wakes one that waits for it, and gives it back to its lender if that
    /// still forks.
    #[cold]
    #[inline(never)]
    fn give_back(&self, lender: usize) {
        if lender == PASSED {
            return;
        }
        let next = |word: usize| match lender {
            NOBODYS => OPEN,
            _ if word & FORK == 0 => OPEN, // the fork is over
            lender => lender | word & CONTENDED,
        };
        self.change(|word| Some(next(word)));
    }

    /// Changes the word with Release, and wakes one that waits if the lock is open then.
    fn change(&self, next: impl Fn(usize) -> Option<usize>) {
        let mut word = self.0.load(Relaxed);
        while let Some(new) = next(word) {
            match self.0.compare_exchange(word, new, Release, Relaxed) {
                Ok(_) if new == OPEN && word & CONTENDED != 0 => {
                    return wait::wake_word(&self.0);
                }
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Waits for the lock. Returns the lender.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> usize {
        if self.is_of_my_fork() {
            return PASSED;
        }
        if self.is_mine() {
            text::fatal(format_args!(
                "a signal handler allocates or frees in a thread that it interrupted in the midst of an allocation, which no malloc allows"
            ));
        }
        if MAINTAINING.load(Relaxed) == 0 {
            WAITS.fetch_add(1, Relaxed);
        }
        for _ in 0..LOOKS {
            if self.0.load(Relaxed) == OPEN && self.take() {
                return NOBODYS;
            }
            spin_loop();
        }
        let me = this_thread();
        let mut patience = Patience::begin();
        loop {
            let word = self.0.load(Relaxed);
            if word & POISONED != 0 {
                text::fatal(format_args!(
                    "this child was forked in the midst of another thread's allocation, by a signal handler or beside fork handlers that wait for threads: it may not allocate before it calls exec"
                ));
            }
            // A lock of this thread's own fork that has come back from who borrowed it.
            if self.is_of_my_fork() {
                return PASSED;
            }
            let (next, lender) = if word == OPEN {
                // Others may sleep, too.
                (me | CONTENDED, NOBODYS)
            } else if word & (FORK | LENT) == FORK && patience.is_spent(owner(word)) {
                (me | FORK | LENT | word & CONTENDED, word & !CONTENDED)
            } else {
                self.sleep(word, SLEEP);
                continue;
            };
            if self
                .0
                .compare_exchange(word, next, Acquire, Relaxed)
                .is_ok()
            {
                return lender;
            }
        }
    }

    /// Sleeps while the word is `word`, a held lock's, for so many microseconds.
    fn sleep(&self, word: usize, microseconds: u64) {
        // In models time is up at once where the forking thread is found asleep, else never.
        #[cfg(all(test, loom))]
        if super::forker::SLEEPS.get() {
            return wait::pause(0);
        }
        let contended = word | CONTENDED;
        if word == contended
            || self
                .0
                .compare_exchange(word, contended, Relaxed, Relaxed)
                .is_ok()
        {
            wait::wait_word(&self.0, contended, microseconds);
        }
    }

    /// Whether this thread holds the lock, and not by its fork.
    pub(crate) fn is_mine(&self) -> bool {
        let word = self.0.load(Relaxed);
        owner(word) == this_thread() && (word & FORK == 0 || word & LENT != 0)
    }

    fn is_of_my_fork(&self) -> bool {
        self.0.load(Relaxed) & !CONTENDED == this_thread() | FORK
    }

    /// Takes the lock for this thread's fork, unless the thread holds it already, and waits
    /// for it until `until` (nanoseconds of the clock). False if it could not be had.
    pub(crate) fn take_for_fork(&self, until: u64) -> bool {
        let me = this_thread();
        for looks in 0.. {
            let word = self.0.load(Relaxed);
            if owner(word) == me || word & POISONED != 0 {
                return true;
            }
            if word == OPEN {
                // CONTENDED: others may sleep since a moment ago, whom nobody else wakes.
                let flags = if looks == 0 { FORK } else { FORK | CONTENDED };
                let taken = self.0.compare_exchange(OPEN, me | flags, Acquire, Relaxed);
                if taken.is_ok() {
                    return true;
                }
            } else if looks < LOOKS {
                spin_loop();
            } else {
                let left = until.saturating_sub(clock::nanoseconds()) / 1000;
                if left == 0 {
                    return false;
                }
                self.sleep(word, left.min(SLEEP));
            }
        }
        false
    }

    /// Opens the lock if this thread's fork holds it, after the fork or where it gives up.
    /// Who has borrowed it opens it later.
    pub(crate) fn unlock_after_fork(&self) {
        let me = this_thread();
        self.change(|word| match word & (FORK | LENT) {
            FORK if owner(word) == me => Some(OPEN),
            both if both == FORK | LENT => Some(word & !FORK),
            _ => None,
        });
    }

    /// In a forked child: what other threads held is poisoned.
    pub(crate) fn forked(&self) {
        let word = self.0.load(Relaxed);
        let now = match owner(word) {
            0 => OPEN,
            owner if owner != this_thread() => POISONED,
            // Borrowed from a thread that is not there.
            owner if word & LENT != 0 => owner,
            owner => owner | word & FORK,
        };
        if now != word {
            self.0.store(now, Relaxed);
        }
    }
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.lock.value
    }
}

impl<T> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.word.open(self.lender);
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

    #[test]
    fn in_a_forked_child_what_another_thread_held_is_poisoned() {
        let (me, other) = (this_thread(), this_thread() + (FLAGS + 1));
        for (before, after) in [
            (OPEN, OPEN),
            (other, POISONED),
            (other | CONTENDED, POISONED),
            (other | FORK, POISONED),
            (other | FORK | LENT | CONTENDED, POISONED),
            (POISONED, POISONED),
            (me, me),
            (me | CONTENDED, me),
            (me | FORK | CONTENDED, me | FORK),
        ] {
            let lock = Lock::new(());
            lock.word.0.store(before, Relaxed);
            lock.word.forked();
            assert_eq!(lock.word.0.load(Relaxed), after, "{before:#x}");
            let is_open = after == OPEN;
            assert_eq!(lock.try_lock().is_some(), is_open, "{before:#x}");
            let is_the_forks = after == me | FORK;
            assert_eq!(lock.of_fork().is_some(), is_the_forks, "{before:#x}");
        }
    }

    /// The thread that goes on in the child had borrowed it from a fork of another thread's.
    #[test]
    fn in_a_forked_child_a_borrowed_lock_is_opened_when_it_is_given_back() {
        let lock = Lock::new(());
        let (me, other) = (this_thread(), this_thread() + (FLAGS + 1));
        lock.word.0.store(me | FORK | LENT, Relaxed);
        let held = LockGuard {
            lock: &lock,
            lender: other | FORK,
        };
        lock.word.forked();
        assert!(lock.word.is_mine() && lock.try_lock().is_none());
        drop(held);
        assert!(lock.try_lock().is_some());
    }
}
