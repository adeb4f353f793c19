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
use crate::object;
use crate::os::text;
use crate::size_class::{SizeClass, TABLE_LEN};
use crate::threads;

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// One class: all in blocks, but for the pools.
struct Class {
    class: SizeClass,
    counts: ClassCounts,
    in_magazines: usize,
}

impl Class {
    fn live(&self) -> usize {
        self.counts.taken.saturating_sub(self.in_magazines)
    }

    fn free(&self) -> usize {
        self.counts.pools * self.class.shape().blocks as usize - self.counts.taken
    }

    fn bytes(&self, blocks: usize) -> usize {
        blocks * self.class.size()
    }
}

/// What the heap holds.
struct Snapshot {
    arenas: Counts,
    in_magazines: [usize; TABLE_LEN],
    record_bytes: usize,
}

impl Snapshot {
    fn now() -> Snapshot {
        let mut in_magazines = [0; TABLE_LEN];
        let record_bytes = threads::held(&mut in_magazines);
        Snapshot {
            arenas: HEAP.arena_counts(),
            in_magazines,
            record_bytes,
        }
    }

    /// The classes that have pools.
    fn classes(&self) -> impl Iterator<Item = Class> {
        SizeClass::all().filter_map(|class| {
            let counts = HEAP.class_counts(class);
            let in_magazines = self.in_magazines[class.index()];
            (counts.pools > 0).then_some(Class {
                class,
                counts,
                in_magazines,
            })
        })
    }

    fn metadata(&self) -> usize {
        self.record_bytes + self.arenas.record_bytes + address_map::leaf_bytes()
    }

    fn os_bytes(&self) -> usize {
        self.arenas.mapped * ARENA_SIZE + self.metadata()
    }
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
    write!(
        out,
        ",\"large\":{{\"served_below_total\":{}}}",
        object::served_below()
    )?;
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
        empty,
        mapped_total,
        unmapped_total,
        highwater,
        ..
    } = now.arenas;
    text::say(format_args!(
        "arenas of {ARENA_SIZE}: {mapped} ({empty} empty), {highwater} at the most, \
         {mapped_total} mapped and {unmapped_total} given back in all"
    ));
    text::say(format_args!(
        "live blocks: {live}; from the system: {}, metadata {} of it; requests served below: {}",
        now.os_bytes(),
        now.metadata(),
        object::served_below()
    ));
}

/// A buffer of the caller's: takes what fits, counts what there was.
pub struct Buffer<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Buffer<'a> {
    /// An empty text in `bytes`.
    pub fn new(bytes: &'a mut [u8]) -> Buffer<'a> {
        Buffer { bytes, len: 0 }
    }

    /// Ends the text, with NUL if there is any room at all. Returns the
    /// length that the whole text has, without NUL.
    pub fn end(self) -> usize {
        if let Some(last) = self.bytes.len().checked_sub(1) {
            self.bytes[self.len.min(last)] = 0;
        }
        self.len
    }
}

impl Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = self.len.min(self.bytes.len());
        let room = &mut self.bytes[start..];
        let taken = room.len().min(text.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_cuts_ends_and_counts() {
        for size in 0..12 {
            let mut bytes = [b'#'; 16];
            let mut buffer = Buffer::new(&mut bytes[..size]);
            write!(buffer, "eight").unwrap();
            write!(buffer, "{:>3}", 8).unwrap();
            assert_eq!(buffer.end(), 8);
            let kept = size.saturating_sub(1).min(8);
            assert_eq!(bytes[..kept], b"eight  8"[..kept]);
            assert_eq!(bytes.get(kept), Some(if size > 0 { &0 } else { &b'#' }));
            assert!(bytes[size.max(9)..].iter().all(|&byte| byte == b'#'));
        }
    }
}
