//! A table of threads that are doing the same thing at the moment.
//!
//! # Threads
//!
//! Each thread enters and removes itself only. A full table refuses entries.
#![forbid(unsafe_code)]

use super::clock;
use super::wait::{self, this_thread};
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

/// Microseconds between two looks.
const PAUSE: u64 = 200;

/// Up to `N` threads, by [`this_thread`]; 0 for an empty entry.
pub(crate) struct Roster<const N: usize>([AtomicUsize; N]);

impl<const N: usize> Roster<N> {
    /// An empty table.
    pub(crate) const fn new() -> Roster<N> {
        Roster([const { AtomicUsize::new(0) }; N])
    }

    /// Enters this thread. False if the table is full.
    ///
    /// Of two threads that each enter one table and then look into the table that the other one
    /// has entered, at least one finds the other: a `SeqCst` fence follows the store.
    pub(crate) fn enter(&self) -> bool {
        let me = this_thread();
        let is_entered = self
            .0
            .iter()
            .any(|entry| entry.compare_exchange(0, me, Relaxed, Relaxed).is_ok());
        fence(SeqCst);
        is_entered
    }

    /// Removes this thread, if it is there.
    pub(crate) fn leave(&self) {
        let me = this_thread();
        for entry in &self.0 {
            if entry.load(Relaxed) == me {
                entry.store(0, Release);
                return;
            }
        }
    }

    /// Whether this thread is in the table.
    pub(crate) fn has_this_thread(&self) -> bool {
        let me = this_thread();
        self.0.iter().any(|entry| entry.load(Relaxed) == me)
    }

    /// Whether another thread is in the table.
    pub(crate) fn has_others(&self) -> bool {
        let me = this_thread();
        self.0
            .iter()
            .any(|entry| ![0, me].contains(&entry.load(Acquire)))
    }

    /// Waits until no other thread is in the table, at most `patience` nanoseconds.
    pub(crate) fn wait_for_others(&self, patience: u64) {
        if !self.has_others() {
            return;
        }
        let begin = clock::nanoseconds();
        while self.has_others() && clock::nanoseconds().saturating_sub(begin) < patience {
            wait::pause(PAUSE);
        }
    }

    /// In a forked child: removes the threads that the child does not have.
    pub(crate) fn forked(&self) {
        let me = this_thread();
        for entry in &self.0 {
            if ![0, me].contains(&entry.load(Relaxed)) {
                entry.store(0, Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_finds_the_others_and_not_itself() {
        static TABLE: Roster<2> = Roster::new();
        assert!(TABLE.enter() && TABLE.has_this_thread() && !TABLE.has_others());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert!(TABLE.has_others() && !TABLE.has_this_thread());
                assert!(TABLE.enter() && TABLE.has_this_thread());
                assert!(!TABLE.enter(), "it is full");
            });
            other.join().unwrap();
        });
        assert!(TABLE.has_others());
        TABLE.forked();
        assert!(TABLE.has_this_thread() && !TABLE.has_others());
        TABLE.leave();
        assert!(!TABLE.has_this_thread());
    }
}
