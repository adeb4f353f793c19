//! A snapshot of the heap: each arena, pool and page, in the layout of `format::layout`.
//!
//! ```text
//!    plan:    the arenas, sorted                  -> the offset of each part in the file
//!    write:   arena by arena, pool by pool, each under its lock;
//!             the header last: a truncated file has none
//! ```
//!
//! Nothing is allocated; a working area is mapped for the duration. Pools are read one after
//! the other, so while other threads allocate they are of different moments. An arena that was
//! added after the plan is left out; one that was unmapped is marked.
//!
//! # Threads
//!
//! Any thread, with no lock held. A lock is held for one pool at a time.

use core::ffi::{CStr, c_int};
use core::ptr::NonNull;
use core::slice;

use super::encode::encode;
use super::writer::Writer;
use crate::arena;
use crate::arena::metadata;
use crate::arena::page_map::{self, MAP};
use crate::base::layout::{MIN_PAGE, POOL_SIZE, POOLS_PER_ARENA};
use crate::base::size_class::SizeClass;
use crate::heap::HEAP;
use crate::inspect::objects::{Part, TYPES_MAX, Types};
use crate::os::clock;
use crate::os::memory;
use crate::os::output::Output;
use crate::os::process::libc_memory;
use crate::pool;
use crate::tcache::registry;
use format::layout::{
    self, ARENA_GONE, ARENA_PROGRAMS, Arena, Header, MAP_MAGIC, MAP_VERSION, MAP_VERSION_BY_PAGE,
    MAPPING_MAGAZINES, MAPPING_MAP, MAPPING_METADATA, MAPPING_RECORD, MAPPING_STATIC, Mapping,
    NO_CLASS, PAGE_IDLE, PAGE_RESIDENT, PAGE_RETURNED, Page, Pool, SNAPSHOT_PAGE, TYPED_REACHES,
    TypedBlock, TypedPage,
};

/// Blocks of known type in a pool, at most: of blocks of 32 bytes on, the smallest that can own others,
/// three for each.
const TYPED_MAX: usize = 3 * POOL_SIZE / 32;
/// Bytes of a type's name.
const NAME_MAX: usize = 200;
/// Pages of a pool.
const PAGES: usize = POOL_SIZE / SNAPSHOT_PAGE;
/// Room for arenas and mappings that are added after the count.
const SPARE: usize = 64;
/// Mappings in one write.
const AT_ONCE: usize = 64;
/// Entries that are open to further blocks of their page and type.
const OPEN: usize = 1024;
/// Types by page take at most this part of the heap's memory, in a process's own memory: blocks
/// beyond it have no type.
const TYPES_SHARE: u64 = 32;
/// Granules of a pool, in which at most one block begins.
const GRANULES: usize = POOL_SIZE / 16;
/// Attempts at a pool whose class changes.
const TRIES: usize = 8;

/// Writes a snapshot to the file at `path`, which is created or replaced: whole, or not at all.
#[cold]
pub(crate) fn write_to(path: &CStr, with_types: bool) -> Result<(), c_int> {
    let plan = Plan::make()?;
    let file = Output::create(0o600, |name| name.push(path.to_bytes()))?;
    if !file.has_places() {
        return Err(libc::ESPIPE);
    }
    let types = with_types.then(Types::new).flatten();
    plan.write(&Writer::File(&file), types, &|| true)?;
    file.finish()
}

/// The working area: one arena, and some mappings.
#[repr(C)]
struct Work {
    header: Header,
    pools: [Pool; POOLS_PER_ARENA],
    pages: [Page; POOLS_PER_ARENA * PAGES],
    mappings: [Mapping; AT_ONCE],
    typed: [TypedBlock; TYPED_MAX],
    open: [TypedPage; OPEN],
    names: [u8; AT_ONCE * NAME_MAX],
}

/// The parts of a snapshot, and its working area.
pub(crate) struct Plan {
    work: NonNull<Work>,
    size: usize,
    /// The number of arenas; they follow `work`.
    arenas: usize,
    mappings: usize,
}

