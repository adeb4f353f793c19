//! The address map: what lies at an address, for any 64-bit value.
//!
//! ```text
//!   arena/near.rs: a class for each pool of 32 GiB           leaves: by region, only
//!   around the first arena                             where there are arenas
//!   +---+---+---+---+---+---+---+-- ... --+---+        +---+---+---+---+--
//!   | 0 | 0 | 4 | 4 | 0 | 2 |33 |         | 0 |        |   |   | * | * |    an arena
//!   +---+---+---+---+---+---+---+-- ... --+---+        +---+---+---+---+--  for each granule
//!     ^                       ^
//!   start                    (address - start) >> 16
//! ```
//!
//! One lookup answers both "is it ours?" and "of which size class?". The kernel lays
//! mappings one below the other, so nearly every pool lies near the first arena:
//! there a single table has all answers, in eight instructions. What lies
//! elsewhere is found in leaves of 16 GiB each, which know the arena of every granule of
//! 2 MiB; its record knows the class of each pool.
//!
//! Nothing is mapped before the first arena, and of the leaves' root one page is touched. A leaf is
//! 64 KiB of metadata, of which only what is used is touched, and is never given back.
//!
//! # Invariants
//!
//! MAP-2  The root, and a leaf that is there, live as long as the process.
//!
//! # Threads
//!
//! Anyone may look up anything, without a lock. A pool's entry changes under
//! its class's lock, its arena under the arenas' lock. Who has a pointer to
//! a live block has it from the thread that allocated it, after the entry
//! was set: a lookup for a live block is never out of date. For any other value
//! the answer is from some moment around the call.

use core::hint::assert_unchecked;
use core::ptr;

use crate::arena::Arena;
use crate::arena::granule::Granule;
use crate::arena::metadata;
use crate::arena::near::{self, Near};
use crate::base::layout::{
    ARENA_SIZE, GRANULES, POOL_SIZE, POOLS_PER_ARENA, REGIONS, granule, region,
};
use crate::base::size_class::{SIZES, SizeClass};
use crate::os::memory;
use crate::sync::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

#[repr(C)]
struct Leaf {
    granules: [Granule; GRANULES],
}

/// The map. All zero is the empty map.
pub(crate) struct AddressMap {
    near: Near,
    /// The leaves' root, or null before the first arena (MAP-2). Release publishes it; pairs with
    /// the Acquire of each lookup.
    root: AtomicPtr<Root>,
}

/// By region: its leaf, or null (MAP-2). Release publishes the leaf; pairs with the Acquire of each
/// lookup.
#[repr(C)]
struct Root([AtomicPtr<Leaf>; REGIONS]);

/// Bytes between two entries of a table by class that a lookup leads to.
pub(crate) const ENTRY_STEP: usize = 16;

/// What a lookup answers: a size class, or "in no pool".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry(usize);

impl Entry {
    /// In no pool.
    #[cfg(test)]
    pub(crate) const NONE: Entry = Entry(0);

    fn entry(class: Option<SizeClass>) -> near::Entry {
        class.map_or(0, |class| (class.index() * ENTRY_STEP) as near::Entry)
    }

    /// Offset in a table by class with [`ENTRY_STEP`] bytes between its entries, of
    /// which entry 0 means "in no pool".
    #[inline(always)]
    pub(crate) fn offset(self) -> usize {
        self.0
    }

    /// Bytes in its blocks; 0 if it is no class.
    #[inline(always)]
    pub(crate) fn size(self) -> usize {
        let index = self.offset() / ENTRY_STEP;
        // SAFETY: MAP-1: an index of a class, or 0.
        unsafe { assert_unchecked(index < SIZES.len()) };
        SIZES[index] as usize
    }

    /// The size class, if it is one.
    #[inline(always)]
    pub(crate) fn class(self) -> Option<SizeClass> {
        SizeClass::from_index(self.offset() / ENTRY_STEP)
    }
}

/// The process's map.
#[unsafe(link_section = ".bss.tables")]
pub(crate) static MAP: AddressMap = AddressMap {
    near: Near::new(),
    root: AtomicPtr::new(ptr::null_mut()),
};

