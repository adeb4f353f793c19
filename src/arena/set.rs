//! The arenas of a heap: which one the next pool is taken from, and which are unmapped.
//!
//! ```text
//!    usable[1]  -> arena -> arena        one empty pool each: used first
//!    usable[2]
//!    usable[3]  -> arena
//!       ...
//!    usable[31] -> arena -> arena        nearly empty: left to drain
//!    usable[32] -> arena                 wholly empty: kept, up to a limit
//! ```
//!
//! A new pool comes from the fullest arena that has one, as in obmalloc, so that the emptiest
//! arenas can drain and be unmapped; those of large classes come side by side (affinity, in
//! `arena/mod.rs`). An arena without empty pools is on no list.
//!
//! Stock CPython keeps one empty arena and unmaps the next. That costs programs which build and drop
//! the same amount again and again a third of their time in page faults, and unmapping everything
//! takes as long as freeing the objects. So where a helper thread purges what stays empty
//! (`background/decay.rs`), no arena is unmapped at once; elsewhere some are kept: see
//! [`Arenas::kept`]. Of custom arenas one is kept, as in stock: a program that sets an arena
//! allocator observes it.
//!
//! Chunks are taken and released outside of the lock, by the heap.
//!
//! Records are metadata. The record of an arena that was unmapped waits for the next arena.
//!
//! # Invariants
//!
//! ARENAS-1  An arena is on `usable[n]`, n > 0, exactly while it has n empty pools.
//! ARENAS-2  Bit n of `occupied` is set exactly while `usable[n]` has a member.
//! ARENAS-3  Every arena on a list has a chunk and is in the page map.
//!
//! # Threads
//!
//! All of it under the heap's lock of the arenas.

use crate::arena::chunk::{self, Chunk};
use crate::arena::metadata;
use crate::arena::page_map::MAP;
use crate::arena::{Affinity, Arena};
use crate::base::layout::POOLS_PER_ARENA;
use crate::base::list::List;
use crate::os::sandbox;
use crate::policy::limits;
use crate::pool::{self, Pool};
use crate::sync::{AtomicBool, Cell, Ordering::Relaxed};

/// Whether empty arenas are unmapped by time, so that none needs to be at once.
static DECAY: AtomicBool = AtomicBool::new(true);

/// Sets whether empty arenas are unmapped by time, whatever the program does.
pub(crate) fn set_decay(on: bool) {
    DECAY.store(on, Relaxed);
}

/// Empty arenas that are kept in any case.
const KEPT_ALWAYS: usize = 8;
/// One empty arena is kept for this number of arenas in use.
const KEPT_SHARE: usize = 4;
/// Empty custom arenas that are kept.
const KEPT_CUSTOM: usize = 1;
/// Bound on the arenas that are searched for an empty pool with resident pages.
const SEARCHED: usize = 16;

/// The arenas of a heap.
pub(crate) struct Arenas {
    /// By number of empty pools (ARENAS-1); entry 0 stays unused.
    usable: [List<Arena>; POOLS_PER_ARENA + 1],
    /// The members of `usable` that are not empty (ARENAS-2).
    occupied: Cell<u64>,
    /// Records without an arena.
    spare: List<Arena>,
    /// The newest record, the head of the chain of all.
    newest: Cell<Option<&'static Arena>>,
    records: Cell<usize>,
    counts: Cell<Counts>,
}

/// Counters of the arenas.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Arenas that have a chunk.
    pub mapped: usize,
    /// Of these, those that are wholly empty.
    pub empty: usize,
    /// Of the empty ones, those that are custom.
    pub empty_custom: usize,
    /// Bytes of their chunks.
    pub bytes: usize,
    pub pools: usize,
    /// Empty pools.
    pub free_pools: usize,
    /// Bytes of resident pages in empty pools.
    pub resident_empty: usize,
    /// Arenas ever mapped.
    pub mapped_total: usize,
    /// Arenas ever unmapped.
    pub unmapped_total: usize,
    /// The maximum of `mapped`.
    pub highwater: usize,
    /// Bytes of records.
    pub record_bytes: usize,
}

