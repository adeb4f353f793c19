//! The layout of the stats page and of heap snapshots, which the library writes and the command
//! reads.
//!
//! ```text
//!    the stats page: a memfd named "obmalloc-live"      a snapshot, in a file
//!    +---------+------------+-- ... --+-----------+     +-----------+
//!    | Control | Statistics |    0    | snapshot, |     | Header    |
//!    +---------+------------+-- ... --+ if wanted |     | Arena ... |  by address
//!    0                      PAGE_BYTES            |     | Pool  ... |  an arena's in order
//!                                     +-----------+     | Page  ... |  a pool's in order
//!                                                       | Mapping ..|
//!                                                       | types     |  if it has them
//!                                                       +-----------+
//! ```
//!
//! All numbers are little endian, as are the machines that the library supports. Every struct has
//! only integers and no padding, so any bytes are a valid value.
//!
//! # Reading the page
//!
//! Open `/proc/PID/fd/N`, whose link is [`LINK`], for reading and writing, check `magic`, then
//! `version` and `page_bytes` ([`PAGE_VERSIONS`]), and map `page_bytes` bytes. A request: set bits in
//! `wanted`, add 1 to `request` (the sum is the ticket), wake the futex there, and wait on the
//! futex `answered` until it has reached the ticket. Without an answer (right after a fork there is
//! no thread) the statistics are as old as `made_ms`. They are consistent if `sequence` was the
//! same even number before and after the copy: loaded with acquire before it, and behind an acquire
//! fence after it. (Without the fence, aarch64 may do the second load before the copy.)
//!
//! A child of `_Fork` inherits its parent's page; `pid` is the process that the page belongs
//! to, in its own pid namespace.
//!
//! After a request with [`WANT_SNAPSHOT`], `snapshot_bytes` bytes from `page_bytes` on are a
//! snapshot, if `snapshot_sequence` was, in the same way, the same even number before and after
//! they were read, and `snapshot_error` is 0. It is dropped after ten seconds, or when another
//! reader requests one; a fork postpones it.
//!
//! The file has the length of the page, or of the longest snapshot so far, rounded up. It is
//! never truncated, so a reader's mapping stays valid.

use crate::counters::{COUNT, Class, Counters, SLOTS, UNKNOWN};

/// The link of the page's descriptor and its name in `/proc/PID/maps`; the kernel appends the
/// last word.
pub const LINK: &str = "/memfd:obmalloc-live (deleted)";
/// Begins the page.
pub const LIVE_MAGIC: [u8; 8] = *b"OBMALIVE";
/// Begins a snapshot.
pub const MAP_MAGIC: [u8; 8] = *b"OBMALMAP";
/// The version of the page's layout.
pub const PAGE_VERSION: u32 = 2;
/// The version of a snapshot's layout.
pub const MAP_VERSION: u32 = 2;
/// The version of a snapshot whose types are by page: [`TypedPage`]s in place of [`TypedBlock`]s.
pub const MAP_VERSION_BY_PAGE: u32 = 3;
/// Bytes of the page; a snapshot follows. Whole OS pages of 4, 16 and 64 KiB, because a snapshot's
/// memory is returned to the kernel by OS pages. Only the first 8 KiB are used.
pub const PAGE_BYTES: usize = 64 << 10;
/// The versions that readers of the page accept, with the bytes of the page in each.
pub const PAGE_VERSIONS: [(u32, u32); 2] = [(1, 8 << 10), (PAGE_VERSION, PAGE_BYTES as u32)];

/// Size classes: entry `i` of a table is the class with index `i + 1`.
pub const CLASSES: usize = 112;
/// In `wanted`: a snapshot besides the statistics.
pub const WANT_SNAPSHOT: u32 = 1;
/// In `wanted`: the snapshot has been read and may be dropped.
pub const DROP_SNAPSHOT: u32 = 2;
/// In `wanted`: a heap profile ([`profile`](crate::profile)) in place of a snapshot.
pub const WANT_PROFILE: u32 = 4;
/// In `wanted`: the profiler is to start with `profile_interval`, if it is off.
pub const START_PROFILE: u32 = 8;
/// In `wanted`: the profiler is to stop.
pub const STOP_PROFILE: u32 = 16;
/// In `wanted`, with `WANT_SNAPSHOT`: the snapshot has types, by page. Libraries of earlier versions
/// write a snapshot without types.
pub const WANT_TYPES: u32 = 32;

