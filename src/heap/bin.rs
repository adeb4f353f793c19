//! The used pools of one size class, on buckets by how full they are.
//!
//! ```text
//!    bucket 0 -> pool -> pool       few free blocks: asked first
//!    bucket 1 -> pool
//!       ...
//!    bucket 7 -> pool -> pool       mostly free: left to drain
//! ```
//!
//! Blocks come from the fullest pools, so that the others can become empty and
//! go back to their arenas. A bucket covers a span of counts, so that a pool
//! changes its place rarely; on a bucket the pool that changed last is first.
//!
//! There are two such sets of buckets: for the process's own pools, and for those
//! that a forked child was born with and leaves alone (`policy/fork_cow.rs`).
//!
//! # Invariants
//!
//! BIN-1  A pool is on bucket `bucket(free)` of its class exactly while it is used:
//!     of the sealed set if its generation is before `first_own`, else of the
//!     own set.
//! BIN-2  Bit n of `occupied` is set exactly while bucket n has a member.
//!
//! # Threads
//!
//! Under the class's lock.

use crate::arena::Arena;
use crate::base::list::List;
use crate::base::size_class::{BUCKETS, ClassInfo};
use crate::heap::depot::Depot;
use crate::os::memory;
use crate::pool::Pool;
use crate::pool::pages::Pages;
use crate::sync::Cell;

/// Pools by how full they are.
struct Buckets {
    lists: [List<Pool>; BUCKETS],
    /// How many they have.
    len: Cell<u32>,
    /// Which have members (BIN-2).
    occupied: Cell<u32>,
}

impl Buckets {
    const fn new() -> Buckets {
        Buckets {
            lists: [const { List::new() }; BUCKETS],
            len: Cell::new(0),
            occupied: Cell::new(0),
        }
    }

    #[inline]
    fn first(&self) -> Option<&'static Pool> {
        self.lists
            .get(self.occupied.get().trailing_zeros() as usize)?
            .first()
    }

    #[inline]
    fn push(&self, bucket: usize, pool: &'static Pool) {
        self.lists[bucket].push(pool);
        self.len.set(self.len.get() + 1);
        self.occupied.set(self.occupied.get() | 1 << bucket);
    }

    #[inline]
    fn remove(&self, bucket: usize, pool: &'static Pool) {
        self.lists[bucket].remove(pool);
        self.len.set(self.len.get() - 1);
        if self.lists[bucket].first().is_none() {
            self.occupied.set(self.occupied.get() & !(1 << bucket));
        }
    }

    /// Takes all pools of `other`. Takes time with the number of its own.
    fn append(&self, other: &Buckets) {
        for (mine, theirs) in self.lists.iter().zip(&other.lists) {
            mine.append(theirs);
        }
        self.len.set(self.len.get() + other.len.take());
        let occupied = self.occupied.get() | other.occupied.replace(0);
        self.occupied.set(occupied);
    }
}

/// The used pools of one size class.
pub(crate) struct UsedPools {
    /// Free blocks that no pool knows as free yet.
    pub depot: Depot,
    own: Buckets,
    /// Inherited, and left alone.
    frozen: Buckets,
    /// The arena that the class has claimed last.
    pub affine: Cell<Option<&'static Arena>>,
    /// The first generation of pools that are not sealed.
    first_own: Cell<u32>,
    /// Pools of the class, the full ones too.
    pools: Cell<usize>,
    /// Blocks of the class that are not free in any pool.
    taken: Cell<usize>,
    /// Bytes of resident pages in its pools.
    resident: Cell<usize>,
    /// Requests that were looked at, and their bytes.
    sampled: Cell<usize>,
    requested: Cell<usize>,
}

/// The bucket of a pool with so many free blocks; `None` if it is full.
#[inline]
fn bucket(info: &ClassInfo, free: u32) -> Option<usize> {
    free.checked_sub(1)
        .map(|free| (free >> info.bucket_bits) as usize)
}

impl UsedPools {
    /// No pool yet.
    pub(crate) const fn new() -> UsedPools {
        UsedPools {
            depot: Depot::new(),
            own: Buckets::new(),
            frozen: Buckets::new(),
            affine: Cell::new(None),
            first_own: Cell::new(0),
            pools: Cell::new(0),
            taken: Cell::new(0),
            resident: Cell::new(0),
            sampled: Cell::new(0),
            requested: Cell::new(0),
        }
    }

    /// Requests that were looked at.
    pub(crate) fn sampled(&self) -> usize {
        self.sampled.get()
    }

    /// The bytes of these requests.
    pub(crate) fn requested(&self) -> usize {
        self.requested.get()
    }

    /// Pools of the class.
    pub(crate) fn pools(&self) -> usize {
        self.pools.get()
    }

    /// Blocks that are live or in a magazine.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// How many pools are full.
    pub(crate) fn full(&self) -> usize {
        self.pools.get() - (self.own.len.get() + self.frozen.len.get()) as usize
    }

