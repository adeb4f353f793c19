//! A granule of the address map: which arena each pool of 2 MiB lies in, in one word.
//!
//! ```text
//!    null                      nothing of ours was ever there
//!    -> record                 an arena that is all of it, as one from the kernel
//!    a bit for each pool | 1   it went back; the pools that nothing else was seen to lie in
//!    -> split            | 2   a word for each pool: arenas of a program, which may begin and
//!                              end anywhere
//! ```
//!
//! # Invariants
//!
//! MAP-3  A pool's arena is a record exactly while that arena has chunk. Before, there is
//!     none; after, the pool is gone, until another arena or somebody else's mapping is seen
//!     to lie there.
//! MAP-5  The two lowest bits of a word say what it is. A split that is there lives as long as the
//!     process, and its granule has it for good.
//!
//! # Threads
//!
//! Anyone may look, without a lock; words change under the arenas' lock, but for pools that turn out
//! to be somebody else's.

use core::ptr::{self, NonNull};

use crate::arena::Arena;
use crate::arena::metadata;
use crate::base::layout::{ARENA_SIZE, POOL_SIZE, POOLS_PER_ARENA, pool_in_granule};
use crate::os::memory;
use crate::sync::{
    AtomicPtr,
    Ordering::{Acquire, Relaxed, Release},
};

/// A granule. All zero is one in which nothing of ours ever was.
#[repr(transparent)]
pub(crate) struct Granule {
    /// Release publishes what it leads to; pairs with the Acquire of each lookup.
    word: AtomicPtr<Arena>,
}

/// The pools of a granule one by one.
#[repr(C, align(128))]
struct Split {
    /// By pool: the record of its arena, or null, or [`UNMAPPED`] (MAP-3).
    pools: [AtomicPtr<Arena>; POOLS_PER_ARENA],
}

/// The lowest bits of a word: a record has none of them.
const TAGS: usize = 3;
const TAG_GONE: usize = 1;
const TAG_SPLIT: usize = 2;
/// Where the bit of the first pool stands.
const FIRST_POOL: u32 = 2;

const _: () = assert!(align_of::<Arena>() > TAGS && align_of::<Split>() > TAGS);
const _: () = assert!(align_of::<Split>() <= metadata::ALIGNMENT);
const _: () = assert!(POOLS_PER_ARENA as u32 + FIRST_POOL <= usize::BITS);

/// What stands in a split for the arena of a pool that is gone.
const UNMAPPED: *mut Arena = ptr::without_provenance_mut(TAG_GONE);

/// The word of a granule of which these pools are gone.
fn gone(pools: u32) -> *mut Arena {
    match pools {
        0 => ptr::null_mut(),
        pools => ptr::without_provenance_mut((pools as usize) << FIRST_POOL | TAG_GONE),
    }
}

/// Which pools of a granule are gone, by its word.
fn gone_pools(word: *mut Arena) -> u32 {
    match word.addr() & TAGS {
        TAG_GONE => (word.addr() >> FIRST_POOL) as u32,
        _ => 0,
    }
}

/// The split that a word leads to.
fn split(word: *mut Arena) -> Option<&'static Split> {
    if word.addr() & TAGS != TAG_SPLIT {
        return None;
    }
    let split = word.map_addr(|address| address & !TAGS).cast::<Split>();
    // SAFETY: MAP-5: with this tag it is a split, which is never given back.
    unsafe { split.as_ref() }
}

