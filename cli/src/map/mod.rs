//! `obmalloc map`: the heap as a picture, in the terminal or as a page of HTML.

pub mod colours;
pub mod html;
pub mod legend;
pub mod picture;
pub mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::{Failure, USAGE};
use crate::library;
use crate::live::Live;
use crate::open::{self, Named};
use crate::output;
use crate::summary::Below;
use terminal::{Colours, Terminal};

const EXAMPLES: &str = "Examples:
  obmalloc map 4711                                    the heap of a process, here
  obmalloc map before.map after.map --html heap.html   two snapshots, for a browser
  obmalloc map 4711 --every 5 --count 12 --html heap.html";

/// Show a heap as a picture: each cell a page, its colour the block size, its shade how full
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A file with a snapshot, or a process that runs with OBMALLOC_STATS_PAGE=1; several files
    /// are shown one after the other
    #[arg(required = true, value_name = "PID|FILE")]
    of: Vec<String>,
    /// With a process: take a snapshot every SECONDS
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// With --every: the number of snapshots
    #[arg(long, value_name = "N", requires = "every", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write one page of HTML with all snapshots instead, for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Pages that are less full than this count as nearly empty, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 25.0, value_parser = crate::summary::percent)]
    below: f64,
    /// Maximum of lines of the picture; pages are merged until it fits
    #[arg(long, value_name = "LINES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_rows: u32,
    /// Columns of the picture (default: those of the terminal)
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(20..))]
    width: Option<u16>,
    /// Colours, even if stdout is not a terminal
    #[arg(long)]
    color: bool,
    /// Letters instead of colours
    #[arg(long, conflicts_with = "color")]
    no_color: bool,
}

/// Shows the picture.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let below = Below(options.below);
    if let Some(html) = &options.html {
        let mut snapshots = Vec::new();
        each(options, |named| {
            snapshots.push(named);
            Ok(())
        })?;
        fs::write(html, html::page(&snapshots, below)).map_err(|error| {
            let what = format!(
                "cannot write {}: {}",
                html.display(),
                library::reason(&error)
            );
            Failure::new(what, "name a file in a folder that is yours")
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let terminal = Terminal {
        colours: Colours::of_options(options.color, options.no_color),
        width: terminal::width(options.width),
        lines: options.max_rows as usize,
        below,
    };
    let mut gap = "";
    each(options, |named| {
        output::print(&format!("{gap}{}", terminal.show(&named)))?;
        gap = "\n";
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Calls `with` for each snapshot. With --every, the end of the process after its first snapshot
/// is no failure.
fn each(
    options: &Options,
    mut with: impl FnMut(Named) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(every) = options.every else {
        return options.of.iter().try_for_each(|of| with(open::named(of)?));
    };
    let [of] = options.of.as_slice() else {
        let next = "name one process, or leave out --every";
        return Err(Failure::new("--every is for one process", next).status(USAGE));
    };
    let Some(pid) = open::pid(of) else {
        let what = format!("--every is for a process, and {of} is none");
        return Err(Failure::new(what, "name its number").status(USAGE));
    };
    let (live, begin) = (Live::open(pid)?, Instant::now());
    for n in 0..options.count.unwrap_or(u64::MAX) {
        let due = Duration::from_secs(every.saturating_mul(n));
        thread::sleep(due.saturating_sub(begin.elapsed()));
        let name = format!("after {} s", begin.elapsed().as_secs());
        match open::process(&live, name) {
            Ok(named) => with(named)?,
            Err(failure) if n > 0 && !Path::new(&format!("/proc/{pid}")).exists() => {
                output::say(&failure);
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}
