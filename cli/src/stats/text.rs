//! The breakdown for people.

use std::fmt::Write;

use format::counters::{COUNTERS, UNKNOWN, Unit};

use crate::output::Table;
use crate::rss::Breakdown;
use crate::units::{self, bytes, count, percent};

/// All of it.
pub fn of(breakdown: &Breakdown) -> String {
    let mut out = String::new();
    let host = breakdown.host_title();
    let (pid, version) = (breakdown.pid, &breakdown.version);
    let _ = writeln!(out, "process {pid}: {host}, obmalloc {version}");
    if let Some(stale) = &breakdown.stale {
        let _ = writeln!(out, "{stale}");
    }
    lines(&mut out, memory(breakdown));
    sections(&mut out, breakdown);
    let _ = writeln!(out);
    lines(&mut out, classes(breakdown));
    out
}

fn lines(out: &mut String, table: Table) {
    for line in table.lines() {
        let _ = writeln!(out, "{line}");
    }
}

/// The table of the RSS.
fn memory(breakdown: &Breakdown) -> Table {
    let parts = breakdown.parts();
    let total = breakdown.counters.resident.total;
    let whole = parts.map_or(total, |parts| parts.rss);
    let mut table = Table::new(1, &["in memory", "", ""]);
    let mut row = |indent: &str, name: &str, number: u64| {
        table.row(vec![
            format!("{indent}{name}"),
            bytes(number),
            percent(number, whole),
        ]);
    };
    if let Some(parts) = parts {
        row("", "process (RSS)", parts.rss);
    }
    row("  ", "obmalloc", parts.map_or(total, |parts| parts.ours));
    for (name, number) in breakdown.ours() {
        row("    ", name, number);
    }
    for (name, number) in breakdown.others() {
        row("  ", name, number);
    }
    table
}

/// A line for each section of counters, by their names in the JSON; those of the table above
/// are left out.
fn sections(out: &mut String, breakdown: &Breakdown) {
    let mut last = None;
    for (counter, word) in COUNTERS.iter().zip(breakdown.counters.values()) {
        let is_above = counter.section == "resident" && counter.name != "returned_total";
        let Some(value) = counter.known(word).filter(|_| !is_above) else {
            continue;
        };
        let value = match counter.unit {
            Unit::Bytes => bytes(value.cast_unsigned()),
            Unit::Count if value < 0 => value.to_string(),
            Unit::Count => count(value.cast_unsigned()),
        };
        if last == Some(counter.section) {
            let _ = write!(out, ", {} {value}", counter.name);
        } else {
            let section = if counter.section.is_empty() {
                "process"
            } else {
                counter.section
            };
            let _ = write!(out, "\n{section}: {} {value}", counter.name);
        }
        last = Some(counter.section);
    }
    let _ = writeln!(out);
}

/// The classes, the one with the most live bytes first.
fn classes(breakdown: &Breakdown) -> Table {
    let head = [
        "",
        "size",
        "pools",
        "live",
        "cached",
        "free",
        "live bytes",
        "in memory",
    ];
    let mut table = Table::new(1, &head);
    let mut all: Vec<_> = breakdown.classes.iter().map(|(_, class)| class).collect();
    all.sort_by_key(|class| std::cmp::Reverse(class.size * class.blocks_live));
    for class in &all {
        let resident = if class.resident == UNKNOWN {
            "-".into()
        } else {
            bytes(class.resident)
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
        table.row(vec![units::of(0, "block")]);
    }
    table
}