impl Granule {
    /// The record of the arena at `address`, which is in this granule.
    #[inline]
    pub(crate) fn arena(&'static self, address: usize) -> Option<&'static Arena> {
        let word = self.word.load(Acquire);
        if word.addr() & TAGS != 0 {
            return arena_in(split(word)?, address);
        }
        // SAFETY: MAP-5: without a tag it is null or a record, and records live as long as the process.
        unsafe { word.as_ref() }
    }

    /// Whether an arena lay at `address` and nothing is mapped there now.
    #[inline]
    pub(crate) fn is_unmapped_arena(&'static self, address: usize) -> bool {
        self.word.load(Relaxed).addr() & TAGS != 0 && self.is_still_gone(address)
    }

    #[cold]
    #[inline(never)]
    fn is_still_gone(&'static self, address: usize) -> bool {
        let (seen, pool) = (self.word.load(Acquire), pool_in_granule(address));
        // The word that says it, as it is and without that pool.
        let (word, seen, rest) = match split(seen) {
            Some(split) if split.pools[pool].load(Relaxed) == UNMAPPED => {
                (&split.pools[pool], UNMAPPED, ptr::null_mut())
            }
            None if gone_pools(seen) >> pool & 1 == 1 => {
                (&self.word, seen, gone(gone_pools(seen) & !(1 << pool)))
            }
            _ => return false,
        };
        let is_unmapped_arena = memory::is_unmapped(address);
        if !is_unmapped_arena {
            let _ = word.compare_exchange(seen, rest, Relaxed, Relaxed);
        }
        is_unmapped_arena
    }

    /// Makes a word for each pool, if `arena` needs that and there is none. False if there is no
    /// memory for them.
    pub(crate) fn reclaim(&'static self, arena: &Arena) -> bool {
        is_filled_by(arena) || self.split()
    }

    #[cold]
    fn split(&'static self) -> bool {
        let mut made: Option<NonNull<Split>> = None;
        loop {
            let seen = self.word.load(Acquire);
            if split(seen).is_some() {
                return true;
            }
            let make = || Some(metadata::take(size_of::<Split>())?.cast());
            let Some(new) = made.or_else(make) else {
                return false;
            };
            made = Some(new);
            // SAFETY: a piece of metadata is zero, which is a split without arenas, aligned, and
            // nobody else's.
            let pools = unsafe { &new.as_ref().pools };
            for (i, pool) in pools.iter().enumerate() {
                let is_unmapped_arena = gone_pools(seen) >> i & 1 == 1;
                let whole = seen.addr() & TAGS == 0; // an arena over which another is said to lie
                let record = if whole { seen } else { ptr::null_mut() };
                pool.store(if is_unmapped_arena { UNMAPPED } else { record }, Relaxed);
            }
            let tagged = new.cast::<Arena>().as_ptr().map_addr(|at| at | TAG_SPLIT);
            let is_set = self.word.compare_exchange(seen, tagged, Release, Relaxed);
            if is_set.is_ok() {
                return true;
            }
        }
    }

    /// Says that the pools of `arena` that are in this granule lie there from now on. There is room.
    pub(crate) fn enter(&'static self, first: usize, arena: &'static Arena) {
        let record = ptr::from_ref(arena).cast_mut();
        // Release: the record's own fields are set.
        match split(self.word.load(Acquire)) {
            Some(split) => split.set(first, arena, record),
            None => self.word.store(record, Release),
        }
    }

    /// Says that they are gone. `first` is the address of the first of them, here as in `enter`.
    pub(crate) fn leave(&'static self, first: usize, arena: &'static Arena) {
        match split(self.word.load(Acquire)) {
            Some(split) => split.set(first, arena, UNMAPPED),
            None => self.word.store(gone(u32::MAX), Release),
        }
    }
}

impl Split {
    /// Sets the words of the pools of `arena` from the one at `first` on, as far as they are here.
    fn set(&self, first: usize, arena: &Arena, word: *mut Arena) {
        let rest = (arena.base() + arena.len() * POOL_SIZE - first) / POOL_SIZE;
        for pool in self.pools.iter().skip(pool_in_granule(first)).take(rest) {
            pool.store(word, Release);
        }
    }
}

/// Whether an arena's pools are all the pools of a granule.
fn is_filled_by(arena: &Arena) -> bool {
    arena.base().is_multiple_of(ARENA_SIZE) && arena.len() == POOLS_PER_ARENA
}

/// The arena at `address`, in a granule that is split.
#[cold]
#[inline(never)]
fn arena_in(split: &'static Split, address: usize) -> Option<&'static Arena> {
    let record = split.pools[pool_in_granule(address)].load(Acquire);
    if record == UNMAPPED {
        return None;
    }
    // SAFETY: MAP-3: it is null or a record, and records live as long as the process.
    unsafe { record.as_ref() }
}
