//! The address map: what lies at an address, for any 64-bit value.
//!
//! ```text
//!                     REGIONS entries            one entry for each pool
//!   address >> 32 --> +-------------+            +---+---+---+---+---+--
//!                     |      0      | ---------> | 0 | 0 | 0 | 0 | 0 |    nowhere
//!                     |      0      |            +---+---+---+---+---+--
//!                     |  distance   | ------+
//!                     |      0      |       |    +---+---+---+---+---+--
//!                     +-------------+       +--> | 4 | 4 | 0 | 2 | 33|    a leaf
//!                                                +---+---+---+---+---+--
//!                                                      ^ (address >> 16) % 65536
//! ```
//!
//! One lookup answers both "is it ours?" and "of which size class?": a leaf
//! says the class of each pool, 0 if it has none, and behind all classes the
//! arena that each pool lies in. The table before says a leaf's distance from
//! `nowhere`, a leaf of zeros, so that a distance never set leads there and the
//! lookup needs no test for it. A leaf takes 768 KiB of address space, of which
//! three OS pages are touched for each 64 MiB of arenas, and is never given
//! back.
//!
//! # Invariants
//!
//! N1  A pool's entry is 0 or the index of a size class, and is not 0 exactly
//!     while the pool belongs to that class.
//! N2  A distance is 0 or leads to a `Leaf` that lives as long as the process.
//! N3  A pool's arena is not null exactly while the arena has land.
//!
//! # Threads
//!
//! Anyone may look up anything, without a lock. A pool's entry changes under
//! its class's lock, its arena under the arenas' lock. Who has a pointer to
//! a live block has it from the thread that allocated it, after the entry
//! was set: a lookup for a live block is never out of date. For any other value
//! the answer is from some moment around the call.

use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::arena::Arena;
use crate::geometry::{
    self, POOL_SIZE, POOLS_PER_ARENA, POOLS_PER_REGION, REGIONS, pool_in_region, region,
};
use crate::os::memory;
use crate::os::process::name_mapping;
use crate::size_class::{SizeClass, TABLE_LEN};

/// By pool: the index of its size class, or 0 (N1). A byte would do; a word of
/// 32 bits is one instruction less on the hit path.
type Classes = [AtomicU32; POOLS_PER_REGION];

#[repr(C)]
struct Leaf {
    classes: Classes,
    /// By pool: the record of its arena, or null (N3).
    arenas: [AtomicPtr<Arena>; POOLS_PER_REGION],
}

/// The map. All zero is the empty map.
#[repr(C)]
pub struct AddressMap {
    /// What every entry leads to that was never set. Never written.
    nowhere: Classes,
    /// By region: the distance of its leaf from `nowhere`, in bytes (N2).
    /// Release publishes the leaf; pairs with the Acquire of each lookup.
    distances: [AtomicUsize; REGIONS],
}

/// What a lookup for the hit path answers: a size class's index, or 0 for
/// "in no pool". Always below [`TABLE_LEN`] (N1, S1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found(usize);

impl Found {
    /// In no pool.
    pub const NO_POOL: Found = Found(0);

    /// Index into a table by class whose entry 0 means "in no pool".
    #[inline(always)]
    pub fn index(self) -> usize {
        // SAFETY: N1 and S1.
        unsafe { core::hint::assert_unchecked(self.0 < TABLE_LEN) };
        self.0
    }

    /// The size class, if it is one.
    #[inline(always)]
    pub fn class(self) -> Option<SizeClass> {
        SizeClass::from_index(self.index())
    }
}

/// The process's map.
pub static MAP: AddressMap = AddressMap {
    nowhere: [const { AtomicU32::new(0) }; POOLS_PER_REGION],
    distances: [const { AtomicUsize::new(0) }; REGIONS],
};

impl AddressMap {
    /// The size class of the pool at `address`, for any value of it.
    #[inline(always)]
    pub fn find(&'static self, address: usize) -> Found {
        self.find_below_limit(address).unwrap_or(Found::NO_POOL)
    }

