//! `obmalloc map`: the heap as a picture, in the terminal or as a page of HTML.

pub mod colours;
pub mod legend;
pub mod picture;
pub mod terminal;

use std::process::ExitCode;

use clap::Args;

use crate::failure::Failure;
use crate::output;
use crate::source;
use crate::tally::Below;
use terminal::{Colours, Terminal};

/// Show a heap as a picture: each cell a page, its colour the block size, its shade how full
#[derive(Args)]
pub struct Options {
    /// A file with a snapshot, or a process that runs with OBMALLOC_LIVE=1; several files
    /// are shown one after the other
    #[arg(required = true, value_name = "PID|FILE")]
    of: Vec<String>,
    /// Pages that are less full than this count as nearly empty, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 25.0, value_parser = crate::tally::percent)]
    below: f64,
    /// The most lines that the picture may take; pages are merged until it fits
    #[arg(long, value_name = "LINES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_rows: u32,
    /// Columns to fill, if not those of the terminal
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(20..))]
    width: Option<u16>,
    /// Colours, though stdout is no terminal
    #[arg(long)]
    color: bool,
    /// Letters instead of colours
    #[arg(long, conflicts_with = "color")]
    no_color: bool,
}

/// Shows the picture.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let terminal = Terminal {
        colours: Colours::asked_for(options.color, options.no_color),
        width: terminal::width(options.width),
        lines: options.max_rows as usize,
        below: Below(options.below),
    };
    for (n, of) in options.of.iter().enumerate() {
        let named = source::file(of)?;
        let gap = if n > 0 { "\n" } else { "" };
        output::print(&format!("{gap}{}", terminal.show(&named)))?;
    }
    Ok(ExitCode::SUCCESS)
}
