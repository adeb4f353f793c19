//! A snapshot of a heap, read from a file's bytes.
//!
//! Files may be truncated, or no snapshots at all: every count and every offset is checked here,
//! once. A [`Snapshot`] guarantees:
//!
//! - arenas are sorted by address and do not overlap; their ranges of pools follow each other
//!   and cover all pools; so do the pools' ranges of pages;
//! - a pool is inside its arena, its pages and its blocks are inside the pool;
//! - a page has no more than 4096 bytes taken, a pool no more than all of its blocks;
//! - an OS page is a power of two from 4 to 64 KiB, and a pool has whole ones;
//! - an entry of the types has the index of a name and of a page whose pool has blocks; entries
//!   are sorted by page and name, which no two have in common.

use std::mem::{offset_of, size_of};
use std::ops::{Range, RangeInclusive};

use format::counters::UNKNOWN;
use format::layout;

use crate::rss;

/// Bytes of a page.
pub const PAGE: u32 = layout::SNAPSHOT_PAGE as u32;

/// The heap of one process at one moment.
pub struct Snapshot {
    /// The process's number in its own pid namespace.
    pub pid: u32,
    /// The versions of library and host; no host: empty.
    pub version: String,
    pub host: String,
    /// The time of the snapshot, in milliseconds since 1970.
    pub real_ms: u64,
    /// Bytes that were returned to the kernel so far.
    pub returned_total: u64,
    /// Bytes of free blocks in magazines and depots.
    pub in_magazines: u64,
    /// RSS of the process, if known.
    pub rss: Option<u64>,
    /// Pages of an OS page, which is resident or not as a whole.
    pub in_os_page: usize,
    pub arenas: Vec<Arena>,
    pub pools: Vec<Pool>,
    pub pages: Vec<Page>,
    /// Types of blocks, if the snapshot has them.
    pub types: Option<Types>,
}

/// An arena.
pub struct Arena {
    pub address: u64,
    pub pools: Range<usize>,
}

/// A pool.
pub struct Pool {
    pub address: u64,
    /// Its blocks; `None` if it is empty.
    pub cut: Option<Cut>,
    pub pages: Range<usize>,
}

/// The blocks of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The index of the size class.
    pub class: u16,
    /// Bytes of a block.
    pub size: u32,
    /// Blocks, and those of them that are taken: live, or cached in a magazine or depot.
    pub blocks: u32,
    pub taken: u32,
    /// Offset of the first block.
    pub first: u32,
}

/// A page of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Bytes of the page in taken blocks.
    pub taken_bytes: u16,
    /// Taken blocks on the page, in part or whole.
    pub blocks: u16,
    /// It is resident; it was returned to the kernel.
    pub resident: bool,
    pub returned: bool,
    /// Bytes of its OS page in taken blocks, and whether there are any blocks.
    pub os_taken: u32,
    pub os_has_blocks: bool,
}

/// Types of blocks.
#[derive(Debug, PartialEq, Eq)]
pub struct Types {
    pub names: Vec<String>,
    /// The number of the first names that are of blocks which objects own; the others are of objects.
    pub parts: usize,
    /// Sorted by page and name.
    pub entries: Vec<Typed>,
}

/// Blocks of one type that begin on one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The index of the page.
    pub page: u32,
    /// The index of the type's name.
    pub name: u32,
    pub blocks: u32,
    /// Whether one of them is the last block of the page, and reaches into the next page.
    pub reaches: bool,
}

/// An entry of a part, from which numbers are read at offsets.
struct Part<'a>(&'a [u8]);

impl Part<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        let there = self.0.get(at..).unwrap_or_default();
        let len = there.len().min(N);
        out[..len].copy_from_slice(&there[..len]);
        out
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }
}

/// A text that is ended by NUL, for a terminal: without control characters.
fn text(bytes: &[u8]) -> String {
    printable(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
}

fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).collect()
}

