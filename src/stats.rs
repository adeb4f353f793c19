//! Statistics: what the heap holds at one moment, and where the process's memory
//! is. `stats_json.rs`, `stats_text.rs` and `live/` write it down.
//!
//! Nothing is counted on the hit path. The arenas are asked, then the threads'
//! magazines, then the classes, once and one after the other, each under its
//! lock; while other threads allocate, the numbers of different classes are of different
//! moments. Making them allocates nothing.

use crate::address_map;
use crate::arenas::Counts;
use crate::counts::ClassCounts;
use crate::heap::HEAP;
use crate::metadata;
use crate::os::process::{self, LibcMemory};
use crate::pages;
use crate::size_class::{SizeClass, TABLE_LEN};
use crate::tally::Sums;
use crate::threads::{self, Total};

/// One class: all in blocks, but for the pools.
pub struct Class {
    /// Which.
    pub class: SizeClass,
    /// What the heap says.
    pub counts: ClassCounts,
    /// Blocks in some thread's magazine, or in the depot.
    pub in_magazines: usize,
}

impl Class {
    /// Blocks that are the program's.
    pub fn live(&self) -> usize {
        self.counts.taken.saturating_sub(self.in_magazines)
    }

    /// Blocks that are free in their pools.
    pub fn free(&self) -> usize {
        self.counts.pools * self.class.shape().blocks as usize - self.counts.taken
    }

    /// Bytes that the program asked for of its live blocks, by estimate: nothing
    /// is counted on the hit path, but each miss looks at one request.
    pub fn requested(&self) -> usize {
        let looked_at = self.counts.looked_at.max(1) as u128;
        (self.counts.requested as u128 * self.live() as u128 / looked_at) as usize
    }

    /// So many blocks in bytes.
    pub fn bytes(&self, blocks: usize) -> usize {
        blocks * self.class.size()
    }
}

/// All classes together.
#[derive(Default)]
pub struct ClassSums {
    /// Their pools, used and full.
    pub pools: usize,
    /// Of these, how many are full.
    pub full: usize,
    /// Bytes of blocks that are free in their pools.
    pub free: usize,
    /// Requests that missed a magazine: each was looked at.
    pub misses: usize,
}

/// What the heap holds.
pub struct Snapshot {
    /// Its arenas.
    pub arenas: Counts,
    threads: Total,
    /// By class index.
    classes: [ClassCounts; TABLE_LEN],
}

impl Snapshot {
    /// What it holds now.
    pub fn now() -> Snapshot {
        let (arenas, threads) = (HEAP.arena_counts(), threads::total());
        let mut classes = [ClassCounts::default(); TABLE_LEN];
        for class in SizeClass::all() {
            classes[class.index()] = HEAP.class_counts(class);
        }
        Snapshot {
            arenas,
            threads,
            classes,
        }
    }

    /// The classes that have pools.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
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
    pub fn sums(&self) -> ClassSums {
        let mut sums = ClassSums::default();
        for class in self.classes() {
            sums.pools += class.counts.pools;
            sums.full += class.counts.full;
            sums.free += class.bytes(class.free());
            sums.misses += class.counts.looked_at;
        }
        sums
    }

    /// Threads that have magazines, or had them until they ended.
    pub fn threads(&self) -> usize {
        self.threads.records
    }

    /// Bytes of records: those of arenas with their pools, and threads'.
    pub fn records(&self) -> usize {
        self.threads.record_bytes + self.arenas.record_bytes
    }

    /// Bytes of address space that are mapped for metadata: records, depots, the address map.
    pub fn metadata(&self) -> usize {
        metadata::mapped() + address_map::near_table_bytes()
    }

    /// Bytes of metadata that are with us, about: what was ever used.
    fn metadata_resident(&self) -> usize {
        let but_leaves = metadata::used().saturating_sub(address_map::leaf_bytes());
        but_leaves + address_map::resident_bytes(self.arenas.mapped)
    }

    /// What went below.
    pub fn below(&self) -> &Sums {
        &self.threads.below
    }

    /// Bytes that we have from the kernel, in memory or not.
    pub fn os_bytes(&self) -> usize {
        self.arenas.bytes + self.metadata()
    }
}

/// What the bytes in memory are for. Those that are ours make up `ours`.
pub struct Ledger {
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
    pub fn of(now: &Snapshot) -> Ledger {
        Ledger {
            libc: process::libc_memory(),
            process: process::resident(),
            ..Ledger::of_ours(now)
        }
    }

    /// What there is of ours; of the rest, nothing.
    pub fn of_ours(now: &Snapshot) -> Ledger {
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
            returned: pages::returned(),
            libc: None,
            process: None,
        }
    }
}

/// Blocks of pools that are the program's.
pub fn live_blocks() -> usize {
    Snapshot::now().classes().map(|class| class.live()).sum()
}

/// Blocks that are the program's, those that came from below too.
pub fn allocated_blocks() -> isize {
    let now = Snapshot::now();
    let live: usize = now.classes().map(|class| class.live()).sum();
    live.cast_signed() + now.threads.below.live()
}
