//! What went below: requests that no pool serves, and blocks that are not
//! ours. Each thread counts for itself, with plain additions; who wants to
//! know sums the threads up (`tcache/registry.rs`).
//!
//! # Threads
//!
//! [`Counters::add`] is for the thread that the counters belongs to, anyone may
//! read. The numbers only ever grow.
#![forbid(unsafe_code)]

use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// A request went below, whatever became of it.
    Asked,
    /// A block came from below that was not there before.
    Made,
    /// A block was given back below.
    Freed,
}

/// How often each has happened.
pub(crate) struct Counters([AtomicUsize; 3]);

/// The sums.
#[derive(Clone, Copy, Default)]
pub(crate) struct CounterSums {
    /// Requests that went below.
    pub asked: usize,
    /// Blocks that came from below.
    pub made: usize,
    /// Blocks that were given back below: some may have come from elsewhere.
    pub freed: usize,
}

impl Counters {
    /// Nothing has happened. (All zero is the same.)
    pub(crate) const fn new() -> Counters {
        Counters([const { AtomicUsize::new(0) }; 3])
    }

    /// Counts, for the one thread that the counters belongs to.
    #[inline]
    pub(crate) fn add(&self, event: Event) {
        let count = &self.0[event as usize];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts, in a counters that belongs to no thread.
    #[cold]
    pub(crate) fn add_shared(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Relaxed);
    }

    /// Adds what was counted so far to `sums`.
    pub(crate) fn sum(&self, sums: &mut CounterSums) {
        let [asked, made, freed] = &self.0;
        sums.asked += asked.load(Relaxed);
        sums.made += made.load(Relaxed);
        sums.freed += freed.load(Relaxed);
    }
}

impl CounterSums {
    /// Blocks from below that are still there, if none was given back that
    /// came from elsewhere. As CPython counts them, it may be negative.
    pub(crate) fn live(&self) -> isize {
        self.made.wrapping_sub(self.freed).cast_signed()
    }
}
