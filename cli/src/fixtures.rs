//! Snapshots for tests, in the library's layout.

use std::mem::{offset_of, size_of};

use crate::open::Named;
use crate::snapshot::{PAGE, Page, Snapshot};
use crate::summary::Below;
use format::layout;

const POOL: u64 = 65536;

/// Names of types, and blocks by address with the index of a name.
type Types = (Vec<&'static str>, Vec<(u64, u32)>);

/// A heap: its arenas by address, each with its pools.
#[derive(Default)]
pub struct Heap {
    pub arenas: Vec<(u64, Vec<Pool>)>,
    pub types: Option<Types>,
    /// Types are by page.
    pub by_page: bool,
    /// Bytes of an OS page, or 0.
    pub os_page: u32,
}

/// A pool.
pub struct Pool {
    class: u16,
    size: u32,
    blocks: u32,
    taken: u32,
    first: u32,
    pages: [Page; 16],
}

impl Pool {
    /// A pool of a class of `size` bytes, with the blocks for which `is_taken` is true. Pages
    /// without a taken block were returned.
    pub fn of(class: u16, size: u32, is_taken: impl Fn(u32) -> bool) -> Pool {
        let first = if size <= 512 { 48 } else { 0 };
        let blocks = (65536 - first) / size;
        let mut pool = Pool {
            class,
            size,
            blocks,
            taken: 0,
            first,
            pages: [Page::default(); 16],
        };
        for n in (0..blocks).filter(|&n| is_taken(n)) {
            pool.taken += 1;
            let (start, end) = (first + n * size, first + (n + 1) * size);
            for page in start / PAGE..=(end - 1) / PAGE {
                let inside = end.min((page + 1) * PAGE) - start.max(page * PAGE);
                pool.pages[page as usize].taken_bytes += inside as u16;
                pool.pages[page as usize].blocks += 1;
            }
        }
        for page in &mut pool.pages {
            page.resident = page.blocks > 0;
            page.returned = page.blocks == 0;
        }
        pool
    }

    /// The pool on OS pages of `count` pages each: what one block keeps is resident.
    pub fn on_os_pages(mut self, count: usize) -> Pool {
        for pages in self.pages.chunks_mut(count) {
            let resident = pages.iter().any(|page| page.resident);
            for page in pages {
                (page.resident, page.returned) = (resident, !resident);
            }
        }
        self
    }

    /// An empty pool, resident or not.
    pub fn empty(resident: bool) -> Pool {
        let page = Page {
            resident,
            ..Page::default()
        };
        Pool {
            class: layout::NO_CLASS,
            size: 0,
            blocks: 0,
            taken: 0,
            first: 0,
            pages: [page; 16],
        }
    }
}

/// Writes `value` at an offset.
fn put<const N: usize>(part: &mut [u8], at: usize, value: [u8; N]) {
    part[at..at + N].copy_from_slice(&value);
}

impl Heap {
    /// Two arenas with something of everything.
    pub fn example() -> Heap {
        let (low, high) = (0x7f00_0000_0000, 0x7f00_0060_0000);
        Heap {
            arenas: vec![
                (
                    low,
                    vec![
                        Pool::of(8, 64, |_| true),
                        Pool::of(8, 64, |n| n % 256 == 63),
                        Pool::empty(true),
                        Pool::of(64, 512, |n| n % 16 == 0),
                    ],
                ),
                (
                    high,
                    vec![Pool::of(72, 1024, |n| n % 2 == 0), Pool::empty(false)],
                ),
            ],
            types: Some((
                vec!["dict", "str"],
                vec![(low + 48, 0), (low + POOL + 48 + 63 * 64, 1)],
            )),
            by_page: false,
            os_page: 0,
        }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        use layout::{Header, Statistics};
        let (mut arenas, mut pools, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for (address, own) in &self.arenas {
            let mut arena = [0; size_of::<layout::Arena>()];
            let first = pools.len() / size_of::<layout::Pool>();
            put(
                &mut arena,
                offset_of!(layout::Arena, address),
                address.to_le_bytes(),
            );
            put(
                &mut arena,
                offset_of!(layout::Arena, first_pool),
                (first as u64).to_le_bytes(),
            );
            let count = own.len() as u32;
            put(
                &mut arena,
                offset_of!(layout::Arena, pools),
                count.to_le_bytes(),
            );
            arenas.extend(arena);
            for (n, pool) in own.iter().enumerate() {
                let address = address + n as u64 * POOL;
                pool.write(address, &mut pools, &mut pages);
            }
        }
        let mut header = vec![0; size_of::<Header>()];
        let counts = [
            (
                offset_of!(Header, arenas),
                arenas.len() / size_of::<layout::Arena>(),
            ),
            (
                offset_of!(Header, pools),
                pools.len() / size_of::<layout::Pool>(),
            ),
            (
                offset_of!(Header, pages),
                pages.len() / size_of::<layout::Page>(),
            ),
        ];
        for (at, count) in counts {
            put(&mut header, at, (count as u64).to_le_bytes());
        }
        put(&mut header, 0, layout::MAP_MAGIC);
        put(
            &mut header,
            offset_of!(Header, version),
            if self.by_page {
                layout::MAP_VERSION_BY_PAGE.to_le_bytes()
            } else {
                layout::MAP_VERSION.to_le_bytes()
            },
        );
        let bytes = size_of::<Header>() as u32;
        put(
            &mut header,
            offset_of!(Header, header_bytes),
            bytes.to_le_bytes(),
        );
        let statistics = offset_of!(Header, statistics);
        put(
            &mut header,
            statistics + offset_of!(Statistics, pid),
            4711u32.to_le_bytes(),
        );
        put(
            &mut header,
            statistics + offset_of!(Statistics, os_page_bytes),
            self.os_page.to_le_bytes(),
        );
        put(
            &mut header,
            statistics + offset_of!(Statistics, version),
            *b"0.1.0",
        );
        put(
            &mut header,
            statistics + offset_of!(Statistics, host),
            *b"CPython 3.13",
        );
        if let Some((names, entries)) = &self.types {
            let at = header.len() + arenas.len() + pools.len() + pages.len();
            let blocks = if self.by_page {
                self.typed_pages(entries)
            } else {
                typed_blocks(entries)
            };
            let types = types(at, names, entries.len());
            let at = at + blocks.len();
            put(
                &mut header,
                offset_of!(Header, types_offset),
                (at as u64).to_le_bytes(),
            );
            put(
                &mut header,
                offset_of!(Header, types_bytes),
                (types.len() as u64).to_le_bytes(),
            );
            return [header, arenas, pools, pages, blocks, types].concat();
        }
        [header, arenas, pools, pages].concat()
    }

    /// The blocks of known type, an entry by page for each.
    fn typed_pages(&self, entries: &[(u64, u32)]) -> Vec<u8> {
        let addresses = self.arenas.iter().flat_map(|(address, own)| {
            let pools = own.iter().zip((*address..).step_by(POOL as usize));
            pools.map(|(pool, address)| (address, pool.size))
        });
        let pools: Vec<(u64, u32)> = addresses.collect();
        let mut out = Vec::new();
        for &(address, name) in entries {
            let is_in = |&(pool, _): &(u64, u32)| (pool..pool + POOL).contains(&address);
            let n = pools.iter().position(is_in).expect("a block of a pool");
            let (pool, size) = pools[n];
            let offset = (address - pool) as u32;
            let page = n as u32 * 16 + offset / PAGE;
            let reaches = if offset % PAGE + size > PAGE {
                layout::TYPED_REACHES
            } else {
                0
            };
            out.extend(page.to_le_bytes());
            out.extend((name as u16).to_le_bytes());
            out.extend((1 | reaches).to_le_bytes());
        }
        out
    }

    /// The file, read.
    pub fn read(&self) -> Snapshot {
        Snapshot::read(&self.bytes()).expect("it was made by the form")
    }
}

impl Pool {
    fn write(&self, address: u64, pools: &mut Vec<u8>, pages: &mut Vec<u8>) {
        use layout::Pool as P;
        let mut pool = [0; size_of::<P>()];
        let first = pages.len() / size_of::<layout::Page>();
        put(&mut pool, offset_of!(P, address), address.to_le_bytes());
        put(
            &mut pool,
            offset_of!(P, first_page),
            (first as u64).to_le_bytes(),
        );
        put(&mut pool, offset_of!(P, class), self.class.to_le_bytes());
        put(&mut pool, offset_of!(P, pages), 16u16.to_le_bytes());
        put(
            &mut pool,
            offset_of!(P, block_bytes),
            self.size.to_le_bytes(),
        );
        put(&mut pool, offset_of!(P, blocks), self.blocks.to_le_bytes());
        put(&mut pool, offset_of!(P, taken), self.taken.to_le_bytes());
        put(
            &mut pool,
            offset_of!(P, first_block),
            self.first.to_le_bytes(),
        );
        pools.extend(pool);
        for page in &self.pages {
            use layout::Page as P;
            let mut entry = [0; size_of::<P>()];
            put(
                &mut entry,
                offset_of!(P, taken_bytes),
                page.taken_bytes.to_le_bytes(),
            );
            put(&mut entry, offset_of!(P, blocks), page.blocks.to_le_bytes());
            entry[offset_of!(P, flags)] = if page.resident {
                layout::PAGE_RESIDENT
            } else if page.returned {
                layout::PAGE_RETURNED
            } else {
                0
            };
            pages.extend(entry);
        }
    }
}

/// The blocks of known type.
fn typed_blocks(entries: &[(u64, u32)]) -> Vec<u8> {
    let mut blocks = Vec::new();
    for (address, name) in entries {
        blocks.extend(address.to_le_bytes());
        blocks.extend(0u32.to_le_bytes());
        blocks.extend(name.to_le_bytes());
    }
    blocks
}

/// The types of `blocks` entries, which begin at `at` in the file. A name with a blank is that of
/// blocks which objects own.
fn types(at: usize, names: &[&str], blocks: usize) -> Vec<u8> {
    let text: Vec<u8> = names
        .iter()
        .flat_map(|name| [name.as_bytes(), b"\0"].concat())
        .collect();
    let mut out = Vec::new();
    out.extend((names.len() as u32).to_le_bytes());
    out.extend((text.len() as u32).to_le_bytes());
    out.extend((at as u64).to_le_bytes());
    out.extend((blocks as u64).to_le_bytes());
    let address = |name: &&str| u64::from(!name.contains(' ')) * 4096;
    out.extend(names.iter().flat_map(|name| address(name).to_le_bytes()));
    out.extend(text);
    out
}

/// Numbers that look random, the same in each run (splitmix).
pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// Shows a snapshot in all ways: nothing that was read may end in a panic.
pub fn use_all_of(heap: Snapshot) {
    use crate::map::terminal::{Colours, Terminal};
    let named = Named {
        name: "mutated".into(),
        heap,
    };
    for (colours, lines) in [(Colours::All, 64), (Colours::None, 3)] {
        let terminal = Terminal {
            colours,
            width: 80,
            lines,
            below: Below(60.0),
        };
        assert!(terminal.show(&named).contains("block size"));
    }
    let pins = crate::pinned::text(&named, Below(60.0), 3);
    assert!(pins.contains("nearly empty"));
    assert!(crate::pinned::json(&named, Below(60.0))["total"].is_object());
    let page = crate::map::html::page(&[named], Below(60.0));
    assert!(page.ends_with("</html>\n"));
}