impl Plan {
    /// Counts the parts.
    #[cold]
    pub(crate) fn make() -> Result<Plan, c_int> {
        let most = HEAP.arena_counts().mapped + SPARE;
        let size = size_of::<Work>() + most * size_of::<Arena>();
        let size = size.next_multiple_of(memory::page_size());
        let work = memory::map_fenced(size).ok_or(libc::ENOMEM)?.cast();
        let mut plan = Plan {
            work,
            size,
            arenas: 0,
            mappings: 0,
        };
        let records = plan.collect(most);
        let of_threads = registry::mappings().count();
        plan.mappings = records
            + of_threads
            + page_map::mappings().count()
            + metadata::mappings().count()
            + SPARE;
        let mut first_pool = 0;
        let arenas = plan.arenas_mut();
        sort(arenas);
        for arena in arenas {
            arena.first_pool = first_pool;
            first_pool += u64::from(arena.pools);
        }
        Ok(plan)
    }

    /// Bytes of the snapshot, at most; with types by page.
    pub(crate) fn longest(&self, with_types: bool) -> u64 {
        let names = TYPES_MAX + Part::ALL.len();
        let types = size_of::<layout::Types>() + names * (size_of::<u64>() + NAME_MAX);
        let types = if with_types {
            self.room() * 8 + types as u64
        } else {
            0
        };
        self.end_of_mappings() + types
    }

    fn end_of_mappings(&self) -> u64 {
        let (_, _, _, mappings) = self.places();
        mappings + (self.mappings * size_of::<Mapping>()) as u64
    }

    /// Entries of types by page, at most.
    fn room(&self) -> u64 {
        (self.pools() * POOL_SIZE as u64 / TYPES_SHARE).max(1 << 20) / size_of::<TypedPage>() as u64
    }

    /// Lists at most `most` arenas that have a chunk. Returns the number of arena records.
    fn collect(&mut self, most: usize) -> usize {
        let (mut next, mut records) = (HEAP.arenas.lock().newest(), 0);
        while let Some(arena) = next {
            let lock = HEAP.arenas.lock();
            let (address, bytes, pools) = (arena.base(), arena.size(), arena.len());
            let programs = arena.is_custom();
            drop(lock);
            if bytes > 0 && self.arenas < most {
                let at = self.arenas;
                self.arenas += 1;
                self.arenas_mut()[at] = Arena {
                    address: address as u64,
                    bytes: bytes as u64,
                    first_pool: 0,
                    pools: pools as u32,
                    flags: if programs { ARENA_PROGRAMS } else { 0 },
                };
            }
            records += 1;
            next = arena.older();
        }
        records
    }

    fn arenas_mut(&mut self) -> &mut [Arena] {
        // SAFETY: the mapping has room for `most >= self.arenas` of them after `work`, and begins
        // zeroed, which is a valid `Arena`.
        unsafe { slice::from_raw_parts_mut(self.work.add(1).as_ptr().cast(), self.arenas) }
    }

    fn arenas(&self) -> &[Arena] {
        // SAFETY: `collect` has written this number of them after `work`, in the mapping.
        unsafe { slice::from_raw_parts(self.work.add(1).as_ptr().cast(), self.arenas) }
    }

    fn pools(&self) -> u64 {
        let last = self.arenas().last();
        last.map_or(0, |arena| arena.first_pool + u64::from(arena.pools))
    }

    /// Offsets of arenas, pools, pages and mappings in the file.
    fn places(&self) -> (u64, u64, u64, u64) {
        let arenas = size_of::<Header>() as u64;
        let pools = arenas + size_of_val(self.arenas()) as u64;
        let pages = pools + self.pools() * size_of::<Pool>() as u64;
        let mappings = pages + self.pools() * (PAGES * size_of::<Page>()) as u64;
        (arenas, pools, pages, mappings)
    }

