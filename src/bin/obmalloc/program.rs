//! The program that is to be started: where it is, and what its file says about a preload.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::elf::{self, Kind};
use crate::library;

/// The file that a shell would start: a path as it is, a name by PATH.
pub fn find(name: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if name.as_encoded_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return is_program(&path).then_some(path);
    }
    let folders = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

/// Why the library cannot be in this program, as far as its file says so.
pub fn cannot_have_us(path: &Path) -> Option<String> {
    let Ok(Kind::Elf(elf)) = elf::look(path) else {
        return None;
    };
    let musl = elf
        .loader
        .as_deref()
        .is_some_and(|loader| loader.contains("ld-musl"));
    if musl {
        return Some("is linked with musl, and the library needs glibc".into());
    }
    if elf.bits != 64 || elf.machine != library::MACHINE {
        let machine = elf::machine_name(elf.machine);
        return Some(format!(
            "is for another machine ({machine}) than the library"
        ));
    }
    (elf.loader.is_none())
        .then(|| "is linked statically, and nothing can be preloaded into it".into())
}

/// Whether the file gives more rights than its user has: then the loader ignores a
/// preload that names a path.
pub fn gives_rights(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o6000 != 0)
}
