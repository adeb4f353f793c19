//! Statistics: the counters of the heap and of the process at one moment. The crate `format`
//! has their schema; [`HeapStats::counters`] measures them; `json`, `report` and
//! `stats/page/encode.rs` write them.
//!
//! The hit path counts nothing. A measurement reads the arenas, the threads' magazines and the
//! classes one after the other, each once and under its lock, so while other threads allocate,
//! the numbers of different classes are of different moments. It allocates nothing and needs
//! little stack: the counts of all classes take some 8 KiB, more than the smallest thread stack
//! has left, so they are in a static place that one call at a time uses. A call at the same
//! time maps memory.

pub(crate) mod json;

pub(crate) mod page;

pub(crate) mod profile;

pub(crate) mod dumps;

pub(crate) mod report;

pub(crate) mod debug_stats;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;

use crate::arena::metadata;
use crate::arena::page_map;
use crate::arena::set::Counts;
use crate::base::layout::{ARENA_SIZE, POOL_SIZE};
use crate::base::size_class::{SizeClass, TABLE_LEN};
use crate::heap::ClassCounts;
use crate::heap::HEAP;
use crate::os::memory;
use crate::os::process::{self, LibcMemory};
use crate::pool::{self, Shard};
use crate::sync::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use crate::tcache::counters::CounterSums;
use crate::tcache::registry::{self, ThreadTotals};
use format::counters::{Arenas, Bytes, Counters, Large, Libc, Pools, Process, Resident, UNKNOWN};

/// A class that has pools.
pub(crate) struct Class {
    /// The class.
    pub class: SizeClass,
    /// Its pools and blocks.
    pub counts: ClassCounts,
    /// Free blocks in magazines and in the depot.
    pub in_magazines: usize,
}

impl Class {
    /// The counters of the class.
    pub(crate) fn counters(&self) -> format::counters::Class {
        format::counters::Class {
            size: self.class.size() as u64,
            pools: self.counts.pools as u64,
            pools_full: self.counts.full as u64,
            blocks_live: self.live() as u64,
            blocks_in_magazines: self.in_magazines as u64,
            blocks_free: self.free() as u64,
            resident: self.counts.resident as u64,
        }
    }

    /// Blocks that the program has.
    pub(crate) fn live(&self) -> usize {
        self.counts.taken.saturating_sub(self.in_magazines)
    }

    /// Blocks that are free in their pools.
    pub(crate) fn free(&self) -> usize {
        self.counts.pools * self.class.info().blocks as usize - self.counts.taken
    }

    /// Bytes that the program requested for its live blocks, estimated: each miss samples one
    /// request.
    pub(crate) fn requested(&self) -> usize {
        let sampled = self.counts.sampled.max(1) as u128;
        (self.counts.requested as u128 * self.live() as u128 / sampled) as usize
    }

    /// Bytes of `blocks` blocks.
    pub(crate) fn bytes(&self, blocks: usize) -> usize {
        blocks * self.class.size()
    }
}

/// The counts of the heap at one moment. All zero is an empty heap.
pub(crate) struct HeapStats {
    /// The arenas.
    pub arenas: Counts,
    threads: ThreadTotals,
    /// By class index.
    classes: [ClassCounts; TABLE_LEN],
}

/// The place of a `HeapStats`; one call at a time has it.
struct Place {
    taken: AtomicBool,
    stats: UnsafeCell<MaybeUninit<HeapStats>>,
}

// SAFETY: only the call that has changed `taken` from false reaches the stats.
unsafe impl Sync for Place {}

#[unsafe(link_section = ".bss.tables")]
static PLACE: Place = Place {
    taken: AtomicBool::new(false),
    stats: UnsafeCell::new(MaybeUninit::zeroed()),
};

/// A `HeapStats` in its place, which is free again when this is dropped.
pub(crate) struct Taken {
    stats: NonNull<HeapStats>,
    is_mapped: bool,
}

impl Deref for Taken {
    type Target = HeapStats;

    fn deref(&self) -> &HeapStats {
        // SAFETY: `now` has initialised it, and this value owns the place until `drop`.
        unsafe { self.stats.as_ref() }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.is_mapped {
            // SAFETY: `place` mapped it with this size, and its only pointer ends here.
            unsafe { memory::unmap(self.stats.cast(), mapped_bytes()) };
        } else {
            PLACE.taken.store(false, Release);
        }
    }
}

/// Bytes of a mapping for a `HeapStats`.
fn mapped_bytes() -> usize {
    size_of::<HeapStats>().next_multiple_of(memory::page_size())
}

/// A place for a `HeapStats`: the static one, or, while another call has that, a mapping. `None`
/// if the kernel refuses.
fn place() -> Option<Taken> {
    if !PLACE.taken.swap(true, Acquire) {
        return Some(Taken {
            stats: NonNull::new(PLACE.stats.get().cast())?,
            is_mapped: false,
        });
    }
    Some(Taken {
        stats: memory::map(mapped_bytes())?.cast(),
        is_mapped: true,
    })
}

