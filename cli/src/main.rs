//! The command `obmalloc`: starts programs with the library, says whether it is active,
//! and shows what it does.
//!
//! A module for each subcommand, with its options (clap reads their comments as help
//! texts) and a function `main`; below them what several need.
//!
//! ```text
//!   main      the enum of subcommands
//!   run  ...  one module each
//!   words     what `run` and `bench` execute
//!   preload   LD_PRELOAD as a list          settings  the library's options
//!   library   where libobmalloc.so is       program   where the program is
//!                                           elf       what the head of a file says
//!   snapshot  a heap, read and checked      source    from a file, or a process
//!   live      a process's live page         tally     sums over a heap
//!   stale     why a page is old
//!   output    text, tables                  amounts   numbers as people read them
//!   failure   one line: what; what to do next
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::std_instead_of_core,
    reason = "a command, with all of the standard library, that writes to its terminal"
)]
#![allow(
    unreachable_pub,
    reason = "nothing is reached from outside a binary; files shared with the library say pub"
)]

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
mod program;
mod rss;
mod run;
mod schema;
mod settings;
mod snapshot;
mod stale;
mod stats;
mod summary;
mod top;
mod units;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// Memory of Python programs, by obmalloc.
///
/// The library libobmalloc.so takes the place of CPython's allocator of small objects and
/// gives memory that is free back to the system, page by page. This command starts
/// programs with it, says whether it is active, and shows what it does.
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
  obmalloc pins PID                    what keeps nearly empty pages in memory

`obmalloc COMMAND --help` has more, and an example of each.";

#[derive(Subcommand)]
enum Action {
    Run(run::Options),
    Doctor(doctor::Options),
    Stats(stats::Options),
    Top(top::Options),
    Map(map::Options),
    Pins(pinned::Options),
    Path(path::Options),
    Settings(settings::Options),
    #[command(hide = true)]
    Schema,
    #[command(hide = true)]
    Man(man::Options),
}

fn main() -> ExitCode {
    // A reader that goes away ends this command quietly, as any other.
    exec::restore_sigpipe();
    let command = Command::parse();
    let done = match command.action {
        Action::Run(options) => run::main(&options),
        Action::Doctor(options) => doctor::main(&options),
        Action::Stats(options) => stats::main(&options),
        Action::Top(options) => top::main(&options),
        Action::Schema => schema::main(),
        Action::Man(options) => man::main(&options),
        Action::Map(options) => map::main(&options),
        Action::Pins(options) => pinned::main(&options),
        Action::Path(options) => path::main(&options),
        Action::Settings(options) => settings::main(&options),
    };
    done.unwrap_or_else(Failure::report)
}
