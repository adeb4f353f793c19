//! A line for each sample.

use std::thread;

use super::watch::{Rates, Shown, Watch};
use crate::failure::Failure;
use crate::output;
use crate::units::{bytes, count};

const COLUMNS: [&str; 12] = [
    "RSS",
    "ours",
    "live",
    "cached",
    "free",
    "empty",
    "C library",
    "files",
    "other",
    "returned/s",
    "misses/s",
    "faults/s",
];
const WIDTH: usize = 10;

/// Prints all samples.
pub fn show(mut watch: Watch) -> Result<(), Failure> {
    let mut lines = 0;
    while let Some(shown) = watch.look()? {
        if lines % 20 == 0 {
            output::print(&line(&COLUMNS.map(String::from)))?;
        }
        output::print(&line(&cells(&shown)))?;
        lines += 1;
        if watch.goes_on() {
            thread::sleep(watch.interval);
        }
    }
    Ok(())
}

fn line(cells: &[String; 12]) -> String {
    let cells = cells.iter().map(|cell| format!("{cell:>WIDTH$}"));
    cells.collect::<Vec<_>>().join(" ") + "\n"
}

fn cells(shown: &Shown<'_>) -> [String; 12] {
    let resident = &shown.breakdown.counters.resident;
    let parts = shown.breakdown.parts();
    let part = |number: Option<u64>| number.map_or("-".to_string(), bytes);
    let rate = |of: fn(&Rates) -> f64, say: fn(u64) -> String| {
        shown
            .rates
            .map_or("-".to_string(), |rates| say(of(&rates) as u64))
    };
    [
        part(parts.map(|parts| parts.rss)),
        bytes(resident.total),
        bytes(resident.live),
        bytes(resident.in_magazines),
        bytes(resident.free_in_pools),
        bytes(resident.empty_pools),
        part(parts.map(|parts| parts.libc_in_use + parts.libc_kept)),
        part(parts.map(|parts| parts.files)),
        part(parts.map(|parts| parts.other)),
        rate(|rates| rates.returned, bytes),
        rate(|rates| rates.misses, count),
        rate(|rates| rates.faults, count),
    ]
}
