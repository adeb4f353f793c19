//! The page map: what is at an address, for any 64-bit value.
//!
//! ```text
//!   near table: a class for each pool of 32 GiB        leaves: by region of 16 GiB,
//!   around the first arena                             only where there are arenas
//!   +---+---+---+---+---+---+---+-- ... --+---+        +---+---+---+---+--
//!   | 0 | 0 | 4 | 4 | 0 | 2 |33 |         | 0 |        |   |   | * | * |    an arena
//!   +---+---+---+---+---+---+---+-- ... --+---+        +---+---+---+---+--  for each granule
//!     ^                       ^
//!   start                    (address - start) >> 16
//! ```
//!
//! One lookup answers both whether a pool is at the address and of which size class it is. The
//! kernel places mappings one below the other, so nearly every pool is near the first arena: the
//! near table has all of those, in eight instructions. All others are found in leaves of 16 GiB
//! each, with the arena of every granule of 2 MiB; the arena's record has the class of each pool.
//!
//! Nothing is mapped before the first arena. The near table takes up to 1 MiB of addresses between
//! inaccessible pages, less where the process's addresses are limited. A page of it covers 128 MiB,
//! and a page that is never read or written is never resident. Of the leaves' root one page is
//! touched. A leaf is 64 KiB of metadata, of which only the part in use is touched, and is never
//! unmapped.
//!
//! # Granules
//!
//! A granule is one word:
//!
//! ```text
//!    null                      no arena was ever there
//!    -> record                 an arena that is all of it, as one from the kernel is
//!    a bit for each pool | 1   it was unmapped; the pools where no other mapping was seen since
//!    -> split            | 2   a word for each pool: custom arenas, which may begin and end at
//!                              any pool
//! ```
//!
//! # Invariants
//!
//! MAP-1  An entry of the near table is 0 or a class's index times [`ENTRY_STEP`], and is not 0
//!     exactly while its pool belongs to that class.
//! MAP-2  The root, and a leaf that is there, live as long as the process.
//! MAP-3  A pool's arena is a record exactly while that arena has a chunk. Before, there is none;
//!     after, the pool is unmapped, until another arena or a foreign mapping is seen there.
//! MAP-4  `bytes`, `shift` and `table` are 0 until the first arena, then never change. `len` is 0
//!     until they are set. The table stays mapped.
//! MAP-5  The two lowest bits of a granule's word say what it is. A split lives as long as the
//!     process, and its granule keeps it.
//!
//! # Threads
//!
//! Any thread may look up anything, without a lock. A pool's entry changes under its class's lock,
//! its arena under the arenas' lock, except that a lookup clears pools at which it sees a foreign
//! mapping. A thread that has a pointer to a live block has it from the thread that allocated it,
//! after the entry was set: a lookup for a live block is never out of date, though entries of the
//! near table are Relaxed. Where an arena was unmapped and a foreign block is now, the kernel's lock
//! of the address space is between the two: the old entry was cleared before `munmap`, and the
//! foreign block was mapped after it. For any other value the answer is from some moment during the
//! call, and the arena's record may be another arena's by then.
//!
//! # Uses
//!
//! Arenas' records and `metadata`. The heap and the arenas' set are above.

use core::hint::assert_unchecked;
use core::ptr::{self, NonNull};