    /// Writes the snapshot while `goes_on` is true, with the types of blocks' objects if `types` is
    /// there: block by block to a file, and by page to memory. Returns its bytes.
    #[cold]
    pub(crate) fn write(
        mut self,
        writer: &Writer,
        mut types: Option<Types>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<u64, c_int> {
        let (at_arenas, at_pools, at_pages, at_mappings) = self.places();
        // SAFETY: mapped zeroed, which is a valid `Work`, and owned by this plan.
        let work = unsafe { &mut *self.work.as_ptr() };
        encode(&mut work.header.statistics, &libc_memory);
        let parts = types.as_ref().and_then(|_| Parts::new(self.pools()));
        let mut entries = parts.map(|parts| Entries {
            writer,
            at: self.end_of_mappings(),
            len: 0,
            room: self.room(),
            by_page: matches!(writer, Writer::Memory(..)),
            parts,
            open: &mut work.open,
        });
        for n in 0..self.arenas {
            if !goes_on() {
                return Err(libc::EINTR);
            }
            let arena = self.arenas()[n];
            let (mut gone, first) = (false, arena.first_pool);
            for i in 0..arena.pools as usize {
                let address = arena.address as usize + i * POOL_SIZE;
                let first_page = (first + i as u64) * PAGES as u64;
                let pages = &mut work.pages[i * PAGES..][..PAGES];
                let mut typed = Typed {
                    types: types.as_mut().filter(|_| entries.is_some()),
                    blocks: &mut work.typed,
                    len: 0,
                };
                let pool = look(address, pages, &mut typed);
                let len = typed.len;
                if let Some(entries) = &mut entries {
                    entries.add(self.arenas(), &mut work.typed[..len])?;
                }
                gone |= pool.is_none();
                work.pools[i] = Pool {
                    address: address as u64,
                    first_page,
                    pages: PAGES as u16,
                    ..pool.unwrap_or(EMPTY)
                };
            }
            if gone {
                self.arenas_mut()[n].flags |= ARENA_GONE;
            }
            let pools = arena.pools as usize;
            let at = at_pools + first * size_of::<Pool>() as u64;
            writer.put(at, &work.pools[..pools])?;
            let at = at_pages + first * (PAGES * size_of::<Page>()) as u64;
            writer.put(at, &work.pages[..pools * PAGES])?;
        }
        let mappings = self.write_mappings(&mut work.mappings, writer, at_mappings)?;
        writer.put(at_arenas, self.arenas())?;
        let mut end = at_mappings + (mappings * size_of::<Mapping>()) as u64;
        let header = &mut work.header;
        header.version = MAP_VERSION;
        if let (Some(types), Some(mut entries)) = (types, entries) {
            entries.close()?;
            header.types_offset = entries.end();
            end = write_types(&types, &entries, &mut work.names)?;
            header.types_bytes = end - header.types_offset;
            if entries.by_page {
                header.version = MAP_VERSION_BY_PAGE;
            }
        }
        header.magic = MAP_MAGIC;
        header.header_bytes = size_of::<Header>() as u32;
        header.real_ms = clock::real_time();
        header.arenas = self.arenas as u64;
        header.pools = self.pools();
        header.pages = self.pools() * PAGES as u64;
        header.mappings = mappings as u64;
        writer.put(0, slice::from_ref(header))?;
        Ok(end)
    }

    fn write_mappings(
        &self,
        buffer: &mut [Mapping; AT_ONCE],
        writer: &Writer,
        at: u64,
    ) -> Result<usize, c_int> {
        let newest = HEAP.arenas.lock().newest();
        let records = core::iter::successors(newest, |arena| arena.older());
        let size = size_of::<arena::Arena>();
        let records =
            records.map(|record| (MAPPING_RECORD, (core::ptr::from_ref(record).addr(), size)));
        let of_threads = registry::mappings().map(|record| (MAPPING_MAGAZINES, record));
        let kinds = core::iter::once(MAPPING_STATIC).chain(core::iter::repeat(MAPPING_MAP));
        let tables = kinds.zip(page_map::mappings());
        let whole = metadata::mappings().map(|chunk| (MAPPING_METADATA, chunk));
        let all = records.chain(of_threads).chain(tables).chain(whole);
        let all = all.take(self.mappings);
        let (mut written, mut held) = (0, 0);
        let place = |n: usize| at + (n * size_of::<Mapping>()) as u64;
        for (kind, (address, bytes)) in all {
            buffer[held] = Mapping {
                address: address as u64,
                bytes: bytes as u64,
                kind,
                spare: 0,
            };
            held += 1;
            if held == AT_ONCE {
                writer.put(place(written), &buffer[..])?;
                written += held;
                held = 0;
            }
        }
        writer.put(place(written), &buffer[..held])?;
        Ok(written + held)
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: `make` mapped it with this size; no reference into it is left.
        unsafe { memory::unmap_fenced(self.work.cast(), self.size) };
    }
}

/// Sorts arenas by address: a heap sort, because the sort of `core` needs more stack than a
/// small one has.
fn sort(arenas: &mut [Arena]) {
    for first in (0..arenas.len() / 2).rev() {
        sift(arenas, first);
    }
    for len in (1..arenas.len()).rev() {
        arenas.swap(0, len);
        sift(&mut arenas[..len], 0);
    }
}

/// Moves an arena down until its children in the heap have lower addresses.
fn sift(arenas: &mut [Arena], mut at: usize) {
    loop {
        let mut highest = at;
        for below in [2 * at + 1, 2 * at + 2] {
            if below < arenas.len() && arenas[below].address > arenas[highest].address {
                highest = below;
            }
        }
        if highest == at {
            return;
        }
        arenas.swap(at, highest);
        at = highest;
    }
}

/// Writes the types after their entries. Returns the end of the file.
fn write_types(types: &Types, entries: &Entries, names: &mut [u8]) -> Result<u64, c_int> {
    let (writer, at) = (entries.writer, entries.end());
    let at_addresses = at + size_of::<layout::Types>() as u64;
    let parts = Part::ALL.len();
    let count = parts + types.addresses().len();
    writer.put(at_addresses, &[0u64; Part::ALL.len()])?;
    writer.put(
        at_addresses + (parts * size_of::<u64>()) as u64,
        types.addresses(),
    )?;
    let at_names = at_addresses + (count * size_of::<u64>()) as u64;
    let (mut written, mut held) = (0, 0);
    for i in 0..count {
        if held + NAME_MAX > names.len() {
            writer.put(at_names + written, &names[..held])?;
            written += held as u64;
            held = 0;
        }
        let name = &mut names[held..held + NAME_MAX];
        let len = match Part::ALL.get(i) {
            Some(part) => {
                let text = part.name().as_bytes();
                name[..text.len()].copy_from_slice(text);
                text.len()
            }
            None => Types::name(types.addresses()[i - parts], &mut name[..NAME_MAX - 1]),
        };
        name[len] = 0;
        held += len + 1;
    }
    writer.put(at_names + written, &names[..held])?;
    written += held as u64;
    let head = layout::Types {
        types: count as u32,
        text_bytes: written as u32,
        blocks_offset: entries.at,
        blocks: entries.len,
    };
    writer.put(at, slice::from_ref(&head))?;
    Ok(at_names + written)
}

/// The granule of the heap in which an address is: pools are numbered as in the snapshot.
fn granule(arenas: &[Arena], address: u64) -> Option<u64> {
    let behind = arenas.partition_point(|arena| arena.address <= address);
    let arena = arenas.get(behind.checked_sub(1)?)?;
    let offset = address - arena.address;
    let is_inside = offset < u64::from(arena.pools) * POOL_SIZE as u64;
    is_inside.then(|| arena.first_pool * GRANULES as u64 + offset / 16)
}

/// The blocks that objects own, one bit for each granule: several objects may own the same block, as
/// the dicts of instances share their keys.
struct Parts {
    bits: NonNull<u64>,
    words: usize,
}

impl Parts {
    fn new(pools: u64) -> Option<Parts> {
        let words = usize::try_from(pools).ok()?.max(1) * (GRANULES / 64);
        let bits = memory::map(Parts::size(words))?.cast();
        Some(Parts { bits, words })
    }

