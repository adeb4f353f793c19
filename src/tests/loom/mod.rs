//! Models of concurrent threads, run in every order that loom finds, with every value that a load may
//! return. They run the sources themselves, with loom's atomics and cells (`sync/`); only the
//! kernel's part is simulated: futex, threads, thread-local words.
//!
//! # Shared state, and why it is right
//!
//! | state | model, or reason |
//! |---|---|
//! | `Lock`, `FORKER` | `lock.rs`, the word and its futex calls; the model decides whether the forking thread is asleep, which only lends a fork's lock |
//! | `MAP`: leaves, arenas, `start`, entries | `page_map.rs` |
//! | a pool's owner, against the helper thread's reads | `purge.rs` |
//! | `top`, against a fork (MAGAZINE-4) | `c_tests/fork/anywhere.c`, which stops the built library at each instruction |
//! | the helper thread: `phase`, `id`, `left`, against forks | `helper.rs` |
//! | `REGISTERED`, `READ` | `once.rs` |
//! | `HAPPENED` | a swap: one thread runs the callback; threads that see it set have passed `REGISTERED`, or see it by Acquire |
//! | pools, buckets, depots | the class's lock; arenas, affinities, records: the arenas' lock |
//! | `REGISTRY`: records, adoption, generations | its lock; `forked` runs while the child has one thread |
//! | a record's `shard`; `OPEN_SHARDS` | written under `REGISTRY`. A thread has a block of a shard from a thread that saw the shard open; a thread that sees an older value reads it again under the lock (`give_keeping_arenas`) |
//! | `STIRRED` | set before the helper's lock is taken to check for the thread, and read under the lock before the thread leaves: one of the two sees the other |
//! | `top`, against statistics; `NEXT`, `BACK`, `SINCE`, `WAITS`, `MAINTAINING`, `GREW`, `AT_ONCE`, the numbers of limits and of the size policy, counters | independent numbers: an old value costs a check more or less, and no other read depends on it |
//! | `ROUTE`, callbacks, `ASK`, `SIZE` | Release and Acquire around one pointer or number each, to statics |
//! | tables of domains, a program's arena allocator | CPython's rule: before threads, or under the GIL |
//! | settings | plain memory within `READ` only |
//!
//! A fork copies memory page by page, but the child's copy is of one moment: the kernel makes all
//! pages read-only before a thread that wrote to one continues, so a write that is missing in the copy
//! comes after all writes in it. Then MAGAZINE-4 is about the instructions of one thread, which the
//! stepper tries.
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
