//! Options of all subcommands about profiles, and the outputs that they choose.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use format::profile::{DEFAULT_SAMPLE_TYPE, SAMPLE_TYPES};

use super::group::By;
use super::value::Value;
use super::{Shown, View, flame, folded, speedscope, table};
use crate::failure::Failure;
use crate::library::reason;
use crate::output;

/// The options of an output.
#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// Show a table of the groups with the most memory (default)
    #[arg(long, group = "output")]
    top: bool,
    /// Write a flame graph: one page of HTML that needs no network; - for stdout
    #[arg(long, value_name = "OUT.html", group = "output")]
    flame: Option<PathBuf>,
    /// Write a file for speedscope; - for stdout
    #[arg(long, value_name = "OUT.json", group = "output")]
    speedscope: Option<PathBuf>,
    /// Print a line for each stack, for flamegraph.pl and others
    #[arg(long, group = "output")]
    collapsed: bool,
    /// Print JSON
    #[arg(long, group = "output")]
    json: bool,
    /// How the memory is grouped; a flame graph has line, function or module as its frames, another
    /// group as the outermost frame
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "line",
        hide_possible_values = false
    )]
    by: By,
    /// The number that is shown; pinned_space is the free memory on nearly empty pages, shared among
    /// the lines whose blocks keep them
    #[arg(long, value_name = "VALUE", default_value = DEFAULT_SAMPLE_TYPE, value_parser = values())]
    value: Value,
    /// The most rows of the table (default: 20; with --json all)
    #[arg(short = 'n', long, value_name = "ROWS")]
    rows: Option<usize>,
}

fn values() -> impl TypedValueParser<Value = Value> {
    let names = SAMPLE_TYPES.map(|(name, _)| name);
    PossibleValuesParser::new(names).map(|name| Value::named(&name).unwrap_or(Value::InuseSpace))
}

impl Options {
    /// Whether an output is chosen.
    pub fn is_chosen(&self) -> bool {
        let files = self.flame.is_some() || self.speedscope.is_some();
        files || self.top || self.collapsed || self.json
    }

    pub fn view(&self) -> View {
        View {
            by: self.by,
            value: self.value,
            rows: self.rows,
        }
    }

    /// Writes the chosen output.
    pub fn show(&self, shown: &Shown<'_>) -> Result<(), Failure> {
        let view = self.view();
        check(shown, self.value)?;
        if let Some(path) = &self.flame {
            return write(path, flame::page(shown, &view).as_bytes());
        }
        if let Some(path) = &self.speedscope {
            return write(
                path,
                format!("{}\n", speedscope::json(shown, &view)).as_bytes(),
            );
        }
        output::print(&if self.collapsed {
            folded::text(shown, &view)
        } else if self.json {
            format!("{:#}\n", table::json(shown, &view))
        } else {
            table::text(shown, &view)
        })
    }
}

/// Whether the profile has the value.
pub fn check(shown: &Shown<'_>, value: Value) -> Result<(), Failure> {
    if shown.after.has[value.at()] {
        return Ok(());
    }
    let names = SAMPLE_TYPES
        .iter()
        .zip(shown.after.has)
        .filter(|&(_, has)| has);
    let names: Vec<&str> = names.map(|(&(name, _), _)| name).collect();
    let what = format!("{} has no {}", shown.title, value.name());
    Err(Failure::new(
        what,
        match names.as_slice() {
            [] => "name a heap profile".into(),
            names => format!("choose another --value: {}", names.join(", ")),
        },
    ))
}

/// Writes a file; `-` is stdout.
pub fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        return output::print_bytes(bytes);
    }
    fs::write(path, bytes).map_err(|error| {
        let what = format!("cannot write {}: {}", path.display(), reason(&error));
        Failure::new(what, "name a file in a folder that is yours")
    })
}