/// The words that the process and its readers share.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Control {
    /// [`LIVE_MAGIC`].
    pub magic: [u8; 8],
    /// [`PAGE_VERSION`].
    pub version: u32,
    /// [`PAGE_BYTES`].
    pub page_bytes: u32,
    /// The process that writes the page.
    pub pid: u32,
    /// Odd while the statistics are written.
    pub sequence: u32,
    /// The number of requests; a futex.
    pub request: u32,
    /// The number of the last answered request; a futex.
    pub answered: u32,
    /// Bits: `WANT_SNAPSHOT`, `DROP_SNAPSHOT`, `WANT_PROFILE`, `START_PROFILE`, `STOP_PROFILE`,
    /// `WANT_TYPES`.
    pub wanted: u32,
    /// 1 while a thread of the process answers requests.
    pub thread: u32,
    /// Odd while a snapshot is written.
    pub snapshot_sequence: u32,
    /// The errno of the last snapshot if it failed, else 0.
    pub snapshot_error: u32,
    /// Bytes of the snapshot after the page, 0 if there is none.
    pub snapshot_bytes: u64,
    /// Bytes of the statistics; 0 from libraries whose counters end with the classes.
    pub statistics_bytes: u32,
    /// Mean bytes between two samples, for `START_PROFILE`; 0: the default.
    pub profile_interval: u32,
    /// Zero.
    pub spare: [u32; 14],
}

/// Slots of counters before the classes; later counters have theirs behind the classes, so a
/// new counter moves nothing.
const FIRST: usize = 31;

/// The counters, and the process that they are of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Statistics {
    /// When they were read, in milliseconds of CLOCK_MONOTONIC.
    pub made_ms: u64,
    /// The process's number in its own pid namespace.
    pub pid: u32,
    /// Bytes of an OS page.
    pub os_page_bytes: u32,
    /// The versions of library and host, ended by NUL; empty if there is no host.
    pub version: [u8; 32],
    pub host: [u8; 32],
    first: [u64; FIRST],
    pub classes: [Class; CLASSES],
    later: [u64; COUNT - FIRST],
}

impl Statistics {
    /// All zero, and every counter unknown.
    pub const UNKNOWN: Statistics = Statistics {
        made_ms: 0,
        pid: 0,
        os_page_bytes: 0,
        version: [0; 32],
        host: [0; 32],
        first: [UNKNOWN; FIRST],
        classes: [Class {
            size: 0,
            pools: 0,
            pools_full: 0,
            blocks_live: 0,
            blocks_in_magazines: 0,
            blocks_free: 0,
            resident: 0,
        }; CLASSES],
        later: [UNKNOWN; COUNT - FIRST],
    };

    /// Marks the counters beyond `bytes` as unknown: a writer of an earlier version has none.
    pub fn forget_beyond(&mut self, bytes: usize) {
        for (i, word) in self.later.iter_mut().enumerate() {
            if FIRST_BYTES + (i + 1) * size_of::<u64>() > bytes {
                *word = UNKNOWN;
            }
        }
    }

    /// Writes the counters to their slots.
    pub fn set_counters(&mut self, counters: &Counters) {
        for (slot, value) in SLOTS.into_iter().map(usize::from).zip(counters.values()) {
            if let Some(place) = self.first.get_mut(slot) {
                *place = value;
            } else if let Some(place) = self.later.get_mut(slot - FIRST) {
                *place = value;
            }
        }
    }

    /// The counters in the slots.
    pub fn counters(&self) -> Counters {
        let mut values = [UNKNOWN; COUNT];
        for (slot, value) in SLOTS.into_iter().map(usize::from).zip(&mut values) {
            let place = self.first.get(slot);
            *value = place
                .or_else(|| self.later.get(slot - FIRST))
                .copied()
                .unwrap_or(UNKNOWN);
        }
        Counters::of_values(&values)
    }
}

/// Begins a snapshot.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// [`MAP_MAGIC`].
    pub magic: [u8; 8],
    /// [`MAP_VERSION`].
    pub version: u32,
    /// Bytes of this header; the arenas follow.
    pub header_bytes: u32,
    /// CLOCK_REALTIME of the snapshot, in milliseconds since 1970.
    pub real_ms: u64,
    /// Entries of each part; the parts follow each other.
    pub arenas: u64,
    pub pools: u64,
    pub pages: u64,
    pub mappings: u64,
    /// Offset of [`Types`] in the file, and its bytes with what follows it; 0 if there are none.
    pub types_offset: u64,
    pub types_bytes: u64,
    /// The statistics of about the same moment. Last, so that it may grow.
    pub statistics: Statistics,
}

/// An arena; arenas are sorted by address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arena {
    /// Address of its first pool. (A program's own arena may begin before that.)
    pub address: u64,
    /// Bytes of its pools.
    pub bytes: u64,
    /// The index of its first pool, and the number of its pools.
    pub first_pool: u64,
    pub pools: u32,
    /// `ARENA_...`.
    pub flags: u32,
}

