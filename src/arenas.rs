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
//! that the emptiest arenas can drain and go back to the kernel. An arena
//! without empty pools is on no list.
//!
//! Stock keeps one empty arena and unmaps the next. That costs programs which
//! build and drop the same amount again and again a third of their time in
//! page faults, so more are kept here: see [`Arenas::kept`].
//!
//! # Invariants
//!
//! U1  An arena is on `usable[n]`, n > 0, exactly while it has n empty pools.
//! U2  Bit n of `lengths` is set exactly while `usable[n]` has a member.
//! U3  Every arena on a list is mapped and in the address map.
//!
//! # Threads
//!
//! All of it under the lock that the heap holds it in.

use core::cell::Cell;
use core::ptr::NonNull;

use crate::address_map::MAP;
use crate::arena::Arena;
use crate::geometry::{ARENA_SIZE, POOLS_PER_ARENA};
use crate::list::List;
use crate::os::memory;
use crate::pool::Pool;

/// Empty arenas that are kept in any case.
const KEPT_ALWAYS: usize = 8;
/// One empty arena is kept for each so many in use.
const KEPT_SHARE: usize = 4;
/// Bytes mapped at once for records; what is not used of them is not touched.
const RECORDS_BYTES: usize = 256 * 1024;

/// The arenas of a heap.
pub struct Arenas {
    /// By number of empty pools (U1); entry 0 stays unused.
    usable: [List<Arena>; POOLS_PER_ARENA + 1],
    /// Which of `usable` have members (U2).
    lengths: Cell<u64>,
    /// Records whose arena was given back.
    spare: List<Arena>,
    /// Records never used: where they begin, and how many.
    fresh: Cell<Option<NonNull<Arena>>>,
    fresh_left: Cell<usize>,
    counts: Cell<Counts>,
}

/// What the arenas have done so far.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Arenas that are mapped.
    pub mapped: usize,
    /// Of these, how many are wholly empty.
    pub empty: usize,
    /// Pools that are empty, in all arenas.
    pub free_pools: usize,
    /// Arenas ever mapped.
    pub mapped_total: usize,
    /// Arenas ever given back.
    pub unmapped_total: usize,
    /// The most that were mapped at once.
    pub highwater: usize,
    /// Bytes mapped for records.
    pub record_bytes: usize,
}