    fn size(words: usize) -> usize {
        (words * size_of::<u64>()).next_multiple_of(memory::page_size())
    }

    /// Whether a block is to be entered: one that objects own once, and only as theirs.
    fn enter(&mut self, granule: u64, is_part: bool) -> bool {
        // SAFETY: mapped zeroed with this size, and owned by this value.
        let bits = unsafe { slice::from_raw_parts_mut(self.bits.as_ptr(), self.words) };
        let Some(word) = bits.get_mut((granule / 64) as usize) else {
            return false;
        };
        let bit = 1 << (granule % 64);
        let is_new = *word & bit == 0;
        *word |= if is_part { bit } else { 0 };
        is_new
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // SAFETY: `new` mapped it with this size; no reference into it is left.
        unsafe { memory::unmap(self.bits.cast(), Parts::size(self.words)) };
    }
}

/// The entries of types, as they are written.
struct Entries<'a> {
    writer: &'a Writer<'a>,
    /// Their offset, and their number.
    at: u64,
    len: u64,
    /// Entries by page, at most.
    room: u64,
    by_page: bool,
    parts: Parts,
    /// Entries by page that are not written yet, by hash; without blocks: none.
    open: &'a mut [TypedPage; OPEN],
}

impl Entries<'_> {
    fn end(&self) -> u64 {
        let size = if self.by_page {
            size_of::<TypedPage>()
        } else {
            size_of::<TypedBlock>()
        };
        self.at + self.len * size as u64
    }

    /// Enters the blocks of a pool's objects.
    fn add(&mut self, arenas: &[Arena], blocks: &mut [TypedBlock]) -> Result<(), c_int> {
        let mut kept = 0;
        for n in 0..blocks.len() {
            let block = blocks[n];
            let is_part = (block.number as usize) < Part::ALL.len();
            let Some(granule) = granule(arenas, block.address) else {
                continue;
            };
            if !self.parts.enter(granule, is_part) {
                continue;
            }
            if self.by_page {
                self.count(granule, &block)?;
            } else {
                blocks[kept] = block;
                kept += 1;
            }
        }
        self.writer.put(self.end(), &blocks[..kept])?;
        self.len += kept as u64;
        Ok(())
    }

    /// Adds a block to the entry of its page and type.
    fn count(&mut self, granule: u64, block: &TypedBlock) -> Result<(), c_int> {
        let (page, number) = (granule / (SNAPSHOT_PAGE / 16) as u64, block.number);
        let hash = (page << 16 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let (page, number) = (page as u32, number as u16);
        let open = hash as usize % OPEN;
        if (self.open[open].page, self.open[open].number) != (page, number) {
            self.write(open)?;
            (self.open[open].page, self.open[open].number) = (page, number);
        }
        let offset = block.address as usize % SNAPSHOT_PAGE;
        let blocks = &mut self.open[open].blocks;
        *blocks += 1;
        if offset + block.bytes as usize > SNAPSHOT_PAGE {
            *blocks |= TYPED_REACHES;
        }
        Ok(())
    }

    /// Writes an open entry, if there is room.
    fn write(&mut self, open: usize) -> Result<(), c_int> {
        if self.open[open].blocks > 0 && self.len < self.room {
            self.writer.put(self.end(), &self.open[open..=open])?;
            self.len += 1;
        }
        self.open[open].blocks = 0;
        Ok(())
    }

    /// Writes the entries that are open.
    fn close(&mut self) -> Result<(), c_int> {
        (0..OPEN).try_for_each(|open| self.write(open))
    }
}

