//! The program to start: its path, and whether its file admits a preload.

use std::env;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use crate::elf::{self, Kind, Libc};
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
    Libc {
        /// That of the program.
        program: Libc,
        /// That of the library.
        library: Libc,
    },
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
            Obstacle::Libc { program, library } => {
                write!(
                    out,
                    "is linked with {program}, and the library needs {library}"
                )
            }
            Obstacle::Machine(name) => {
                write!(out, "is for another machine ({name}) than the library")
            }
        }
    }
}

/// Why the library cannot be preloaded into this program, by its file; and by the library's, if
/// there is one.
pub fn cannot_have_us(path: &Path, library: Option<&Path>) -> Option<Obstacle> {
    let linked = library.and_then(libc_of);
    if let (Some(program), Some(library)) = (libc_of(path), linked)
        && program != library
    {
        return Some(Obstacle::Libc { program, library });
    }
    let Ok(Kind::Elf(elf)) = elf::look(path) else {
        return None;
    };
    if elf.bits != 64 || elf.machine != library::MACHINE {
        return Some(Obstacle::Machine(elf::machine_name(elf.machine)));
    }
    (elf.loader.is_none() && loader_of(path).is_none()).then_some(Obstacle::Static)
}

/// The C library of a program or library; for a script, that of its interpreter.
fn libc_of(path: &Path) -> Option<Libc> {
    let interpreter = match elf::look(path).ok()? {
        Kind::Elf(elf) => return elf.libc.or_else(|| loader_of(path)),
        Kind::Script(line) => PathBuf::from(line.split_whitespace().next()?),
        Kind::Other => return None,
    };
    match elf::look(&interpreter).ok()? {
        Kind::Elf(elf) => elf.libc,
        Kind::Script(_) | Kind::Other => None,
    }
}

/// The C library whose loader the file is. A loader preloads into the program in its arguments:
/// `/lib64/ld-linux-x86-64.so.2 python3 app.py`.
fn loader_of(path: &Path) -> Option<Libc> {
    let is_loader = |path: &Path| {
        let name = path.file_name()?.to_string_lossy();
        name.starts_with("ld-").then(|| Libc::of_file(&name))?
    };
    // musl's link leads to its libc.so; before glibc 2.34 the link leads to a file named by the
    // version.
    is_loader(path).or_else(|| is_loader(&fs::canonicalize(path).ok()?))
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
