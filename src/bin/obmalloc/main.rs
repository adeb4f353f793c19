//! The command `obmalloc`: starts programs with the library, says whether it is active,
//! and shows what it does.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::std_instead_of_core,
    reason = "a command, with all of the standard library, that writes to its terminal"
)]

use clap::Parser;

/// Memory of Python programs, by obmalloc.
#[derive(Parser)]
#[command(version)]
struct Command {}

fn main() {
    Command::parse();
}
