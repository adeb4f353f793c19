//! `obmalloc report`: a profile in a file.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::model::Profile;
use super::options;
use super::{Shown, reader};
use crate::failure::Failure;
use crate::library::reason;

const EXAMPLES: &str = "Examples:
  obmalloc report heap.pb.gz                         the lines that hold the most memory
  obmalloc report heap.pb.gz --by type -n 5
  obmalloc report heap.pb.gz --flame heap.html       a flame graph, for a browser
  obmalloc report heap.pb.gz --value pinned_space";

/// Show a heap profile: which lines hold the memory, as a table or a flame graph
///
/// The file is a gzipped profile.proto, pprof's format, as `obmalloc profile`, Python's
/// obmalloc.profile.dump() and OBMALLOC_PROFILE_FILE write it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A file with a heap profile; - for stdin
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    options: options::Options,
}

/// Shows the profile.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let profile = open(&options.file)?;
    options
        .options
        .show(&Shown::one(&name(&options.file), &profile))?;
    Ok(ExitCode::SUCCESS)
}

/// The profile in a file.
pub fn open(path: &str) -> Result<Profile, Failure> {
    let next = "name a file with a heap profile, as `obmalloc profile PID -o FILE` writes it";
    let read = if path == "-" {
        reader::read(std::io::stdin().lock())
    } else {
        let cannot = |error| Failure::new(format!("cannot read {path}: {}", reason(&error)), next);
        reader::read(File::open(path).map_err(cannot)?)
    };
    read.map_err(|what| Failure::new(format!("cannot use {path}: {what}"), next))
}

/// The name of a file in a title.
pub fn name(path: &str) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    name.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_none_are_told_in_one_line() {
        for path in [
            "/nowhere/at/all",
            "/proc/self/exe",
            "/proc/self",
            "/dev/null",
            "/dev/zero",
        ] {
            let said = open(path).expect_err(path).to_string();
            assert!(said.contains(path) && !said.contains('\n'), "{said}");
        }
        assert_eq!(name("/a/b\n.pb.gz"), "b.pb.gz");
    }
}
