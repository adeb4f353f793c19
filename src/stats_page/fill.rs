//! The statistics in the form that others read: the numbers of `stats/json.rs`.

use format::layout::{Arenas, Bytes, CLASSES, Class, Large, Pools, Resident, Statistics, UNKNOWN};

use super::host;
use crate::base::layout::{ARENA_SIZE, POOL_SIZE};
use crate::base::size_class::{LAST, SizeClass};
use crate::os::process::{LibcMemory, resident};
use crate::os::{clock, memory, text};
use crate::pool::Shard;
use crate::stats::{Ledger, Snapshot};

const _: () = assert!(CLASSES == LAST, "an entry for each class");

/// Writes what the heap holds now to `to`, which stays as it is where there is no memory to
/// make it.
#[cold]
#[inline(never)]
pub(crate) fn fill(to: &mut Statistics, libc: &dyn Fn() -> Option<LibcMemory>) {
    let Some(now) = Snapshot::now() else {
        return;
    };
    let now = &*now;
    let ledger = Ledger::of_ours(now);
    let sums = now.sums();
    for class in SizeClass::all() {
        to.classes[class.index() - 1] = Class {
            size: class.size() as u64,
            pools: 0,
            full: 0,
            blocks_live: 0,
            blocks_in_magazines: 0,
            blocks_free: 0,
            resident: 0,
        };
    }
    for class in now.classes() {
        let entry = &mut to.classes[class.class.index() - 1];
        entry.pools = class.counts.pools as u64;
        entry.full = class.counts.full as u64;
        entry.blocks_live = class.live() as u64;
        entry.blocks_in_magazines = class.in_magazines as u64;
        entry.blocks_free = class.free() as u64;
        entry.resident = class.counts.resident as u64;
    }
    to.pid = text::pid().cast_unsigned();
    to.os_page_bytes = memory::page_size() as u32;
    to.version = name(env!("CARGO_PKG_VERSION"));
    to.host = name(host().unwrap_or_default());
    let arenas = &now.arenas;
    to.arenas = Arenas {
        size: ARENA_SIZE as u64,
        in_use: (arenas.mapped - arenas.empty) as u64,
        empty: arenas.empty as u64,
        mapped_total: arenas.mapped_total as u64,
        unmapped_total: arenas.unmapped_total as u64,
        highwater: arenas.highwater as u64,
    };
    to.pools = Pools {
        size: POOL_SIZE as u64,
        used: (sums.pools - sums.full) as u64,
        full: sums.full as u64,
        free: arenas.free_pools as u64,
        lanes: Shard::open().count() as u64,
    };
    to.bytes = Bytes {
        from_os: now.os_bytes() as u64,
        metadata: now.metadata() as u64,
        live: ledger.live as u64,
        live_requested_estimate: ledger.requested as u64,
        in_magazines: ledger.in_magazines as u64,
        free_in_pools: sums.free as u64,
    };
    to.resident = Resident {
        total: ledger.ours as u64,
        live: ledger.live as u64,
        in_magazines: ledger.in_magazines as u64,
        free_in_pools: ledger.free_in_pools as u64,
        empty_pools: ledger.empty_pools as u64,
        metadata: ledger.metadata as u64,
        returned_total: ledger.returned as u64,
    };
    to.large = Large {
        served_below_total: now.below().requests as u64,
        blocks_live: now.below().live() as i64,
    };
    let libc = libc();
    to.libc_in_use = libc.map_or(UNKNOWN, |libc| libc.in_use as u64);
    to.libc_kept = libc.map_or(UNKNOWN, |libc| libc.kept as u64);
    to.rss = resident().map_or(UNKNOWN, |bytes| bytes as u64);
    to.threads = now.threads() as u64;
    to.misses = sums.misses as u64;
    to.made_ms = clock::now();
}

/// A text as far as there is room for it and a NUL.
fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes[..N - 1].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}
