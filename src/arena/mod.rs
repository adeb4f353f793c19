//! Arenas: up to 32 pools each, the unit in which address space is mapped and unmapped. This file
//! has the arena's record, which is out of line; `set` has the arenas of a heap and where the next
//! pool is taken, `chunk` the address space and its source, `page_map` the way from an address to
//! its arena and size class, `metadata` the memory for records.
//!
//! ```text
//!    the chunk: 2 MiB at a multiple of 2 MiB, all of it pools; or what a program's arena
//!    allocator returned, with unused bytes at both ends
//!    +- ... +--------+--------+--------+--------+-- ... --+--------+- ... +
//!    |      | pool 0 | pool 1 | pool 2 | pool 3 |         | pool n |      |
//!    +- ... +--------+--------+--------+--------+-- ... --+--------+- ... +
//!               |        |        |
//!           pools[0]  pools[1]  pools[2]   ...  the descriptors, in the record
//!
//!    free_pools: a bit for each pool, 1 == empty
//! ```
//!
//! # Affinity
//!
//! ```text
//!    a small class    the fullest arena that has an empty pool, as in obmalloc
//!    a large class    the arena that has an affinity to it, pool after pool; when that is
//!                     full, the fullest one without an affinity, or another
//!
//!    arena   |aaaaaaaaaaaa....|     |bbbbbbbb........|     |ccccd.f.g.......|
//!             affine to a            affine to b            small classes
//! ```
//!
//! In a heap that grows by several classes in turn, the pools of one class would be scattered among
//! those of others. Side by side, objects that were made one after the other are adjacent beyond
//! the end of a pool, which the collector and the first touch profit from. A class is large when it
//! has two arenas' worth of pools: so what is reserved by affinity and not yet used is less than
//! half of what is in use, and it is address space only.
//!
//! # Invariants
//!
//! ARENA-1  A bit of `free_pools` is set exactly while its pool is empty.
//! ARENA-2  The i-th descriptor belongs to the i-th pool.
//! ARENA-3  A bit of `resident_free` is set exactly while its pool is empty and has resident pages.
//! AFFINITY-1  An arena with an affinity has an empty pool and one that is not. Each class in each
//!     shard has the affinity of at most one arena.
//!
//! # Threads
//!
//! Records are made, filled and listed under the arenas' lock and never unmapped: a reference to
//! one stays valid. `pools` are accessed as `pool/mod.rs` says.
//!
//! # Uses
//!
//! `pool` for descriptors, `os::memory` for mappings, `policy` for huge pages and limits. The heap
//! is above.

pub(crate) mod chunk;

pub(crate) mod metadata;

pub(crate) mod page_map;

pub(crate) mod set;

use core::num::NonZeroU16;
use core::ptr::NonNull;

use crate::arena::chunk::Chunk;
use crate::base::layout::{POOL_BITS, POOL_SIZE, POOLS_PER_ARENA};
use crate::base::list::{Linked, Links};
use crate::base::size_class::{SizeClass, TABLE_LEN};
use crate::pool::bitmap::Pages;
use crate::pool::{Pool, Shard};
use crate::sync::{AtomicBool, AtomicUsize, Cell, Ordering::Relaxed};

/// A class in a shard to which an arena has an affinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)] // so that zero is no class
pub(crate) struct Affinity(NonZeroU16);

impl Affinity {
    /// The affinity to a class. (Never `None`: no index is 0, CLASS-1.)
    pub(crate) fn of(shard: Shard, class: SizeClass) -> Option<Affinity> {
        NonZeroU16::new((shard.index() * TABLE_LEN + class.index()) as u16).map(Affinity)
    }
}

/// The record of an arena. All zero is a record without an arena, except for `chunk`.
#[repr(C)]
pub(crate) struct Arena {
    links: Links<Arena>,
    /// `None` once it was released.
    chunk: Cell<Option<Chunk>>,
    /// The address of pool 0. A lookup reads it without a lock, and may have found the record while
    /// it was another arena's: so it is an atomic. Relaxed: the granule's word publishes the record.
    base: AtomicUsize,
    /// The number of pools.
    len: Cell<usize>,
    /// A bit for each pool that is empty (ARENA-1).
    free_pools: Cell<u32>,
    /// Of these, the pools that have resident pages (ARENA-3).
    resident_free: Cell<u32>,
    /// Whether the kernel may use huge pages in it.
    huge: AtomicBool,
    /// Whether it has been wholly empty since `mark_idle`.
    idle: Cell<bool>,
    /// The class that takes pools from it first (AFFINITY-1).
    affinity: Cell<Option<Affinity>>,
    /// The record that was made before this one; written once.
    older: Cell<Option<&'static Arena>>,
    pools: [Pool; POOLS_PER_ARENA],
}

