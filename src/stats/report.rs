//! The statistics as text, for people, on stderr.

use crate::arena::set::Counts;
use crate::os::text;
use crate::stats::{Ledger, Snapshot};

/// Says the statistics on stderr, for people.
pub(crate) fn log() {
    let pid = text::pid();
    let Some(now) = Snapshot::now() else {
        text::log(format_args!("no memory for the statistics of pid {pid}"));
        return;
    };
    text::log(format_args!(
        "statistics of pid {pid}, in bytes where nothing else is said"
    ));
    text::log(format_args!(
        "{:>6} {:>7} {:>9} {:>10} {:>10}",
        "size", "pools", "live", "magazines", "free"
    ));
    for class in now.classes() {
        text::log(format_args!(
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
    text::log(format_args!(
        "arenas: {mapped} of {bytes} bytes ({empty} empty), {highwater} at the most, \
         {mapped_total} mapped and {unmapped_total} given back in all"
    ));
    text::log(format_args!(
        "from the system: {}, metadata {} of it; requests served below: {}",
        now.os_bytes(),
        now.metadata(),
        now.below().requests
    ));
    ledger(&Ledger::of(&now));
}

/// Where the process's memory is.
fn ledger(ledger: &Ledger) {
    text::log(format_args!(
        "in memory: {} = live blocks {} (about {} asked for) + magazines {} \
         + free in pools {} + empty pools {} + metadata {}; given back so far: {}",
        ledger.ours,
        ledger.live,
        ledger.requested,
        ledger.in_magazines,
        ledger.free_in_pools,
        ledger.empty_pools,
        ledger.metadata,
        ledger.returned
    ));
    if let Some(libc) = ledger.libc {
        text::log(format_args!(
            "the C library's malloc: {} in use, {} kept",
            libc.in_use, libc.kept
        ));
    }
    if let Some(bytes) = ledger.process {
        text::log(format_args!("the process in memory: {bytes}"));
    }
}
