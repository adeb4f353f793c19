//! The forms of the live page and of a snapshot, for the library that writes them and
//! the command that reads them.
//!
//! ```text
//!    the live page: a memfd named "obmalloc-live"       a snapshot, in a file
//!    +---------+------------+-- ... --+-----------+     +-----------+
//!    | Control | Statistics |    0    | snapshot, |     | Header    |
//!    +---------+------------+-- ... --+ if asked  |     | Arena ... |  by address
//!    0                      PAGE_BYTES            |     | Pool  ... |  an arena's in order
//!                                     +-----------+     | Page  ... |  a pool's in order
//!                                                       | Mapping ..|
//!                                                       | types     |  if there are any
//!                                                       +-----------+
//! ```
//!
//! All numbers are little endian, as in the memory of the one machine that the library
//! runs on. Every struct is of integers only, without gaps: any bytes are a valid one.
//!
//! # Reading the page
//!
//! Open `/proc/PID/fd/N`, whose link is [`LINK`], for reading and writing, map
//! [`PAGE_BYTES`], look at `magic` and `version`. To ask: set bits in `wanted`, add 1 to
//! `request` (the sum is the ticket), wake the futex there, and wait on the futex
//! `answered` until it has reached the ticket. If nobody answers (right after a fork no
//! thread is there), what the page holds is as old as `made_ms` says. The statistics are
//! whole if `sequence` was the same, even number before and after they were copied.
//!
//! The page may be a parent's, inherited by a child of `_Fork`: `pid` tells, which is the
//! process's number in its own pid namespace.
//!
//! After [`WANT_SNAPSHOT`] was answered, `snapshot_bytes` bytes from [`PAGE_BYTES`] on are
//! a snapshot, if `snapshot_sequence` was the same, even number before and after they
//! were read, and `snapshot_error` is 0. It is dropped after some seconds, or when another
//! reader's is begun; a fork puts it off.
//!
//! The file is as long as the page, or as the longest snapshot that it has held, rounded
//! up; it never gets shorter, so what a reader has mapped stays there.

use crate::counters::{COUNT, Class, Counters, SLOTS, UNKNOWN};

/// Where the descriptor of a page leads, and what the page is called in `/proc/PID/maps`:
/// the end is the kernel's.
pub const LINK: &str = "/memfd:obmalloc-live (deleted)";
/// Begins the page.
pub const LIVE_MAGIC: [u8; 8] = *b"OBMALIVE";
/// Begins a snapshot.
pub const MAP_MAGIC: [u8; 8] = *b"OBMALMAP";
/// The version of all that stands here.
pub const VERSION: u32 = 1;
/// Bytes of the page; a snapshot lies behind them.
pub const PAGE_BYTES: usize = 8192;

/// Size classes: entry `i` of a table is the class with index `i + 1`.
pub const CLASSES: usize = 112;
/// In `wanted`: a snapshot, too.
pub const WANT_SNAPSHOT: u32 = 1;
/// In `wanted`: the snapshot has been read and may go.
pub const DROP_SNAPSHOT: u32 = 2;

