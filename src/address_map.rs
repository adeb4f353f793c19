//! The address map: what lies at an address, for any 64-bit value.
//!
//! ```text
//!   near: an entry for each pool of NEAR bytes         leaves: by region, only
//!   around the first arena                             where there are arenas
//!   +---+---+---+---+---+---+---+-- ... --+---+        +---+---+---+---+--
//!   | 0 | 0 | 4 | 4 | 0 | 2 |33 |         | 0 |        |   |   | * | * |    arenas
//!   +---+---+---+---+---+---+---+-- ... --+---+        +---+---+---+---+--
//!     ^                       ^                        | 0 | 0 | 0 | 5 |    classes
//!   start                    (address - start) >> 16   +---+---+---+---+--
//! ```
//!
//! One lookup answers both "is it ours?" and "of which size class?". The kernel lays
//! mappings one below the other, so nearly every pool lies near the first arena:
//! there a single table has all answers, in seven instructions. What lies
//! elsewhere is found in leaves of 4 GiB each, which also know the arena of every
//! pool. A leaf takes 768 KiB of address space, of which only what is used is
//! touched, and is never given back.
//!
//! # Invariants
//!
//! N1  A pool's entry is 0 or what [`Found`] says of a size class, and is not 0
//!     exactly while the pool belongs to that class. It stands in `near` for pools
//!     in there, else in a leaf.
//! N2  A leaf that is there lives as long as the process.
//! N3  A pool's arena is a record exactly while that arena has land. Before, it is
//!     null; after, [`GONE`], until another arena or somebody else's mapping is seen
//!     to lie there.
//! N4  `start` is 0 until the first arena comes, then never changes.
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
use crate::geometry::{
    self, POOL_BITS, POOL_SIZE, POOLS_PER_ARENA, POOLS_PER_REGION, REGIONS, pool_in_region, region,
};
use crate::os::memory;
use crate::os::process::name_mapping;
use crate::size_class::{SIZES, SizeClass};
use crate::sync::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// Bytes of address space for which `near` answers. (Were it a power of two, the
/// compiler would test it in one instruction more.)
const NEAR: usize = (32 << 30) - POOL_SIZE;
/// Of these, so many lie above the first arena; below, there is room to grow.
const ABOVE: usize = 2 << 30;

#[repr(C)]
struct Leaf {
    /// By pool: the record of its arena, or null, or `GONE` (N3).
    arenas: [AtomicPtr<Arena>; POOLS_PER_REGION],
    /// By pool, where it is not near: its entry (N1).
    classes: [AtomicU32; POOLS_PER_REGION],
}

/// The map. All zero is the empty map.
pub struct AddressMap {
    /// Where `near` begins (N4), a multiple of a pool.
    start: AtomicUsize,
    /// By pool from `start` on: its entry (N1). Half of its bits would do; but a
    /// word of 32 bits is read in one instruction less.
    near: [AtomicU32; NEAR / POOL_SIZE],
    /// By region: its leaf, or null (N2). Release publishes the leaf; pairs with
    /// the Acquire of each lookup.
    leaves: [AtomicPtr<Leaf>; REGIONS],
}

/// What stands for the arena of a pool that went back to where it came from.
const GONE: *mut Arena = ptr::without_provenance_mut(1);

/// Bytes between two entries of a table by class that a lookup leads to.
pub const FOUND_STEP: usize = 16;

/// What a lookup answers: a size class, or "in no pool".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found(u32);

impl Found {
    /// In no pool.
    pub const NO_POOL: Found = Found(0);

    /// What is found of a class, for models.
    #[cfg(all(test, loom))]
    pub fn of(class: SizeClass) -> Found {
        Found(Found::entry(Some(class)))
    }

    fn entry(class: Option<SizeClass>) -> u32 {
        class.map_or(0, |class| (class.index() * FOUND_STEP) as u32)
    }

    /// Offset in a table by class with [`FOUND_STEP`] bytes between its entries, of
    /// which entry 0 means "in no pool".
    #[inline(always)]
    pub fn offset(self) -> usize {
        self.0 as usize
    }

    /// Bytes in its blocks; 0 if it is no class.
    #[inline(always)]
    pub fn size(self) -> usize {
        let index = self.offset() / FOUND_STEP;
        // SAFETY: N1: an index of a class, or 0.
        unsafe { assert_unchecked(index < SIZES.len()) };
        SIZES[index] as usize
    }

    /// The size class, if it is one.
    #[inline(always)]
    pub fn class(self) -> Option<SizeClass> {
        SizeClass::from_index(self.offset() / FOUND_STEP)
    }
}