/// `count` entries of `size` bytes from `at` on; `at` is moved to their end.
fn part<'a>(
    bytes: &'a [u8],
    at: &mut usize,
    count: u64,
    size: usize,
    what: &str,
) -> Result<Vec<Part<'a>>, String> {
    let end = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(size))
        .and_then(|len| at.checked_add(len));
    let inside = end.and_then(|end| bytes.get(*at..end).map(|inside| (end, inside)));
    let Some((end, inside)) = inside else {
        return Err(format!(
            "it is cut off: {count} {what} do not fit into its {} bytes",
            bytes.len()
        ));
    };
    *at = end;
    Ok(inside.chunks_exact(size).map(Part).collect())
}

/// The range of `count` entries from `first` on, if it begins at the last range's end and ends
/// within `all`.
fn range(first: u64, count: u64, next: &mut usize, all: usize) -> Option<Range<usize>> {
    let first = usize::try_from(first).ok()?;
    let end = first.checked_add(usize::try_from(count).ok()?)?;
    if first != *next || end > all {
        return None;
    }
    *next = end;
    Some(first..end)
}

impl Snapshot {
    /// Reads a snapshot; the error is one phrase.
    pub fn read(bytes: &[u8]) -> Result<Snapshot, String> {
        use layout::Header;
        if !bytes.starts_with(&layout::MAP_MAGIC) {
            return Err("it is no snapshot of obmalloc".into());
        }
        let header = Part(bytes);
        let version = header.u32(offset_of!(Header, version));
        if !(1..=layout::MAP_VERSION_BY_PAGE).contains(&version) {
            return Err(format!(
                "its form has version {version}, this command reads versions 1 to {}",
                layout::MAP_VERSION_BY_PAGE
            ));
        }
        let mut at = header.u32(offset_of!(Header, header_bytes)) as usize;
        let statistics = rss::of_snapshot(bytes).ok().filter(|_| bytes.len() >= at);
        let statistics = statistics.ok_or("it is cut off in its header")?;
        let counters = statistics.counters();
        let count = |field| header.u64(field);
        let (arenas, pools) = (
            count(offset_of!(Header, arenas)),
            count(offset_of!(Header, pools)),
        );
        let (pages, mappings) = (
            count(offset_of!(Header, pages)),
            count(offset_of!(Header, mappings)),
        );
        let arenas = part(bytes, &mut at, arenas, size_of::<layout::Arena>(), "arenas")?;
        let pools = part(bytes, &mut at, pools, size_of::<layout::Pool>(), "pools")?;
        let pages = part(bytes, &mut at, pages, size_of::<layout::Page>(), "pages")?;
        part(
            bytes,
            &mut at,
            mappings,
            size_of::<layout::Mapping>(),
            "mappings",
        )?;
        let mut pages = read_pages(&pages)?;
        let pools = read_pools(&pools, pages.len())?;
        let in_os_page = in_os_page(statistics.os_page_bytes)?;
        for pool in &pools {
            if !pool.pages.len().is_multiple_of(in_os_page) {
                return Err("it is damaged: a pool has part of an OS page".into());
            }
            pages[pool.pages.clone()]
                .chunks_mut(in_os_page)
                .for_each(sum_of_os_page);
        }
        let arenas = read_arenas(&arenas, &pools)?;
        let (offset, len) = (
            count(offset_of!(Header, types_offset)),
            count(offset_of!(Header, types_bytes)),
        );
        // Those of version 1 had another form.
        let types = if len == 0 || version == 1 {
            None
        } else {
            let by_page = version == layout::MAP_VERSION_BY_PAGE;
            Some(read_types(bytes, offset, len, by_page, &pools)?)
        };
        let rss = counters.process.rss;
        Ok(Snapshot {
            pid: statistics.pid,
            version: text(&statistics.version),
            host: text(&statistics.host),
            real_ms: count(offset_of!(Header, real_ms)),
            returned_total: counters.resident.returned_total,
            in_magazines: counters.resident.in_magazines,
            rss: (rss != UNKNOWN).then_some(rss),
            in_os_page,
            arenas,
            pools,
            pages,
            // Those of version 1 had another form.
            types,
        })
    }
}