impl Arenas {
    pub(crate) const fn new() -> Arenas {
        Arenas {
            usable: [const { List::new() }; POOLS_PER_ARENA + 1],
            occupied: Cell::new(0),
            spare: List::new(),
            newest: Cell::new(None),
            records: Cell::new(0),
            counts: Cell::new(Counts {
                mapped: 0,
                empty: 0,
                empty_custom: 0,
                bytes: 0,
                pools: 0,
                free_pools: 0,
                resident_empty: 0,
                mapped_total: 0,
                unmapped_total: 0,
                highwater: 0,
                record_bytes: 0,
            }),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            record_bytes: self.records.get() * size_of::<Arena>(),
            ..self.counts.get()
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// The number of empty arenas that are kept for the next peak.
    pub(crate) fn kept(&self) -> usize {
        if limits::is_near() {
            return 0;
        }
        if DECAY.load(Relaxed) && chunk::is_standard() && !sandbox::is_restricted() {
            return usize::MAX;
        }
        KEPT_ALWAYS.max(self.counts.get().mapped / KEPT_SHARE)
    }

    /// Takes an empty pool; for a class with an affinity, preferably from `affine`, the arena that
    /// has it. `None` if there is no empty pool.
    pub(crate) fn take_pool(
        &self,
        affinity: Option<Affinity>,
        affine: &Cell<Option<&'static Arena>>,
    ) -> Option<&'static Pool> {
        let is_own = |arena: &&Arena| affinity.is_some() && arena.affinity() == affinity;
        let own = affine.get().filter(is_own);
        let arena = self.choose(affinity, own)?;
        self.unlist(arena);
        if affinity.is_some() && own.is_none() && arena.affinity().is_none() {
            arena.set_affinity(affinity);
            affine.set(Some(arena));
        }
        let pool = arena.take_pool()?; // ARENAS-1
        self.list(arena);
        self.count(|counts| {
            counts.free_pools -= 1;
            counts.resident_empty -= pool.resident().bytes();
        });
        Some(pool)
    }

    /// The arena that the next pool comes from: one with resident pages in empty pools, the affine
    /// one first, if there is one among the first [`SEARCHED`].
    fn choose(
        &self,
        affinity: Option<Affinity>,
        own: Option<&'static Arena>,
    ) -> Option<&'static Arena> {
        let fullest = self.occupied.get().trailing_zeros() as usize;
        let lists = self.usable.get(fullest..)?; // ARENAS-2
        let arenas = || lists.iter().flat_map(List::iter);
        if self.counts.get().resident_empty > 0 {
            let mut searched = own.into_iter().chain(arenas().take(SEARCHED));
            let resident = searched.find(|arena| arena.has_resident_free());
            if resident.is_some() {
                return resident;
            }
        }
        if affinity.is_some() {
            own.or_else(|| arenas().find(|arena| arena.affinity().is_none()))
        } else {
            arenas().next()
        }
    }

    /// Takes back `pool`, which belongs to `arena` and is empty now. The arena moves to its new
    /// place among the usable ones.
    pub(crate) fn give_pool(&self, arena: &'static Arena, pool: &'static Pool) {
        self.unlist(arena);
        arena.give_pool(pool);
        self.count(|counts| {
            counts.free_pools += 1;
            counts.resident_empty += pool.resident().bytes();
        });
        self.list(arena);
    }

    /// Takes the chunk out of a wholly empty arena, if there are more of them than are kept.
    pub(crate) fn take_surplus(&self) -> Option<Chunk> {
        let Counts {
            empty,
            empty_custom,
            ..
        } = self.counts.get();
        if empty_custom > KEPT_CUSTOM {
            self.remove(Arena::is_custom)
        } else if empty - empty_custom > self.kept() {
            self.remove(|arena| !arena.is_custom())
        } else {
            None
        }
    }

    /// Takes the chunk out of a wholly empty arena, if there is one.
    pub(crate) fn take_any_empty(&self) -> Option<Chunk> {
        self.remove(|_| true)
    }

