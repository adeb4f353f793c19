//! The program to start: its path, and whether its file admits a preload.

use std::env;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use crate::elf::{self, Kind};
use crate::library;

/// The file that a shell would start: a path unchanged, a name by PATH.
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

/// Why the library cannot be preloaded into a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// A static program has no loader. Programs that it starts inherit the environment.
    Static,
    /// The loader would try, and end the program.
    Musl,
    /// The machine of the program, which is not the library's.
    Machine(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Static => write!(
                out,
                "is linked statically, and nothing can be preloaded into it"
            ),
            Obstacle::Musl => write!(out, "is linked with musl, and the library needs glibc"),
            Obstacle::Machine(name) => {
                write!(out, "is for another machine ({name}) than the library")
            }
        }
    }
}

/// Why the library cannot be preloaded into this program, by its file.
pub fn cannot_have_us(path: &Path) -> Option<Obstacle> {
    let Ok(Kind::Elf(elf)) = elf::look(path) else {
        return None;
    };
    let musl = elf
        .loader
        .as_deref()
        .is_some_and(|loader| loader.contains("ld-musl"));
    if musl {
        return Some(Obstacle::Musl);
    }
    if elf.bits != 64 || elf.machine != library::MACHINE {
        return Some(Obstacle::Machine(elf::machine_name(elf.machine)));
    }
    (elf.loader.is_none() && !is_loader(path)).then_some(Obstacle::Static)
}

/// Whether the file is glibc's loader itself, which preloads into the program in its arguments:
/// `/lib64/ld-linux-x86-64.so.2 python3 app.py`.
fn is_loader(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Before glibc 2.34 the link leads to a file named by the version.
    name.starts_with("ld-") && name.contains(".so") && !name.contains("musl")
}

/// The privilege that the file gives beyond those of its user, if any: then the loader ignores
/// entries of LD_PRELOAD with a slash.
pub fn gives_rights(path: &Path) -> Option<&'static str> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    if mode & 0o4000 != 0 {
        return Some("its file has the setuid bit");
    }
    if mode & 0o2000 != 0 {
        return Some("its file has the setgid bit");
    }
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let name = c"security.capability";
    // SAFETY: two C strings; with size 0 the kernel writes nothing and returns the length.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), ptr::null_mut(), 0) };
    (len > 0).then_some("its file has capabilities")
}