    /// The same for the hit path, where an address that the kernel gives to
    /// nobody goes another way: `None`.
    #[inline(always)]
    pub fn find_below_limit(&'static self, address: usize) -> Option<Found> {
        let distance = self.distances.get(region(address))?.load(Acquire);
        let classes = ptr::from_ref(&self.nowhere).wrapping_byte_add(distance);
        // SAFETY: N2; a leaf begins with its classes, and `nowhere` is such
        // an array itself.
        let classes = unsafe { &*classes };
        let found = classes[pool_in_region(address)].load(Relaxed);
        Some(Found(found as usize))
    }

    /// The record of the arena at `address`, for any value of it.
    #[inline]
    pub fn arena(&'static self, address: usize) -> Option<&'static Arena> {
        let record = self.leaf(address)?.arenas[pool_in_region(address)].load(Acquire);
        // SAFETY: N3; records live as long as the process.
        unsafe { record.as_ref() }
    }

    fn leaf(&'static self, address: usize) -> Option<&'static Leaf> {
        let distance = self.distances.get(region(address))?.load(Acquire);
        if distance == 0 {
            return None;
        }
        let leaf = ptr::from_ref(&self.nowhere)
            .wrapping_byte_add(distance)
            .cast::<Leaf>();
        // SAFETY: N2.
        Some(unsafe { &*leaf })
    }

    /// Says that the pool at `address`, in an arena of ours, belongs to
    /// `class` from now on; `None`: to no class.
    pub fn set_class(&'static self, address: usize, class: Option<SizeClass>) {
        let Some(leaf) = self.leaf(address) else {
            return;
        };
        let index = class.map_or(0, SizeClass::index);
        leaf.classes[pool_in_region(address)].store(index as u32, Relaxed);
    }

    /// Says that the pools of `arena` lie where they do from now on. False,
    /// and nothing changed, if a leaf is needed and the kernel has no memory
    /// for it.
    pub fn add_arena(&'static self, arena: &'static Arena) -> bool {
        let known = |pool| self.leaf(pool).is_some() || self.add_leaf(pool);
        if !pools_of(arena).all(known) {
            return false;
        }
        // Release: the record's own fields are set.
        self.set_arena(arena, ptr::from_ref(arena).cast_mut());
        true
    }

    /// Says that `arena` is there no more.
    pub fn remove_arena(&'static self, arena: &'static Arena) {
        self.set_arena(arena, ptr::null_mut());
    }

    fn set_arena(&'static self, arena: &'static Arena, record: *mut Arena) {
        for pool in pools_of(arena) {
            if let Some(leaf) = self.leaf(pool) {
                leaf.arenas[pool_in_region(pool)].store(record, Release);
            }
        }
    }

    fn add_leaf(&'static self, address: usize) -> bool {
        let Some(entry) = self.distances.get(region(address)) else {
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
        let distance = distance(leaf, &self.nowhere);
        if entry
            .compare_exchange(0, distance, Release, Acquire)
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

fn distance(leaf: NonNull<u8>, nowhere: &'static Classes) -> usize {
    // The lookup goes from `nowhere` to the leaf by arithmetic on addresses,
    // so the leaf's pointer is exposed to it here.
    leaf.as_ptr()
        .expose_provenance()
        .wrapping_sub(ptr::from_ref(nowhere).addr())
}

static LEAF_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the map that are in memory, about, with so many arenas.
pub fn resident_bytes(arenas: usize) -> usize {
    let page = memory::page_size();
    let leaves = leaf_bytes() / LEAF_SIZE.next_multiple_of(page);
    // Of each leaf at least a page of classes and one of arenas; of the table
    // before, a page.
    let pools = arenas * POOLS_PER_ARENA;
    let touched = pools * (size_of::<AtomicU32>() + size_of::<AtomicPtr<Arena>>());
    page + leaves * 2 * page + touched
}

/// Bytes of address space in the table that leads to the leaves.
pub const ROOT_BYTES: usize = size_of::<AddressMap>();
/// Bytes of address space in one leaf, on an OS page of 4 KiB.
pub const LEAF_SIZE: usize = size_of::<Leaf>();

/// Bytes of address space in leaves.
pub fn leaf_bytes() -> usize {
    LEAF_BYTES.load(Relaxed)
}

const _: () = assert!(geometry::REGION_BITS == 32, "the low half of an address");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::ARENA_SIZE;
    use crate::tests::*;

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
                assert_eq!(MAP.find(near).index(), 0, "{near:#x}");
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
            assert_eq!(MAP.find((base + POOL_SIZE) | 1 << bit).index(), 0);
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
}
