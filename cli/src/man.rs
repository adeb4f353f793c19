//! `obmalloc man`: writes the man pages, made from the options' own help texts. Hidden:
//! the Makefile calls it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory};

use crate::failure::Failure;
use crate::library;

/// Write the man pages
#[derive(Args)]
pub struct Options {
    /// The folder that they are written to; made if it is not there
    folder: PathBuf,
}

/// Writes obmalloc.1 and obmalloc-SUBCOMMAND.1.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    write(&options.folder).map_err(|error| {
        let (folder, why) = (options.folder.display(), library::reason(&error));
        Failure::new(
            format!("cannot write man pages to {folder}: {why}"),
            "name another folder",
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(crate::Command::command(), folder)
}