impl Arenas {
    /// No arenas yet.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> Arenas {
        Arenas {
            usable: [const { List::new() }; POOLS_PER_ARENA + 1],
            lengths: Cell::new(0),
            spare: List::new(),
            fresh: Cell::new(None),
            fresh_left: Cell::new(0),
            counts: Cell::new(Counts {
                mapped: 0,
                empty: 0,
                free_pools: 0,
                mapped_total: 0,
                unmapped_total: 0,
                highwater: 0,
                record_bytes: 0,
            }),
        }
    }

    /// What they have done so far.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// How many empty arenas are kept for the next peak, rather than given
    /// back at once.
    pub fn kept(&self) -> usize {
        KEPT_ALWAYS.max(self.counts.get().mapped / KEPT_SHARE)
    }

    /// Takes an empty pool from the fullest arena that has one, from a new
    /// arena if none has. `None`: the kernel has no more memory, and nothing
    /// has changed.
    pub fn take_pool(&self) -> Option<&'static Pool> {
        let fullest = self.lengths.get().trailing_zeros() as usize;
        let arena = match self.usable.get(fullest) {
            Some(list) => list.first()?, // U2
            None => self.add_arena()?,
        };
        self.unlist(arena);
        let pool = arena.take_pool()?; // U1
        self.list(arena);
        self.count(|counts| counts.free_pools -= 1);
        Some(pool)
    }

    /// Takes back `pool`, which belongs to `arena` and is empty now.
    ///
    /// The arena moves to its new place among the usable ones. If that makes
    /// one wholly empty arena too many, one goes back to the kernel (two, when
    /// there are then too few in use for those that were kept).
    pub fn give_pool(&self, arena: &'static Arena, pool: &'static Pool) {
        self.unlist(arena);
        arena.give_pool(pool);
        self.count(|counts| counts.free_pools += 1);
        self.list(arena);
        while self.counts.get().empty > self.kept() {
            self.remove_arena();
        }
    }

    /// Gives every wholly empty arena back to the kernel. Returns whether there
    /// was one.
    pub fn release_empty(&self) -> bool {
        let before = self.counts.get().empty;
        for _ in 0..before {
            self.remove_arena();
        }
        before > 0
    }

    fn list(&self, arena: &'static Arena) {
        let n = arena.free_pools();
        if n > 0 {
            self.usable[n].push(arena);
            self.lengths.set(self.lengths.get() | 1 << n);
        }
        if n == POOLS_PER_ARENA {
            self.count(|counts| counts.empty += 1);
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
        if n == POOLS_PER_ARENA {
            self.count(|counts| counts.empty -= 1);
        }
    }

    /// Maps an arena and lists it as wholly empty.
    #[cold]
    fn add_arena(&self) -> Option<&'static Arena> {
        let arena = self.spare.pop().or_else(|| self.fresh_record())?;
        let Some(base) = memory::map_aligned(ARENA_SIZE) else {
            self.spare.push(arena);
            return None;
        };
        memory::advise_small_pages(base, ARENA_SIZE);
        arena.place(base.as_ptr().expose_provenance());
        if !MAP.add_arena(arena.base(), arena) {
            // SAFETY: mapped above, and nobody has seen it.
            unsafe { memory::unmap(base, ARENA_SIZE) };
            self.spare.push(arena);
            return None;
        }
        self.count(|counts| {
            counts.mapped += 1;
            counts.mapped_total += 1;
            counts.free_pools += POOLS_PER_ARENA;
            counts.highwater = counts.highwater.max(counts.mapped);
        });
        self.list(arena);
        Some(arena)
    }

    /// Gives a wholly empty arena back to the kernel.
    #[cold]
    fn remove_arena(&self) {
        let Some(arena) = self.usable[POOLS_PER_ARENA].first() else {
            return;
        };
        self.unlist(arena);
        MAP.remove_arena(arena.base());
        let base = core::ptr::with_exposed_provenance_mut(arena.base());
        if let Some(base) = NonNull::new(base) {
            // SAFETY: mapped in `add_arena`; all its pools are empty, so no
            // block in it is live, nor in a magazine (pool.rs).
            unsafe { memory::unmap(base, ARENA_SIZE) };
        }
        self.count(|counts| {
            counts.mapped -= 1;
            counts.unmapped_total += 1;
            counts.free_pools -= POOLS_PER_ARENA;
        });
        self.spare.push(arena);
    }

    fn fresh_record(&self) -> Option<&'static Arena> {
        if self.fresh_left.get() == 0 {
            let bytes = RECORDS_BYTES.next_multiple_of(memory::page_size());
            self.fresh.set(Some(memory::map(bytes)?.cast()));
            self.fresh_left.set(bytes / size_of::<Arena>());
            self.count(|counts| counts.record_bytes += bytes);
        }
        let record = self.fresh.get()?;
        self.fresh_left.set(self.fresh_left.get() - 1);
        // SAFETY: at most one past the last record of the mapping.
        self.fresh.set(Some(unsafe { record.add(1) }));
        // SAFETY: mapped zero, aligned to the OS page and so to the record,
        // handed out once, and never unmapped.
        Some(unsafe { record.as_ref() })
    }

    /// Asserts the invariants, for tests.
    #[cfg(test)]
    pub fn check(&self) {
        let mut counts = Counts::default();
        for (n, list) in self.usable.iter().enumerate() {
            assert_eq!(
                self.lengths.get() >> n & 1 == 1,
                list.first().is_some(),
                "U2"
            );
            for arena in list.iter() {
                assert_eq!(arena.free_pools(), n, "U1");
                let found = MAP.arena(arena.base()).expect("U3");
                assert!(core::ptr::eq(found, arena), "U3 N3");
                arena.check();
                counts.free_pools += n;
                counts.empty += usize::from(n == POOLS_PER_ARENA);
            }
        }
        assert_eq!(counts.free_pools, self.counts().free_pools);
        assert_eq!(counts.empty, self.counts().empty);
        assert!(counts.empty <= self.kept());
    }
}

const _: () = assert!(RECORDS_BYTES > size_of::<Arena>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size_class::SizeClass;
    use crate::tests::*;

    fn begin(pool: &'static Pool) -> &'static Pool {
        pool.begin(SizeClass::of(1).unwrap());
        pool
    }

    fn give(arenas: &Arenas, pool: &'static Pool) {
        pool.end();
        arenas.give_pool(MAP.arena(pool.base()).unwrap(), pool);
        arenas.check();
    }

    fn take(arenas: &Arenas) -> &'static Pool {
        let pool = begin(arenas.take_pool().unwrap());
        arenas.check();
        pool
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
}