// SAFETY: the cells are accessed under the arenas' lock, except for those of `pools`, which follow
// POOL-7, and for those that do not change while another thread can find the record (MAP-3).
unsafe impl Sync for Arena {}

impl Linked for Arena {
    fn links(&self) -> &Links<Arena> {
        &self.links
    }
}

impl Arena {
    /// Initialises zeroed memory as an unused arena record.
    ///
    /// # Safety
    /// `at` is aligned, zero, used by nothing else, and never unmapped.
    pub(crate) unsafe fn init_record(at: NonNull<Arena>) -> &'static Arena {
        // SAFETY: `at` is valid for writes. (The representation of `None` is the compiler's
        // choice.)
        unsafe { (&raw mut (*at.as_ptr()).chunk).write(Cell::new(None)) };
        // SAFETY: zero is valid for all other fields, and the memory is never unmapped.
        unsafe { at.as_ref() }
    }

    /// Makes it the record of an arena on `chunk`, with all pools empty.
    pub(crate) fn init(&self, chunk: Chunk) {
        self.chunk.set(Some(chunk));
        self.base.store(chunk.first_pool(), Relaxed);
        self.len.set(chunk.pools());
        self.idle.set(false);
        self.affinity.set(None);
        self.huge.store(chunk.is_huge(), Relaxed);
        let (all, resident) = (
            u32::MAX >> (POOLS_PER_ARENA - chunk.pools()),
            chunk.resident(),
        );
        self.free_pools.set(all);
        self.resident_free
            .set(if resident.is_empty() { 0 } else { all });
        for (i, pool) in self.pools[..chunk.pools()].iter().enumerate() {
            pool.init(chunk.first_pool() + i * POOL_SIZE, resident); // ARENA-2
        }
    }

    /// Takes the chunk out of the record, which is unused then.
    pub(crate) fn take_chunk(&self) -> Option<Chunk> {
        self.chunk.take()
    }

    /// The address of the first pool.
    pub(crate) fn base(&self) -> usize {
        self.base.load(Relaxed)
    }

    /// The number of pools.
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    /// Whether all of its pools are empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.free_pools() == self.len()
    }

    /// Whether its chunk is from a program's arena allocator.
    pub(crate) fn is_custom(&self) -> bool {
        self.chunk.get().is_some_and(|chunk| chunk.is_custom())
    }

    /// Whether the kernel may use huge pages in it.
    pub(crate) fn has_huge_pages(&self) -> bool {
        self.huge.load(Relaxed)
    }

    /// Whether the kernel may use huge pages in it, or might before a purge.
    pub(crate) fn had_huge_pages(&self) -> bool {
        self.chunk.get().is_some_and(|chunk| chunk.is_huge())
    }

    /// Bytes of its chunk; 0 if it has none.
    pub(crate) fn size(&self) -> usize {
        self.chunk.get().map_or(0, |chunk| chunk.size())
    }

    /// The number of empty pools.
    pub(crate) fn free_pools(&self) -> usize {
        self.free_pools.get().count_ones() as usize
    }

    /// The descriptor of the pool at `address`, which is in this arena.
    #[inline]
    pub(crate) fn pool(&'static self, address: usize) -> &'static Pool {
        &self.pools[self.index(address)]
    }

    #[inline]
    fn index(&self, address: usize) -> usize {
        (address.wrapping_sub(self.base()) >> POOL_BITS) % POOLS_PER_ARENA
    }

    pub(crate) fn affinity(&self) -> Option<Affinity> {
        self.affinity.get()
    }

    pub(crate) fn set_affinity(&self, affinity: Option<Affinity>) {
        self.affinity.set(affinity);
    }

    /// Whether an empty pool has resident pages.
    pub(crate) fn has_resident_free(&self) -> bool {
        self.resident_free.get() != 0
    }

    /// Takes the empty pool at the lowest address, one with resident pages if there is any.
    pub(crate) fn take_pool(&'static self) -> Option<&'static Pool> {
        let free = self.free_pools.get();
        let from = if self.resident_free.get() == 0 {
            free
        } else {
            self.resident_free.get()
        };
        let pool = self.pools.get(from.trailing_zeros() as usize)?;
        let bit = from & from.wrapping_neg();
        self.free_pools.set(free & !bit);
        self.resident_free.set(self.resident_free.get() & !bit);
        self.idle.set(false);
        if free == bit {
            self.affinity.set(None); // AFFINITY-1
        }
        Some(pool)
    }

    /// Takes back `pool`, which is empty now.
    pub(crate) fn give_pool(&'static self, pool: &'static Pool) {
        let bit = 1 << self.index(pool.base());
        debug_assert_eq!(self.free_pools.get() & bit, 0, "ARENA-1");
        self.free_pools.set(self.free_pools.get() | bit);
        if self.had_huge_pages() {
            pool.count_unpurged();
        }
        if !pool.resident().is_empty() {
            self.resident_free.set(self.resident_free.get() | bit);
        }
        if self.is_empty() {
            self.affinity.set(None); // AFFINITY-1
        }
    }

    /// All descriptors. Any thread may iterate over them; reading one needs the lock that guards it.
    pub(crate) fn pools(&'static self) -> impl Iterator<Item = &'static Pool> {
        self.pools.iter()
    }

    /// Whether the pool at `address` is empty.
    pub(crate) fn is_pool_empty(&self, address: usize) -> bool {
        self.free_pools.get() >> self.index(address) & 1 == 1
    }

    /// Purges the pages of `pool`, which is empty, that are due: see [`Pool::take_purgeable`].
    /// Returns the number of bytes.
    pub(crate) fn purge_empty(&self, pool: &Pool, os_page: usize, at_once: bool) -> usize {
        let purged = self.purge(pool, pool.take_purgeable(os_page, at_once));
        if pool.resident().is_empty() {
            self.resident_free
                .set(self.resident_free.get() & !(1 << self.index(pool.base())));
        }
        purged
    }

    /// Purges `due` pages of `pool`: see [`Pool::purge`]. From the first purge on, the arena's pages
    /// are small.
    pub(crate) fn purge(&self, pool: &Pool, due: Pages) -> usize {
        if due.is_empty() {
            return 0;
        }
        if self.huge.load(Relaxed)
            && self.huge.swap(false, Relaxed)
            && let Some(chunk) = self.chunk.get()
        {
            chunk.use_small_pages();
        }
        pool.purge(due)
    }

    /// Bytes of resident pages in its empty pools.
    pub(crate) fn resident_empty(&self) -> usize {
        let pools = self.pools[..self.len()].iter().enumerate();
        let resident = pools.filter(|(i, _)| self.resident_free.get() >> i & 1 == 1);
        resident.map(|(_, pool)| pool.resident().bytes()).sum()
    }

    /// Marks it as wholly empty.
    pub(crate) fn mark_idle(&self) {
        self.idle.set(true);
    }

    /// Whether it has been wholly empty since it was marked so.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.get()
    }

    /// The record that was made before this one.
    pub(crate) fn older(&self) -> Option<&'static Arena> {
        self.older.get()
    }

    /// Sets the record that was made before this one: once, before other threads see this one.
    pub(crate) fn set_older(&self, older: Option<&'static Arena>) {
        self.older.set(older);
    }

    /// Asserts the invariants of one arena, for tests.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(&self) {
        for (i, pool) in self.pools[..self.len()].iter().enumerate() {
            assert_eq!(pool.base(), self.base() + i * POOL_SIZE, "ARENA-2");
            let free = self.free_pools.get() >> i & 1 == 1;
            assert_eq!(free, pool.class().is_none(), "ARENA-1");
            let resident = self.resident_free.get() >> i & 1 == 1;
            assert_eq!(resident, free && !pool.resident().is_empty(), "ARENA-3");
            pool.check();
        }
        if self.affinity.get().is_some() {
            assert!(self.free_pools() > 0 && !self.is_empty(), "AFFINITY-1");
        }
    }
}

const _: () = assert!(
    POOLS_PER_ARENA == 32,
    "an arena's free pools are bits of a u32"
);

#[cfg(test)]
mod tests {
    use crate::tests::lone_record;

    #[test]
    fn a_new_record_has_no_chunk() {
        let record = lone_record();
        assert_eq!((record.size(), record.is_custom()), (0, false));
        assert!(record.take_chunk().is_none());
    }
}
