//! The bin of a size class in a shard: its used pools, in buckets by how full they are, and its
//! depot.
//!
//! ```text
//!    bucket 0 -> pool -> pool       few free blocks: used first
//!    bucket 1 -> pool
//!       ...
//!    bucket 7 -> pool -> pool       mostly free: left to drain
//! ```
//!
//! Blocks come from the fullest pools, so that the others can become empty and return to their
//! arenas. A bucket covers a range of counts, so that a pool changes its bucket rarely; within a
//! bucket the pool that changed last is first.
//!
//! There are two sets of buckets: for the process's own pools, and for frozen ones, which a forked
//! child has inherited and takes no blocks from (`policy/fork_cow.rs`).
//!
//! # Invariants
//!
//! BIN-1  A pool is in bucket `bucket(free)` of its class exactly while it is used: of the frozen
//!     set if its generation is before `first_own`, else of the own set.
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
use crate::pool::bitmap::Pages;
use crate::sync::Cell;

/// Pools by how full they are.
struct Buckets {
    lists: [List<Pool>; BUCKETS],
    /// Pools in all of them.
    len: Cell<u32>,
    /// The buckets that have members (BIN-2).
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

    /// Moves all pools of `other` here. Takes time in the number of pools already here.
    fn append(&self, other: &Buckets) {
        for (list, others) in self.lists.iter().zip(&other.lists) {
            list.append(others);
        }
        self.len.set(self.len.get() + other.len.take());
        let occupied = self.occupied.get() | other.occupied.replace(0);
        self.occupied.set(occupied);
    }
}

/// The bin of one size class in a shard.
pub(crate) struct Bin {
    /// Free blocks that count as taken in their pools.
    pub depot: Depot,
    own: Buckets,
    frozen: Buckets,
    /// The arena that last got an affinity to the class.
    pub affine: Cell<Option<&'static Arena>>,
    /// The first generation of pools that are not frozen.
    first_own: Cell<u32>,
    /// Pools of the class, the full ones too.
    pools: Cell<usize>,
    /// Blocks of the class that are not free in any pool.
    taken: Cell<usize>,
    /// Bytes of resident pages in its pools.
    resident: Cell<usize>,
    /// Requests that reached the bin, and their bytes.
    sampled: Cell<usize>,
    requested: Cell<usize>,
}

/// The bucket of a pool with this number of free blocks; `None` if it is full.
#[inline]
fn bucket(info: &ClassInfo, free: u32) -> Option<usize> {
    free.checked_sub(1)
        .map(|free| (free >> info.bucket_bits) as usize)
}

impl Bin {
    pub(crate) const fn new() -> Bin {
        Bin {
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

    /// Requests that reached the bin: a sample of all.
    pub(crate) fn sampled(&self) -> usize {
        self.sampled.get()
    }

    /// The bytes of these requests.
    pub(crate) fn requested(&self) -> usize {
        self.requested.get()
    }

    /// Pools of the class, used and full.
    pub(crate) fn pools(&self) -> usize {
        self.pools.get()
    }

    /// Blocks that are live, in a magazine or in the depot.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// The number of full pools.
    pub(crate) fn full(&self) -> usize {
        self.pools.get() - (self.own.len.get() + self.frozen.len.get()) as usize
    }

    /// The used pool to take blocks from.
    #[inline]
    pub(crate) fn fullest(&self) -> Option<&'static Pool> {
        self.own.first()
    }

    /// Freezes all pools that are of an earlier generation than `first_own`: in a forked child, all
    /// there are.
    pub(crate) fn freeze(&self, first_own: u32) {
        self.first_own.set(first_own);
        self.own.append(&self.frozen);
        self.frozen.append(&self.own);
    }

    /// Makes frozen pools the class's own. Returns whether any of them is used.
    pub(crate) fn unfreeze(&self) -> bool {
        self.first_own.set(0);
        let any = self.frozen.first().is_some();
        self.own.append(&self.frozen);
        any
    }

    /// Whether a frozen pool is used.
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

    /// Counts `pool`, which was assigned to the class and is in no bucket yet.
    pub(crate) fn on_added(&self, pool: &Pool) {
        self.pools.set(self.pools.get() + 1);
        self.resident_changed(Pages::NONE, pool.resident());
    }

    /// Counts that `pool` leaves the class. It is in no bucket any more.
    pub(crate) fn on_removed(&self, pool: &Pool) {
        self.pools.set(self.pools.get() - 1);
        self.resident_changed(pool.resident(), Pages::NONE);
    }

    /// Counts a change of the resident pages of a pool.
    #[inline]
    pub(crate) fn resident_changed(&self, before: Pages, now: Pages) {
        if before != now {
            self.resident
                .set(self.resident.get() + now.bytes() - before.bytes());
        }
    }

    /// Counts blocks that were taken from pools of the class, for a request of `request` bytes.
    pub(crate) fn on_alloc(&self, blocks: usize, request: usize) {
        self.sampled.set(self.sampled.get() + 1);
        self.requested
            .set(self.requested.get().wrapping_add(request));
        self.taken.set(self.taken.get() + blocks);
    }

    /// Counts blocks that were given to pools of the class.
    pub(crate) fn on_free(&self, blocks: usize) {
        self.taken.set(self.taken.get() - blocks);
    }

    /// Purges the pages of `pool`, of the class and in `arena`, one of the kernel's, that are due:
    /// see [`Pool::take_purgeable`]. Returns the number of bytes.
    #[inline(never)]
    pub(crate) fn purge(&self, arena: &Arena, pool: &Pool, at_once: bool) -> usize {
        let before = pool.resident();
        if arena.had_huge_pages() && (at_once || !arena.has_huge_pages()) {
            pool.count_unpurged();
        }
        let due = pool.take_purgeable(memory::page_size(), at_once);
        let purged = arena.purge(pool, due);
        self.resident_changed(before, pool.resident());
        purged
    }

    /// Moves `pool` from the bucket for `before` free blocks to the one for `after`. 0 stands for no
    /// bucket: that of a full pool, and of one that was just added or is about to be removed.
    #[inline(always)]
    pub(crate) fn requeue(&self, pool: &'static Pool, info: &ClassInfo, before: u32, after: u32) {
        // As `bucket`, with a number that no bucket has in place of `None`.
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
        shard: crate::pool::Shard,
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
    fn fuller_pools_are_in_lower_buckets() {
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
