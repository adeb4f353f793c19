//! Statistics: what the heap holds at one moment, as JSON or as text.
//!
//! Nothing is counted on the hit path. The classes are asked one after the
//! other, each under its lock, then the threads' magazines; while other
//! threads allocate, the numbers of different classes are of different
//! moments. Making them allocates nothing.

use core::fmt::{self, Write};

use crate::address_map;
use crate::arenas::Counts;
use crate::geometry::{ARENA_SIZE, POOL_SIZE};
use crate::heap::{ClassCounts, HEAP};
use crate::os::{process, text};
use crate::pool;
use crate::size_class::SizeClass;
use crate::threads::{self, Total};

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// One class: all in blocks, but for the pools.
pub struct Class {
    /// Which.
    pub class: SizeClass,
    /// What the heap says.
    pub counts: ClassCounts,
    /// Blocks in some thread's magazine.
    pub in_magazines: usize,
}

impl Class {
    /// Blocks that are the program's.
    pub fn live(&self) -> usize {
        self.counts.taken.saturating_sub(self.in_magazines)
    }

    /// Blocks that are free in their pools.
    pub fn free(&self) -> usize {
        self.counts.pools * self.class.shape().blocks as usize - self.counts.taken
    }

    /// So many blocks in bytes.
    pub fn bytes(&self, blocks: usize) -> usize {
        blocks * self.class.size()
    }
}

/// What the heap holds.
pub struct Snapshot {
    /// Its arenas.
    pub arenas: Counts,
    threads: Total,
}

impl Snapshot {
    /// What it holds now.
    pub fn now() -> Snapshot {
        Snapshot {
            arenas: HEAP.arena_counts(),
            threads: threads::total(),
        }
    }

    /// The classes that have pools.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
        SizeClass::all().filter_map(|class| {
            let counts = HEAP.class_counts(class);
            let in_magazines = self.threads.in_magazines[class.index()];
            (counts.pools > 0).then_some(Class {
                class,
                counts,
                in_magazines,
            })
        })
    }

    /// Bytes of records: those of arenas with their pools, and threads'.
    pub fn records(&self) -> usize {
        self.threads.record_bytes + self.arenas.record_bytes
    }

    fn metadata(&self) -> usize {
        self.records() + address_map::leaf_bytes()
    }

    /// Bytes of arenas that are with us: pages on which a block was taken since
    /// they came from the kernel.
    fn resident(&self) -> usize {
        let used: usize = self.classes().map(|class| class.counts.resident).sum();
        used + self.arenas.resident_empty
    }

    /// Bytes of metadata that are with us: what was ever written.
    fn metadata_resident(&self) -> usize {
        let map = address_map::resident_bytes(self.arenas.mapped);
        self.threads.record_bytes + self.arenas.record_bytes_used + map
    }

    fn os_bytes(&self) -> usize {
        self.arenas.bytes + self.metadata()
    }
}

/// Blocks of pools that are the program's.
pub fn live_blocks() -> usize {
    Snapshot::now().classes().map(|class| class.live()).sum()
}

/// Blocks that are the program's, those that came from below too.
pub fn allocated_blocks() -> isize {
    let now = Snapshot::now();
    let live: usize = now.classes().map(|class| class.live()).sum();
    live.cast_signed() + now.threads.below.live()
}