/// The process's map.
#[unsafe(link_section = ".bss.tables")]
pub static MAP: AddressMap = AddressMap {
    start: AtomicUsize::new(0),
    near: [const { AtomicU32::new(0) }; NEAR / POOL_SIZE],
    leaves: [const { AtomicPtr::new(ptr::null_mut()) }; REGIONS],
};

impl AddressMap {
    /// The size class of the pool at `address`, for any value of it.
    #[inline(always)]
    pub fn find(&'static self, address: usize) -> Found {
        self.find_near(address)
            .unwrap_or_else(|| self.find_far(address))
    }

    /// The same for the hit path: `None` for what is not near.
    #[inline(always)]
    pub fn find_near(&'static self, address: usize) -> Option<Found> {
        Some(Found(self.near_entry(address)?.load(Relaxed)))
    }

    #[inline(always)]
    fn near_entry(&'static self, address: usize) -> Option<&'static AtomicU32> {
        let behind = address.wrapping_sub(self.start.load(Relaxed));
        self.near.get(behind >> POOL_BITS)
    }

    /// The same for what is not near.
    #[inline(never)]
    pub fn find_far(&'static self, address: usize) -> Found {
        match self.leaf(address) {
            Some(leaf) => Found(leaf.classes[pool_in_region(address)].load(Relaxed)),
            None => Found::NO_POOL,
        }
    }

    /// The record of the arena at `address`, for any value of it.
    #[inline]
    pub fn arena(&'static self, address: usize) -> Option<&'static Arena> {
        let record = self.leaf(address)?.arenas[pool_in_region(address)].load(Acquire);
        if record.addr() <= GONE.addr() {
            return None;
        }
        // SAFETY: N3; records live as long as the process.
        unsafe { record.as_ref() }
    }

    /// Whether an arena lay at `address` and nothing is mapped there now. (What is
    /// mapped is somebody else's, and is not asked about again.)
    #[inline]
    pub fn is_gone(&'static self, address: usize) -> bool {
        let Some(leaf) = self.leaf(address) else {
            return false;
        };
        let record = &leaf.arenas[pool_in_region(address)];
        if record.load(Relaxed) != GONE {
            return false;
        }
        let is_gone = memory::is_unmapped(address);
        if !is_gone {
            let _ = record.compare_exchange(GONE, ptr::null_mut(), Relaxed, Relaxed);
        }
        is_gone
    }

    fn leaf(&'static self, address: usize) -> Option<&'static Leaf> {
        let leaf = self.leaves.get(region(address))?.load(Acquire);
        // SAFETY: N2.
        unsafe { leaf.as_ref() }
    }

    /// Says that the pool at `address`, in an arena of ours, belongs to
    /// `class` from now on; `None`: to no class.
    pub fn set_class(&'static self, address: usize, class: Option<SizeClass>) {
        let far = || Some(&self.leaf(address)?.classes[pool_in_region(address)]);
        if let Some(entry) = self.near_entry(address).or_else(far) {
            entry.store(Found::entry(class), Relaxed);
        }
    }

    /// Says that the pools of `arena` lie where they do from now on. False,
    /// and nothing changed, if a leaf is needed and the kernel has no memory
    /// for it.
    pub fn add_arena(&'static self, arena: &'static Arena) -> bool {
        let known = |pool| self.leaf(pool).is_some() || self.add_leaf(pool);
        if !pools_of(arena).all(known) {
            return false;
        }
        let start = arena.base().saturating_sub(NEAR - ABOVE).max(POOL_SIZE);
        let _ = self.start.compare_exchange(0, start, Relaxed, Relaxed); // N4
        // Release: the record's own fields are set.
        self.set_arena(arena, ptr::from_ref(arena).cast_mut());
        true
    }

    /// Says that `arena` is there no more.
    pub fn remove_arena(&'static self, arena: &'static Arena) {
        self.set_arena(arena, GONE);
    }

    fn set_arena(&'static self, arena: &'static Arena, record: *mut Arena) {
        for pool in pools_of(arena) {
            if let Some(leaf) = self.leaf(pool) {
                leaf.arenas[pool_in_region(pool)].store(record, Release);
            }
        }
    }

    fn add_leaf(&'static self, address: usize) -> bool {
        let Some(entry) = self.leaves.get(region(address)) else {
            return false;
        };
        let size = size_of::<Leaf>().next_multiple_of(memory::page_size());
        let Some(leaf) = memory::map(size) else {
            return false;
        };
        name_mapping(leaf, size, c"obmalloc: address map");
        LEAF_BYTES.fetch_add(size, Relaxed);
        // Two arenas may need the same leaf at once only if they are under
        // different locks (tests do that); the second gives its own back.
        let made = leaf.cast::<Leaf>().as_ptr();
        if entry
            .compare_exchange(ptr::null_mut(), made, Release, Acquire)
            .is_err()
        {
            // SAFETY: mapped just now, and nobody has seen it.
            unsafe { memory::unmap(leaf, size) };
            LEAF_BYTES.fetch_sub(size, Relaxed);
        }
        true
    }
}

/// Where the pools of an arena begin.
fn pools_of(arena: &Arena) -> impl Iterator<Item = usize> {
    let base = arena.base();
    (0..arena.len()).map(move |i| base + i * POOL_SIZE)
}

static LEAF_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the map that are in memory, about, with so many arenas.
pub fn resident_bytes(arenas: usize) -> usize {
    let page = memory::page_size();
    let leaves = leaf_bytes() / LEAF_SIZE.next_multiple_of(page);
    // Of each leaf at least a page of arenas; of the tables before, two pages.
    let pools = arenas * POOLS_PER_ARENA;
    let touched = pools * (size_of::<AtomicU32>() + size_of::<AtomicPtr<Arena>>());
    2 * page + leaves * page + touched
}

/// Where the tables lie and their bytes: first those before the leaves, then each leaf.
#[cold]
pub fn tables() -> impl Iterator<Item = (usize, usize)> {
    let root = (ptr::from_ref(&MAP).addr(), size_of::<AddressMap>());
    let leaves = MAP.leaves.iter().map(|leaf| leaf.load(Acquire).addr());
    let bytes = size_of::<Leaf>().next_multiple_of(memory::page_size());
    core::iter::once(root).chain(
        leaves
            .filter(|&leaf| leaf != 0)
            .map(move |leaf| (leaf, bytes)),
    )
}

/// Bytes of address space in the tables that every process has.
pub const ROOT_BYTES: usize = size_of::<AddressMap>();
/// Bytes of address space in one leaf, on an OS page of 4 KiB.
pub const LEAF_SIZE: usize = size_of::<Leaf>();

/// Bytes of address space in leaves.
pub fn leaf_bytes() -> usize {
    LEAF_BYTES.load(Relaxed)
}

const _: () = assert!(geometry::REGION_BITS == 32, "a leaf for each 4 GiB");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::ARENA_SIZE;
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
                assert_eq!(MAP.find(near), Found::NO_POOL, "{near:#x}");
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
            assert_eq!(MAP.find(base + POOL_SIZE + offset).class(), class, "N1");
        }
        assert_eq!(MAP.find(base + POOL_SIZE - 1).class(), None);
        assert_eq!(MAP.find(base + 2 * POOL_SIZE).class(), None);
        // The same low bits with other high ones are another address.
        for bit in 47..64 {
            assert_eq!(MAP.find((base + POOL_SIZE) | 1 << bit), Found::NO_POOL);
            assert!(MAP.arena(base | 1 << bit).is_none());
        }
        MAP.set_class(base + POOL_SIZE, None);
        assert_eq!(MAP.find(base + POOL_SIZE).class(), None, "N1");
    }