use crate::arena::Arena;
use crate::arena::metadata;
use crate::base::layout::{
    ARENA_SIZE, GRANULES, POOL_BITS, POOL_SIZE, POOLS_PER_ARENA, REGIONS, granule, pool_in_granule,
    region,
};
use crate::base::size_class::{SIZES, SizeClass};
#[cfg(not(any(miri, loom)))]
use crate::os::arch;
use crate::os::memory;
use crate::os::process::name_mapping;
use crate::sync::{
    AtomicPtr, AtomicU16, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// The map. All zero is the empty map.
pub(crate) struct PageMap {
    near: NearTable,
    /// The leaves' root, or null before the first arena (MAP-2). Release publishes it; pairs with
    /// the Acquire of each lookup.
    root: AtomicPtr<Root>,
}

/// By region: its leaf, or null (MAP-2). Release publishes the leaf; pairs with the Acquire of each
/// lookup.
#[repr(C)]
struct Root([AtomicPtr<Leaf>; REGIONS]);

#[repr(C)]
struct Leaf {
    granules: [Granule; GRANULES],
}

/// Bytes between two entries of a table by class that a lookup leads to.
pub(crate) const ENTRY_STEP: usize = 16;

/// The result of a lookup: a size class, or "in no pool".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry(usize);

/// An entry as the near table stores it.
type RawEntry = u16;

impl Entry {
    /// In no pool.
    #[cfg(test)]
    pub(crate) const NONE: Entry = Entry(0);

    fn raw(class: Option<SizeClass>) -> RawEntry {
        class.map_or(0, |class| (class.index() * ENTRY_STEP) as RawEntry)
    }

    /// Offset in a table by class with [`ENTRY_STEP`] bytes per element, of which element 0 means
    /// "in no pool".
    #[inline(always)]
    pub(crate) fn offset(self) -> usize {
        self.0
    }

    /// Block size; 0 if it is no class.
    #[inline(always)]
    pub(crate) fn size(self) -> usize {
        let index = self.offset() / ENTRY_STEP;
        // SAFETY: MAP-1: the index of a class, or 0.
        unsafe { assert_unchecked(index < SIZES.len()) };
        SIZES[index] as usize
    }

    #[inline(always)]
    pub(crate) fn class(self) -> Option<SizeClass> {
        SizeClass::from_index(self.offset() / ENTRY_STEP)
    }
}

/// The process's map.
#[unsafe(link_section = ".bss.tables")]
pub(crate) static MAP: PageMap = PageMap {
    near: NearTable::new(),
    root: AtomicPtr::new(ptr::null_mut()),
};

impl PageMap {
    /// The size class of the pool at `address`, any value.
    #[inline(always)]
    pub(crate) fn find(&'static self, address: usize) -> Entry {
        self.find_near(address)
            .unwrap_or_else(|| self.find_far(address))
    }

    /// [`find`](PageMap::find) for the hit path: `None` if the address is not in the near table.
    #[inline(always)]
    pub(crate) fn find_near(&'static self, address: usize) -> Option<Entry> {
        Some(Entry(self.near.get(address)?))
    }

    /// [`find`](PageMap::find) for addresses outside of the near table: the record of the arena has
    /// the class.
    #[inline(never)]
    pub(crate) fn find_far(&'static self, address: usize) -> Entry {
        let class = self
            .arena(address)
            .and_then(|arena| arena.pool(address).class());
        Entry(Entry::raw(class).into())
    }

    /// The record of the arena at `address`, any value.
    #[inline]
    pub(crate) fn arena(&'static self, address: usize) -> Option<&'static Arena> {
        self.granule(address)?.arena(address)
    }

    /// Whether an arena was at `address` and nothing is mapped there now. (A mapping that is found
    /// there is foreign, and later lookups skip the check.)
    #[inline]
    pub(crate) fn is_unmapped_arena(&'static self, address: usize) -> bool {
        self.granule(address)
            .is_some_and(|granule| granule.is_unmapped_arena(address))
    }

    #[inline]
    fn root(&'static self) -> Option<&'static Root> {
        // SAFETY: MAP-2: it is null or the root, which is never unmapped.
        unsafe { self.root.load(Acquire).as_ref() }
    }

    /// Makes the root. Of two that are made at once one is wasted.
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
        // SAFETY: MAP-2: it is null or a leaf, which is never unmapped.
        let leaf = unsafe { leaf.as_ref() }?;
        Some(&leaf.granules[granule(address)])
    }

    /// Sets the class of the pool at `address`, which is in one of our arenas; `None` for an empty
    /// pool. (Outside of the near table, the pool's descriptor is read instead.)
    pub(crate) fn set_class(&'static self, address: usize, class: Option<SizeClass>) {
        self.near.set(address, Entry::raw(class));
    }

    /// Enters the pools of `arena`. False, and unchanged, if the map needs memory and the kernel has
    /// none.
    pub(crate) fn add_arena(&'static self, arena: &'static Arena) -> bool {
        let reserve = |first| {
            let granule = self.granule(first).or_else(|| self.add_leaf(first));
            granule.is_some_and(|granule| granule.reserve(arena))
        };
        let is_reserved = self.near.init(arena.base()) && granules_of(arena).all(reserve);
        if is_reserved {
            for first in granules_of(arena) {
                if let Some(granule) = self.granule(first) {
                    granule.enter(first, arena);
                }
            }
        }
        is_reserved
    }

    /// Marks the pools of `arena` as unmapped.
    pub(crate) fn remove_arena(&'static self, arena: &'static Arena) {
        for first in granules_of(arena) {
            if let Some(granule) = self.granule(first) {
                granule.remove(first, arena);
            }
        }
    }

    #[cold]
    fn add_leaf(&'static self, address: usize) -> Option<&'static Granule> {
        let root = self.root().or_else(|| self.make_root())?;
        let entry = root.0.get(region(address))?;
        let leaf = metadata::take(LEAF_SIZE)?.cast::<Leaf>().as_ptr();
        // Two arenas may need the same leaf at once only under different locks (tests do that);
        // then the second leaf is wasted.
        let added = entry.compare_exchange(ptr::null_mut(), leaf, Release, Acquire);
        if added.is_ok() {
            LEAVES.fetch_add(1, Relaxed);
        }
        self.granule(address)
    }
}

/// The address of an arena's first pool in each granule that it is in.
fn granules_of(arena: &Arena) -> impl Iterator<Item = usize> {
    let (base, end) = (arena.base(), arena.base() + arena.len() * POOL_SIZE);
    let further = base - base % ARENA_SIZE + ARENA_SIZE;
    core::iter::once(base).chain((further..end).step_by(ARENA_SIZE))
}

/// Bytes that the near table covers where the process's addresses are not limited.
const COVERED_MAX: usize = 32 << 30;
/// With a limit on addresses, the table covers this multiple of it: mappings are close to each
/// other.
const LIMIT_TIMES: usize = 4;
/// Covered bytes above the first arena, or a quarter if that is less; the rest is below, where the
/// heap grows. (3 GiB, and half of what one page of the table covers: so the first arenas, which
/// are one below the other, are in the middle of a page.)
const COVERED_ABOVE: usize = (3 << 30) + (64 << 20);
/// Bytes that one byte of the table covers.
const COVERED_PER_BYTE: usize = POOL_SIZE / size_of::<RawEntry>();

/// The near table. All zero until the first arena.
struct NearTable {
    /// Number of entries. Release publishes the fields below; pairs with the Acquire in `place`,
    /// which is a plain load on x86-64 and one instruction on aarch64.
    len: AtomicUsize,
    /// Added to an address, gives its distance from the first covered byte.
    shift: AtomicUsize,
    table: AtomicPtr<AtomicU16>,
    bytes: AtomicUsize,
}

impl NearTable {
    const fn new() -> NearTable {
        NearTable {
            len: AtomicUsize::new(0),
            shift: AtomicUsize::new(0),
            table: AtomicPtr::new(ptr::null_mut()),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The entry of the pool at `address`, any value; `None` if it is not covered.
    #[inline(always)]
    fn get(&'static self, address: usize) -> Option<usize> {
        let (table, pool) = self.place(address)?;
        // SAFETY: `place` returns an index within the table.
        Some(unsafe { read(table, pool) })
    }

    /// Sets the entry of the pool at `address`, if it is covered.
    fn set(&'static self, address: usize, entry: RawEntry) {
        if let Some((table, pool)) = self.place(address) {
            // SAFETY: `place` returns an index within the table, which stays mapped (MAP-4).
            unsafe { &*table.add(pool) }.store(entry, Relaxed);
        }
    }

    /// The table, and the index in it of the pool at `address`.
    #[inline(always)]
    fn place(&'static self, address: usize) -> Option<(*const AtomicU16, usize)> {
        let len = self.len.load(Acquire); // before the rest
        let pool = address.wrapping_add(self.shift.load(Relaxed)) >> POOL_BITS;
        if pool >= len {
            return None;
        }
        Some((self.table.load(Relaxed), pool))
    }

    /// Maps the table, if an arena at `base` is the first. False if there is no memory for it.
    fn init(&'static self, base: usize) -> bool {
        if self.len.load(Acquire) != 0 {
            return true;
        }
        // Two arenas may be the first at once only under different locks (tests do that). Each step
        // is done by the thread that comes first, and the other takes its result.
        let set = |field: &AtomicUsize, value| {
            let set_before = field.compare_exchange(0, value, AcqRel, Acquire);
            set_before.err().unwrap_or(value)
        };
        let bytes = set(&self.bytes, near_bytes_for(memory::address_limit()));
        if self.table.load(Acquire).is_null() {
            let Some(table) = memory::map_fenced(bytes) else {
                return false;
            };
            name_mapping(table, bytes, c"obmalloc: address map");
            let (none, made) = (ptr::null_mut(), table.cast().as_ptr());
            let set_now = self.table.compare_exchange(none, made, AcqRel, Acquire);
            if set_now.is_err() {
                // SAFETY: mapped above, and no other thread has seen it.
                unsafe { memory::unmap_fenced(table, bytes) };
            }
        }
        let covered = bytes * COVERED_PER_BYTE;
        let below = covered - COVERED_ABOVE.min(covered / 4);
        let start = base.saturating_sub(below).max(POOL_SIZE);
        set(&self.shift, start.wrapping_neg());
        self.len.store(bytes / size_of::<RawEntry>(), Release);
        true
    }

    /// Address and bytes of the table, if it is mapped.
    fn mapping(&self) -> Option<(NonNull<u8>, usize)> {
        let table = NonNull::new(self.table.load(Acquire))?;
        Some((table.cast(), self.bytes.load(Relaxed)))
    }
}

/// Reads entry `i` of a near table.
///
/// # Safety
/// The table has more than `i` entries.
#[inline(always)]
unsafe fn read(table: *const AtomicU16, i: usize) -> usize {
    #[cfg(not(any(miri, loom)))]
    // SAFETY: the table has entry `i`, and stays mapped (MAP-4).
    unsafe {
        arch::load_u16(table.cast(), i)
    }
    #[cfg(any(miri, loom))]
    // SAFETY: the table has entry `i`, and stays mapped (MAP-4).
    unsafe { &*table.add(i) }.load(Relaxed).into()
}

/// Bytes of the near table for this limit of the process's addresses.
fn near_bytes_for(limit: Option<usize>) -> usize {
    let covered = limit.map_or(COVERED_MAX, |limit| {
        let wanted = limit
            .saturating_mul(LIMIT_TIMES)
            .checked_next_power_of_two();
        wanted.unwrap_or(COVERED_MAX).min(COVERED_MAX)
    });
    let bytes = (covered / COVERED_PER_BYTE).max(1);
    bytes.next_multiple_of(memory::page_size())
}

/// A granule. All zero is one in which no arena ever was.
#[repr(transparent)]
struct Granule {
    /// Release publishes what it points to; pairs with the Acquire of each lookup.
    word: AtomicPtr<Arena>,
}

/// The pools of a granule one by one.
#[repr(C, align(128))]
struct Split {
    /// By pool: the record of its arena, or null, or [`UNMAPPED`] (MAP-3).
    pools: [AtomicPtr<Arena>; POOLS_PER_ARENA],
}

/// The lowest bits of a word, which are clear in a record's address.
const TAGS: usize = 3;
const TAG_UNMAPPED: usize = 1;
const TAG_SPLIT: usize = 2;
/// The position of the first pool's bit.
const FIRST_POOL: u32 = 2;

const _: () = assert!(align_of::<Arena>() > TAGS && align_of::<Split>() > TAGS);
const _: () = assert!(align_of::<Split>() <= metadata::ALIGNMENT);
const _: () = assert!(POOLS_PER_ARENA as u32 + FIRST_POOL <= usize::BITS);

/// The word in a split of a pool that was unmapped.
const UNMAPPED: *mut Arena = ptr::without_provenance_mut(TAG_UNMAPPED);

/// The word of a granule of which these pools were unmapped.
fn unmapped_word(pools: u32) -> *mut Arena {
    match pools {
        0 => ptr::null_mut(),
        pools => ptr::without_provenance_mut((pools as usize) << FIRST_POOL | TAG_UNMAPPED),
    }
}

/// The pools of a granule that were unmapped, by its word.
fn unmapped_pools(word: *mut Arena) -> u32 {
    match word.addr() & TAGS {
        TAG_UNMAPPED => (word.addr() >> FIRST_POOL) as u32,
        _ => 0,
    }
}

/// The split that a word points to.
fn split(word: *mut Arena) -> Option<&'static Split> {
    if word.addr() & TAGS != TAG_SPLIT {
        return None;
    }
    let split = word.map_addr(|address| address & !TAGS).cast::<Split>();
    // SAFETY: MAP-5: with this tag it is a split, which is never unmapped.
    unsafe { split.as_ref() }
}

impl Granule {
    /// The record of the arena at `address`, which is in this granule.
    #[inline]
    fn arena(&'static self, address: usize) -> Option<&'static Arena> {
        let word = self.word.load(Acquire);
        if word.addr() & TAGS != 0 {
            return arena_in(split(word)?, address);
        }
        // SAFETY: MAP-5: without a tag it is null or a record, and records live as long as the
        // process.
        unsafe { word.as_ref() }
    }

    /// Whether an arena was at `address` and nothing is mapped there now.
    #[inline]
    fn is_unmapped_arena(&'static self, address: usize) -> bool {
        self.word.load(Relaxed).addr() & TAGS != 0 && self.is_still_unmapped(address)
    }

    #[cold]
    #[inline(never)]
    fn is_still_unmapped(&'static self, address: usize) -> bool {
        let (seen, pool) = (self.word.load(Acquire), pool_in_granule(address));
        // The word with the pool's state, its value, and its value without that pool.
        let (word, seen, rest) = match split(seen) {
            Some(split) if split.pools[pool].load(Relaxed) == UNMAPPED => {
                (&split.pools[pool], UNMAPPED, ptr::null_mut())
            }
            None if unmapped_pools(seen) >> pool & 1 == 1 => (
                &self.word,
                seen,
                unmapped_word(unmapped_pools(seen) & !(1 << pool)),
            ),
            _ => return false,
        };
        let is_unmapped = memory::is_unmapped(address);
        if !is_unmapped {
            let _ = word.compare_exchange(seen, rest, Relaxed, Relaxed);
        }
        is_unmapped
    }

    /// Makes a split, if `arena` needs one and there is none. False if there is no memory for it.
    fn reserve(&'static self, arena: &Arena) -> bool {
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
            // SAFETY: METADATA-1: the piece is zero, which is a split without arenas, aligned, and
            // this call's alone.
            let pools = unsafe { &new.as_ref().pools };
            for (i, pool) in pools.iter().enumerate() {
                let is_unmapped = unmapped_pools(seen) >> i & 1 == 1;
                let whole = seen.addr() & TAGS == 0; // an arena that this one seems to overlap
                let record = if whole { seen } else { ptr::null_mut() };
                pool.store(if is_unmapped { UNMAPPED } else { record }, Relaxed);
            }
            let tagged = new.cast::<Arena>().as_ptr().map_addr(|at| at | TAG_SPLIT);
            let is_set = self.word.compare_exchange(seen, tagged, Release, Relaxed);
            if is_set.is_ok() {
                return true;
            }
        }
    }

    /// Enters the pools of `arena` that are in this granule, from the one at `first`. The caller has
    /// called `reserve`.
    fn enter(&'static self, first: usize, arena: &'static Arena) {
        let record = ptr::from_ref(arena).cast_mut();
        // Release: the record's own fields are set.
        match split(self.word.load(Acquire)) {
            Some(split) => split.set(first, arena, record),
            None => self.word.store(record, Release),
        }
    }

    /// Marks the pools of `arena` in this granule, from the one at `first`, as unmapped.
    fn remove(&'static self, first: usize, arena: &'static Arena) {
        match split(self.word.load(Acquire)) {
            Some(split) => split.set(first, arena, UNMAPPED),
            None => self.word.store(unmapped_word(u32::MAX), Release),
        }
    }
}

impl Split {
    /// Sets the words of the pools of `arena` from the one at `first` on, up to the granule's end.
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

static LEAVES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of address space in one leaf.
pub(crate) const LEAF_SIZE: usize = size_of::<Leaf>();

/// An estimate of the map's resident bytes with this number of arenas.
pub(crate) fn resident_bytes(arenas: usize) -> usize {
    let page = memory::page_size();
    // At least a page of the root, of the near table, and of each leaf.
    let pages = 2 + LEAVES.load(Relaxed);
    let touched = arenas * (POOLS_PER_ARENA * size_of::<RawEntry>() + size_of::<*mut Arena>());
    pages * page + touched
}

/// Addresses and bytes of the tables: the static one, the near table, the root, and each leaf.
#[cold]
pub(crate) fn mappings() -> impl Iterator<Item = (usize, usize)> {
    let map = (ptr::from_ref(&MAP).addr(), size_of::<PageMap>());
    let near = MAP.near.mapping();
    let near = near.map(|(table, bytes)| (table.addr().get(), bytes));
    let leaves = MAP.root().into_iter().flat_map(|root| &root.0);
    let leaves = leaves.map(|leaf| (leaf.load(Acquire).addr(), LEAF_SIZE));
    let leaves = leaves.filter(|&(leaf, _)| leaf != 0);
    let root = MAP
        .root()
        .map(|root| (ptr::from_ref(root).addr(), size_of::<Root>()));
    core::iter::once(map).chain(near).chain(root).chain(leaves)
}

/// Bytes of address space in the tables that every process has once it has an arena.
pub(crate) fn root_bytes() -> usize {
    size_of::<PageMap>() + size_of::<Root>() + near_table_bytes()
}

/// Bytes of address space in the near table.
pub(crate) fn near_table_bytes() -> usize {
    MAP.near.mapping().map_or(0, |(_, bytes)| bytes)
}

/// Bytes of address space in leaves.
pub(crate) fn leaf_bytes() -> usize {
    LEAVES.load(Relaxed) * LEAF_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::chunk::Chunk;
    use crate::base::layout::ADDRESS_BITS;
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
            1 << ADDRESS_BITS,
            (1 << ADDRESS_BITS) - 1,
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
        for bit in ADDRESS_BITS..64 {
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
        arena.init(chunk);
        assert!(MAP.add_arena(arena));
        arena
    }

    #[test]
    fn several_arenas_may_share_a_granule() {
        let whole = lone_arena();
        let (base, start) = (
            whole.base(),
            NonNull::new(ptr::with_exposed_provenance_mut(whole.base())),
        );
        MAP.remove_arena(whole);
        let chunk = |pool: usize, pools: usize| {
            // SAFETY: within the granule.
            let at = unsafe { start.unwrap().add(pool * POOL_SIZE) };
            Chunk::custom_at(at, pools * POOL_SIZE)
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
        // SAFETY: the arena is not in the map any more, and has no block.
        unsafe { memory::unmap(start.unwrap(), ARENA_SIZE) };
        assert!(MAP.is_unmapped_arena(base + 5 * POOL_SIZE), "MAP-5");
    }

    #[test]
    fn an_arena_is_unmapped_until_a_foreign_mapping_is_seen_there() {
        let arena = lone_arena();
        let (base, chunk) = (
            arena.base(),
            NonNull::new(ptr::with_exposed_provenance_mut(arena.base())),
        );
        assert!(!MAP.is_unmapped_arena(base));
        MAP.remove_arena(arena);
        // SAFETY: the arena is not in the map any more, and has no block.
        unsafe { memory::unmap(chunk.unwrap(), ARENA_SIZE / 2) };
        assert!(MAP.is_unmapped_arena(base) && MAP.is_unmapped_arena(base + 1));
        assert!(!MAP.is_unmapped_arena(base + ARENA_SIZE / 2), "mapped");
        // SAFETY: the arena is not in the map any more, and has no block.
        unsafe { memory::unmap(chunk.unwrap(), ARENA_SIZE) };
        assert!(
            !MAP.is_unmapped_arena(base + ARENA_SIZE / 2),
            "seen as a foreign mapping"
        );
        assert!(MAP.is_unmapped_arena(base + ARENA_SIZE - 1));
        assert!(MAP.arena(base).is_none(), "MAP-3");
    }

    #[test]
    fn a_small_limit_of_addresses_makes_a_small_table() {
        let page = memory::page_size();
        assert_eq!(near_bytes_for(None), COVERED_MAX / COVERED_PER_BYTE);
        assert_eq!(
            near_bytes_for(Some(usize::MAX)),
            COVERED_MAX / COVERED_PER_BYTE
        );
        assert_eq!(near_bytes_for(Some(22_000_000)), page.max(4096));
        assert_eq!(near_bytes_for(Some(0)), page);
        assert!(near_bytes_for(Some(1 << 32)) <= (1 << 32) / 1024);
    }

    #[test]
    fn without_a_table_nothing_is_near() {
        static NEAR: NearTable = NearTable::new();
        for address in [0, 1, POOL_SIZE, 1 << 46, usize::MAX] {
            assert_eq!(NEAR.get(address), None);
            NEAR.set(address, 5); // nothing happens
        }
        assert!(NEAR.mapping().is_none());
    }

    #[test]
    fn entries_are_set_and_read_from_end_to_end() {
        static NEAR: NearTable = NearTable::new();
        let base = 1 << 46;
        assert!(NEAR.init(base) && NEAR.init(base + (1 << 40)));
        let (_, bytes) = NEAR.mapping().unwrap();
        let first =
            base + COVERED_ABOVE.min(bytes * COVERED_PER_BYTE / 4) - bytes * COVERED_PER_BYTE;
        let last = first + (bytes / size_of::<RawEntry>() - 1) * POOL_SIZE;
        for address in [first, base, last] {
            assert_eq!(NEAR.get(address), Some(0), "MAP-4");
            NEAR.set(address, 16);
            assert_eq!(NEAR.get(address + POOL_SIZE - 1), Some(16), "MAP-1");
        }
        for address in [first - 1, last + POOL_SIZE, 0, usize::MAX] {
            assert_eq!(NEAR.get(address), None);
        }
    }
}
