//! Models of what threads do at once, run in every order that loom finds, with every
//! value that a load may return. `make loom` runs them. They run the sources themselves,
//! whose atomics and cells are loom's here (`sync/`); only the kernel's part is played:
//! futex, threads, thread-local words.
//!
//! # What is shared, and why it is right
//!
//! | what | modelled, or held by |
//! |---|---|
//! | `Lock`, `FORKER` | `lock.rs`, the word and the futex calls with it; that the forking thread is asleep, which only makes a fork's lock lent, is up to the model |
//! | `MAP`: leaves, arenas, `start`, entries | `arena/page_map.rs` |
//! | a pool's `home`, against the helper thread's looks | `heap/mod.rs` |
//! | `top`, against a fork (MAGAZINE-4) | `c_tests/fork/anywhere.c`, which stops the built library at each instruction |
//! | the helper thread: `phase`, `id`, `left`, against forks | `helper.rs` |
//! | `REGISTERED`, `READ` | `once.rs` |
//! | `HAPPENED` | a swap: one thread tells; those that see it set have been through `REGISTERED` or see it by Acquire |
//! | pools, buckets, depots | the class's lock; arenas, claims, records: the arenas' |
//! | `THREADS`: records, adoption, generations | its lock; `forked` runs while the child has one thread |
//! | a record's `shard`; `OPEN` | written under `THREADS`. Whoever has a block of a shard has it from a thread that saw it open; who sees less than that looks again (`take_back`) |
//! | `STIRRED` | set before the helper's lock is taken to see whether the thread is there, and looked at under it before that leaves: one of the two sees the other |
//! | `top`, against statistics; `NEXT`, `BACK`, `SINCE`, `WAITS`, `MAINTAINING`, `GREW`, `AT_ONCE`, limits' numbers, cutoffs, counts | each a number of its own: an old value costs a look more or less, and nothing is read on the strength of it |
//! | `ROUTE`, `TELL`, `ASK`, `SIZE` | Release and Acquire around one pointer or number each, to statics |
//! | tables of domains, a program's arena allocator | as CPython has it: before threads, or under the GIL |
//! | settings | plain memory only within `READ` |
//!
//! A fork copies memory page by page, yet what the child sees is of one moment: the kernel
//! makes all pages read-only before it lets a thread go on that wrote to one, so a
//! write that the copy lacks comes after all that it has. Then MAGAZINE-4 is about one thread's
//! instructions, which is what the stepper goes through.
//!
//! # Limits
//!
//! Loom knows of orders that C11 allows, less some that no processor has; more than
//! two threads, or much to do, only with a bound on how often they change places (the
//! number that each model gives). Slots, bits of pools beyond the cells that hold them,
//! and blocks are plain memory to it: that is ThreadSanitizer's part (`make tsan`).

mod address_map;

mod helper;

mod lock;

mod once;

mod purge;

use crate::heap::Heap;
use core::alloc::Layout;

/// A heap of the model's own: all zero, and gone at its end.
struct Own(&'static Heap);

impl Own {
    fn new() -> Own {
        // SAFETY: all zero is a heap without memory.
        Own(unsafe { &*std::alloc::alloc_zeroed(Layout::new::<Heap>()).cast() })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let heap = core::ptr::from_ref(self.0).cast_mut().cast();
        // SAFETY: from there, and the model's threads have ended.
        unsafe { std::alloc::dealloc(heap, Layout::new::<Heap>()) };
    }
}