/// The arena is from an arena allocator that the program has set.
pub const ARENA_PROGRAMS: u32 = 1;
/// The arena was unmapped while the snapshot was written: its pools are shown as empty.
pub const ARENA_GONE: u32 = 2;

/// A pool.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pool {
    pub address: u64,
    /// The index of its first page.
    pub first_page: u64,
    /// The index of its class, as in `obmalloc_stats_json`, or [`NO_CLASS`].
    pub class: u16,
    /// The number of its pages.
    pub pages: u16,
    /// Bytes of a block; 0 in an empty pool.
    pub block_bytes: u32,
    /// The number of its blocks.
    pub blocks: u32,
    /// Blocks that are live, or cached in a magazine or a depot.
    pub taken: u32,
    /// Offset of its first block in bytes.
    pub first_block: u32,
    pub spare: u32,
}

/// The class of an empty pool.
pub const NO_CLASS: u16 = u16::MAX;

/// A page of 4 KiB.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Page {
    /// Bytes of the page in taken blocks.
    pub taken_bytes: u16,
    /// Taken blocks on the page, in part or whole.
    pub blocks: u16,
    /// `PAGE_...`.
    pub flags: u8,
    pub spare: [u8; 3],
}

/// Bytes of a [`Page`].
pub const SNAPSHOT_PAGE: usize = 4096;
/// The page is resident.
pub const PAGE_RESIDENT: u8 = 1;
/// The page was returned to the kernel and not touched since. (A page that is neither returned
/// nor resident was never touched.)
pub const PAGE_RETURNED: u8 = 2;
/// The page was free at the last round of the decay: the next round returns it.
pub const PAGE_IDLE: u8 = 4;

/// The types of blocks' objects. Their addresses follow, a `u64` each, 0 for a block that another
/// block's object owns; then their names, each ended by NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Types {
    /// The number of types, and the bytes of the names.
    pub types: u32,
    pub text_bytes: u32,
    /// Offset in the file and number of the [`TypedBlock`]s, or of the [`TypedPage`]s in
    /// [`MAP_VERSION_BY_PAGE`].
    pub blocks_offset: u64,
    pub blocks: u64,
}

/// A block of known type, in no order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TypedBlock {
    pub address: u64,
    pub bytes: u32,
    /// The index of the type.
    pub number: u32,
}

/// Blocks of one type that begin on a page, in no order; a page and type may have several entries.
/// Small, because they are in the memory of the process while they are read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TypedPage {
    /// The index of the page.
    pub page: u32,
    /// The index of the type.
    pub number: u16,
    /// The number of the blocks, and [`TYPED_REACHES`].
    pub blocks: u16,
}

/// In `blocks` of a [`TypedPage`]: one of the blocks is the last that begins on the page, and reaches
/// into the next page.
pub const TYPED_REACHES: u16 = 1 << 15;

/// Memory of the library's metadata.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mapping {
    pub address: u64,
    pub bytes: u64,
    /// `MAPPING_...`.
    pub kind: u32,
    pub spare: u32,
}

/// The record of an arena and its pools.
pub const MAPPING_RECORD: u32 = 1;
/// A thread's magazines.
pub const MAPPING_MAGAZINES: u32 = 2;
/// Part of the page map.
pub const MAPPING_MAP: u32 = 3;
/// The part of the page map in the library's own data, in its file's mapping.
pub const MAPPING_STATIC: u32 = 4;

/// A whole mapping of metadata. It contains records, magazines, parts of the page map and data
/// without a kind of its own, so its bytes must not be added to theirs.
pub const MAPPING_METADATA: u32 = 5;

const _: () =
    assert!(size_of::<Control>() + size_of::<Statistics>() <= PAGE_VERSIONS[0].1 as usize);
const _: () = assert!(PAGE_BYTES.is_multiple_of(64 << 10));
const _: () = assert!(size_of::<Control>() == 120);
const _: () = assert!(size_of::<Header>() == 72 + size_of::<Statistics>());
/// Bytes of the statistics up to the classes' end.
pub const FIRST_BYTES: usize = 6600;
const _: () = assert!(core::mem::offset_of!(Statistics, later) == FIRST_BYTES);
const _: () = assert!(size_of::<Class>() == 56 && size_of::<Arena>() == 32);
const _: () = assert!(size_of::<Pool>() == 40 && size_of::<Page>() == 8);
const _: () = assert!(size_of::<Mapping>() == 24 && size_of::<Types>() == 24);
const _: () = assert!(size_of::<TypedBlock>() == 16 && size_of::<TypedPage>() == 8);
