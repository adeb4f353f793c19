//! Opens a snapshot: of a file, or of a process with a stats page.

use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::library::reason;
use crate::live::Live;
use crate::snapshot::Snapshot;

/// A snapshot and its name in the output.
pub struct Named {
    pub name: String,
    pub heap: Snapshot,
}

/// The process whose number the argument is, unless a file has that name.
pub fn pid(argument: &str) -> Option<u32> {
    let pid = argument.parse().ok()?;
    (!Path::new(argument).exists()).then_some(pid)
}

/// The snapshot that an argument names.
pub fn named(argument: &str) -> Result<Named, Failure> {
    either(argument, false)
}

/// The snapshot that an argument names, with the types of objects.
pub fn typed(argument: &str) -> Result<Named, Failure> {
    either(argument, true)
}

fn either(argument: &str, with_types: bool) -> Result<Named, Failure> {
    match pid(argument) {
        Some(pid) => now(&Live::open(pid)?, "now".into(), with_types),
        None => file(argument),
    }
}

/// A snapshot of a process as it is now, without types.
pub fn process(live: &Live, name: String) -> Result<Named, Failure> {
    now(live, name, false)
}

fn now(live: &Live, name: String, with_types: bool) -> Result<Named, Failure> {
    let bytes = live.snapshot(with_types)?;
    let heap = Snapshot::read(&bytes).map_err(|what| {
        let what = format!("cannot use the snapshot: {what}");
        Failure::new(
            what,
            "use the command that belongs to the process's library",
        )
    })?;
    Ok(Named { name, heap })
}

/// The snapshot in a file.
pub fn file(path: &str) -> Result<Named, Failure> {
    let next = "name a file that obmalloc_snapshot() or Python's obmalloc.snapshot() has written";
    let bytes = fs::read(path)
        .map_err(|error| Failure::new(format!("cannot read {path}: {}", reason(&error)), next))?;
    let heap = Snapshot::read(&bytes)
        .map_err(|what| Failure::new(format!("cannot use {path}: {what}"), next))?;
    let stem = Path::new(path).file_stem().unwrap_or_default();
    Ok(Named {
        name: stem.to_string_lossy().into_owned(),
        heap,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_processes_unless_there_is_such_a_file() {
        assert_eq!(pid("4711"), Some(4711));
        assert_eq!(pid("heap.map"), None);
        assert_eq!(pid("-1"), None);
        assert_eq!(pid("99999999999"), None);
    }

    #[test]
    fn files_that_are_none_are_told_in_one_line() {
        for path in [
            "/nowhere/at/all",
            "/proc/self/exe",
            "/proc/self",
            "/dev/null",
        ] {
            let said = file(path).err().expect(path).to_string();
            assert!(said.contains(path) && !said.contains('\n'), "{said}");
        }
    }
}
