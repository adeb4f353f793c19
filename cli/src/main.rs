//! The command `obmalloc`: starts programs with the library, checks whether it is active, and
//! shows the heap of a running program.
//!
//! A module for each subcommand, with its options (clap takes their comments as help texts) and
//! a function `main`; below them the shared modules.
//!
//! ```text
//!   main      the enum of subcommands
//!   run  ...  one module each
//!   words     from the words after `run` to the command that is executed
//!   exec      execution of that command     preload   LD_PRELOAD as a list
//!   library   where libobmalloc.so is       program   where the program is
//!   settings  the library's settings        elf       ELF headers, by the crate object
//!   open      a snapshot of a file, or of a process
//!   snapshot  a snapshot, read and checked  summary   sums over its pages
//!   live      the stats page of a process   stale     why a page is old
//!   rss       the breakdown of the RSS      schema    the counters, for the Python package
//!   output    text, tables                  units     numbers for people
//!   profile   heap profiles, for the subcommands profile, report and diff
//!   failure   one line: the error, and the next step
//!   fixtures  snapshots for tests
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::std_instead_of_core,
    reason = "a command uses std and writes to its terminal"
)]
#![allow(unreachable_pub, reason = "a binary exports nothing")]

mod doctor;
mod elf;
mod exec;
mod failure;
#[cfg(test)]
mod fixtures;
mod library;
mod live;
mod man;
mod map;
mod open;
mod output;
mod path;
mod pinned;
mod preload;
mod profile;
mod program;
mod ps;
mod rss;
mod run;
mod schema;
mod settings;
mod snapshot;
mod stale;
mod stats;
mod summary;
mod top;
mod types;
mod units;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// Memory of Python programs, by obmalloc.
///
/// The library libobmalloc.so replaces CPython's allocator of small objects and returns free
/// memory to the system, page by page. This command starts programs with it, checks whether it
/// is active, and shows the heap of a running program.
#[derive(Parser)]
#[command(
    name = "obmalloc",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(after_help = EXAMPLES)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "Examples:
  obmalloc doctor                      is it active in this machine's python3?
  obmalloc run app.py                  start a program with it
  obmalloc map PID                     a picture of its heap
  obmalloc types PID                   the types of its objects
  obmalloc pins PID                    what keeps nearly empty pages in memory
  obmalloc profile PID                 which lines hold its memory

`obmalloc COMMAND --help` has more, and an example of each.";

#[derive(Subcommand)]
enum Action {
    Run(run::Options),
    Doctor(doctor::Options),
    Ps(ps::Options),
    Stats(stats::Options),
    Top(top::Options),
    Map(map::Options),
    Pins(pinned::Options),
    Types(types::Options),
    Profile(profile::command::Options),
    Report(profile::report::Options),
    Diff(profile::diff::Options),
    Path(path::Options),
    Settings(settings::Options),
    #[command(hide = true)]
    Schema,
    #[command(hide = true)]
    Man(man::Options),
}

fn main() -> ExitCode {
    // A closed pipe ends this command quietly, by SIGPIPE.
    exec::restore_sigpipe();
    let command = Command::parse();
    let done = match command.action {
        Action::Run(options) => run::main(&options),
        Action::Doctor(options) => doctor::main(&options),
        Action::Ps(options) => ps::main(&options),
        Action::Stats(options) => stats::main(&options),
        Action::Top(options) => top::main(&options),
        Action::Schema => schema::main(),
        Action::Man(options) => man::main(&options),
        Action::Map(options) => map::main(&options),
        Action::Pins(options) => pinned::main(&options),
        Action::Types(options) => types::main(&options),
        Action::Profile(options) => profile::command::main(&options),
        Action::Report(options) => profile::report::main(&options),
        Action::Diff(options) => profile::diff::main(&options),
        Action::Path(options) => path::main(&options),
        Action::Settings(options) => settings::main(&options),
    };
    done.unwrap_or_else(Failure::report)
}