fn read_pages(parts: &[Part<'_>]) -> Result<Vec<Page>, String> {
    let mut pages = Vec::with_capacity(parts.len());
    for (n, part) in parts.iter().enumerate() {
        let flags = part.bytes::<1>(offset_of!(layout::Page, flags))[0];
        let page = Page {
            taken_bytes: part.u16(offset_of!(layout::Page, taken_bytes)),
            blocks: part.u16(offset_of!(layout::Page, blocks)),
            resident: flags & layout::PAGE_RESIDENT != 0,
            returned: flags & layout::PAGE_RETURNED != 0,
            ..Page::default()
        };
        if u32::from(page.taken_bytes) > PAGE || u32::from(page.blocks) > PAGE {
            return Err(format!("it is damaged: page {n} is more than full"));
        }
        pages.push(page);
    }
    Ok(pages)
}

/// Pages of an OS page of `bytes`; 0 if the library had no memory to collect the statistics.
fn in_os_page(bytes: u32) -> Result<usize, String> {
    let bytes = if bytes == 0 { PAGE } else { bytes };
    if bytes.is_power_of_two() && (PAGE..=16 * PAGE).contains(&bytes) {
        Ok((bytes / PAGE) as usize)
    } else {
        Err(format!("it is damaged: an OS page has {bytes} bytes"))
    }
}

fn sum_of_os_page(pages: &mut [Page]) {
    let taken = pages.iter().map(|page| u32::from(page.taken_bytes)).sum();
    let has_blocks = pages.iter().any(|page| page.blocks > 0);
    for page in pages {
        (page.os_taken, page.os_has_blocks) = (taken, has_blocks);
    }
}

fn read_pools(parts: &[Part<'_>], all_pages: usize) -> Result<Vec<Pool>, String> {
    let mut pools = Vec::with_capacity(parts.len());
    let mut next = 0;
    for (n, part) in parts.iter().enumerate() {
        let damaged = || format!("it is damaged: pool {n} makes no sense");
        let address = part.u64(offset_of!(layout::Pool, address));
        let count = part.u16(offset_of!(layout::Pool, pages));
        let first = part.u64(offset_of!(layout::Pool, first_page));
        let pages = range(first, u64::from(count), &mut next, all_pages).ok_or_else(damaged)?;
        let bytes = u64::from(count) * u64::from(PAGE);
        address.checked_add(bytes).ok_or_else(damaged)?;
        let cut = match part.u16(offset_of!(layout::Pool, class)) {
            layout::NO_CLASS => None,
            class => Some(Cut {
                class,
                size: part.u32(offset_of!(layout::Pool, block_bytes)),
                blocks: part.u32(offset_of!(layout::Pool, blocks)),
                taken: part.u32(offset_of!(layout::Pool, taken)),
                first: part.u32(offset_of!(layout::Pool, first_block)),
            }),
        };
        if let Some(cut) = cut {
            let (size, blocks) = (u64::from(cut.size), u64::from(cut.blocks));
            let end = (size * blocks).saturating_add(u64::from(cut.first));
            let class = usize::from(cut.class);
            let known = (1..=layout::CLASSES).contains(&class);
            if !known || size == 0 || end > bytes || cut.taken > cut.blocks {
                return Err(damaged());
            }
        }
        pools.push(Pool {
            address,
            cut,
            pages,
        });
    }
    if next != all_pages {
        return Err(format!(
            "it is damaged: its pools have {next} of its {all_pages} pages"
        ));
    }
    Ok(pools)
}

fn read_arenas(parts: &[Part<'_>], pools: &[Pool]) -> Result<Vec<Arena>, String> {
    let mut arenas = Vec::with_capacity(parts.len());
    let (mut next, mut free_from) = (0, 0);
    for (n, part) in parts.iter().enumerate() {
        let damaged = || format!("it is damaged: arena {n} makes no sense");
        let address = part.u64(offset_of!(layout::Arena, address));
        let count = part.u32(offset_of!(layout::Arena, pools));
        let first = part.u64(offset_of!(layout::Arena, first_pool));
        let own = range(first, u64::from(count), &mut next, pools.len()).ok_or_else(damaged)?;
        if address < free_from {
            return Err(damaged());
        }
        free_from = address;
        for pool in &pools[own.clone()] {
            if pool.address < free_from {
                return Err(damaged());
            }
            free_from = pool.address + pool.pages.len() as u64 * u64::from(PAGE);
        }
        arenas.push(Arena {
            address,
            pools: own,
        });
    }
    if next != pools.len() {
        return Err(format!(
            "it is damaged: its arenas have {next} of its {} pools",
            pools.len()
        ));
    }
    Ok(arenas)
}

/// The types of blocks' objects, entered for each block or by page.
fn read_types(
    bytes: &[u8],
    offset: u64,
    len: u64,
    by_page: bool,
    pools: &[Pool],
) -> Result<Types, String> {
    const HEAD: usize = size_of::<layout::Types>();
    let cut_off = || String::from("it is cut off: its types do not fit");
    let damaged = |what: &str| format!("it is damaged: its types {what}");
    let start = usize::try_from(offset).map_err(|_| cut_off())?;
    let end = usize::try_from(len)
        .ok()
        .and_then(|len| start.checked_add(len))
        .ok_or_else(cut_off)?;
    let all = bytes.get(start..end).ok_or_else(cut_off)?;
    if all.len() < HEAD {
        return Err(cut_off());
    }
    let head = Part(all);
    let count = head.u32(offset_of!(layout::Types, types));
    let text_bytes = head.u32(offset_of!(layout::Types, text_bytes)) as usize;
    let mut at = HEAD;
    let addresses = part(all, &mut at, count.into(), size_of::<u64>(), "types")?;
    let parts = addresses.iter().take_while(|part| part.u64(0) == 0).count();
    let text = at.checked_add(text_bytes).and_then(|end| all.get(at..end));
    let text = text.ok_or_else(cut_off)?.split_inclusive(|&byte| byte == 0);
    let whole = text.filter_map(|name| name.strip_suffix(&[0]));
    let names: Vec<String> = whole.take(count as usize).map(printable).collect();
    if names.len() != count as usize {
        return Err(damaged("have fewer names than they say"));
    }
    let blocks_offset = head.u64(offset_of!(layout::Types, blocks_offset));
    let mut at = usize::try_from(blocks_offset).map_err(|_| cut_off())?;
    let blocks = head.u64(offset_of!(layout::Types, blocks));
    let mut entries = if by_page {
        let size = size_of::<layout::TypedPage>();
        of_pages(&part(bytes, &mut at, blocks, size, "types")?, pools)
    } else {
        let size = size_of::<layout::TypedBlock>();
        of_blocks(&part(bytes, &mut at, blocks, size, "types")?, pools)
    };
    if entries
        .iter()
        .any(|entry| entry.name as usize >= names.len())
    {
        return Err(damaged("name one that is not there"));
    }
    entries.sort_unstable_by_key(|entry| (entry.page, entry.name));
    entries.dedup_by(|next, entry| {
        let is_same = (next.page, next.name) == (entry.page, entry.name);
        if is_same {
            entry.blocks = entry.blocks.saturating_add(next.blocks);
            entry.reaches |= next.reaches;
        }
        is_same
    });
    Ok(Types {
        names,
        parts,
        entries,
    })
}

/// Entries by page; one of a page without blocks is left out.
fn of_pages(parts: &[Part<'_>], pools: &[Pool]) -> Vec<Typed> {
    use layout::{TYPED_REACHES, TypedPage};
    let entries = parts.iter().map(|part| {
        let blocks = part.u16(offset_of!(TypedPage, blocks));
        Typed {
            page: part.u32(offset_of!(TypedPage, page)),
            name: part.u16(offset_of!(TypedPage, number)).into(),
            blocks: u32::from(blocks & !TYPED_REACHES),
            reaches: blocks & TYPED_REACHES != 0,
        }
    });
    let has_blocks = |entry: &Typed| {
        let page = entry.page as usize;
        let pool = pools.partition_point(|pool| pool.pages.end <= page);
        entry.blocks > 0 && pools.get(pool).is_some_and(|pool| pool.cut.is_some())
    };
    entries.filter(has_blocks).collect()
}

/// Entries by page, of the blocks that begin at the addresses. A block that is entered twice, as an
/// object and as a part of another object, is the part: the parts are the first of the types.
fn of_blocks(parts: &[Part<'_>], pools: &[Pool]) -> Vec<Typed> {
    use layout::TypedBlock;
    let blocks = parts.iter().map(|part| {
        let name = part.u32(offset_of!(TypedBlock, number));
        (part.u64(offset_of!(TypedBlock, address)), name)
    });
    let mut blocks: Vec<(u64, u32)> = blocks.collect();
    blocks.sort_unstable();
    blocks.dedup_by_key(|block| block.0);
    let mut pools = pools.iter().peekable();
    let entry = |(address, name)| {
        // Blocks and pools are both sorted by address.
        while pools.next_if(|pool| pool.end() <= address).is_some() {}
        let pool = pools.peek()?;
        let cut = pool.cut?;
        let offset = u32::try_from(address.checked_sub(pool.address)?).ok()?;
        let behind = offset.checked_sub(cut.first)?;
        let begins = behind.is_multiple_of(cut.size) && behind / cut.size < cut.blocks;
        begins.then(|| Typed {
            page: pool.pages.start as u32 + offset / PAGE,
            name,
            blocks: 1,
            reaches: offset % PAGE + cut.size > PAGE,
        })
    };
    blocks.into_iter().filter_map(entry).collect()
}

impl Pool {
    fn end(&self) -> u64 {
        self.address + self.pages.len() as u64 * u64::from(PAGE)
    }
}

/// Blocks of one type that begin on a page, and had been taken.
pub struct Group {
    /// The index of the type's name.
    pub name: usize,
    /// Bytes of a block.
    pub size: u32,
    pub blocks: u64,
    /// The pages that they are on: several for one block only.
    pub pages: RangeInclusive<usize>,
}

impl Snapshot {
    /// Calls `see` for the blocks of known type. The type of a block counts only if the block can have
    /// been taken at the time of the snapshot: a page has at most as many typed blocks as taken ones.
    pub fn each_group(&self, types: &Types, mut see: impl FnMut(&Group)) {
        let mut left: Vec<u16> = self.pages.iter().map(|page| page.blocks).collect();
        let mut pools = self.pools.iter().peekable();
        for typed in &types.entries {
            let page = typed.page as usize;
            while pools.next_if(|pool| pool.pages.end <= page).is_some() {}
            let Some((pool, cut)) = pools.peek().and_then(|pool| Some((pool, pool.cut?))) else {
                continue;
            };
            let mut rest = typed.blocks;
            let mut group = |blocks: u32, pages: RangeInclusive<usize>| {
                if blocks > 0 {
                    see(&Group {
                        name: typed.name as usize,
                        size: cut.size,
                        blocks: blocks.into(),
                        pages,
                    });
                }
            };
            if typed.reaches {
                rest = rest.saturating_sub(1);
                let last =
                    pool.pages.start + cut.last_page((page - pool.pages.start) as u32) as usize;
                let own = left.get_mut(page..=last).filter(|own| own.len() > 1);
                if let Some(own) = own.filter(|own| !own.contains(&0)) {
                    own.iter_mut().for_each(|blocks| *blocks -= 1);
                    group(1, page..=last);
                }
            }
            let rest = rest.min(left[page].into());
            left[page] -= rest as u16;
            group(rest, page..=page);
        }
    }
}

impl Cut {
    /// The page of the pool on which the last block that begins on `page` ends.
    fn last_page(self, page: u32) -> u32 {
        let before = ((page + 1) * PAGE).saturating_sub(self.first);
        let behind = self.first + before.div_ceil(self.size).min(self.blocks) * self.size;
        (behind.max(1) - 1) / PAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Heap, random};

    #[test]
    fn what_was_written_is_read() {
        let read = Snapshot::read(&Heap::example().bytes()).unwrap();
        assert_eq!((read.pid, read.version.as_str()), (4711, "0.1.0"));
        assert_eq!(read.host, "CPython 3.13");
        assert_eq!((read.arenas.len(), read.pools.len()), (2, 6));
        assert_eq!(read.pages.len(), 96);
        assert_eq!(read.arenas[1].pools, 4..6);
        assert_eq!(read.arenas[1].address, read.pools[4].address);
        let cut = read.pools[0].cut.unwrap();
        assert_eq!((cut.class, cut.size, cut.first), (8, 64, 48));
        assert_eq!((cut.blocks, cut.taken), (1023, 1023));
        assert!(read.pages[0].resident && read.pages[0].taken_bytes == 4048);
        assert!(read.pools[2].cut.is_none());
        let types = read.types.unwrap();
        assert_eq!(types.names, ["dict", "str"]);
        assert_eq!((types.parts, types.entries[1].name), (0, 1));
        let bare = Heap {
            types: None,
            ..Heap::example()
        };
        assert_eq!(Snapshot::read(&bare.bytes()).unwrap().types, None);
    }

    #[test]
    fn an_empty_heap_is_one() {
        let read = Snapshot::read(&Heap::default().bytes()).unwrap();
        assert!(read.arenas.is_empty() && read.pages.is_empty());
    }

    #[test]
    fn each_truncation_is_told() {
        let by_page = Heap {
            by_page: true,
            ..Heap::example()
        };
        for heap in [Heap::example(), by_page] {
            truncate(&heap.bytes());
        }
    }

    fn truncate(whole: &[u8]) {
        for len in 0..whole.len() {
            let said = Snapshot::read(&whole[..len]).err();
            let said = said.unwrap_or_else(|| panic!("{len} bytes were taken for a snapshot"));
            let expected = if len < 8 { "no snapshot" } else { "cut off" };
            let other_version = (8..12).contains(&len) && said.contains("version");
            assert!(said.contains(expected) || other_version, "{len}: {said}");
            assert!(!said.contains('\n'));
        }
    }

    #[test]
    fn foreign_and_newer_files_are_told() {
        let said = |bytes: &[u8]| Snapshot::read(bytes).err().unwrap();
        assert!(said(b"\x7fELF and so on, some bytes").contains("no snapshot"));
        assert!(said(b"").contains("no snapshot"));
        let mut newer = Heap::example().bytes();
        newer[8] = 9;
        assert!(said(&newer).contains("version 9"));
    }

    #[test]
    fn mutated_files_never_end_in_a_panic() {
        for by_page in [false, true] {
            mutate(Heap {
                by_page,
                ..Heap::example()
            });
        }
    }

    fn mutate(heap: Heap) {
        let whole = heap.bytes();
        let mut next = random(7);
        let (mut refused, mut taken) = (0, 0);
        for round in 0..3_000u64 {
            let mut bytes = whole.clone();
            for _ in 0..=next() % 4 {
                // Mostly behind the statistics, which are only numbers to show.
                let at = next() as usize % bytes.len();
                let header = next() as usize % 80;
                let at = if round.is_multiple_of(3) { header } else { at };
                bytes[at] = match next() % 3 {
                    0 => bytes[at] ^ 1 << (next() % 8),
                    1 => 0xff,
                    _ => next() as u8,
                };
            }
            match Snapshot::read(&bytes) {
                Err(said) => {
                    assert!(said.starts_with("it is ") || said.starts_with("its form"));
                    refused += 1;
                }
                Ok(read) => {
                    crate::fixtures::use_all_of(read);
                    taken += 1;
                }
            }
        }
        assert!(refused > 500 && taken > 500, "{refused} {taken}");
    }
}
