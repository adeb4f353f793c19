//! `obmalloc top`: the breakdown of a process's RSS, repeatedly.
//!
//! ```text
//!   watch   reads the stats page at each interval    -> Sample, rates
//!   screen  draws it on a terminal                   plain   prints a line
//! ```

mod plain;
mod screen;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::failure::{Failure, USAGE};
use crate::open;
use watch::Watch;

/// Watch where a process's memory is, live: its parts, size classes, rates
///
/// The process must run with OBMALLOC_STATS_PAGE=1 (`obmalloc run --stats-page`). Each sample takes
/// about 40 microseconds in a thread of the library; the process is not stopped.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The process
    #[arg(value_name = "PID")]
    of: String,
    /// Seconds between two samples
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// End after N samples
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one line per sample (default if stdout is not a terminal)
    #[arg(long)]
    plain: bool,
}

const EXAMPLES: &str = "Keys: q or Ctrl-C ends it, s sorts the classes by another column.

Examples:
  obmalloc top 4711
  obmalloc top 4711 --plain --interval 10 >> memory.log";

/// Shows the samples.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let Some(pid) = open::pid(&options.of) else {
        let what = format!("{} is not the number of a process", options.of);
        let next = "give the PID of one that runs with OBMALLOC_STATS_PAGE=1";
        return Err(Failure::new(what, next).status(USAGE));
    };
    let interval = Duration::from_secs_f64(options.interval);
    let watch = Watch::begin(pid, interval, options.count)?;
    if options.plain || !std::io::stdout().is_terminal() {
        plain::show(watch)?;
    } else {
        screen::show(watch)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number".to_string())?;
    if (0.05..=86400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("from 0.05 to 86400 seconds".into())
    }
}
