//! An arena: 2 MiB of pools, the unit in which memory comes from the kernel.
//! This is its record, which lies apart from it.
//!
//! ```text
//!    ARENA_SIZE bytes at a multiple of ARENA_SIZE
//!    +--------+--------+--------+--------+--------+-- ... --+--------+
//!    | pool 0 | pool 1 | pool 2 | pool 3 | pool 4 |         | pool 31|
//!    +--------+--------+--------+--------+--------+-- ... --+--------+
//!        |        |        |
//!    pools[0]  pools[1]  pools[2]   ...  the descriptors, in the record
//!
//!    free_pools: a bit for each pool, 1 == empty
//! ```
//!
//! # Invariants
//!
//! A1  A bit of `free_pools` is set exactly while its pool is empty.
//! A2  The i-th descriptor is in charge of the i-th pool.
//!
//! # Threads
//!
//! Records are made, filled and listed under the arenas' lock and never given
//! back to the kernel: a reference to one stays good. `pools` are touched as
//! `pool.rs` says.

use core::cell::Cell;

use crate::geometry::{ARENA_SIZE, POOL_SIZE, POOLS_PER_ARENA, arena_base, pool_in_arena};
use crate::list::{Linked, Links};
use crate::pool::Pool;

/// The record of an arena. All zero is a record without an arena.
#[repr(C)]
pub struct Arena {
    links: Links<Arena>,
    base: Cell<usize>,
    /// A bit for each pool that is empty (A1).
    free_pools: Cell<u32>,
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
    /// Puts the record in charge of the arena at `base`, all of it empty.
    pub fn place(&self, base: usize) {
        debug_assert_eq!(base, arena_base(base));
        self.base.set(base);
        self.free_pools.set(u32::MAX);
        for (i, pool) in self.pools.iter().enumerate() {
            pool.place(base + i * POOL_SIZE); // A2
        }
    }

    /// Where the arena lies.
    pub fn base(&self) -> usize {
        self.base.get()
    }

    /// How many of its pools are empty.
    pub fn free_pools(&self) -> usize {
        self.free_pools.get().count_ones() as usize
    }

    /// The descriptor of the pool at `address`, which is in this arena.
    #[inline]
    pub fn pool(&'static self, address: usize) -> &'static Pool {
        &self.pools[pool_in_arena(address)]
    }

    /// Takes the empty pool at the lowest address.
    pub fn take_pool(&'static self) -> Option<&'static Pool> {
        let free = self.free_pools.get();
        let pool = self.pools.get(free.trailing_zeros() as usize)?;
        self.free_pools.set(free & (free - 1));
        Some(pool)
    }

    /// Takes `pool`, which is empty now, back.
    pub fn give_pool(&'static self, pool: &'static Pool) {
        let bit = 1 << pool_in_arena(pool.base());
        debug_assert_eq!(self.free_pools.get() & bit, 0, "A1");
        self.free_pools.set(self.free_pools.get() | bit);
    }

    /// Asserts the invariants of one arena, for tests.
    #[cfg(test)]
    pub fn check(&self) {
        for (i, pool) in self.pools.iter().enumerate() {
            assert_eq!(pool.base(), self.base() + i * POOL_SIZE, "A2");
            let free = self.free_pools.get() >> i & 1 == 1;
            assert_eq!(free, pool.class().is_none(), "A1");
            pool.check();
        }
    }
}

const _: () = assert!(POOL_SIZE * POOLS_PER_ARENA == ARENA_SIZE);
