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
//!   0  the C library's malloc: large blocks, and blocks that are not ours
//! ```
//!
//! # The floors
//!
//! A file names only files above it in this list; a test checks it
//! (`tests/order.rs`). So the list, from the top, is an order to read in.
//!
//! | floor | files |
//! |---|---|
//! | words | `sync` what threads share is made of, `hot` where the hit path's code lies, `geometry` the numbers, `size_class` requests and blocks, `allocator` CPython's tables, `list`, `counters`, `listener` what a file above leaves to be called |
//! | system | `os/`: (`faults` for the model, `interpreted` for Miri,) mappings, writes that raise no signal, which files stdout and stderr were at start, lines of text, clocks, names that may be there, threads and how they wait, what is done once, whether Valgrind watches, files read apart from the program's descriptors, which thread forks, locks, helper threads, the thread word, the environment, names that may be there, errno and cancellation, the clock, helper threads, files that are written whole, the setting of huge pages, memory shared with others, the process and its cgroup |
//! | pools and arenas | `limits` of the process's memory, `inherited` what a forked child leaves alone, `pages` of a pool, `huge_pages`, `shard` who shares pools with whom, `affinity` which classes have arenas of their own, `block_bits`, `pool`, `pool_blocks`, `pool_pages`, `refusal` when the kernel is not asked again, `metadata` memory for what is kept, `arena_source` where arenas come from, `arena` and its record, `records` all of them, `near` the pools around the first arena, `granule` which arena is at 2 MiB of addresses, `address_map` what lies where, `arenas` which gives, `depot` between threads and pools, `used_pools` which gives, `cutoff` up to which size pools serve, `packing` which domains are aligned to 8 bytes, `invalid_free` what is said of wrong frees, `pool_mistakes` which they are, `guard/` sampled blocks beside pages that nobody can access, `heap` all of it, `supply` of blocks, `counts`, `exchange` with the threads, `purge` what goes back |
//! | threads | `magazine` the hit path, `magazines` of all classes, `mine` those of the calling thread, `threads` who has some, `check` all of it for tests, `stats` what all of it holds, `live/` the same for other processes to look at, and the heap page by page, `round` over all pools, `decay` when free memory goes back, `fork`, `first_use` |
//! | object allocator | `below` what no pool serves, `object` malloc, calloc and free for every size and pointer, `realloc`, `watch/` the same where guarded blocks or a tool ask for each |
//! | around it | `config`, statistics written down by `stats_json`, `stats_text` and `stats_table`, `at_exit` |
//! | domains | `domains/`: RAW, MEM and OBJ with tables of our own, debug hooks, names |
//! | the host | `host/`: which CPython this is, and how we get in |
//! | C ABI | `capi/`: the exported names, nothing else |
//!
//! # A block's journey
//!
//! *`PyObject_Malloc(48)` in a CPython with us in its tables:*
//!
//! 1. The host's `PyObject_Malloc` calls what its table says (a debug hook or
//!    tracemalloc may sit there), in the end our `host::table::malloc`.
//! 2. [`object::malloc`]: 48 is small, a multiple of 16, and that is its class.
//! 3. [`mine::magazines`] reads the thread word;
//!    [`Magazines::pop_small`](magazines::Magazines::pop_small) takes the block
//!    on top. Done: no lock, no call, no atomic read-modify-write (`make asm`
//!    prints the instructions).
//!
//! *The magazine is empty:*
//!
//! 4. `object::miss`; a thread that has no magazines gets some
//!    ([`threads::mine`]); [`Magazines::refill`](magazines::Magazines::refill).
//! 5. [`Heap::refill`](heap::Heap::refill): a run of blocks that a thread had too many
//!    of, if the class's [`depot`] has one. Else [`Heap::take`](heap::Heap::take), under
//!    the class's lock in the thread's [`shard`]: free blocks from the fullest used pools
//!    ([`UsedPools::fullest`](used_pools::UsedPools::fullest)), in each the
//!    lowest addresses first ([`Pool::take`](pool::Pool::take)).
//! 6. No used pool: [`Arenas::take_pool`](arenas::Arenas::take_pool), under
//!    the arenas' lock, an empty pool of the fullest arena that has one; for a large
//!    class, of the arena that it has claimed ([`affinity`]).
//! 7. No such arena: 2 MiB from the kernel or a program's own allocator
//!    ([`Chunk::take`](arena_source::Chunk::take)), with no lock held, entered in the
//!    [`address_map`]. If the kernel refuses, nothing has changed, and what is below
//!    us is asked.
//!
//! *`PyObject_Free(p)`:*
//!
//! 1. [`AddressMap::find_near`](address_map::AddressMap::find_near): one lookup says
//!    whether `p` is ours and of which class. Not ours: to what is below.
//! 2. [`Magazines::push`](magazines::Magazines::push). Done.
//! 3. The magazine is full: [`Magazines::flush`](magazines::Magazines::flush)
//!    gives its older run back, [`Heap::flush`](heap::Heap::flush): to the depot. From
//!    there, when it is full, to the pools of its [`shard`]: [`Heap::give`](heap::Heap::give),
//!    [`Pool::give`](pool::Pool::give): a bit each.
//! 4. A pool's last block is back: the pool goes to its arena
//!    ([`Arenas::give_pool`](arenas::Arenas::give_pool)). A wholly empty arena
//!    is kept for the next peak, and goes back to the kernel by time.
//! 5. Some blocks of a page are free, then all: when they have been for a while,
//!    a second at the most, the page goes back
//!    ([`Heap::purge_next`](heap::Heap::purge_next), told by [`decay`]); the pool
//!    stays as it is.
//!
//! # All state
//!
//! Nothing needs to be initialised: every static starts in a state that works,
//! so a call before our constructor is right. What most processes do not need is
//! [`metadata`], mapped when it is: so a process that inherits the library and never calls it
//! pays for 284 KiB of addresses, 56 of them writable. Large statics that are touched page by page
//! share a section, `.bss.tables`: between them each small one would bring a page. What
//! there is:
//!
//! | static | where | guarded by | in a forked child |
//! |---|---|---|---|
//! | `NEWEST`, `REFUSAL` | metadata | atomics | as they are |
//! | `MAP`, `LEAVES` | address_map | atomics; written under the heap's locks | as they are |
//! | `HEAP` | heap | a lock for each class of each shard, one for the arenas | locks are held over the fork |
//! | thread word; `ENDED` | os/thread_word; mine | thread-local; atomics | as they are |
//! | `THREADS` | threads | its lock | held over the fork; other threads' magazines are inherited |
//! | `TELL` | threads | atomic; written at the first use | as it is |
//! | `STATE`; `NAMELESS` | os/sandbox; os/process | atomics | as they are |
//! | `FORKER`, `NUMBER`, `ASLEEP_AT`, `FORKS`, `DOZES`; `TENDING`, `WAITS` | os/forker; os/lock | atomics | the thread that forked; cleared; as it is |
//! | `HELPER`, `ROUND`; `ANSWERER`, `PAGE` | decay, round; live/ | their locks | the helper threads end before; locks are held over the fork. Of `_Fork`, a helper's state is told by a mark; a child makes a page of its own |
//! | `WANTED`, `HOST`, `THREAD`, `NEXT`, `WORDS` | live/ | atomics | as they are |
//! | `INTERVAL`, `THREAD`, `STIRRED`, `NEXT`, `BACK`, `SINCE`, `FORKED`, `FORK_STIRRED`, `LEFT`, `COUNTED`; `AT_ONCE`, `GREW`; `RETURNED` | decay; heap; pages | atomics | as they are |
//! | `STDOUT`, `STDERR`, `NAMED`; `STUCK` | os/descriptor | atomics, written at start; atomic | as they are |
//! | `ASK` | os/thread | atomic; written at the first use | as it is |
//! | `COPIES` | os/apart | atomic | as it is |
//! | `PLACE` | stats | atomic: one call at a time has it | as it is; if it was taken, memory is mapped instead |
//! | `REGISTERED`; `DEPTH`, `ALL_HELD`, `NEEDED`; `READ` | fork; host/attach | atomics, two of them the forking thread's | done; as they are |
//! | `HAPPENED`, `TELL` | first_use | atomics | as they are |
//! | `SOFT`, `HARD`, `GROUP`, `NEAR`, `OVER`, `GRACE`, `ASKED`, `ASKED_NEXT`, `GREW`, `GREW_NEXT`, `NEXT` | limits | atomics, or written at start | as they are |
//! | `RULE`, `GENERATION`, `PARENT` | inherited | atomics | one generation more |
//! | `WANTED`, `UNASKED`; `TURNS`, `SINCE`, `OPEN` | huge_pages; shard | atomics; `OPEN` is written under `THREADS` | as they are |
//! | `NOW`, `RISEN`, `REFUSED`; `MEM`, `OBJ` | cutoff; packing | atomics | as they are |
//! | `DECAY` | arenas | atomic, written at start | as it is |
//! | `CURRENT`, `SIZE`, `TELL`; `REFUSAL` | arena_source | written at start, or under the GIL; atomic | as they are |
//! | `RAW`, `MEM`, `OBJ`, `HOOKED`, `SERIAL`, `VERSION` | domains/ | atomics, or written under the GIL | as they are |
//! | `SLOTS`; `CURRENT` | guard/slots; guard/report | its lock; the thread that reports | held over the fork; as it is |
//! | `RATE`, `LEFT`, `RANDOM`; `BASE`, `SIZE`; `VERSION`; `REPORTER`, `PART`, `REPORTS`; `REPORTED`, `PREVIOUS` | guard/ | atomics, or written when the slots are made | as they are, but no thread reports |
//! | `TOOL`; `WAITING`, `NEXT` | watch/ | atomics; `TOOL` is written at start | as they are |
//! | `GO_ON`, `LINES` | misuse | atomics | as they are |
//! | settings | config | atomics, written at start | as they are |
//! | `STATE`, `ROUTE`, what was below us | host/ | written at start, or under the GIL | as they are |
//! | `LOADS`; `FIRST`, `OTHERS`, `GLOBAL`, `PROGRAM` | host/route; host/several | atomics; written under the loader's lock, or by who decides | as they are |
//!
//! Locks are taken in this order, and fork takes all of them in it: `ANSWERER`'s, `PAGE`, `HELPER`'s,
//! `ROUND`, `THREADS`, one class's, the arenas', the guard's `SLOTS`.
#![no_std]

#[cfg(any(test, panic = "unwind", feature = "model"))]
extern crate std;

pub mod sync;

pub mod base;

pub mod os;

pub mod policy;

pub mod pool;

pub mod arena;

pub mod guard;

pub mod heap;

pub mod tcache;

#[cfg(any(test, feature = "model"))]
pub mod check;

pub mod stats;

pub mod stats_page;

pub mod background;

pub mod object;

pub mod tools;

pub mod config;

pub mod domains;

pub mod cpython;

pub mod capi;

#[cfg(not(panic = "unwind"))]
mod abort;

#[cfg(test)]
mod tests;
