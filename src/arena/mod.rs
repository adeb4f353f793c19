//! An arena: a run of pools, the unit in which memory comes and goes. This is
//! its record, which lies apart from it.
//!
//! ```text
//!    the chunk: 2 MiB at a multiple of 2 MiB, all of it pools; or what a
//!    program's allocator gave, with bytes to spare at both ends
//!    +- ... +--------+--------+--------+--------+-- ... --+--------+- ... +
//!    |      | pool 0 | pool 1 | pool 2 | pool 3 |         | pool n |      |
//!    +- ... +--------+--------+--------+--------+-- ... --+--------+- ... +
//!               |        |        |
//!           pools[0]  pools[1]  pools[2]   ...  the descriptors, in the record
//!
//!    free_pools: a bit for each pool, 1 == empty
//! ```
//!
//! # Invariants
//!
//! ARENA-1  A bit of `free_pools` is set exactly while its pool is empty.
//! ARENA-2  The i-th descriptor is in charge of the i-th pool.
//! ARENA-3  A bit of `warm` is set exactly while its pool is empty and has resident
//!     pages.
//!
//! # Threads
//!
//! Records are made, filled and listed under the arenas' lock and never given
//! back to the kernel: a reference to one stays good. `pools` are touched as
//! `pool/mod.rs` says.

pub(crate) mod metadata;

pub(crate) mod near;

pub(crate) mod granule;

pub(crate) mod refusal;

pub(crate) mod affinity;

pub(crate) mod records;

pub(crate) mod chunk;

pub(crate) mod page_map;

pub(crate) mod set;

use core::ptr::NonNull;

use crate::arena::affinity::Affinity;
use crate::arena::chunk::Chunk;
use crate::base::layout::{POOL_BITS, POOL_SIZE, POOLS_PER_ARENA};
use crate::base::list::{Linked, Links};
use crate::pool::Pool;
use crate::pool::pages::Pages;
use crate::sync::{AtomicBool, Cell, Ordering::Relaxed};

/// The record of an arena. All zero is a record without an arena, but for `chunk`.
#[repr(C)]
pub(crate) struct Arena {
    links: Links<Arena>,
    /// Where it lies; `None` once that was given back.
    chunk: Cell<Option<Chunk>>,
    /// Where pool 0 begins, and how many there are.
    base: Cell<usize>,
    len: Cell<usize>,
    /// A bit for each pool that is empty (ARENA-1).
    free_pools: Cell<u32>,
    /// Of these, the pools that have resident pages (ARENA-3).
    warm: Cell<u32>,
    /// Whether the kernel may use huge pages in it.
    huge: AtomicBool,
    /// Whether it was wholly empty when it was looked at, and has been since.
    idle: Cell<bool>,
    /// Who takes pools from it first (AFFINITY-1).
    affinity: Cell<Option<Affinity>>,
    /// The record that was made before this one; written once.
    made_before: Cell<Option<&'static Arena>>,
    pools: [Pool; POOLS_PER_ARENA],
}

// SAFETY: reached by several threads under the locks that the module page
// names.
unsafe impl Sync for Arena {}

impl Linked for Arena {
    fn links(&self) -> &Links<Arena> {
        &self.links
    }
}

