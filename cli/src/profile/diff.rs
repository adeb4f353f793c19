//! `obmalloc diff`: what has changed between two profiles.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::model::Profile;
use super::options::{self, write};
use super::report::{name, open};
use super::{Shown, writer};
use crate::failure::Failure;

const EXAMPLES: &str = "Examples:
  obmalloc diff before.pb.gz after.pb.gz                     the lines that changed most
  obmalloc diff before.pb.gz after.pb.gz --flame diff.html   red grew, blue shrank";

/// Show what has changed between two heap profiles: B minus A
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A file with the earlier profile
    #[arg(value_name = "A")]
    before: String,
    /// A file with the later profile
    #[arg(value_name = "B")]
    after: String,
    #[command(flatten)]
    options: options::Options,
    /// Write the difference as a profile, with negative values where B has less; - for stdout
    #[arg(short, long, value_name = "OUT.pb.gz")]
    out: Option<PathBuf>,
}

/// Shows the difference.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let (before, after) = (open(&options.before)?, open(&options.after)?);
    if let Some(path) = &options.out {
        write(path, &writer::write(&Profile::difference(&before, &after)))?;
    }
    if options.out.is_none() || options.options.is_chosen() {
        options.options.show(&Shown {
            title: format!("{} to {}", name(&options.before), name(&options.after)),
            before: Some(&before),
            after: &after,
            minutes: None,
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