    #[test]
    fn arenas_are_found_while_they_are_mapped() {
        let arena = lone_arena();
        let base = arena.base();
        for offset in [0, 1, ARENA_SIZE - 1] {
            assert!(ptr::eq(MAP.arena(base + offset).unwrap(), arena), "N3");
        }
        MAP.remove_arena(arena);
        assert!(MAP.arena(base).is_none(), "N3");
    }

    #[test]
    fn an_arena_is_gone_until_something_else_is_seen_to_lie_there() {
        let arena = lone_arena();
        let (base, land) = (
            arena.base(),
            NonNull::new(ptr::with_exposed_provenance_mut(arena.base())),
        );
        assert!(!MAP.is_gone(base));
        MAP.remove_arena(arena);
        // SAFETY: nobody uses it.
        unsafe { memory::unmap(land.unwrap(), ARENA_SIZE / 2) };
        assert!(MAP.is_gone(base) && MAP.is_gone(base + 1));
        assert!(!MAP.is_gone(base + ARENA_SIZE / 2), "mapped");
        // SAFETY: as above.
        unsafe { memory::unmap(land.unwrap(), ARENA_SIZE) };
        assert!(
            !MAP.is_gone(base + ARENA_SIZE / 2),
            "seen as somebody else's"
        );
        assert!(MAP.is_gone(base + ARENA_SIZE - 1));
        assert!(MAP.arena(base).is_none(), "N3");
    }
}