    /// Takes the chunk out of an arena that has been wholly empty since `mark_idle` was called, or
    /// `at_once` of any empty one, if there is one. A custom chunk is released within the program's
    /// own calls only: its allocator may not expect another thread.
    pub(crate) fn take_idle(&self, at_once: bool) -> Option<Chunk> {
        self.remove(|arena| (at_once || arena.is_idle()) && !arena.is_custom())
    }

    /// Marks the arenas that are wholly empty now.
    pub(crate) fn mark_idle(&self) {
        for arena in self.usable[POOLS_PER_ARENA].iter() {
            arena.mark_idle();
        }
    }

    /// Purges the pages of `pool`, in `arena`, that are due, if the pool is empty: see
    /// [`Pool::take_purgeable`]. Returns the number of bytes.
    pub(crate) fn purge(
        &self,
        arena: &'static Arena,
        pool: &'static Pool,
        os_page: usize,
        at_once: bool,
    ) -> usize {
        if !arena.is_pool_empty(pool.base()) || arena.is_custom() || arena.size() == 0 {
            return 0;
        }
        let purged = arena.purge_empty(pool, os_page, at_once);
        self.count(|counts| counts.resident_empty -= purged);
        purged
    }

    /// The newest record, the head of the chain of all.
    pub(crate) fn newest(&self) -> Option<&'static Arena> {
        self.newest.get()
    }

    fn list(&self, arena: &'static Arena) {
        let n = arena.free_pools();
        if n > 0 {
            self.usable[n].push(arena);
            self.occupied.set(self.occupied.get() | 1 << n);
        }
        if arena.is_empty() {
            self.count(|counts| {
                counts.empty += 1;
                counts.empty_custom += usize::from(arena.is_custom());
            });
        }
    }

    fn unlist(&self, arena: &'static Arena) {
        let n = arena.free_pools();
        if n > 0 {
            self.usable[n].remove(arena);
            if self.usable[n].first().is_none() {
                self.occupied.set(self.occupied.get() & !(1 << n));
            }
        }
        if arena.is_empty() {
            self.count(|counts| {
                counts.empty -= 1;
                counts.empty_custom -= usize::from(arena.is_custom());
            });
        }
    }

    /// Adds an arena on `chunk`, wholly empty. `Err` returns the chunk: there is no memory for the
    /// arena's record, or its entry in the page map.
    #[cold]
    pub(crate) fn add(&self, chunk: Chunk) -> Result<(), Chunk> {
        let Some(arena) = self.spare.pop().or_else(|| self.make_record()) else {
            return Err(chunk);
        };
        arena.init(chunk);
        if !MAP.add_arena(arena) {
            arena.take_chunk();
            self.spare.push(arena);
            return Err(chunk);
        }
        self.count(|counts| {
            counts.mapped += 1;
            counts.mapped_total += 1;
            counts.bytes += chunk.size();
            counts.pools += chunk.pools();
            counts.free_pools += chunk.pools();
            counts.resident_empty += chunk.pools() * chunk.resident().bytes();
            counts.highwater = counts.highwater.max(counts.mapped);
        });
        self.list(arena);
        Ok(())
    }

    /// A new record. `None` if there is no memory for it.
    fn make_record(&self) -> Option<&'static Arena> {
        let record = metadata::take(size_of::<Arena>())?.cast();
        self.records.set(self.records.get() + 1);
        // SAFETY: METADATA-1: a piece of metadata is zero, this caller's alone, never unmapped, and
        // aligned to more than a record.
        let record = unsafe { Arena::init_record(record) };
        record.set_older(self.newest.replace(Some(record)));
        Some(record)
    }

    /// Takes the chunk out of a wholly empty arena that is `wanted`. All its pools are empty, so no
    /// block in it is live, or cached.
    #[cold]
    fn remove(&self, wanted: impl Fn(&Arena) -> bool) -> Option<Chunk> {
        // From the end, where the arenas with the most empty pools are.
        let mut all = self.usable.iter().rev().flat_map(List::iter);
        let arena = all.find(|arena| arena.is_empty() && wanted(arena))?;
        self.unlist(arena);
        MAP.remove_arena(arena);
        let resident = arena.resident_empty();
        if !arena.is_custom() {
            pool::count_purged(resident, false);
        }
        self.count(|counts| counts.resident_empty -= resident);
        let chunk = arena.take_chunk();
        self.spare.push(arena);
        let chunk = chunk?;
        self.count(|counts| {
            counts.mapped -= 1;
            counts.unmapped_total += 1;
            counts.bytes -= chunk.size();
            counts.pools -= chunk.pools();
            counts.free_pools -= chunk.pools();
        });
        Some(chunk)
    }

    /// The arenas that have a chunk, on a list or not, from the newest record on.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn mapped(&self) -> impl Iterator<Item = &'static Arena> {
        let all = core::iter::successors(self.newest(), |arena| arena.older());
        all.filter(|arena| arena.size() > 0)
    }

    /// Asserts the invariants, for tests.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(&self) {
        for (n, list) in self.usable.iter().enumerate() {
            let has_members = list.first().is_some();
            assert_eq!(self.occupied.get() >> n & 1 == 1, has_members, "ARENAS-2");
            for arena in list.iter() {
                assert_eq!(
                    (arena.free_pools(), arena.size() > 0),
                    (n, true),
                    "ARENAS-1 ARENAS-3"
                );
            }
        }
        let (mut sums, listed) = (Counts::default(), self.usable.iter().flat_map(List::iter));
        let mut not_listed = 0;
        for arena in self.mapped() {
            arena.check();
            not_listed += usize::from(arena.free_pools() == 0);
            sums.mapped += 1;
            sums.bytes += arena.size();
            sums.pools += arena.len();
            sums.free_pools += arena.free_pools();
            sums.resident_empty += arena.resident_empty();
            sums.empty += usize::from(arena.is_empty());
            sums.empty_custom += usize::from(arena.is_empty() && arena.is_custom());
        }
        assert_eq!(sums.mapped, listed.count() + not_listed, "ARENAS-1");
        let counts = self.counts();
        let compared = |c: &Counts| {
            let free = [c.free_pools, c.resident_empty, c.empty, c.empty_custom];
            ([c.mapped, c.bytes, c.pools], free)
        };
        assert_eq!(compared(&sums), compared(&counts));
        assert_eq!(counts.mapped, counts.mapped_total - counts.unmapped_total);
        assert!(counts.highwater >= counts.mapped);
    }
}

