//! The arenas of a heap: which has empty pools to give, and which go back.
//!
//! ```text
//!    usable[1]  -> arena -> arena        one empty pool each: asked first
//!    usable[2]
//!    usable[3]  -> arena
//!       ...
//!    usable[31] -> arena -> arena        nearly empty: left to drain
//!    usable[32] -> arena                 wholly empty: kept, up to a limit
//! ```
//!
//! A new pool comes from the fullest arena that has one, as in obmalloc, so
//! that the emptiest arenas can drain and go back to the kernel; those of large classes
//! come side by side (`affinity.rs`). An arena without empty pools is on no list.
//!
//! Stock keeps one empty arena and unmaps the next. That costs programs which
//! build and drop the same amount again and again a third of their time in
//! page faults, and giving all back takes as long as freeing the objects. So where
//! a helper thread returns what stays empty (`background/decay.rs`), nothing goes at once;
//! elsewhere some are kept: see [`Arenas::kept`]. Of arenas on a
//! program's chunk one is kept, as in stock: who sets an allocator watches it.
//!
//! Chunk comes and goes outside of the lock; the heap carries it.
//!
//! # Invariants
//!
//! ARENAS-1  An arena is on `usable[n]`, n > 0, exactly while it has n empty pools.
//! ARENAS-2  Bit n of `lengths` is set exactly while `usable[n]` has a member.
//! ARENAS-3  Every arena on a list has chunk and is in the address map.
//!
//! # Threads
//!
//! All of it under the lock that the heap holds it in.

use crate::arena::Arena;
use crate::arena::affinity::Affinity;
use crate::arena::chunk::{self, Chunk};
use crate::arena::page_map::MAP;
use crate::arena::records::Records;
use crate::base::layout::POOLS_PER_ARENA;
use crate::base::list::List;
use crate::os::sandbox;
use crate::policy::limits;
use crate::pool::Pool;
use crate::pool::pages;
use crate::sync::{AtomicBool, Cell, Ordering::Relaxed};

/// Whether empty arenas go back by time, so that none needs to at once.
static DECAY: AtomicBool = AtomicBool::new(true);

/// Says that empty arenas go back by time, whatever the program does, or not.
pub(crate) fn go_by_time(so: bool) {
    DECAY.store(so, Relaxed);
}

/// Empty arenas that are kept in any case.
const KEPT_ALWAYS: usize = 8;
/// One empty arena is kept for each so many in use.
const KEPT_SHARE: usize = 4;
/// Empty arenas on a program's chunk that are kept.
const KEPT_PROGRAMS: usize = 1;
/// Arenas that are looked at for a pool that need not come from the kernel anew.
const LOOKED_AT: usize = 16;

/// The arenas of a heap.
pub(crate) struct Arenas {
    /// By number of empty pools (ARENAS-1); entry 0 stays unused.
    usable: [List<Arena>; POOLS_PER_ARENA + 1],
    /// Which of `usable` have members (ARENAS-2).
    lengths: Cell<u64>,
    records: Records,
    counts: Cell<Counts>,
}

/// What the arenas have done so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Arenas that have chunk.
    pub mapped: usize,
    /// Of these, how many are wholly empty.
    pub empty: usize,
    /// Of the empty ones, how many are on a program's chunk.
    pub empty_programs: usize,
    /// Bytes of their chunk.
    pub bytes: usize,
    /// Their pools.
    pub pools: usize,
    /// Pools that are empty, in all arenas.
    pub free_pools: usize,
    /// Bytes of resident pages in empty pools.
    pub resident_empty: usize,
    /// Arenas ever mapped.
    pub mapped_total: usize,
    /// Arenas ever given back.
    pub unmapped_total: usize,
    /// The most that were mapped at once.
    pub highwater: usize,
    /// Bytes of records.
    pub record_bytes: usize,
}