impl AddressMap {
    /// The size class of the pool at `address`, for any value of it.
    #[inline(always)]
    pub(crate) fn find(&'static self, address: usize) -> Entry {
        self.find_near(address)
            .unwrap_or_else(|| self.find_far(address))
    }

    /// The same for the hit path: `None` for what is not near.
    #[inline(always)]
    pub(crate) fn find_near(&'static self, address: usize) -> Option<Entry> {
        Some(Entry(self.near.get(address)?))
    }

    /// The same for what is not near: its arena's record knows the class.
    #[inline(never)]
    pub(crate) fn find_far(&'static self, address: usize) -> Entry {
        let class = self
            .arena(address)
            .and_then(|arena| arena.pool(address).class());
        Entry(Entry::entry(class).into())
    }

    /// The record of the arena at `address`, for any value of it.
    #[inline]
    pub(crate) fn arena(&'static self, address: usize) -> Option<&'static Arena> {
        self.granule(address)?.arena(address)
    }

    /// Whether an arena lay at `address` and nothing is mapped there now. (What is
    /// mapped is somebody else's, and is not asked about again.)
    #[inline]
    pub(crate) fn is_unmapped_arena(&'static self, address: usize) -> bool {
        self.granule(address)
            .is_some_and(|granule| granule.is_unmapped_arena(address))
    }

    /// The leaves' root, if it is there.
    #[inline]
    fn root(&'static self) -> Option<&'static Root> {
        // SAFETY: MAP-2: it is null or the root, which is never given back.
        unsafe { self.root.load(Acquire).as_ref() }
    }

    /// The root, made if need be. Of two that are made at once one is wasted.
    #[cold]
    fn make_root(&'static self) -> Option<&'static Root> {
        let root = metadata::take(size_of::<Root>())?.cast::<Root>().as_ptr();
        let _ = self
            .root
            .compare_exchange(ptr::null_mut(), root, Release, Relaxed);
        self.root()
    }

    /// The granule at `address`, if it has a leaf.
    #[inline]
    fn granule(&'static self, address: usize) -> Option<&'static Granule> {
        let leaf = self.root()?.0.get(region(address))?.load(Acquire);
        // SAFETY: MAP-2: it is null or a leaf, which is never given back.
        let leaf = unsafe { leaf.as_ref() }?;
        Some(&leaf.granules[granule(address)])
    }

    /// Says that the pool at `address`, in an arena of ours, belongs to
    /// `class` from now on; `None`: to no class. (Of a pool that is not near its record says so.)
    pub(crate) fn set_class(&'static self, address: usize, class: Option<SizeClass>) {
        self.near.set(address, Entry::entry(class));
    }

    /// Says that the pools of `arena` lie where they do from now on. False,
    /// and nothing changed, if the map needs memory and the kernel has none.
    pub(crate) fn add_arena(&'static self, arena: &'static Arena) -> bool {
        let add = |first| {
            let granule = self.granule(first).or_else(|| self.add_leaf(first));
            granule.is_some_and(|granule| granule.reclaim(arena))
        };
        let is_kept = self.near.begin(arena.base()) && granules_of(arena).all(add);
        if is_kept {
            for first in granules_of(arena) {
                if let Some(granule) = self.granule(first) {
                    granule.enter(first, arena);
                }
            }
        }
        is_kept
    }

    /// Says that `arena` is there no more.
    pub(crate) fn remove_arena(&'static self, arena: &'static Arena) {
        for first in granules_of(arena) {
            if let Some(granule) = self.granule(first) {
                granule.leave(first, arena);
            }
        }
    }

    #[cold]
    fn add_leaf(&'static self, address: usize) -> Option<&'static Granule> {
        let root = self.root().or_else(|| self.make_root())?;
        let entry = root.0.get(region(address))?;
        let leaf = metadata::take(LEAF_SIZE)?.cast::<Leaf>().as_ptr();
        // Two arenas may need the same leaf at once only if they are under
        // different locks (tests do that); then the second one's is wasted.
        let added = entry.compare_exchange(ptr::null_mut(), leaf, Release, Acquire);
        if added.is_ok() {
            LEAVES.fetch_add(1, Relaxed);
        }
        self.granule(address)
    }
}

/// Where the first pool of an arena lies in each granule that it lies in.
fn granules_of(arena: &Arena) -> impl Iterator<Item = usize> {
    let (base, end) = (arena.base(), arena.base() + arena.len() * POOL_SIZE);
    let further = base - base % ARENA_SIZE + ARENA_SIZE;
    core::iter::once(base).chain((further..end).step_by(ARENA_SIZE))
}

/// How many leaves there are.
static LEAVES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the map that are in memory, about, with so many arenas.
pub(crate) fn resident_bytes(arenas: usize) -> usize {
    let page = memory::page_size();
    // Of the root, of the table near the first arena and of each leaf at least a page.
    let pages = 2 + LEAVES.load(Relaxed);
    let touched = arenas * (POOLS_PER_ARENA * size_of::<near::Entry>() + size_of::<*mut Arena>());
    pages * page + touched
}

/// Where the tables lie and their bytes: first the static one, then that of what is near, then the
/// root and each leaf.
#[cold]
pub(crate) fn tables() -> impl Iterator<Item = (usize, usize)> {
    let root = (ptr::from_ref(&MAP).addr(), size_of::<AddressMap>());
    let near = MAP.near.mapping();
    let near = near.map(|(table, bytes)| (table.addr().get(), bytes));
    let leaves = MAP.root().into_iter().flat_map(|root| &root.0);
    let of_arenas = leaves.map(|leaf| (leaf.load(Acquire).addr(), LEAF_SIZE));
    let of_arenas = of_arenas.filter(|&(leaf, _)| leaf != 0);
    let of_root = MAP
        .root()
        .map(|root| (ptr::from_ref(root).addr(), size_of::<Root>()));
    core::iter::once(root)
        .chain(near)
        .chain(of_root)
        .chain(of_arenas)
}

/// Bytes of address space in the tables that every process has, once it has an arena.
pub(crate) fn root_bytes() -> usize {
    size_of::<AddressMap>() + size_of::<Root>() + near_table_bytes()
}

/// Bytes of address space in the table of what is near the first arena.
pub(crate) fn near_table_bytes() -> usize {
    MAP.near.mapping().map_or(0, |(_, bytes)| bytes)
}

/// Bytes of address space in one leaf.
pub(crate) const LEAF_SIZE: usize = size_of::<Leaf>();

/// Bytes of address space in leaves.
pub(crate) fn leaf_bytes() -> usize {
    LEAVES.load(Relaxed) * LEAF_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::chunk::Chunk;
    use crate::os::memory;
    use crate::tests::*;
    use core::ptr::NonNull;

    #[test]
    fn hostile_addresses_are_in_no_pool() {
        let bits = (0..64).map(|bit| 1usize << bit);
        let edges = [
            0,
            1,
            15,
            16,
            usize::MAX,
            isize::MAX as usize,
            1 << 47,
            (1 << 47) - 1,
        ];
        for address in bits.chain(edges) {
            for near in [address, address.wrapping_sub(1), !address] {
                assert_eq!(MAP.find(near), Entry::NONE, "{near:#x}");
                assert_eq!(MAP.find(near).class(), None);
                assert!(MAP.arena(near).is_none(), "{near:#x}");
            }
        }
    }

    #[test]
    fn pools_are_found_over_their_whole_length_and_not_beyond() {
        let arena = lone_arena();
        let base = arena.base();
        let class = SizeClass::of(100);
        MAP.set_class(base + POOL_SIZE, class);
        for offset in [0, 1, 48, POOL_SIZE - 1] {
            assert_eq!(MAP.find(base + POOL_SIZE + offset).class(), class, "MAP-1");
        }
        assert_eq!(MAP.find(base + POOL_SIZE - 1).class(), None);
        assert_eq!(MAP.find(base + 2 * POOL_SIZE).class(), None);
        // The same low bits with other high ones are another address.
        for bit in 47..64 {
            assert_eq!(MAP.find((base + POOL_SIZE) | 1 << bit), Entry::NONE);
            assert!(MAP.arena(base | 1 << bit).is_none());
        }
        MAP.set_class(base + POOL_SIZE, None);
        assert_eq!(MAP.find(base + POOL_SIZE).class(), None, "MAP-1");
    }

    #[test]
    fn arenas_are_found_while_they_are_mapped() {
        let arena = lone_arena();
        let base = arena.base();
        for offset in [0, 1, ARENA_SIZE - 1] {
            assert!(ptr::eq(MAP.arena(base + offset).unwrap(), arena), "MAP-3");
        }
        MAP.remove_arena(arena);
        assert!(MAP.arena(base).is_none(), "MAP-3");
    }

    /// An arena that is in the map, on this chunk.
    fn odd_arena(chunk: Chunk) -> &'static Arena {
        let arena = lone_record();
        arena.place(chunk);
        assert!(MAP.add_arena(arena));
        arena
    }

    #[test]
    fn several_arenas_may_lie_in_a_granule() {
        let whole = lone_arena();
        let (base, start) = (
            whole.base(),
            NonNull::new(ptr::with_exposed_provenance_mut(whole.base())),
        );
        MAP.remove_arena(whole);
        let chunk = |pool: usize, pools: usize| {
            // SAFETY: within the granule.
            let at = unsafe { start.unwrap().add(pool * POOL_SIZE) };
            Chunk::of_a_program_at(at, pools * POOL_SIZE)
        };
        let arenas = [odd_arena(chunk(1, 4)), odd_arena(chunk(6, 16))];
        let found = |pool: usize| MAP.arena(base + pool * POOL_SIZE + 5);
        for pool in 0..POOLS_PER_ARENA {
            let arena = match pool {
                1..=4 => Some(arenas[0]),
                6..=21 => Some(arenas[1]),
                _ => None,
            };
            let same = |(one, other): (&Arena, &Arena)| ptr::eq(one, other);
            assert!(found(pool).zip(arena).is_none_or(same));
            assert_eq!(found(pool).is_some(), arena.is_some(), "MAP-3 {pool}");
        }
        MAP.remove_arena(arenas[0]);
        assert!(found(4).is_none() && found(6).is_some());
        MAP.remove_arena(arenas[1]);
        let again = odd_arena(chunk(0, POOLS_PER_ARENA));
        assert!((0..POOLS_PER_ARENA).all(|pool| ptr::eq(found(pool).unwrap(), again)));
        MAP.remove_arena(again);
        // SAFETY: nobody uses it.
        unsafe { memory::unmap(start.unwrap(), ARENA_SIZE) };
        assert!(MAP.is_unmapped_arena(base + 5 * POOL_SIZE), "MAP-5");
    }

    #[test]
    fn an_arena_is_gone_until_something_else_is_seen_to_lie_there() {
        let arena = lone_arena();
        let (base, chunk) = (
            arena.base(),
            NonNull::new(ptr::with_exposed_provenance_mut(arena.base())),
        );
        assert!(!MAP.is_unmapped_arena(base));
        MAP.remove_arena(arena);
        // SAFETY: nobody uses it.
        unsafe { memory::unmap(chunk.unwrap(), ARENA_SIZE / 2) };
        assert!(MAP.is_unmapped_arena(base) && MAP.is_unmapped_arena(base + 1));
        assert!(!MAP.is_unmapped_arena(base + ARENA_SIZE / 2), "mapped");
        // SAFETY: as above.
        unsafe { memory::unmap(chunk.unwrap(), ARENA_SIZE) };
        assert!(
            !MAP.is_unmapped_arena(base + ARENA_SIZE / 2),
            "seen as somebody else's"
        );
        assert!(MAP.is_unmapped_arena(base + ARENA_SIZE - 1));
        assert!(MAP.arena(base).is_none(), "MAP-3");
    }
}
