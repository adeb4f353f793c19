//! `obmalloc types`: the memory of a heap by the types of its objects.

use std::cmp::Reverse;
use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::map::legend;
use crate::open::{self, Named};
use crate::output::{self, Table};
use crate::snapshot::Snapshot;
use crate::units;

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// Show the types of the objects in a heap: their number and their bytes
///
/// Of a process that runs with OBMALLOC_STATS_PAGE=1 (`obmalloc run --stats-page`), or of a snapshot.
/// The process is not stopped. Bytes are those of the blocks, which are up to 15 bytes longer than the
/// objects. Requests above the largest size class (OBMALLOC_POOL_MAX) are not among them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A process, or a file with a snapshot
    #[arg(value_name = "PID|FILE")]
    of: String,
    /// The most rows of the table
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Print JSON, with all types
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  obmalloc types 4711
  obmalloc types heap.map --json | jq '.types[:3]'";

/// Shows the table.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let named = open::typed(&options.of)?;
    let Some(sums) = Sums::of(&named.heap) else {
        return Err(Failure::new(
            format!("{} has no types of objects", options.of),
            "types are read of CPython 2.7 and later, except debug and free-threaded builds; update \
             the library if it is older than the command",
        ));
    };
    let text = if options.json {
        format!("{:#}\n", json(&named, &sums))
    } else {
        text(&named, &sums, options.top)
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    blocks: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, blocks: u64, size: u32) {
        self.blocks = self.blocks.saturating_add(blocks);
        self.bytes = self
            .bytes
            .saturating_add(blocks.saturating_mul(size.into()));
    }

    fn without(self, other: Sum) -> Sum {
        Sum {
            blocks: self.blocks.saturating_sub(other.blocks),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// The blocks of a type.
struct Row {
    name: String,
    /// Whether they are objects, not blocks that objects own.
    is_object: bool,
    sum: Sum,
}

/// The taken blocks of a heap, by type.
struct Sums {
    /// All of them, and those of known type.
    taken: Sum,
    known: Sum,
    /// The types that have blocks, the one with the most bytes first.
    rows: Vec<Row>,
}

impl Sums {
    /// The sums over a heap; `None` if the snapshot has no types.
    fn of(heap: &Snapshot) -> Option<Sums> {
        let types = heap.types.as_ref()?;
        let (mut taken, mut known) = (Sum::default(), Sum::default());
        for cut in heap.pools.iter().filter_map(|pool| pool.cut) {
            taken.add(cut.taken.into(), cut.size);
        }
        let mut sums = vec![Sum::default(); types.names.len()];
        heap.each_group(types, |group| {
            known.add(group.blocks, group.size);
            if let Some(sum) = sums.get_mut(group.name) {
                sum.add(group.blocks, group.size);
            }
        });
        let rows = types.names.iter().zip(sums).enumerate();
        let rows = rows.map(|(n, (name, sum))| Row {
            name: name.clone(),
            is_object: n >= types.parts,
            sum,
        });
        let mut rows: Vec<Row> = rows.filter(|row| row.sum.blocks > 0).collect();
        rows.sort_by(|a, b| {
            let key = |row: &Row| Reverse((row.sum.bytes, row.sum.blocks));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        Some(Sums { taken, known, rows })
    }
}

fn text(named: &Named, sums: &Sums, top: usize) -> String {
    let mut out = format!(
        "{}\n{} in {}, {} of that free in magazines; the type of {} is known.\n\n",
        legend::title(named),
        units::bytes(sums.taken.bytes),
        units::of(sums.taken.blocks, "block"),
        units::bytes(named.heap.in_magazines),
        units::percent(sums.known.blocks, sums.taken.blocks),
    );
    let mut table = Table::new(1, &["type", "blocks", "bytes", "of all"]);
    let mut row = |name: &str, sum: Sum| {
        table.row(vec![
            name.into(),
            units::count(sum.blocks),
            units::bytes(sum.bytes),
            units::percent(sum.bytes, sums.taken.bytes),
        ]);
    };
    for each in sums.rows.iter().take(top) {
        row(&each.name, each.sum);
    }
    let hidden = sums.rows.get(top..).unwrap_or_default();
    if !hidden.is_empty() {
        let mut rest = Sum::default();
        for each in hidden {
            rest.blocks += each.sum.blocks;
            rest.bytes += each.sum.bytes;
        }
        let types = units::of(hidden.len() as u64, "other type");
        row(&format!("{types} (--top)"), rest);
    }
    row("(unknown or free)", sums.taken.without(sums.known));
    for line in table.lines() {
        let _ = writeln!(out, "{line}");
    }
    out
}

fn json(named: &Named, sums: &Sums) -> Value {
    let sum = |sum: Sum| json!({ "blocks": sum.blocks, "bytes": sum.bytes });
    let types = sums.rows.iter().map(|row| {
        json!({
            "type": row.name,
            "is_object": row.is_object,
            "blocks": row.sum.blocks,
            "bytes": row.sum.bytes,
        })
    });
    json!({
        "schema": SCHEMA,
        "pid": named.heap.pid,
        "host": named.heap.host,
        "version": named.heap.version,
        "made_ms": named.heap.real_ms,
        "taken": sum(sums.taken),
        "known": sum(sums.known),
        "bytes_in_magazines": named.heap.in_magazines,
        "types": types.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Heap, Pool};

    fn heap(by_page: bool) -> Named {
        let base = 0x7000_0000;
        let at = |n: u64| base + 48 + n * 64;
        // Block 63 is on the pages 0 and 1.
        let blocks = [(5, 0), (6, 1), (7, 1), (63, 2), (64, 1)];
        Named {
            name: "test".into(),
            heap: Heap {
                arenas: vec![(base, vec![Pool::of(8, 64, |n| n < 100)])],
                types: Some((
                    vec!["dict keys", "int", "app.Session"],
                    blocks.map(|(n, name)| (at(n), name)).into(),
                )),
                by_page,
                ..Heap::default()
            }
            .read(),
        }
    }

    #[test]
    fn both_forms_have_the_same_sums() {
        let forms = [false, true].map(|by_page| {
            let named = heap(by_page);
            let sums = Sums::of(&named.heap).unwrap();
            (text(&named, &sums, 20), json(&named, &sums).to_string())
        });
        assert_eq!(forms[0], forms[1]);
    }

    #[test]
    fn the_type_with_the_most_bytes_is_first() {
        let named = heap(true);
        let sums = Sums::of(&named.heap).unwrap();
        assert_eq!((sums.taken.blocks, sums.known.blocks), (100, 5));
        let rows = sums.rows.iter();
        let rows: Vec<_> = rows.map(|row| (&*row.name, row.sum.blocks)).collect();
        assert_eq!(rows, [("int", 3), ("app.Session", 1), ("dict keys", 1)]);
        let text = text(&named, &sums, 1);
        let line = |n: usize| {
            text.lines()
                .nth(n)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_eq!(line(4), ["int", "3", "192", "B", "3.0", "%"], "{text}");
        assert!(text.contains("2 other types (--top)"), "{text}");
        assert_eq!(line(6).join(" "), "(unknown or free) 95 5.9 KiB 95 %");
    }

    #[test]
    fn blocks_that_objects_own_are_marked() {
        let named = heap(true);
        let said = json(&named, &Sums::of(&named.heap).unwrap());
        let types = said["types"].as_array().unwrap().iter();
        let objects: Vec<_> = types.filter(|of| of["is_object"] == true).collect();
        assert_eq!(objects.len(), 2, "{said}");
        assert_eq!(said["known"]["bytes"], 320);
    }

    #[test]
    fn a_snapshot_may_have_no_types() {
        let bare = Heap {
            types: None,
            ..Heap::example()
        };
        assert!(Sums::of(&bare.read()).is_none());
    }
}