const _: () = assert!(TYPES_MAX + Part::ALL.len() <= u16::MAX as usize);

/// The blocks of known type of a pool.
struct Typed<'a> {
    types: Option<&'a mut Types>,
    blocks: &'a mut [TypedBlock; TYPED_MAX],
    len: usize,
}

impl Typed<'_> {
    fn push(&mut self, address: usize, bytes: usize, number: usize) {
        if let Some(place) = self.blocks.get_mut(self.len) {
            *place = TypedBlock {
                address: address as u64,
                bytes: bytes as u32,
                number: number as u32,
            };
            self.len += 1;
        }
    }

    /// Enters the objects of a pool of `class`, whose lock is held.
    fn enter(&mut self, pool: &pool::Pool, class: SizeClass) {
        let info = class.info();
        for n in 0..info.blocks as usize {
            if pool.words[n / 64].get() >> (n % 64) & 1 == 0 {
                continue;
            }
            let (block, size) = (pool.base() + info.offset(n), class.size());
            let Some(types) = self.types.as_deref_mut() else {
                return;
            };
            // SAFETY: the pool is used while its lock is held, so its memory is mapped.
            let Some(object) = (unsafe { types.object(block, size) }) else {
                continue;
            };
            self.push(block, size, Part::ALL.len() + object.number as usize);
            // SAFETY: the pool is used while its lock is held, so its memory is mapped.
            for (address, bytes, part) in unsafe { object.parts(block, size) } {
                self.push(address, bytes, part as usize);
            }
        }
    }
}

/// An empty pool.
const EMPTY: Pool = Pool {
    address: 0,
    first_page: 0,
    class: NO_CLASS,
    pages: 0,
    block_bytes: 0,
    blocks: 0,
    taken: 0,
    first_block: 0,
    spare: 0,
};