impl HeapStats {
    /// The counts as they are now. `None` if another call has the static place and the kernel
    /// refuses a mapping.
    #[cold]
    #[inline(never)]
    pub(crate) fn now() -> Option<Taken> {
        let mut taken = place()?;
        // SAFETY: zero, or the stats of an earlier call: both are valid; `taken` owns it.
        let now = unsafe { taken.stats.as_mut() };
        HEAP.while_settled(|| {
            now.arenas = HEAP.arena_counts();
            registry::total(&mut now.threads);
            for class in SizeClass::all() {
                now.classes[class.index()] = HEAP.class_counts(class);
            }
        });
        Some(taken)
    }

    /// The classes that have pools.
    pub(crate) fn classes(&self) -> impl Iterator<Item = Class> {
        SizeClass::all().filter_map(|class| {
            let counts = self.classes[class.index()];
            let in_magazines = self.threads.in_magazines[class.index()] + counts.in_depot;
            (counts.pools > 0).then_some(Class {
                class,
                counts,
                // These were read before, and blocks may have been freed since.
                in_magazines: in_magazines.min(counts.taken),
            })
        })
    }

    /// Bytes of records: those of arenas with their pools, and of threads.
    pub(crate) fn records(&self) -> usize {
        self.threads.record_bytes + self.arenas.record_bytes
    }

    /// Bytes of address space that are mapped for metadata: records, depots, the page map.
    fn metadata(&self) -> usize {
        metadata::mapped() + page_map::near_table_bytes()
    }

    /// Resident bytes of metadata, approximately: all that was ever used.
    fn metadata_resident(&self) -> usize {
        let but_leaves = metadata::used().saturating_sub(page_map::leaf_bytes());
        but_leaves + page_map::resident_bytes(self.arenas.mapped)
    }

    /// All counters. `libc` is what the C library's malloc has, if it says.
    #[cold]
    #[inline(never)]
    pub(crate) fn counters(&self, libc: Option<LibcMemory>) -> Counters {
        let (mut used, mut full, mut misses) = (0, 0, 0);
        let (mut live, mut requested, mut in_magazines, mut free, mut in_pools) = (0, 0, 0, 0, 0);
        for class in self.classes() {
            used += (class.counts.pools - class.counts.full) as u64;
            full += class.counts.full as u64;
            misses += class.counts.sampled as u64;
            live += class.bytes(class.live()) as u64;
            requested += class.requested() as u64;
            in_magazines += class.bytes(class.in_magazines) as u64;
            free += class.bytes(class.free()) as u64;
            in_pools += class.counts.resident as u64;
        }
        let arenas = &self.arenas;
        let empty_pools = arenas.resident_empty as u64;
        let metadata = self.metadata_resident() as u64;
        Counters {
            arenas: Arenas {
                size: ARENA_SIZE as u64,
                in_use: (arenas.mapped - arenas.empty) as u64,
                empty: arenas.empty as u64,
                mapped_total: arenas.mapped_total as u64,
                unmapped_total: arenas.unmapped_total as u64,
                highwater: arenas.highwater as u64,
            },
            pools: Pools {
                size: POOL_SIZE as u64,
                used,
                full,
                free: arenas.free_pools as u64,
                lanes: Shard::open().count() as u64,
            },
            bytes: Bytes {
                from_os: (arenas.bytes + self.metadata()) as u64,
                metadata: self.metadata() as u64,
                live,
                live_requested_estimate: requested,
                in_magazines,
                free_in_pools: free,
            },
            resident: Resident {
                total: in_pools + empty_pools + metadata,
                live,
                in_magazines,
                // Taken blocks are resident, except those that nothing has been written to.
                free_in_pools: in_pools.saturating_sub(live + in_magazines),
                empty_pools,
                metadata,
                returned_total: pool::purged_bytes() as u64,
            },
            large: Large {
                served_below_total: self.fallback().requests as u64,
                blocks_live: self.fallback().live() as i64,
            },
            libc: Libc {
                in_use: libc.map_or(UNKNOWN, |libc| libc.in_use as u64),
                kept: libc.map_or(UNKNOWN, |libc| libc.kept as u64),
            },
            process: Process {
                rss: process::resident().map_or(UNKNOWN, |bytes| bytes as u64),
                // With the records of threads that have ended.
                threads: self.threads.records as u64,
                misses,
            },
        }
    }

    /// Requests that went to the fallback allocator.
    pub(crate) fn fallback(&self) -> &CounterSums {
        &self.threads.fallback
    }
}

/// Blocks of pools that the program has.
pub(crate) fn live_blocks() -> usize {
    live_and_fallback().0
}

/// Blocks that the program has, those of the fallback allocator included.
pub(crate) fn allocated_blocks() -> isize {
    let (live, fallback) = live_and_fallback();
    live.cast_signed() + fallback
}

/// Blocks of pools that the program has, and those of the fallback allocator. Where there is no
/// place for a `HeapStats`, free blocks in magazines and depots count as the program's.
fn live_and_fallback() -> (usize, isize) {
    match HeapStats::now() {
        Some(now) => {
            let live = now.classes().map(|class| class.live()).sum();
            (live, now.threads.fallback.live())
        }
        None => {
            let taken = SizeClass::all().map(|class| HEAP.class_counts(class).taken);
            (taken.sum(), 0)
        }
    }
}
