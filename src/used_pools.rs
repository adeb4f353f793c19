//! The used pools of one size class, on shelves by how full they are.
//!
//! ```text
//!    shelf 0 -> pool -> pool       few free blocks: asked first
//!    shelf 1 -> pool
//!       ...
//!    shelf 7 -> pool -> pool       mostly free: left to drain
//! ```
//!
//! Blocks come from the fullest pools, so that the others can become empty and
//! go back to their arenas. A shelf covers a span of counts, so that a pool
//! changes its place rarely; on a shelf the pool that changed last is first.
//!
//! # Invariants
//!
//! Q1  A pool is on shelf `shelf(free)` of its class exactly while it is used.
//! Q2  Bit n of `occupied` is set exactly while shelf n has a member.
//!
//! # Threads
//!
//! Under the class's lock.

use core::cell::Cell;

use crate::list::List;
use crate::pool::Pool;
use crate::size_class::Shape;

const SHELVES: usize = 8;

/// The used pools of one size class.
pub struct UsedPools {
    shelves: [List<Pool>; SHELVES],
    /// Which shelves have members (Q2).
    occupied: Cell<u32>,
    /// Pools of the class, the full ones too.
    pools: Cell<usize>,
    /// Blocks of the class that are not free in any pool.
    taken: Cell<usize>,
}

/// The shelf of a pool with so many free blocks; `None` if it is full.
#[inline]
fn shelf(shape: &Shape, free: u32) -> Option<usize> {
    let span = shape.blocks.ilog2().saturating_sub(SHELVES.ilog2() - 1);
    free.checked_sub(1).map(|free| (free >> span) as usize)
}

impl UsedPools {
    /// No pool yet.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> UsedPools {
        UsedPools {
            shelves: [const { List::new() }; SHELVES],
            occupied: Cell::new(0),
            pools: Cell::new(0),
            taken: Cell::new(0),
        }
    }

    /// Pools of the class.
    pub fn pools(&self) -> usize {
        self.pools.get()
    }

    /// Blocks that are live or in a magazine.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// How many pools are full.
    pub fn full(&self) -> usize {
        let used: usize = self.shelves.iter().map(|shelf| shelf.iter().count()).sum();
        self.pools.get() - used
    }

    /// The used pool to take blocks from.
    #[inline]
    pub fn fullest(&self) -> Option<&'static Pool> {
        self.shelves
            .get(self.occupied.get().trailing_zeros() as usize)?
            .first()
    }

    /// A pool has joined the class; it is on no shelf yet.
    pub fn joined(&self) {
        self.pools.set(self.pools.get() + 1);
    }

    /// A pool has left the class and its shelf.
    pub fn left(&self) {
        self.pools.set(self.pools.get() - 1);
    }

    /// So many blocks were taken from pools of the class.
    pub fn took(&self, blocks: usize) {
        self.taken.set(self.taken.get() + blocks);
    }

    /// So many blocks came back to pools of the class.
    pub fn got_back(&self, blocks: usize) {
        self.taken.set(self.taken.get() - blocks);
    }

    /// Moves `pool` from the shelf for `before` free blocks to the one for
    /// `after`. 0 stands for being on no shelf, as a full pool is; a pool that
    /// has just joined or is about to leave is on none either.
    #[inline]
    pub fn moved(&self, pool: &'static Pool, shape: &Shape, before: u32, after: u32) {
        let (from, to) = (shelf(shape, before), shelf(shape, after));
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.shelves[from].remove(pool);
            if self.shelves[from].first().is_none() {
                self.occupied.set(self.occupied.get() & !(1 << from));
            }
        }
        if let Some(to) = to {
            self.shelves[to].push(pool);
            self.occupied.set(self.occupied.get() | 1 << to);
        }
    }

    /// Asserts the invariants, for tests.
    #[cfg(test)]
    pub fn check(&self, class: crate::size_class::SizeClass) {
        for (n, list) in self.shelves.iter().enumerate() {
            assert_eq!(
                self.occupied.get() >> n & 1 == 1,
                list.first().is_some(),
                "Q2"
            );
            for pool in list.iter() {
                assert_eq!(pool.class(), Some(class));
                assert!(
                    pool.free() > 0 && pool.free() < class.shape().blocks,
                    "P4 Q1"
                );
                assert_eq!(shelf(class.shape(), pool.free()), Some(n), "Q1");
                pool.check();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size_class::SizeClass;
    use crate::tests::*;

    #[test]
    fn fuller_pools_stand_on_lower_shelves() {
        for class in SizeClass::all() {
            let shape = class.shape();
            assert_eq!(shelf(shape, 0), None);
            let shelves: Vec<_> = (1..=shape.blocks).map(|free| shelf(shape, free)).collect();
            assert!(shelves.is_sorted());
            assert!(
                shelves
                    .iter()
                    .all(|shelf| shelf.is_some_and(|n| n < SHELVES))
            );
        }
    }
}
