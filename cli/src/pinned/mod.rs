//! `obmalloc pins`: the blocks that keep nearly empty pages resident.

pub mod survivors;

use std::cmp::Reverse;
use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::map::legend;
use crate::open::{self, Named};
use crate::output::{self, Table};
use crate::snapshot::PAGE;
use crate::summary::{Below, Class, Summary};
use crate::units;
use survivors::Survivors;

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// Show what keeps nearly empty pages in memory: block sizes, pages and survivors
#[derive(Args)]
#[command(after_help = "Example: obmalloc pins heap.map --below 10%")]
pub struct Options {
    /// A file with a snapshot, or a process that runs with OBMALLOC_STATS_PAGE=1
    #[arg(value_name = "PID|FILE")]
    of: String,
    /// Pages that are less full than this count as nearly empty, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 25.0, value_parser = crate::summary::percent)]
    below: f64,
    /// The most rows of each table
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// All of it, for programs
    #[arg(long)]
    json: bool,
}

/// Shows the tables.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let named = open::typed(&options.of)?;
    let below = Below(options.below);
    let text = if options.json {
        format!("{:#}\n", json(&named, below))
    } else {
        text(&named, below, options.top)
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn memory(pages: u64) -> u64 {
    pages * u64::from(PAGE)
}

/// The tables, after a summary.
pub fn text(named: &Named, below: Below, top: usize) -> String {
    let summary = Summary::of(&named.heap, below);
    let total = summary.total();
    let mut out = format!(
        "{}\n{}\n",
        legend::title(named),
        legend::nearly_empty(&total, below.0).replace("): ", "):\n")
    );
    if total.nearly_empty == 0 {
        return out;
    }
    let _ = writeln!(
        out,
        "{} of that is free. If the survivors moved, {} would be freed.\n",
        units::bytes(total.held_back()),
        units::bytes(summary.would_be_freed())
    );
    for line in classes(&summary, top).lines() {
        let _ = writeln!(out, "{line}");
    }
    out.push('\n');
    match Survivors::of(&named.heap, below) {
        None => out.push_str(
            "The snapshot has no types of objects; Python's obmalloc.snapshot() writes them.\n",
        ),
        Some(survivors) => types(&mut out, &survivors, &total, top),
    }
    out
}

/// The table of classes.
fn classes(summary: &Summary, top: usize) -> Table {
    let mut classes: Vec<&Class> = summary.classes.iter().collect();
    classes.retain(|class| class.nearly_empty > 0);
    classes.sort_by_key(|class| Reverse(class.nearly_empty));
    let head = [
        "block size",
        "pages in memory",
        "nearly empty",
        "their memory",
        "pinned",
        "survivors",
        "would be freed",
    ];
    let mut table = Table::new(0, &head);
    let row = |size: String, class: &Class, back: u64| {
        vec![
            size,
            units::count(class.here),
            units::count(class.nearly_empty),
            units::bytes(memory(class.nearly_empty)),
            units::bytes(class.held_back()),
            units::count(class.survivors),
            units::bytes(back),
        ]
    };
    for class in classes.iter().take(top) {
        table.row(row(class.size.to_string(), class, class.would_be_freed()));
    }
    let others = classes.get(top..).unwrap_or_default();
    if !others.is_empty() {
        let mut sum = Class::default();
        others.iter().for_each(|class| sum.add(class));
        let back = others.iter().map(|class| class.would_be_freed()).sum();
        table.row(row(format!("{} others", others.len()), &sum, back));
    }
    if classes.len() > 1 {
        let total = summary.total();
        table.row(row("all sizes".into(), &total, summary.would_be_freed()));
    }
    table
}

/// The table of types.
fn types(out: &mut String, survivors: &Survivors, total: &Class, top: usize) {
    let _ = writeln!(
        out,
        "The type of {} of the {} survivors is known; of all blocks, that of {}.",
        units::count(survivors.known),
        units::count(total.survivors),
        units::percent(survivors.known_anywhere, total.blocks),
    );
    if survivors.types.is_empty() {
        return;
    }
    let head = [
        "type",
        "survivors",
        "pages",
        "alone on",
        "memory of the pages",
    ];
    let mut table = Table::new(1, &head);
    for of in survivors.types.iter().take(top) {
        table.row(vec![
            of.name.clone(),
            units::count(of.blocks),
            units::count(of.pages),
            units::count(of.alone),
            units::bytes(memory(of.pages)),
        ]);
    }
    for line in table.lines() {
        let _ = writeln!(out, "{line}");
    }
    let hidden = survivors.types.len().saturating_sub(top);
    if hidden > 0 {
        let _ = writeln!(
            out,
            "and {} (--top)",
            units::of(hidden as u64, "other type")
        );
    }
    out.push_str("A page counts for each type that has a survivor on it.\n");
}

/// The tables as JSON, with all classes and types.
pub fn json(named: &Named, below: Below) -> Value {
    let summary = Summary::of(&named.heap, below);
    let row = |class: &Class, back: u64| {
        json!({
            "pools": class.pools,
            "blocks": class.blocks,
            "pages_resident": class.here,
            "pages_nearly_empty": class.nearly_empty,
            "bytes_nearly_empty": memory(class.nearly_empty),
            "bytes_pinned": class.held_back(),
            "survivors": class.survivors,
            "survivor_bytes": class.surviving_bytes,
            "bytes_would_come_back": back,
        })
    };
    let classes = summary.classes.iter().map(|class| {
        let mut value = row(class, class.would_be_freed());
        value["size"] = class.size.into();
        value
    });
    let objects = Survivors::of(&named.heap, below).map(|survivors| {
        let types = survivors.types.iter().map(|of| {
            json!({
                "type": of.name, "survivors": of.blocks,
                "pages": of.pages, "pages_alone": of.alone,
            })
        });
        json!({
            "survivors_known": survivors.known,
            "blocks_known": survivors.known_anywhere,
            "types": types.collect::<Vec<_>>(),
        })
    });
    json!({
        "schema": SCHEMA,
        "pid": named.heap.pid,
        "host": named.heap.host,
        "version": named.heap.version,
        "made_ms": named.heap.real_ms,
        "below_percent": below.0,
        "total": row(&summary.total(), summary.would_be_freed()),
        "classes": classes.collect::<Vec<_>>(),
        "objects": objects,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Heap;

    fn example() -> Named {
        Named {
            name: "test".into(),
            heap: Heap::example().read(),
        }
    }

    #[test]
    fn the_table_names_the_classes_that_pin() {
        let text = text(&example(), Below::USUAL, 20);
        // Of 512: each 16th, so one of 512 bytes on each second page.
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with("512 "));
        let line = line.unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(
            line.join(" "),
            "512 8 8 32.0 KiB 28.0 KiB 8 28.0 KiB",
            "{text}"
        );
        let half_full = text
            .lines()
            .any(|line| line.trim_start().starts_with("1024 "));
        assert!(!half_full, "half full pages are not nearly empty");
        assert!(text.contains("str ") && !text.contains("dict "), "{text}");
    }

    #[test]
    fn a_threshold_of_nothing_finds_nothing() {
        let text = text(&example(), Below(0.0), 20);
        assert!(text.contains("No page is nearly empty") && !text.contains("block size"));
    }

    #[test]
    fn json_has_the_same_sums() {
        let json = json(&example(), Below::USUAL);
        let classes = json["classes"].as_array().unwrap();
        for field in [
            "pages_nearly_empty",
            "survivors",
            "bytes_pinned",
            "bytes_would_come_back",
        ] {
            let of_classes = classes.iter().map(|class| class[field].as_u64().unwrap());
            assert_eq!(
                json["total"][field].as_u64(),
                Some(of_classes.sum()),
                "{field}"
            );
        }
        assert_eq!(json["objects"]["survivors_known"], 1);
        assert_eq!(json["objects"]["blocks_known"], 2);
    }
}
