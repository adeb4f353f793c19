//! The ledger for people.

use std::fmt::Write;

use crate::amounts::{bytes, count, of as counted, percent};
use crate::ledger::{Ledger, known};
use crate::output::Table;

/// All of it.
pub fn of(ledger: &Ledger) -> String {
    let s = &ledger.statistics;
    let mut out = String::new();
    let host = ledger
        .host()
        .map_or("no CPython".into(), |host| format!("CPython {host}"));
    let _ = writeln!(
        out,
        "process {}: {host}, obmalloc {}",
        s.pid,
        ledger.version()
    );
    if let Some(stale) = &ledger.stale {
        let _ = writeln!(out, "{stale}");
    }
    lines(&mut out, memory(ledger));
    let arenas = &s.arenas;
    let _ = writeln!(
        out,
        "\narenas of {}: {} in use, {} empty; {} at the most, {} came and {} went\n\
         pools of {}: {} used, {} full, {} free\n\
         given back to the kernel so far: {}",
        bytes(arenas.size),
        count(arenas.in_use),
        count(arenas.empty),
        count(arenas.highwater),
        count(arenas.mapped_total),
        count(arenas.unmapped_total),
        bytes(s.pools.size),
        count(s.pools.used),
        count(s.pools.full),
        count(s.pools.free),
        bytes(s.resident.returned_total),
    );
    let _ = writeln!(
        out,
        "larger requests, served by the C library: {} so far, {} blocks of them live",
        count(s.large.served_below_total),
        s.large.blocks_live
    );
    if let Some(in_use) = known(s.libc_in_use) {
        let _ = writeln!(
            out,
            "the C library's malloc: {} in use, {} kept (in memory or not)",
            bytes(in_use),
            bytes(s.libc_kept)
        );
    }
    let _ = writeln!(out);
    lines(&mut out, classes(ledger));
    out
}

fn lines(out: &mut String, table: Table) {
    for line in table.lines() {
        let _ = writeln!(out, "{line}");
    }
}

/// Where the memory is.
pub fn memory(ledger: &Ledger) -> Table {
    let s = &ledger.statistics;
    let parts = ledger.parts();
    let whole = parts.map_or(s.resident.total, |parts| parts.rss);
    let mut table = Table::new(1, &["in memory", "", ""]);
    let mut row = |name: &str, number: u64| {
        table.row(vec![name.into(), bytes(number), percent(number, whole)]);
    };
    if let Some(parts) = parts {
        row("process (RSS)", parts.rss);
    }
    row(
        "  obmalloc",
        parts.map_or(s.resident.total, |parts| parts.ours),
    );
    row("    live blocks", s.resident.live);
    row("    at hand in threads", s.resident.in_magazines);
    row("    free, on pages in use", s.resident.free_in_pools);
    row("    empty pools", s.resident.empty_pools);
    row("    records", s.resident.metadata);
    if let Some(parts) = parts {
        row("  C library, in use", parts.libc_in_use);
        row("  C library, kept", parts.libc_kept);
        row("  files and shared", parts.files);
        row("  other", parts.other);
    }
    table
}

/// The classes, the largest first.
fn classes(ledger: &Ledger) -> Table {
    let head = [
        "",
        "size",
        "pools",
        "live",
        "at hand",
        "free",
        "live bytes",
        "in memory",
    ];
    let mut table = Table::new(1, &head);
    let mut all: Vec<_> = ledger.classes().collect();
    all.sort_by_key(|(_, class)| std::cmp::Reverse(class.size * class.blocks_live));
    for (_, class) in &all {
        let resident = if ledger.has_all {
            bytes(class.resident)
        } else {
            "-".into()
        };
        table.row(vec![
            String::new(),
            count(class.size),
            count(class.pools),
            count(class.blocks_live),
            count(class.blocks_in_magazines),
            count(class.blocks_free),
            bytes(class.size * class.blocks_live),
            resident,
        ]);
    }
    if all.is_empty() {
        table.row(vec![counted(0, "block")]);
    }
    table
}