impl Arena {
    /// Makes a record that is in charge of nothing of what is all zero.
    ///
    /// # Safety
    /// `at` is aligned, zero, nobody else's, and never unmapped.
    pub(crate) unsafe fn begin(at: NonNull<Arena>) -> &'static Arena {
        // SAFETY: the caller's promise. (Which bytes say that there is no chunk is the
        // compiler's choice.)
        unsafe { (&raw mut (*at.as_ptr()).chunk).write(Cell::new(None)) };
        // SAFETY: the caller's promise; zero is valid for all the rest.
        unsafe { at.as_ref() }
    }

    /// Puts the record in charge of an arena on `chunk`, all of it empty.
    pub(crate) fn place(&self, chunk: Chunk) {
        self.chunk.set(Some(chunk));
        self.base.set(chunk.first_pool());
        self.len.set(chunk.pools());
        self.idle.set(false);
        self.affinity.set(None);
        self.huge.store(chunk.is_huge(), Relaxed);
        let (all, resident) = (
            u32::MAX >> (POOLS_PER_ARENA - chunk.pools()),
            chunk.resident(),
        );
        self.free_pools.set(all);
        self.warm.set(if resident.is_empty() { 0 } else { all });
        for (i, pool) in self.pools[..chunk.pools()].iter().enumerate() {
            pool.place(self.base.get() + i * POOL_SIZE, resident); // ARENA-2
        }
    }

    /// Takes the chunk out of the record, which is in charge of nothing then.
    pub(crate) fn leave(&self) -> Option<Chunk> {
        self.chunk.take()
    }

    /// Where its first pool begins.
    pub(crate) fn base(&self) -> usize {
        self.base.get()
    }

    /// How many pools it has.
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    /// Whether all of its pools are empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.free_pools() == self.len()
    }

    /// Whether its chunk is a program's.
    pub(crate) fn is_programs(&self) -> bool {
        self.chunk.get().is_some_and(|chunk| chunk.is_programs())
    }

    /// Bytes of its chunk.
    pub(crate) fn size(&self) -> usize {
        self.chunk.get().map_or(0, |chunk| chunk.size())
    }

    /// How many of its pools are empty.
    pub(crate) fn free_pools(&self) -> usize {
        self.free_pools.get().count_ones() as usize
    }

    /// The descriptor of the pool at `address`, which is in this arena.
    #[inline]
    pub(crate) fn pool(&'static self, address: usize) -> &'static Pool {
        &self.pools[self.index(address)]
    }

    /// The index of the pool at `address`, which is in this arena.
    #[inline]
    fn index(&self, address: usize) -> usize {
        (address.wrapping_sub(self.base.get()) >> POOL_BITS) % POOLS_PER_ARENA
    }

    /// Who has claimed it.
    pub(crate) fn affinity(&self) -> Option<Affinity> {
        self.affinity.get()
    }

    /// Says who claims it from now on.
    pub(crate) fn set_claim(&self, affinity: Option<Affinity>) {
        self.affinity.set(affinity);
    }

    /// Whether an empty pool of it has resident pages.
    pub(crate) fn has_resident_free(&self) -> bool {
        self.warm.get() != 0
    }

    /// Takes the empty pool at the lowest address, one with resident pages if
    /// there is any.
    pub(crate) fn take_pool(&'static self) -> Option<&'static Pool> {
        let free = self.free_pools.get();
        let from = if self.warm.get() == 0 {
            free
        } else {
            self.warm.get()
        };
        let pool = self.pools.get(from.trailing_zeros() as usize)?;
        let bit = from & from.wrapping_neg();
        self.free_pools.set(free & !bit);
        self.warm.set(self.warm.get() & !bit);
        self.idle.set(false);
        if free == bit {
            self.affinity.set(None); // AFFINITY-1
        }
        Some(pool)
    }

    /// Takes `pool`, which is empty now, back.
    pub(crate) fn give_pool(&'static self, pool: &'static Pool) {
        let bit = 1 << self.index(pool.base());
        debug_assert_eq!(self.free_pools.get() & bit, 0, "ARENA-1");
        self.free_pools.set(self.free_pools.get() | bit);
        if !pool.resident().is_empty() {
            self.warm.set(self.warm.get() | bit);
        }
        if self.is_empty() {
            self.affinity.set(None); // AFFINITY-1
        }
    }

    /// Its pools. Anyone may ask; what they are, only the lock says that guards
    /// them.
    pub(crate) fn pools(&'static self) -> impl Iterator<Item = &'static Pool> {
        self.pools.iter()
    }

    /// Whether the pool at `address` is empty.
    pub(crate) fn has_empty(&self, address: usize) -> bool {
        self.free_pools.get() >> self.index(address) & 1 == 1
    }

    /// Gives the pages of `pool`, which is empty, back to the kernel that are due: see
    /// [`Pool::take_purgeable`]. Returns how many bytes.
    pub(crate) fn purge_empty(&self, pool: &Pool, page: usize, at_once: bool) -> usize {
        let gone = self.give_back(pool, pool.take_purgeable(page, at_once));
        if pool.resident().is_empty() {
            self.warm
                .set(self.warm.get() & !(1 << self.index(pool.base())));
        }
        gone
    }

    /// Gives `due` pages of `pool` back to the kernel: see [`Pool::give_back`].
    /// From the first of them on, the arena's pages are small.
    pub(crate) fn give_back(&self, pool: &Pool, due: Pages) -> usize {
        if due.is_empty() {
            return 0;
        }
        if self.huge.load(Relaxed)
            && self.huge.swap(false, Relaxed)
            && let Some(chunk) = self.chunk.get()
        {
            chunk.use_small_pages();
        }
        pool.give_back(due)
    }

    /// Bytes of resident pages in its empty pools.
    pub(crate) fn resident_empty(&self) -> usize {
        let pools = self.pools[..self.len()].iter().enumerate();
        let warm = pools.filter(|(i, _)| self.warm.get() >> i & 1 == 1);
        warm.map(|(_, pool)| pool.resident().bytes()).sum()
    }

    /// Notes that it is wholly empty.
    pub(crate) fn note_idle(&self) {
        self.idle.set(true);
    }

    /// Whether it was noted as wholly empty and has been since.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.get()
    }

    /// The record that was made before this one.
    pub(crate) fn made_before(&self) -> Option<&'static Arena> {
        self.made_before.get()
    }

    /// Says which was made before. To be called once, before others see it.
    pub(crate) fn follow(&self, older: Option<&'static Arena>) {
        self.made_before.set(older);
    }

    /// Asserts the invariants of one arena, for tests.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(&self) {
        for (i, pool) in self.pools[..self.len()].iter().enumerate() {
            assert_eq!(pool.base(), self.base() + i * POOL_SIZE, "ARENA-2");
            let free = self.free_pools.get() >> i & 1 == 1;
            assert_eq!(free, pool.class().is_none(), "ARENA-1");
            let warm = self.warm.get() >> i & 1 == 1;
            assert_eq!(warm, free && !pool.resident().is_empty(), "ARENA-3");
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
    fn a_new_record_has_no_land() {
        let record = lone_record();
        assert_eq!((record.size(), record.is_programs()), (0, false));
        assert!(record.leave().is_none());
    }
}
