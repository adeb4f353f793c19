//! `obmalloc path`: the path of the library.

use std::process::ExitCode;

use clap::Args;

use crate::failure::Failure;
use crate::library;
use crate::output;

/// Print the path of libobmalloc.so, as `obmalloc run` would preload it
///
/// For programs that set LD_PRELOAD or load the library themselves: the loader finds a bare name
/// only in the folders that it searches.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {}

const EXAMPLES: &str = "Examples:
  obmalloc path                              its path
  LD_PRELOAD=$(obmalloc path) python3 app.py";

/// Prints it.
pub fn main(_: &Options) -> Result<ExitCode, Failure> {
    let path = library::find()?;
    output::print(&format!("{}\n", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