/// The entry of the pool at `address`, with those of its pages; `None`, and empty pages, if its
/// arena was unmapped.
fn look(address: usize, pages: &mut [Page], typed: &mut Typed) -> Option<Pool> {
    for page in pages.iter_mut() {
        *page = Page {
            taken_bytes: 0,
            blocks: 0,
            flags: 0,
            spare: [0; 3],
        };
    }
    for _ in 0..TRIES {
        let arena = MAP.arena(address)?;
        let pool = arena.pool(address);
        // The owner is read without a lock and may change: it only selects the lock.
        match pool.owner() {
            Some((shard, class)) => {
                let _used = HEAP.bin(shard, class);
                if pool.is_owned_by(shard, class) && pool.base() == address {
                    typed.enter(pool, class);
                    return Some(of_class(pool, class, pages));
                }
            }
            None => {
                let _arenas = HEAP.arenas.lock();
                let is_there = arena.size() > 0 && pool.base() == address;
                if is_there && arena.is_pool_empty(address) {
                    flags(pool, pages);
                    return Some(EMPTY);
                }
            }
        }
    }
    None
}

/// The entry of a pool of `class`, whose lock is held.
fn of_class(pool: &pool::Pool, class: SizeClass, pages: &mut [Page]) -> Pool {
    let info = class.info();
    for (i, page) in pages.iter_mut().enumerate() {
        let (blocks, bytes) = pool.taken_on_page(info, i);
        page.blocks = blocks as u16;
        page.taken_bytes = bytes as u16;
    }
    flags(pool, pages);
    Pool {
        class: class.index() as u16,
        block_bytes: info.size,
        blocks: info.blocks,
        taken: info.blocks - pool.free(),
        first_block: info.first,
        ..EMPTY
    }
}

fn flags(pool: &pool::Pool, pages: &mut [Page]) {
    let (resident, idle) = (pool.resident(), pool.idle.get());
    let returned = pool.purged.get() & !resident;
    for (i, page) in pages.iter_mut().enumerate() {
        for (set, flag) in [
            (resident, PAGE_RESIDENT),
            (returned, PAGE_RETURNED),
            (idle & resident, PAGE_IDLE),
        ] {
            if set.has(i) {
                page.flags |= flag;
            }
        }
    }
}

