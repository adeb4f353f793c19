//! Models of concurrent threads, run in every order that loom finds, with every value that a load may
//! return. They run the sources themselves, with loom's atomics and cells (`sync/`); only the
//! kernel's part is simulated: futex, threads, thread-local words.
//!
//! `docs/memory-order.md` has all shared words, the reason why each access is ordered as it is, and
//! the model of each pair. `top`, against a fork (MAGAZINE-4), has none: `c_tests/fork/anywhere.c`
//! stops the built library at each instruction.
//!
//! # Limits
//!
//! Loom tries the orders that C11 allows, except some that no processor has; with more than two
//! threads, or long models, only with a bound on preemptions (the number in each model). Slots, bits
//! of pools within their cells, and blocks are plain memory to it: ThreadSanitizer covers these.

mod callback;

mod depot;

mod helper;

mod lock;

mod once;

mod page_map;

mod purge;

mod roster;

mod sequence;

use crate::heap::Heap;
use core::alloc::Layout;

/// A heap of the model's own, unmapped at its end.
struct Own(&'static Heap);

impl Own {
    fn new() -> Own {
        // SAFETY: zeroed memory is a heap without arenas.
        Own(unsafe { &*std::alloc::alloc_zeroed(Layout::new::<Heap>()).cast() })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let heap = core::ptr::from_ref(self.0).cast_mut().cast();
        // SAFETY: mapped above, and the model's threads have ended.
        unsafe { std::alloc::dealloc(heap, Layout::new::<Heap>()) };
    }
}