/// Writes the statistics as JSON, in the form that the README describes.
pub fn json(out: &mut dyn Write, host: Option<&str>) -> fmt::Result {
    let now = Snapshot::now();
    write!(
        out,
        "{{\"version\":\"{}\",\"schema\":{SCHEMA}",
        env!("CARGO_PKG_VERSION")
    )?;
    write!(out, ",\"pid\":{},\"host\":", text::pid())?;
    match host {
        Some(host) => write!(out, "\"{host}\"")?,
        None => out.write_str("null")?,
    }
    let Counts {
        mapped,
        empty,
        free_pools,
        mapped_total,
        unmapped_total,
        highwater,
        resident_empty,
        ..
    } = now.arenas;
    write!(
        out,
        ",\"arenas\":{{\"size\":{ARENA_SIZE},\"in_use\":{},\"empty\":{empty},\
         \"mapped_total\":{mapped_total},\"unmapped_total\":{unmapped_total},\
         \"highwater\":{highwater}}}",
        mapped - empty
    )?;
    let (mut pools, mut full) = (0, 0);
    let (mut live, mut in_magazines, mut free) = (0, 0, 0);
    for class in now.classes() {
        pools += class.counts.pools;
        full += class.counts.full;
        live += class.bytes(class.live());
        in_magazines += class.bytes(class.in_magazines);
        free += class.bytes(class.free());
    }
    let used = pools - full;
    write!(
        out,
        ",\"pools\":{{\"size\":{POOL_SIZE},\"used\":{used},\"full\":{full},\"free\":{free_pools}}}"
    )?;
    let (from_os, metadata) = (now.os_bytes(), now.metadata());
    write!(
        out,
        ",\"bytes\":{{\"from_os\":{from_os},\"metadata\":{metadata},\"live\":{live},\
         \"in_magazines\":{in_magazines},\"free_in_pools\":{free}}}"
    )?;
    // What of it is in memory. Blocks that are taken are, but for those that
    // nobody has written to yet.
    let resident = now.resident();
    let free_resident = resident.saturating_sub(resident_empty + live + in_magazines);
    let metadata = now.metadata_resident();
    write!(
        out,
        ",\"resident\":{{\"total\":{},\"live\":{live},\"in_magazines\":{in_magazines},\
         \"free_in_pools\":{free_resident},\"empty_pools\":{resident_empty},\
         \"metadata\":{metadata},\"returned_total\":{}}}",
        resident + metadata,
        pool::returned()
    )?;
    let (below, process) = (now.threads.below, process::resident());
    write!(
        out,
        ",\"large\":{{\"served_below_total\":{},\"blocks_live\":{}}}",
        below.asked,
        below.live()
    )?;
    out.write_str(",\"libc\":")?;
    match process::libc_memory() {
        Some(libc) => write!(out, "{{\"in_use\":{},\"kept\":{}}}", libc.in_use, libc.kept)?,
        None => out.write_str("null")?,
    }
    out.write_str(",\"rss\":")?;
    match process {
        Some(bytes) => write!(out, "{bytes}")?,
        None => out.write_str("null")?,
    }
    out.write_str(",\"classes\":[")?;
    for (i, class) in now.classes().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(
            out,
            "{comma}{{\"class\":{},\"size\":{},\"pools\":{},\"blocks_live\":{},\
             \"blocks_in_magazines\":{},\"blocks_free\":{}}}",
            class.class.index(),
            class.class.size(),
            class.counts.pools,
            class.live(),
            class.in_magazines,
            class.free()
        )?;
    }
    out.write_str("]}")
}

/// Says the statistics on stderr, for people.
pub fn say() {
    let now = Snapshot::now();
    let pid = text::pid();
    text::say(format_args!(
        "statistics of pid {pid}, in bytes where nothing else is said"
    ));
    text::say(format_args!(
        "{:>6} {:>7} {:>9} {:>10} {:>10}",
        "size", "pools", "live", "magazines", "free"
    ));
    let mut live = 0;
    for class in now.classes() {
        live += class.bytes(class.live());
        text::say(format_args!(
            "{:>6} {:>7} {:>9} {:>10} {:>10}",
            class.class.size(),
            class.counts.pools,
            class.live(),
            class.in_magazines,
            class.free()
        ));
    }
    let Counts {
        mapped,
        bytes,
        empty,
        mapped_total,
        unmapped_total,
        highwater,
        ..
    } = now.arenas;
    text::say(format_args!(
        "arenas: {mapped} of {bytes} bytes ({empty} empty), {highwater} at the most, \
         {mapped_total} mapped and {unmapped_total} given back in all"
    ));
    text::say(format_args!(
        "live blocks: {live}; from the system: {}, metadata {} of it; requests served below: {}",
        now.os_bytes(),
        now.metadata(),
        now.threads.below.asked
    ));
}