    /// The used pool to take blocks from.
    #[inline]
    pub(crate) fn fullest(&self) -> Option<&'static Pool> {
        self.own.first()
    }

    /// Seals all pools that are of an earlier generation than `first_own`: in a
    /// forked child, all there are.
    pub(crate) fn freeze(&self, first_own: u32) {
        self.first_own.set(first_own);
        self.own.append(&self.frozen);
        self.frozen.append(&self.own);
    }

    /// Makes sealed pools the class's own, if there are any that are used.
    pub(crate) fn unfreeze(&self) -> bool {
        self.first_own.set(0);
        let any = self.frozen.first().is_some();
        self.own.append(&self.frozen);
        any
    }

    /// Whether there are sealed pools that are used.
    pub(crate) fn has_frozen(&self) -> bool {
        self.frozen.first().is_some()
    }

    #[inline]
    fn buckets_of(&self, pool: &Pool) -> &Buckets {
        if pool.generation() < self.first_own.get() {
            &self.frozen
        } else {
            &self.own
        }
    }

    /// Bytes of resident pages in pools of the class.
    pub(crate) fn resident(&self) -> usize {
        self.resident.get()
    }

    /// `pool` has joined the class; it is on no bucket yet.
    pub(crate) fn on_added(&self, pool: &Pool) {
        self.pools.set(self.pools.get() + 1);
        self.resident_changed(Pages::NONE, pool.resident());
    }

    /// `pool` has left the class and its bucket.
    pub(crate) fn left(&self, pool: &Pool) {
        self.pools.set(self.pools.get() - 1);
        self.resident_changed(pool.resident(), Pages::NONE);
    }

    /// The resident pages of a pool were those before and are these now.
    #[inline]
    pub(crate) fn resident_changed(&self, before: Pages, now: Pages) {
        if before != now {
            self.resident
                .set(self.resident.get() + now.bytes() - before.bytes());
        }
    }

    /// So many blocks were taken from pools of the class, for the sake of a
    /// request for so many bytes.
    pub(crate) fn record_take(&self, blocks: usize, request: usize) {
        self.sampled.set(self.sampled.get() + 1);
        self.requested
            .set(self.requested.get().wrapping_add(request));
        self.taken.set(self.taken.get() + blocks);
    }

    /// So many blocks came back to pools of the class.
    pub(crate) fn record_give(&self, blocks: usize) {
        self.taken.set(self.taken.get() - blocks);
    }

    /// Gives the pages of `pool`, which belongs to the class and lies in `arena`,
    /// one of the kernel's, back that are due: see [`Pool::take_purgeable`]. Returns how
    /// many bytes.
    #[inline(never)]
    pub(crate) fn purge(&self, arena: &Arena, pool: &Pool, at_once: bool) -> usize {
        let before = pool.resident();
        let due = pool.take_purgeable(memory::page_size(), at_once);
        let gone = arena.give_back(pool, due);
        self.resident_changed(before, pool.resident());
        gone
    }

    /// Moves `pool` from the bucket for `before` free blocks to the one for
    /// `after`. 0 stands for being on no bucket, as a full pool is; a pool that
    /// has just joined or is about to leave is on none either.
    #[inline(always)]
    pub(crate) fn moved(&self, pool: &'static Pool, info: &ClassInfo, before: u32, after: u32) {
        // The same for `None` as for a bucket that there is not.
        let number = |free: u32| free.wrapping_sub(1) >> info.bucket_bits;
        if number(before) != number(after) {
            self.change_bucket(pool, bucket(info, before), bucket(info, after));
        }
    }

    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    fn change_bucket(&self, pool: &'static Pool, from: Option<usize>, to: Option<usize>) {
        let buckets = self.buckets_of(pool);
        if let Some(from) = from {
            buckets.remove(from, pool);
        }
        if let Some(to) = to {
            buckets.push(to, pool);
        }
    }

    /// Asserts the invariants, for tests.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(
        &self,
        shard: crate::pool::shard::Shard,
        class: crate::base::size_class::SizeClass,
    ) {
        for (buckets, frozen) in [(&self.own, false), (&self.frozen, true)] {
            let len: usize = buckets.lists.iter().map(|list| list.iter().count()).sum();
            assert_eq!(len, buckets.len.get() as usize);
            for (n, list) in buckets.lists.iter().enumerate() {
                let occupied = buckets.occupied.get() >> n & 1 == 1;
                assert_eq!(occupied, list.first().is_some(), "BIN-2");
                for pool in list.iter() {
                    assert_eq!((pool.class(), pool.shard()), (Some(class), shard));
                    let free = pool.free();
                    assert!(free > 0 && free < class.info().blocks, "POOL-4 BIN-1");
                    assert_eq!(bucket(class.info(), free), Some(n), "BIN-1");
                    assert_eq!(pool.generation() < self.first_own.get(), frozen, "BIN-1");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::size_class::SizeClass;
    use crate::tests::*;

    #[test]
    fn fuller_pools_stand_on_lower_shelves() {
        for class in SizeClass::all() {
            let info = class.info();
            assert_eq!(bucket(info, 0), None);
            let buckets: Vec<_> = (1..=info.blocks).map(|free| bucket(info, free)).collect();
            assert!(buckets.is_sorted());
            assert!(
                buckets
                    .iter()
                    .all(|bucket| bucket.is_some_and(|n| n < BUCKETS))
            );
        }
    }
}