/// The words that the process and its readers share.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Control {
    /// [`LIVE_MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// [`PAGE_BYTES`].
    pub page_bytes: u32,
    /// The process that writes the page.
    pub pid: u32,
    /// Odd while the statistics are written.
    pub sequence: u32,
    /// Counts what readers ask for; a futex.
    pub request: u32,
    /// Up to which of these is answered; a futex.
    pub answered: u32,
    /// What is asked for beside the statistics, in bits.
    pub wanted: u32,
    /// 1 while a thread is there that answers.
    pub thread: u32,
    /// Odd while a snapshot is written.
    pub snapshot_sequence: u32,
    /// The error by which the last snapshot failed, 0 for none.
    pub snapshot_error: u32,
    /// Bytes of the snapshot behind the page, 0 if there is none.
    pub snapshot_bytes: u64,
    /// Bytes of the statistics; 0 from libraries whose counters end with the classes.
    pub statistics_bytes: u32,
    /// Zero.
    pub spare: [u32; 15],
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
        for (slot, value) in SLOTS.into_iter().zip(counters.values()) {
            let mut slots = self.first.iter_mut().chain(&mut self.later);
            if let Some(place) = slots.nth(slot.into()) {
                *place = value;
            }
        }
    }

    /// The counters in the slots.
    pub fn counters(&self) -> Counters {
        let mut values = [UNKNOWN; COUNT];
        for (slot, value) in SLOTS.into_iter().zip(&mut values) {
            let mut slots = self.first.iter().chain(&self.later);
            *value = slots.nth(slot.into()).copied().unwrap_or(UNKNOWN);
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
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of this header: behind it lie the arenas.
    pub header_bytes: u32,
    /// CLOCK_REALTIME when it was made, in milliseconds since 1970.
    pub real_ms: u64,
    /// How many entries each part has; the parts lie one behind the other.
    pub arenas: u64,
    pub pools: u64,
    pub pages: u64,
    pub mappings: u64,
    /// Where the types lie in the file, and their bytes; 0: there are none.
    pub types_offset: u64,
    pub types_bytes: u64,
    /// As on the page, of about the same moment.
    pub statistics: Statistics,
}

/// An arena; they stand in the order of their addresses.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arena {
    /// Where its first pool begins. (A program's own arena may begin before that.)
    pub address: u64,
    /// Bytes of its land.
    pub bytes: u64,
    /// The index of its first pool, and how many it has.
    pub first_pool: u64,
    pub pools: u32,
    /// See `ARENA_...`.
    pub flags: u32,
}

/// The arena came from an allocator that the program has set.
pub const ARENA_PROGRAMS: u32 = 1;
/// The arena went back while the snapshot was made: its pools look empty.
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
    /// How many pages it has.
    pub pages: u16,
    /// Bytes of a block; 0 in an empty pool.
    pub block_bytes: u32,
    /// Blocks that it is cut into.
    pub blocks: u32,
    /// Of these, how many are live, or at hand in a magazine or a depot.
    pub taken: u32,
    /// Offset of its first block in bytes.
    pub first_block: u32,
    pub spare: u32,
}

/// The class of a pool that is empty.
pub const NO_CLASS: u16 = u16::MAX;

/// A page of 4 KiB.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Page {
    /// Its bytes that lie in blocks that are taken.
    pub taken_bytes: u16,
    /// Blocks that are taken and touch it.
    pub blocks: u16,
    /// See `PAGE_...`.
    pub flags: u8,
    pub spare: [u8; 3],
}

/// Bytes of such a page.
pub const SNAPSHOT_PAGE: usize = 4096;
/// The page is with us.
pub const PAGE_RESIDENT: u8 = 1;
/// The page was given back to the kernel, and nothing has come to it since. (One that is
/// neither this nor resident was never touched.)
pub const PAGE_RETURNED: u8 = 2;
/// The page was free when it was looked at last: next time it goes back.
pub const PAGE_IDLE: u8 = 4;

/// Memory of the library's own, beside the arenas.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mapping {
    pub address: u64,
    pub bytes: u64,
    /// See `MAPPING_...`.
    pub kind: u32,
    pub spare: u32,
}

/// The record of an arena and its pools.
pub const MAPPING_RECORD: u32 = 1;
/// A thread's magazines.
pub const MAPPING_MAGAZINES: u32 = 2;
/// Part of the address map.
pub const MAPPING_MAP: u32 = 3;
/// The part of the address map that lies among the library's own data, in its file's mapping.
pub const MAPPING_STATIC: u32 = 4;

/// A mapping of metadata as a whole: records, magazines and parts of the address map lie in it, and
/// what has no kind of its own. So its bytes are not to be added to theirs.
pub const MAPPING_METADATA: u32 = 5;

const _: () = assert!(size_of::<Control>() + size_of::<Statistics>() <= PAGE_BYTES);
const _: () = assert!(size_of::<Control>() == 120);
const _: () = assert!(size_of::<Header>() == 72 + size_of::<Statistics>());
/// Bytes of the statistics up to the classes' end.
pub const FIRST_BYTES: usize = 6600;
const _: () = assert!(core::mem::offset_of!(Statistics, later) == FIRST_BYTES);
const _: () = assert!(size_of::<Class>() == 56 && size_of::<Arena>() == 32);
const _: () = assert!(size_of::<Pool>() == 40 && size_of::<Page>() == 8);
const _: () = assert!(size_of::<Mapping>() == 24);
