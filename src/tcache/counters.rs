//! Counts of the requests that the fallback allocator served. Each thread counts its own with
//! plain additions; `registry::totals` adds the threads up.
//!
//! # Threads
//!
//! [`Counters::add`] is for the thread that owns the counters; any thread may read. The numbers
//! only grow.
#![forbid(unsafe_code)]

use crate::sync::{AtomicUsize, Ordering::Relaxed};

#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// A request was passed on, whether it succeeded or not.
    Request,
    /// A new block was allocated.
    Alloc,
    /// A block was freed.
    Free,
}

/// How often each event has happened. All zero is the start.
pub(crate) struct Counters([AtomicUsize; 3]);

#[derive(Clone, Copy, Default)]
pub(crate) struct CounterSums {
    pub requests: usize,
    pub allocs: usize,
    /// Some of these blocks may have been allocated elsewhere.
    pub frees: usize,
}

impl Counters {
    pub(crate) const fn new() -> Counters {
        Counters([const { AtomicUsize::new(0) }; 3])
    }

    /// Counts an event of the thread that owns these counters.
    #[inline]
    pub(crate) fn add(&self, event: Event) {
        let count = &self.0[event as usize];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts an event in counters that several threads share.
    #[cold]
    pub(crate) fn add_shared(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Relaxed);
    }

    /// Adds these counts to `sums`.
    pub(crate) fn add_to(&self, sums: &mut CounterSums) {
        let [requests, allocs, frees] = &self.0;
        sums.requests += requests.load(Relaxed);
        sums.allocs += allocs.load(Relaxed);
        sums.frees += frees.load(Relaxed);
    }
}

impl CounterSums {
    /// Live blocks of the fallback allocator, if none was freed that was allocated elsewhere.
    /// Negative otherwise, as in CPython's own count.
    pub(crate) fn live(&self) -> isize {
        self.allocs.wrapping_sub(self.frees).cast_signed()
    }
}
