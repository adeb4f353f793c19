//! Statistics: what the heap holds at one moment, and where the process's memory
//! is. `stats/json.rs`, `stats/report.rs` and `stats_page/` write it down.
//!
//! Nothing is counted on the hit path. The arenas are asked, then the threads'
//! magazines, then the classes, once and one after the other, each under its
//! lock; while other threads allocate, the numbers of different classes are of different
//! moments. Making them allocates nothing, and takes little of the stack: the numbers of
//! all classes, some 8 KiB, are more than a thread's smallest stack has left. They have a
//! place among the library's own data, which one call at a time uses; another one, at the
//! same time, maps memory.

pub(crate) mod json;

pub(crate) mod report;

pub(crate) mod debug_stats;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;

use crate::arena::metadata;
use crate::arena::page_map;
use crate::arena::set::Counts;
use crate::base::size_class::{SizeClass, TABLE_LEN};
use crate::heap::ClassCounts;
use crate::heap::HEAP;
use crate::os::memory;
use crate::os::process::{self, LibcMemory};
use crate::pool;
use crate::sync::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use crate::tcache::counters::CounterSums;
use crate::tcache::registry::{self, ThreadTotals};

/// One class: all in blocks, but for the pools.
pub(crate) struct Class {
    /// Which.
    pub class: SizeClass,
    /// What the heap says.
    pub counts: ClassCounts,
    /// Blocks in some thread's magazine, or in the depot.
    pub in_magazines: usize,
}

impl Class {
    /// Blocks that are the program's.
    pub(crate) fn live(&self) -> usize {
        self.counts.taken.saturating_sub(self.in_magazines)
    }

    /// Blocks that are free in their pools.
    pub(crate) fn free(&self) -> usize {
        self.counts.pools * self.class.info().blocks as usize - self.counts.taken
    }

    /// Bytes that the program asked for of its live blocks, by estimate: nothing
    /// is counted on the hit path, but each miss looks at one request.
    pub(crate) fn requested(&self) -> usize {
        let sampled = self.counts.sampled.max(1) as u128;
        (self.counts.requested as u128 * self.live() as u128 / sampled) as usize
    }

    /// So many blocks in bytes.
    pub(crate) fn bytes(&self, blocks: usize) -> usize {
        blocks * self.class.size()
    }
}

/// All classes together.
#[derive(Default)]
pub(crate) struct ClassSums {
    /// Their pools, used and full.
    pub pools: usize,
    /// Of these, how many are full.
    pub full: usize,
    /// Bytes of blocks that are free in their pools.
    pub free: usize,
    /// Requests that missed a magazine: each was looked at.
    pub misses: usize,
}

/// What the heap holds. All zero is one of an empty heap.
pub(crate) struct Snapshot {
    /// Its arenas.
    pub arenas: Counts,
    threads: ThreadTotals,
    /// By class index.
    classes: [ClassCounts; TABLE_LEN],
}

/// A place for a snapshot, which one call at a time has.
struct Place {
    taken: AtomicBool,
    snapshot: UnsafeCell<MaybeUninit<Snapshot>>,
}

// SAFETY: only the call that has changed `taken` from false reaches the snapshot.
unsafe impl Sync for Place {}

#[unsafe(link_section = ".bss.tables")]
static PLACE: Place = Place {
    taken: AtomicBool::new(false),
    snapshot: UnsafeCell::new(MaybeUninit::zeroed()),
};

/// A snapshot, where it lies until this is dropped.
pub(crate) struct Taken {
    snapshot: NonNull<Snapshot>,
    is_mapped: bool,
}

impl Deref for Taken {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        // SAFETY: `now` has filled it, and it is this call's alone until `drop`.
        unsafe { self.snapshot.as_ref() }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.is_mapped {
            // SAFETY: mapped by `place` with this size, and nothing points there any more.
            unsafe { memory::unmap(self.snapshot.cast(), mapped_bytes()) };
        } else {
            PLACE.taken.store(false, Release);
        }
    }
}

/// Bytes that are mapped for a snapshot.
fn mapped_bytes() -> usize {
    size_of::<Snapshot>().next_multiple_of(memory::page_size())
}

/// A place for one; `None` if there is no memory, which it takes only where another call
/// has the place that is always there.
fn place() -> Option<Taken> {
    if !PLACE.taken.swap(true, Acquire) {
        return Some(Taken {
            snapshot: NonNull::new(PLACE.snapshot.get().cast())?,
            is_mapped: false,
        });
    }
    Some(Taken {
        snapshot: memory::map(mapped_bytes())?.cast(),
        is_mapped: true,
    })
}

