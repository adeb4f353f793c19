//! obmalloc: an allocator that takes the place of CPython's.
//!
//! One shared library is preloaded into a stock CPython, or linked into a C
//! program; its static twin takes the place of `obmalloc.o` in a CPython build.
//! It does the work of CPython's layers +1 and +2: arenas cut into
//! pools, pools cut into blocks of one size class, free blocks reused at once,
//! everything larger passed to layer 0.
//!
//! ```text
//!  +3  object-specific caches: int, float, tuple, list, dict    CPython's own
//!         |
//!  +2  PyObject_*   +1  PyMem_*     the host's tables; without a host, or in
//!         |                |        place of its obmalloc.o, ours (domains/)
//!         +-------+--------+
//!                 v
//!  magazines      free blocks of each thread: the hit path, without a lock
//!                 |  refill           ^  flush
//!  depots         of each size class: what one thread hands to the next
//!                 |  take, if empty   ^  give, if full
//!  pools          one size class each; a bit for each block, out of line
//!                 |  take_pool        ^  give_pool
//!  arenas         2 MiB each, the fullest first
//!                 |                   ^
//!  -1  the kernel      mmap, munmap
//!
//!   0  the C library's malloc: large blocks, and blocks of other allocators
//! ```
//!
//! # Folders
//!
//! A folder names only folders above it in this list, and a type's methods are in the file
//! that defines the type, so nothing calls upward but the callbacks below. `tests/order.rs`
//! checks both. `docs/ARCHITECTURE.md` has the way of a block file by file, all locks, all
//! state, and a glossary.
//!
//! | folder | what it is |
//! |---|---|
//! | `sync/` | atomics and cells; loom's in its models |
//! | `base/` | the numbers (`layout`), size classes, CPython's tables (`vtable`), lists, callbacks, the order of the hit path's code |
//! | `os/` | the kernel and the C library: mappings, locks, threads, files, output, the process and its cgroup |
//! | `policy/` | what settings decide: limits, size policy, alignment, huge pages, copy-on-write after a fork |
//! | `pool/` | a pool and its owner, the bitmaps of its blocks and pages, invalid frees |
//! | `arena/` | an arena's record and affinity, chunks of address space, the page map, the set of usable arenas, metadata |
//! | `inspect/` | what CPython's memory shows: a thread's Python lines, an object's type |
//! | `guard/` | sampled blocks beside inaccessible pages |
//! | `profile/` | the heap profile: which allocations are sampled, their stacks and records, pprof's format |
//! | `heap/` | the bin of each class (used pools, depot), batches in and out, purging |
//! | `tcache/` | magazines: the hit path; which thread has which, and its shard (`registry`), counters |
//! | `stats/` | statistics as numbers, JSON and text; the page that other processes read, heap snapshots. The crate `format` has their schema and layout, which the command shares |
//! | `background/` | when free memory is returned (`decay`, `round`), fork handlers, what happens at the first block and at exit |
//! | `object` | malloc, calloc, realloc and free for every size and pointer; the fallback allocator |
//! | `tools/` | the same where guarded blocks, memcheck or AddressSanitizer see each block |
//! | `config` | settings |
//! | `domains/` | RAW, MEM and OBJ with the library's own tables, debug hooks, allocator names |
//! | `cpython/` | the host interpreter: which one, and how it is served |
//! | `capi/` | the exported names, nothing else; the only public module |
//! | `tests/` | tests of several folders, loom's models, and the facade for the model and the fuzzers (`tests::model`); in no release |
//!
//! # A block's journey
//!
//! *`PyObject_Malloc(48)` in a CPython that we serve:*
//!
//! 1. The host's `PyObject_Malloc` calls the function in its table (a debug hook or
//!    tracemalloc may be there), in the end `cpython::install`'s malloc.
//! 2. [`object::malloc`]: 48 is small, a multiple of 16, and that is its class.
//! 3. [`tcache::magazine::current`] reads the thread word;
//!    [`Magazines::pop_small`](tcache::magazine::Magazines::pop_small) takes the block
//!    on top. Done: no lock, no call, no atomic read-modify-write (`make asm`
//!    prints the instructions).
//!
//! *The magazine is empty:*
//!
//! 4. `object::miss`; a thread that has no magazines gets some
//!    (`tcache::registry::current`); [`Magazines::refill`](tcache::magazine::Magazines::refill).
//! 5. [`Heap::refill`](heap::Heap::refill): a batch of blocks that another thread freed, if
//!    the class's depot has one. Else [`Heap::take`](heap::Heap::take), under the class's lock
//!    in the thread's shard: free blocks of the fullest used pools, in each the lowest
//!    addresses first ([`Pool::take`](pool::Pool::take)).
//! 6. No used pool: [`Arenas::take_pool`](arena::set::Arenas::take_pool), under the arenas'
//!    lock, an empty pool of the fullest arena that has one; for a class with many pools, of
//!    the arena that it has an affinity to.
//! 7. No such arena: 2 MiB from the kernel or a program's own arena allocator
//!    ([`Chunk::take`](arena::chunk::Chunk::take)), with no lock held, entered in the page
//!    map. If the kernel refuses, nothing has changed, and the fallback allocator serves the
//!    request.
//!
//! *`PyObject_Free(p)`:*
//!
//! 1. `PageMap::find_near`: one lookup says whether `p` is in a pool, and of which class.
//!    If not, the fallback allocator frees it.
//! 2. [`Magazines::push`](tcache::magazine::Magazines::push). Done.
//! 3. The magazine is full: [`Magazines::flush`](tcache::magazine::Magazines::flush)
//!    flushes its older batch, [`Heap::flush`](heap::Heap::flush): to the depot. From
//!    there, when it is full, to the pools of their shard: [`Heap::give`](heap::Heap::give),
//!    [`Pool::give`](pool::Pool::give): a bit each.
//! 4. A pool's last block is free: the pool is returned to its arena
//!    ([`Arenas::give_pool`](arena::set::Arenas::give_pool)). A wholly empty arena
//!    is kept for the next peak, and returned to the kernel by time.
//! 5. Some blocks of a page are free, then all: when they have been for a while, a second at
//!    most, the page is returned ([`Heap::purge_next`](heap::Heap::purge_next), called by
//!    [`background::decay`]); the pool stays as it is.
//!
//! # Callbacks
//!
//! | slot | set by | called when |
//! |---|---|---|
//! | `arena::chunk` `ON_ARENA_ADDED` | `cpython`, for `PYTHONMALLOCSTATS` | an arena was added |
//! | `tcache::registry` `ON_THREAD_EXIT` | `background::init` | a thread with magazines has ended |
//! | `background::init` `FIRST_USE` | `cpython::attach` | the first block is allocated |
//! | `stats::page` `HOST` | `cpython::state` | the host's version is written to the page |
//! | `cpython::builtin` `CHANGED` | `cpython::dispatch` | the own tables were changed |
//!
//! # State
//!
//! Nothing needs to be initialised: every static starts in a state that works, so a call
//! before our constructor is right. What most processes do not need is `arena::metadata`,
//! mapped when it is: a process that inherits the library and never calls it pays for 284 KiB of
//! addresses, 56 of them writable. Large statics that are touched page by page share a section,
//! `.bss.tables`: between them each small one would bring a page. `docs/ARCHITECTURE.md`
//! lists all of them, and the order of locks.
#![no_std]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "this page is the map of the sources, of which only the C names are public"
)]

#[cfg(any(test, panic = "unwind", feature = "model"))]
extern crate std;

mod sync;

mod base;

mod os;

mod policy;

mod pool;

mod arena;

mod inspect;

mod guard;

mod profile;

mod heap;

mod tcache;

mod stats;

mod background;

mod object;

mod tools;

mod config;

mod domains;

mod cpython;

pub mod capi;

#[cfg(any(test, feature = "model"))]
pub mod tests;