const _: () = assert!(align_of::<Arena>() <= metadata::ALIGNMENT);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::POOL_SIZE;
    use crate::base::size_class::SizeClass;
    use crate::pool::Shard;
    use crate::tests::*;
    use core::ptr;

    fn assign(pool: &'static Pool) -> &'static Pool {
        pool.assign(Shard::FIRST, SizeClass::of(1).unwrap());
        pool
    }

    fn give(arenas: &Arenas, pool: &'static Pool) {
        pool.reset();
        arenas.give_pool(MAP.arena(pool.base()).unwrap(), pool);
        while let Some(chunk) = arenas.take_surplus() {
            chunk.release();
        }
        arenas.check();
    }

    fn take(arenas: &Arenas) -> &'static Pool {
        take_for(arenas, None, &Cell::new(None))
    }

    fn take_for(
        arenas: &Arenas,
        affinity: Option<Affinity>,
        affine: &Cell<Option<&'static Arena>>,
    ) -> &'static Pool {
        let pool = arenas.take_pool(affinity, affine).or_else(|| {
            arenas.add(Chunk::take()?).ok()?;
            arenas.take_pool(affinity, affine)
        });
        let pool = assign(pool.unwrap());
        arenas.check();
        pool
    }

    #[test]
    fn large_classes_take_their_pools_side_by_side() {
        let arenas = Arenas::new();
        let class = |size| Affinity::of(Shard::FIRST, SizeClass::of(size).unwrap());
        let affinities = [class(48), class(64), None].map(|affinity| (affinity, Cell::new(None)));
        // In turn, but the pools of each class are adjacent; the third class is small.
        let taken = |rounds: usize| -> Vec<[&Pool; 3]> {
            let round = || {
                affinities
                    .each_ref()
                    .map(|(affinity, own)| take_for(&arenas, *affinity, own))
            };
            (0..rounds).map(|_| round()).collect()
        };
        let rounds = taken(POOLS_PER_ARENA / 4);
        for pair in rounds.windows(2) {
            assert_eq!(pair[1][0].base() - pair[0][0].base(), POOL_SIZE);
            assert_eq!(pair[1][1].base() - pair[0][1].base(), 2 * POOL_SIZE);
        }
        // A class without pools has no affinity any more: the next one gets it.
        let (_, own) = &affinities[0];
        let arena = own.get().unwrap();
        for [first, ..] in rounds {
            give(&arenas, first);
        }
        assert_eq!(arena.affinity(), None);
        let next = take_for(&arenas, class(80), &Cell::new(None));
        assert!(ptr::eq(MAP.arena(next.base()).unwrap(), arena));
        assert_eq!(arena.affinity(), class(80));
    }

    #[test]
    fn the_fullest_arena_gives_first_and_the_emptiest_drains() {
        let arenas = Arenas::new();
        let pools: Vec<_> = (0..3 * POOLS_PER_ARENA).map(|_| take(&arenas)).collect();
        assert_eq!(arenas.counts().mapped, 3);
        assert_eq!(arenas.counts().free_pools, 0);
        // Arena 0 gets one empty pool, arena 1 three, arena 2 two.
        let of = |arena: usize, i: usize| pools[arena * POOLS_PER_ARENA + i];
        for (arena, i) in [(0, 9), (1, 3), (1, 4), (1, 5), (2, 7), (2, 1)] {
            give(&arenas, of(arena, i));
        }
        let order: Vec<_> = (0..6).map(|_| take(&arenas).base()).collect();
        let expected = [(0, 9), (2, 1), (2, 7), (1, 3), (1, 4), (1, 5)];
        assert_eq!(order, expected.map(|(arena, i)| of(arena, i).base()));
        assert_eq!(arenas.counts().mapped, 3, "no new arena was needed");
    }

    #[test]
    fn wholly_empty_arenas_beyond_those_that_are_kept_are_unmapped() {
        set_decay(false);
        let arenas = Arenas::new();
        let mapped = KEPT_ALWAYS + 5;
        let pools: Vec<_> = (0..mapped * POOLS_PER_ARENA)
            .map(|_| take(&arenas))
            .collect();
        assert_eq!(arenas.counts().mapped, mapped);
        for pool in pools {
            give(&arenas, pool);
        }
        let counts = arenas.counts();
        assert_eq!(counts.mapped, KEPT_ALWAYS);
        assert_eq!(counts.empty, KEPT_ALWAYS);
        assert_eq!(counts.unmapped_total, 5);
        assert_eq!(counts.highwater, mapped);
        // Their records are reused.
        for _ in 0..mapped * POOLS_PER_ARENA {
            take(&arenas);
        }
        assert_eq!(arenas.counts().record_bytes, counts.record_bytes);
    }

    #[test]
    fn a_custom_chunk_is_used_as_far_as_pools_fit_and_is_released() {
        let arenas = Arenas::new();
        let (size, pools) = (1 << 20, 15);
        for offset in [0x1000, 0x3000, 0xf000] {
            assert!(arenas.add(Chunk::custom(offset, size)).is_ok());
        }
        arenas.check();
        assert_eq!(arenas.counts().bytes, 3 * size);
        assert_eq!(arenas.counts().pools, 3 * pools);
        let taken: Vec<_> = (0..3 * pools).map(|_| take(&arenas)).collect();
        assert_eq!(arenas.counts().mapped, 3);
        let arena = |pool: &Pool| MAP.arena(pool.base()).unwrap();
        assert!(taken.iter().all(|pool| arena(pool).is_custom()));
        for pool in taken {
            give(&arenas, pool);
        }
        assert_eq!(arenas.counts().mapped, KEPT_CUSTOM);
        assert_eq!(arenas.counts().bytes, size);
        assert!(arenas.take_any_empty().is_some());
        assert!(arenas.take_any_empty().is_none());
        assert_eq!(arenas.counts().pools, 0);
    }
}