const _: () = assert!(SNAPSHOT_PAGE == MIN_PAGE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::tests::{pool, take};
    use crate::tests::*;

    const UNUSED: Page = Page {
        taken_bytes: 0,
        blocks: 0,
        flags: 0,
        spare: [0; 3],
    };

    /// By definition: each byte of each taken block on its page.
    fn naive(pool: &pool::Pool, class: SizeClass, blocks: &[*mut u8]) -> Vec<(u16, u16)> {
        let mut pages = vec![(0, 0); PAGES];
        for block in blocks {
            let start = block.addr() - pool.base();
            let end = start + class.size();
            for (i, page) in pages.iter_mut().enumerate() {
                let (first, behind) = (start.max(i * MIN_PAGE), end.min((i + 1) * MIN_PAGE));
                if first < behind {
                    *page = (page.0 + (behind - first) as u16, page.1 + 1);
                }
            }
        }
        pages
    }

    #[test]
    fn arenas_are_sorted_by_their_addresses() {
        let mut random = 1u64;
        for len in (0..40).chain([1000]) {
            let mut arenas: Vec<_> = (0..len)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    Arena {
                        address: random >> 40,
                        bytes: random,
                        first_pool: 0,
                        pools: 0,
                        flags: 0,
                    }
                })
                .collect();
            let entry = |arena: &Arena| (arena.address, arena.bytes);
            let mut expected: Vec<_> = arenas.iter().map(entry).collect();
            expected.sort_unstable();
            sort(&mut arenas);
            let mut sorted: Vec<_> = arenas.iter().map(entry).collect();
            assert!(sorted.is_sorted_by_key(|&(address, _)| address));
            sorted.sort_unstable();
            assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn a_page_counts_the_bytes_and_the_blocks_on_it() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let all = take(&pool, class, class.info().blocks as usize);
            for step in [1, 2, 3, 7, 64, 1000] {
                let kept: Vec<_> = all.iter().copied().step_by(step).collect();
                let gone: Vec<_> = all.iter().copied().filter(|p| !kept.contains(p)).collect();
                assert_eq!(pool.give(class, &gone), Ok(gone.len()));
                let mut pages = [UNUSED; PAGES];
                let entry = of_class(&pool, class, &mut pages);
                let said: Vec<_> = pages.iter().map(|p| (p.taken_bytes, p.blocks)).collect();
                assert_eq!(said, naive(&pool, class, &kept), "{class:?} {step}");
                assert_eq!(entry.taken as usize, kept.len());
                assert_eq!(take(&pool, class, gone.len()).len(), gone.len());
            }
        }
    }

    #[test]
    fn pages_that_went_back_are_told_from_those_never_touched() {
        let class = SizeClass::of(64).unwrap();
        let pool = pool(class);
        let blocks = take(&pool, class, 200); // four pages of them
        assert_eq!(pool.give(class, &blocks[100..]), Ok(100));
        let gone = pool.take_purgeable(MIN_PAGE, true);
        assert_eq!(gone.bytes(), 2 * MIN_PAGE);
        let mut pages = [UNUSED; PAGES];
        of_class(&pool, class, &mut pages);
        let flags: Vec<_> = pages.iter().map(|page| page.flags).collect();
        let (here, back) = (PAGE_RESIDENT, PAGE_RETURNED);
        assert_eq!(flags[..5], [here, here, back, back, 0]);
        take(&pool, class, 100);
        pages = [UNUSED; PAGES];
        of_class(&pool, class, &mut pages);
        assert_eq!(pages[2].flags & back, 0, "it has come again");
    }

    fn arena(address: u64, first_pool: u64, pools: u32) -> Arena {
        Arena {
            address,
            bytes: u64::from(pools) * POOL_SIZE as u64,
            first_pool,
            pools,
            flags: 0,
        }
    }

    #[test]
    fn granules_are_numbered_by_pools() {
        let arenas = [arena(1 << 30, 0, 2), arena(1 << 40, 2, 1)];
        let pool = POOL_SIZE as u64;
        for (address, expected) in [
            (1 << 30, Some(0)),
            ((1 << 30) + pool + 40, Some(GRANULES as u64 + 2)),
            ((1 << 30) + 2 * pool, None),
            ((1 << 30) - 1, None),
            ((1 << 40) + pool - 1, Some(3 * GRANULES as u64 - 1)),
            (u64::MAX, None),
        ] {
            assert_eq!(granule(&arenas, address), expected, "{address:x}");
        }
        assert_eq!(granule(&[], 1 << 30), None);
    }

    /// The entries of blocks in the first pool of an arena, by page.
    #[cfg(not(miri))]
    fn by_page(blocks: &mut [TypedBlock], room: u64) -> Vec<(u32, u16, u16)> {
        let mut bytes = std::vec![0u8; 1 << 16];
        let start = NonNull::new(bytes.as_mut_ptr()).unwrap();
        let nothing = TypedPage {
            page: 0,
            number: 0,
            blocks: 0,
        };
        let mut open = std::boxed::Box::new([nothing; OPEN]);
        let mut entries = Entries {
            writer: &Writer::Memory(start, bytes.len()),
            at: 0,
            len: 0,
            room,
            by_page: true,
            parts: Parts::new(1).unwrap(),
            open: &mut open,
        };
        entries.add(&[arena(1 << 30, 0, 1)], blocks).unwrap();
        entries.close().unwrap();
        let written = entries.end() as usize;
        drop(entries);
        let number = |at: usize, len: usize| {
            let bytes = &bytes[at..at + len];
            bytes
                .iter()
                .rev()
                .fold(0, |n, &byte| n << 8 | u32::from(byte))
        };
        let entry = |at| {
            (
                number(at, 4),
                number(at + 4, 2) as u16,
                number(at + 6, 2) as u16,
            )
        };
        let mut found: Vec<_> = (0..written).step_by(8).map(entry).collect();
        found.sort_unstable();
        found
    }

    #[cfg(not(miri))]
    #[test]
    fn blocks_of_a_page_and_type_are_one_entry() {
        let (part, object) = (1, Part::ALL.len() as u32);
        let block = |offset: u64, number| TypedBlock {
            address: (1 << 30) + offset,
            bytes: 64,
            number,
        };
        let mut blocks: Vec<_> = (0..64).map(|n| block(48 + n * 64, object)).collect();
        blocks.extend((0..1000).map(|_| block(8240, part))); // shared by its owners
        blocks.extend([
            block(8240, object),
            block(8304, object + 1),
            block(1 << 20, object),
        ]);
        let expected = [
            (0, object as u16, 64 | TYPED_REACHES),
            (2, part as u16, 1),
            (2, object as u16 + 1, 1),
        ];
        assert_eq!(by_page(&mut blocks.clone(), 100), expected);
        assert_eq!(
            by_page(&mut blocks, 2).len(),
            2,
            "there is no room for more"
        );
    }
}
