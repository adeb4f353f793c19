//! A lock around state that all threads share, and what a fork does to it.
//!
//! ```text
//!             take                          a fork of the owner takes it
//!    OPEN ----------> owner        OPEN ------------------> owner + FORK
//!      ^               |             ^                        |      ^
//!      +---- open -----+             +---- open after fork ---+      |  returned while the
//!      |                                         borrow       |      |  fork is under way
//!      +---- returned after the fork -------------- borrower + FORK + LENT
//! ```
//!
//! One word: the owner's thread pointer, with flags in its low bits. One atomic instruction takes
//! the lock and another opens it; the C library's mutex takes 75 instructions for both. A thread
//! that finds the lock held spins for a moment, since locks are held for microseconds, then sleeps
//! in the kernel (futex) and sets CONTENDED, so that the owner wakes a thread. The hit path takes
//! no lock.
//!
//! # Fork
//!
//! A fork takes every lock, in the order that `background/fork.rs` states, so that the child finds
//! the state whole. The word names the owner, which four cases need:
//!
//! - Fork handlers of other libraries run while the fork holds the locks, and may allocate. Their
//!   thread enters a lock that its fork holds, and nobody borrows the lock until it has left.
//! - A signal handler may fork that interrupted its own thread in an allocation. The locks that
//!   the thread holds stay held: the interrupted code continues, in the parent and in the child.
//! - This fork cannot wait without limit for the other threads, which may wait for a lock that its
//!   own thread holds. Locks that it did not get belong to threads that the child does not have:
//!   there they are POISONED, and a thread that takes one ends the child with a line that says why.
//!   A half changed heap is never used.
//! - Handlers of other libraries may wait for threads of theirs to end, which need a lock first. A
//!   thread that waits for a lock of a fork borrows it when the forking thread has not run for a
//!   while ([`Patience`]), and returns it. If the process is copied in between, the child sees a
//!   lock of another thread: POISONED.

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

/// Requests that found a lock held by another thread, since [`forget_waits`].
static WAITS: AtomicUsize = AtomicUsize::new(0);
/// Threads in a [`MaintenanceScope`].
static MAINTAINING: AtomicUsize = AtomicUsize::new(0);

/// Requests of the program that found a lock held by another thread, since [`forget_waits`].
#[inline]
pub(crate) fn waits() -> usize {
    WAITS.load(Relaxed)
}

/// Sets the count to 0.
pub(crate) fn forget_waits() {
    WAITS.store(0, Relaxed);
}

/// Marks background maintenance, until it is dropped: its lock contention is not counted.
pub(crate) struct MaintenanceScope(());

impl MaintenanceScope {
    pub(crate) fn begin() -> MaintenanceScope {
        MAINTAINING.fetch_add(1, Relaxed);
        MaintenanceScope(())
    }

    /// In a forked child: the other threads are gone.
    pub(crate) fn forked() {
        MAINTAINING.store(0, Relaxed);
    }
}

impl Drop for MaintenanceScope {
    fn drop(&mut self) {
        MAINTAINING.fetch_sub(1, Relaxed);
    }
}

/// Times that a thread reads the word before it sleeps.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 100 };

/// Maximum microseconds of one sleep: a fork may have begun since, whose locks can be borrowed.
const SLEEP: u64 = 5_000;

const OPEN: usize = 0;
/// A thread sleeps on the lock.
const CONTENDED: usize = 1;
/// A fork took it, and is under way.
const FORK: usize = 2;
/// The owner borrowed it from a fork.
const LENT: usize = 4;
/// The forking thread itself uses what the lock guards: nobody may borrow it meanwhile.
const ENTERED: usize = 1 << (usize::BITS - 2);
const FLAGS: usize = CONTENDED | FORK | LENT | ENTERED;
/// In a forked child: a thread held it that the child does not have.
const POISONED: usize = 1 << (usize::BITS - 1);

/// The word of a lock.
pub(crate) struct Word(AtomicUsize);

/// `T`, which only the owner of the lock reaches.
pub(crate) struct Lock<T> {
    /// Acquire to take, borrow or enter it; pairs with the Release that opened, returned or left it
    /// before. (A fork takes it with Acquire only. That keeps the release sequence of the
    /// thread that opened it, for a borrower.)
    word: Word,
    value: T,
}

// SAFETY: `value` is reached only through `LockGuard`, by one thread at a time, and
// the word is an atomic. `T` need not be Send: it holds cells, and references to records that
// live as long as the process and are reached under this lock only.
unsafe impl<T> Sync for Lock<T> {}

/// The lender of a lock that was open.
const NOBODYS: usize = 0;
/// The lender of a lock that this thread's fork holds before and after.
const OWN_FORK: usize = 1;