impl Arenas {
    /// No arenas yet.
    pub(crate) const fn new() -> Arenas {
        Arenas {
            usable: [const { List::new() }; POOLS_PER_ARENA + 1],
            lengths: Cell::new(0),
            records: Records::new(),
            counts: Cell::new(Counts {
                mapped: 0,
                empty: 0,
                empty_programs: 0,
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

    /// What they have done so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            record_bytes: self.records.bytes(),
            ..self.counts.get()
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// How many empty arenas are kept for the next peak, rather than given
    /// back at once.
    pub(crate) fn kept(&self) -> usize {
        if limits::is_near() {
            return 0;
        }
        if DECAY.load(Relaxed) && chunk::is_the_kernel() && !sandbox::is_restricted() {
            return usize::MAX;
        }
        KEPT_ALWAYS.max(self.counts.get().mapped / KEPT_SHARE)
    }

    /// Takes an empty pool: see [`affinity`](crate::arena::affinity). `affine` is the arena that
    /// `affinity` has, if it has one. `None` if there must be another arena.
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
            arena.set_claim(affinity);
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

    /// The arena that the next pool comes from: one with pages in empty pools that are
    /// with us, the claimed one first, if there is one among the first [`LOOKED_AT`].
    fn choose(
        &self,
        affinity: Option<Affinity>,
        own: Option<&'static Arena>,
    ) -> Option<&'static Arena> {
        let fullest = self.lengths.get().trailing_zeros() as usize;
        let lists = self.usable.get(fullest..)?; // ARENAS-2
        let arenas = || lists.iter().flat_map(List::iter);
        if self.counts.get().resident_empty > 0 {
            let mut near = own.into_iter().chain(arenas().take(LOOKED_AT));
            let warm = near.find(|arena| arena.has_resident_free());
            if warm.is_some() {
                return warm;
            }
        }
        if affinity.is_some() {
            own.or_else(|| arenas().find(|arena| arena.affinity().is_none()))
        } else {
            arenas().next()
        }
    }

    /// Takes back `pool`, which belongs to `arena` and is empty now. The arena
    /// moves to its new place among the usable ones.
    pub(crate) fn give_pool(&self, arena: &'static Arena, pool: &'static Pool) {
        self.unlist(arena);
        arena.give_pool(pool);
        self.count(|counts| {
            counts.free_pools += 1;
            counts.resident_empty += pool.resident().bytes();
        });
        self.list(arena);
    }

    /// Takes the chunk of a wholly empty arena out, if there are more of them
    /// than are kept.
    pub(crate) fn surplus(&self) -> Option<Chunk> {
        let Counts {
            empty,
            empty_programs,
            ..
        } = self.counts.get();
        if empty_programs > KEPT_PROGRAMS {
            self.remove(Arena::is_programs)
        } else if empty - empty_programs > self.kept() {
            self.remove(|arena| !arena.is_programs())
        } else {
            None
        }
    }

    /// Takes the chunk of a wholly empty arena out, if there is one.
    pub(crate) fn any_empty(&self) -> Option<Chunk> {
        self.remove(|_| true)
    }

    /// Takes the chunk out of an arena that has been wholly empty since
    /// `note_idle` was called, or `at_once` of any empty one, if there is one. A
    /// program's chunk goes back by the program's own calls only: its allocator
    /// is no other thread's.
    pub(crate) fn idle(&self, at_once: bool) -> Option<Chunk> {
        self.remove(|arena| (at_once || arena.is_idle()) && !arena.is_programs())
    }

    /// Notes which arenas are wholly empty now.
    pub(crate) fn note_idle(&self) {
        for arena in self.usable[POOLS_PER_ARENA].iter() {
            arena.note_idle();
        }
    }

    /// Gives the pages of `pool`, in `arena`, back to the kernel that are due, if the pool
    /// is empty: see [`Pool::take_purgeable`]. Returns how many bytes.
    pub(crate) fn purge(
        &self,
        arena: &'static Arena,
        pool: &'static Pool,
        page: usize,
        at_once: bool,
    ) -> usize {
        if !arena.has_empty(pool.base()) || arena.is_programs() || arena.size() == 0 {
            return 0;
        }
        let gone = arena.purge_empty(pool, page, at_once);
        self.count(|counts| counts.resident_empty -= gone);
        gone
    }

    /// The record that was made last. From it, all are reached.
    pub(crate) fn newest(&self) -> Option<&'static Arena> {
        self.records.newest()
    }

    fn list(&self, arena: &'static Arena) {
        let n = arena.free_pools();
        if n > 0 {
            self.usable[n].push(arena);
            self.lengths.set(self.lengths.get() | 1 << n);
        }
        if arena.is_empty() {
            self.count(|counts| {
                counts.empty += 1;
                counts.empty_programs += usize::from(arena.is_programs());
            });
        }
    }

    fn unlist(&self, arena: &'static Arena) {
        let n = arena.free_pools();
        if n > 0 {
            self.usable[n].remove(arena);
            if self.usable[n].first().is_none() {
                self.lengths.set(self.lengths.get() & !(1 << n));
            }
        }
        if arena.is_empty() {
            self.count(|counts| {
                counts.empty -= 1;
                counts.empty_programs -= usize::from(arena.is_programs());
            });
        }
    }

    /// Lists an arena on `chunk`, wholly empty. `Err` gives the chunk back: there
    /// is no memory for the arena's record, or its entry in the address map.
    #[cold]
    pub(crate) fn add(&self, chunk: Chunk) -> Result<(), Chunk> {
        let Some(arena) = self.records.take() else {
            return Err(chunk);
        };
        arena.place(chunk);
        if !MAP.add_arena(arena) {
            arena.leave();
            self.records.give(arena);
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

    /// Takes the chunk of a wholly empty arena that is wanted out. All its
    /// pools are empty, so no block in it is live, nor in a magazine.
    #[cold]
    fn remove(&self, wanted: impl Fn(&Arena) -> bool) -> Option<Chunk> {
        // From the end: there stand those with the most empty pools.
        let mut all = self.usable.iter().rev().flat_map(List::iter);
        let arena = all.find(|arena| arena.is_empty() && wanted(arena))?;
        self.unlist(arena);
        MAP.remove_arena(arena);
        let resident = arena.resident_empty();
        if !arena.is_programs() {
            pages::count_returned(resident, false);
        }
        self.count(|counts| counts.resident_empty -= resident);
        let chunk = arena.leave();
        self.records.give(arena);
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

    /// The arenas that have chunk, on a list or not, from the newest record on.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn with_land(&self) -> impl Iterator<Item = &'static Arena> {
        let all = core::iter::successors(self.newest(), |arena| arena.made_before());
        all.filter(|arena| arena.size() > 0)
    }

    /// Asserts the invariants, for tests.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(&self) {
        for (n, list) in self.usable.iter().enumerate() {
            let has_some = list.first().is_some();
            assert_eq!(self.lengths.get() >> n & 1 == 1, has_some, "ARENAS-2");
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
        for arena in self.with_land() {
            arena.check();
            not_listed += usize::from(arena.free_pools() == 0);
            sums.mapped += 1;
            sums.bytes += arena.size();
            sums.pools += arena.len();
            sums.free_pools += arena.free_pools();
            sums.resident_empty += arena.resident_empty();
            sums.empty += usize::from(arena.is_empty());
            sums.empty_programs += usize::from(arena.is_empty() && arena.is_programs());
        }
        assert_eq!(sums.mapped, listed.count() + not_listed, "ARENAS-1");
        let known = self.counts();
        let of = |c: &Counts| {
            let free = [c.free_pools, c.resident_empty, c.empty, c.empty_programs];
            ([c.mapped, c.bytes, c.pools], free)
        };
        assert_eq!(of(&sums), of(&known));
        assert_eq!(known.mapped, known.mapped_total - known.unmapped_total);
        assert!(known.highwater >= known.mapped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::POOL_SIZE;
    use crate::base::size_class::SizeClass;
    use crate::pool::shard::Shard;
    use crate::tests::*;
    use core::ptr;

    fn begin(pool: &'static Pool) -> &'static Pool {
        pool.begin(Shard::FIRST, SizeClass::of(1).unwrap());
        pool
    }

    fn give(arenas: &Arenas, pool: &'static Pool) {
        pool.end();
        arenas.give_pool(MAP.arena(pool.base()).unwrap(), pool);
        while let Some(chunk) = arenas.surplus() {
            chunk.give_back();
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
        let pool = begin(pool.unwrap());
        arenas.check();
        pool
    }

    #[test]
    fn large_classes_take_their_pools_side_by_side() {
        let arenas = Arenas::new();
        let class = |size| Affinity::of(Shard::FIRST, SizeClass::of(size).unwrap());
        let claims = [class(48), class(64), None].map(|affinity| (affinity, Cell::new(None)));
        // In turn, but each one's lie together; the third is small.
        let taken = |rounds: usize| -> Vec<[&Pool; 3]> {
            let round = || {
                claims
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
        // A class that has lost all has no claim any more: the next one takes over.
        let (_, own) = &claims[0];
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
    fn wholly_empty_arenas_go_back_beyond_those_that_are_kept() {
        go_by_time(false);
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
        // Their records serve again.
        for _ in 0..mapped * POOLS_PER_ARENA {
            take(&arenas);
        }
        assert_eq!(arenas.counts().record_bytes, counts.record_bytes);
    }
    #[test]
    fn a_programs_land_is_used_as_far_as_pools_go_and_goes_back() {
        let arenas = Arenas::new();
        let (size, pools) = (1 << 20, 15);
        for offset in [0x1000, 0x3000, 0xf000] {
            assert!(arenas.add(Chunk::of_a_program(offset, size)).is_ok());
        }
        arenas.check();
        assert_eq!(arenas.counts().bytes, 3 * size);
        assert_eq!(arenas.counts().pools, 3 * pools);
        let taken: Vec<_> = (0..3 * pools).map(|_| take(&arenas)).collect();
        assert_eq!(arenas.counts().mapped, 3);
        let arena = |pool: &Pool| MAP.arena(pool.base()).unwrap();
        assert!(taken.iter().all(|pool| arena(pool).is_programs()));
        for pool in taken {
            give(&arenas, pool);
        }
        assert_eq!(arenas.counts().mapped, KEPT_PROGRAMS);
        assert_eq!(arenas.counts().bytes, size);
        assert!(arenas.any_empty().is_some());
        assert!(arenas.any_empty().is_none());
        assert_eq!(arenas.counts().pools, 0);
    }
}
