//! A file of metrics for node_exporter, which may read it at any moment: it is written under
//! another name and renamed.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::failure::Failure;

/// Writes the text to `place`: a file, or a folder for a file per process.
pub fn write(place: &Path, pid: u32, text: &str) -> Result<(), Failure> {
    let path = if place.is_dir() {
        place.join(format!("obmalloc-{pid}.prom"))
    } else {
        place.to_path_buf()
    };
    let cannot = |error: std::io::Error| {
        Failure::new(
            format!("cannot write {}: {error}", path.display()),
            "name a folder that you may write to, or a file in one",
        )
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // node_exporter reads only `*.prom`.
    let other = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = File::create(&other).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&other, &path))
        .inspect_err(|_| drop(fs::remove_file(&other)))
        .map_err(cannot)
}