/// Proof that the lock is held; opens it when dropped.
pub(crate) struct LockGuard<'a, T> {
    lock: &'a Lock<T>,
    /// [`NOBODYS`], [`OWN_FORK`], or the word of the fork that lent it.
    lender: usize,
}

impl<T> Lock<T> {
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

    /// Takes the lock if it is open.
    pub(crate) fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        // Not `then_some`: its argument is dropped when the lock was not taken, which would open it.
        self.word.take().then(|| LockGuard {
            lock: self,
            lender: NOBODYS,
        })
    }

    /// The word, for forks.
    pub(crate) fn word(&self) -> &Word {
        &self.word
    }

    /// The value, if this thread's fork holds the lock.
    pub(crate) fn of_fork(&self) -> Option<&T> {
        self.word.is_of_my_fork().then_some(&self.value)
    }
}

/// The owner in a word.
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

    /// Opens the lock and wakes a thread that waits for it; or returns it to its lender, if that
    /// fork is under way.
    #[cold]
    #[inline(never)]
    fn give_back(&self, lender: usize) {
        if lender == OWN_FORK {
            return self.leave();
        }
        let next = |word: usize| match lender {
            NOBODYS => OPEN,
            _ if word & FORK == 0 => OPEN, // the fork is over
            lender => lender | word & CONTENDED,
        };
        self.change(|word| Some(next(word)));
    }

    /// Changes the word with Release, and wakes a waiting thread if the lock is open then.
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
        if self.enter() {
            return OWN_FORK;
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
            // A lock of this thread's own fork, returned by its borrower.
            if self.enter() {
                return OWN_FORK;
            }
            let (next, lender) = if word == OPEN {
                // Other threads may sleep, too.
                (me | CONTENDED, NOBODYS)
            } else if word & (FORK | LENT | ENTERED) == FORK && patience.is_spent(owner(word)) {
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

    /// Sleeps while the word is `word`, that of a held lock, at most `microseconds`.
    fn sleep(&self, word: usize, microseconds: u64) {
        // In models the time is over at once if the forking thread is asleep, else never.
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

    /// Whether this thread is between [`Lock::lock`] and the end of the guard.
    pub(crate) fn is_mine(&self) -> bool {
        let word = self.0.load(Relaxed);
        owner(word) == this_thread() && word & (FORK | LENT | ENTERED) != FORK
    }

    /// Whether this thread's fork holds the lock, and this thread is not between `lock` and the end
    /// of the guard. Acquire: a borrower may have returned the lock.
    fn is_of_my_fork(&self) -> bool {
        self.0.load(Acquire) & !CONTENDED == this_thread() | FORK
    }

    /// Enters the lock, if this thread's fork holds it. Acquire: a borrower may have returned it.
    fn enter(&self) -> bool {
        let enter = |word| {
            let is_of_my_fork = word & !CONTENDED == this_thread() | FORK;
            is_of_my_fork.then_some(word | ENTERED)
        };
        self.0.fetch_update(Acquire, Relaxed, enter).is_ok()
    }

    /// Leaves the lock that this thread has entered. Release: a thread may borrow it next.
    fn leave(&self) {
        let is_entered = |word| owner(word) == this_thread() && word & ENTERED != 0;
        self.change(|word| is_entered(word).then_some(word & !ENTERED));
    }

    /// Takes the lock for this thread's fork, unless the thread holds it already. Waits until
    /// `until` (nanoseconds of the clock). False if another thread still holds it then.
    pub(crate) fn take_for_fork(&self, until: u64) -> bool {
        let me = this_thread();
        for looks in 0.. {
            let word = self.0.load(Relaxed);
            if owner(word) == me || word & POISONED != 0 {
                return true;
            }
            if word == OPEN {
                // CONTENDED: threads may have begun to sleep, which only this owner wakes.
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

    /// Opens the lock if this thread's fork holds it, after the fork or when it gives up. A
    /// borrower opens it later.
    pub(crate) fn unlock_after_fork(&self) {
        let me = this_thread();
        self.change(|word| match word & (FORK | LENT) {
            FORK if owner(word) == me => Some(OPEN),
            both if both == FORK | LENT => Some(word & !FORK),
            _ => None,
        });
    }

    /// In a forked child: poisons the lock if another thread held it.
    pub(crate) fn forked(&self) {
        let word = self.0.load(Relaxed);
        let now = match owner(word) {
            0 => OPEN,
            owner if owner != this_thread() => POISONED,
            // Borrowed from a thread that the child does not have.
            owner if word & LENT != 0 => owner,
            owner => owner | word & (FORK | ENTERED),
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
            (me | FORK | ENTERED | CONTENDED, me | FORK | ENTERED),
            (other | FORK | ENTERED, POISONED),
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

    /// The thread that continues in the child had borrowed it from another thread's fork.
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
