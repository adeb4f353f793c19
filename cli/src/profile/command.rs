//! `obmalloc profile`: the heap profile of a running process.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use format::options::{Kind, Value};

use super::model::Profile;
use super::options::{self, write};
use super::process::Processes;
use super::{Shown, server, writer};
use crate::failure::{Failure, USAGE};
use crate::live::Live;
use crate::{open, output, units};

const EXAMPLES: &str = "Examples:
  obmalloc profile 4711                   the lines that hold the most memory
  obmalloc profile 4711 --start           switch the profiler on, where it is off
  obmalloc profile 4711 --growth 60s      the lines that grow: leaks
  obmalloc profile 4711 --http            a flame graph in a browser
  obmalloc profile 4711 -o heap.pb.gz     a file for report, diff and `go tool pprof`";

/// Show which lines hold the memory of a running process, and which grow
///
/// Of a process that runs with OBMALLOC_PROFILE=512K (`obmalloc run --profile`), or with
/// OBMALLOC_STATS_PAGE=1 after --start. The process is not stopped.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A process
    #[arg(value_name = "PID")]
    of: String,
    /// Look at its descendants, too
    #[arg(long)]
    children: bool,
    #[command(flatten)]
    options: options::Options,
    /// Write the profile to a file; - for stdout
    #[arg(short, long, value_name = "OUT.pb.gz")]
    out: Option<PathBuf>,
    /// Switch the profiler on, with a sample each INTERVAL bytes on average (default: 512K; 1:
    /// every allocation)
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true,
          default_missing_value = "0", value_parser = interval, group = "action")]
    start: Option<u32>,
    /// Switch the profiler off
    #[arg(long, group = "action")]
    stop: bool,
    /// Look twice, with this time between: the lines that grew, by minute
    #[arg(long, value_name = "TIME", value_parser = units::duration, group = "action")]
    growth: Option<Duration>,
    /// Serve a flame graph on this address (default: a free port of 127.0.0.1), until Ctrl-C
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:0",
          group = "action", conflicts_with_all = ["output", "out"])]
    http: Option<String>,
}

/// Does what the options say.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let Some(pid) = open::pid(&options.of) else {
        let what = format!("{} is not the number of a process", options.of);
        let next = "give the PID of one; `obmalloc report` is for files";
        return Err(Failure::new(what, next).status(USAGE));
    };
    let processes = Processes {
        pid,
        children: options.children,
    };
    if let Some(interval) = options.start {
        return switch(processes, "on", |live| live.start_profile(interval));
    }
    if options.stop {
        return switch(processes, "off", Live::stop_profile);
    }
    if let Some(address) = &options.http {
        return server::main(processes, address, options.options.view());
    }
    let title = if options.children {
        format!("process {pid} and its descendants")
    } else {
        format!("process {pid} now")
    };
    let is_shown = options.out.is_none() || options.options.is_chosen();
    let (profile, bytes) = processes.profile()?;
    let Some(time) = options.growth else {
        if let Some(path) = &options.out {
            write(path, &bytes)?;
        }
        if is_shown {
            options.options.show(&Shown::one(&title, &profile))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let (before, begin) = (profile, Instant::now());
    if io::stderr().is_terminal() {
        output::say(&format!(
            "obmalloc: the second look is in {} s",
            time.as_secs_f64()
        ));
    }
    thread::sleep(time);
    let (after, _) = processes.profile()?;
    let elapsed = begin.elapsed().as_secs_f64();
    if let Some(path) = &options.out {
        write(path, &writer::write(&Profile::difference(&before, &after)))?;
    }
    if is_shown {
        options.options.show(&Shown {
            title: format!("{title}, growth in {elapsed:.0} s"),
            before: Some(&before),
            after: &after,
            minutes: Some(elapsed / 60.0),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Switches the profiler on or off.
fn switch(
    processes: Processes,
    state: &str,
    with: impl Fn(&Live) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    processes.each(|pid| {
        with(&Live::open(pid)?)?;
        output::print(&format!("process {pid}: the profiler is {state}\n"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Bytes, as the library's settings have them.
fn interval(text: &str) -> Result<u32, String> {
    match Kind::Bytes(0, u32::MAX.into()).parse(text.as_bytes()) {
        Some(Value::Number(bytes)) => u32::try_from(bytes).map_err(|error| error.to_string()),
        _ => Err("a number of bytes up to 4095M, as 512K".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read() {
        assert_eq!(interval("1"), Ok(1));
        assert_eq!(interval("512K"), Ok(512 << 10));
        assert_eq!(interval("2m"), Ok(2 << 20));
        for wrong in ["", "K", "-1", "4096M", "1.5K", "12x", "\u{212a}"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