impl Snapshot {
    /// What it holds now. `None` if another call makes one, and there is no memory for this.
    #[cold]
    #[inline(never)]
    pub(crate) fn now() -> Option<Taken> {
        let mut taken = place()?;
        // SAFETY: zero, or what an earlier call has left, which is a valid one; this call's
        // alone.
        let now = unsafe { taken.snapshot.as_mut() };
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
                // They are of a moment before; blocks may have come back since.
                in_magazines: in_magazines.min(counts.taken),
            })
        })
    }

    /// All classes together.
    pub(crate) fn sums(&self) -> ClassSums {
        let mut sums = ClassSums::default();
        for class in self.classes() {
            sums.pools += class.counts.pools;
            sums.full += class.counts.full;
            sums.free += class.bytes(class.free());
            sums.misses += class.counts.sampled;
        }
        sums
    }

    /// Threads that have magazines, or had them until they ended.
    pub(crate) fn threads(&self) -> usize {
        self.threads.records
    }

    /// Bytes of records: those of arenas with their pools, and threads'.
    pub(crate) fn records(&self) -> usize {
        self.threads.record_bytes + self.arenas.record_bytes
    }

    /// Bytes of address space that are mapped for metadata: records, depots, the address map.
    pub(crate) fn metadata(&self) -> usize {
        metadata::mapped() + page_map::near_table_bytes()
    }

    /// Bytes of metadata that are with us, about: what was ever used.
    fn metadata_resident(&self) -> usize {
        let but_leaves = metadata::used().saturating_sub(page_map::leaf_bytes());
        but_leaves + page_map::resident_bytes(self.arenas.mapped)
    }

    /// What went below.
    pub(crate) fn below(&self) -> &CounterSums {
        &self.threads.fallback
    }

    /// Bytes that we have from the kernel, in memory or not.
    pub(crate) fn os_bytes(&self) -> usize {
        self.arenas.bytes + self.metadata()
    }
}

/// What the bytes in memory are for. Those that are ours make up `ours`.
pub(crate) struct Ledger {
    /// Blocks of pools that are the program's.
    pub live: usize,
    /// What of that was asked for, by estimate; the rest is rounding.
    pub requested: usize,
    /// Blocks in magazines.
    pub in_magazines: usize,
    /// Free blocks, and what is left over at the ends, on pages that are with us.
    pub free_in_pools: usize,
    /// Pages of empty pools that are with us.
    pub empty_pools: usize,
    /// Records, depots and the address map, as far as they were ever used.
    pub metadata: usize,
    /// All of these.
    pub ours: usize,
    /// What has gone back to the kernel so far.
    pub returned: usize,
    /// The C library's: large blocks, and whatever else the process has from it.
    pub libc: Option<LibcMemory>,
    /// What the process has in memory, by the kernel's count.
    pub process: Option<usize>,
}

impl Ledger {
    /// What there is now.
    pub(crate) fn of(now: &Snapshot) -> Ledger {
        Ledger {
            libc: process::libc_memory(),
            process: process::resident(),
            ..Ledger::of_ours(now)
        }
    }

    /// What there is of ours; of the rest, nothing.
    pub(crate) fn of_ours(now: &Snapshot) -> Ledger {
        let (mut live, mut requested, mut in_magazines, mut in_pools) = (0, 0, 0, 0);
        for class in now.classes() {
            live += class.bytes(class.live());
            requested += class.requested();
            in_magazines += class.bytes(class.in_magazines);
            in_pools += class.counts.resident;
        }
        let (empty_pools, metadata) = (now.arenas.resident_empty, now.metadata_resident());
        Ledger {
            live,
            requested,
            in_magazines,
            // Blocks that are taken are in memory, but for those that nobody has
            // written to yet.
            free_in_pools: in_pools.saturating_sub(live + in_magazines),
            empty_pools,
            metadata,
            ours: in_pools + empty_pools + metadata,
            returned: pool::purged_bytes(),
            libc: None,
            process: None,
        }
    }
}

/// Blocks of pools that are the program's.
pub(crate) fn live_blocks() -> usize {
    live_and_below().0
}

/// Blocks that are the program's, those that came from below too.
pub(crate) fn allocated_blocks() -> isize {
    let (live, below) = live_and_below();
    live.cast_signed() + below
}

/// Blocks of pools that are the program's, and those from below. Where there is no place
/// for a snapshot, what threads and depots have at hand counts as the program's, too.
fn live_and_below() -> (usize, isize) {
    match Snapshot::now() {
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
