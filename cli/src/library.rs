//! Finds `libobmalloc.so` beside the command, in every kind of installation.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::elf::{EM_AARCH64, EM_X86_64};

use crate::elf::{self, Elf, Kind};
use crate::failure::Failure;

/// The variable with the path of another library.
pub const VARIABLE: &str = "OBMALLOC_LIBRARY";

/// Names of the library: the link for builds, and the SONAME, which a package without headers
/// has alone.
pub const NAMES: [&str; 2] = ["libobmalloc.so", "libobmalloc.so.0"];

/// The library that restricts the preload to Pythons (`exec-scope/`).
pub const PYTHONS: &str = "libobmalloc_pythons.so";

/// Another library, in the same folder; or in `obmalloc/` there, the place of a distribution for
/// libraries that are not linked with.
pub fn beside(library: &Path, name: &str) -> Result<PathBuf, Failure> {
    let own = library.with_file_name("obmalloc").join(name);
    let path = if own.is_file() {
        own
    } else {
        library.with_file_name(name)
    };
    check(&path).map_err(|what| {
        Failure::new(
            format!("{}: {what}", path.display()),
            "install it beside libobmalloc.so (make install), or leave --pythons-only out",
        )
    })
}

/// The library, if it exists and can be preloaded on this machine.
pub fn find() -> Result<PathBuf, Failure> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return check(Path::new(&path)).map_err(|what| {
            Failure::new(
                format!("{VARIABLE}={}: {what}", path.display()),
                format!("unset {VARIABLE}, or set it to the path of libobmalloc.so"),
            )
        });
    }
    let here = env::current_exe()
        .and_then(fs::canonicalize)
        .unwrap_or_default();
    let found = near(here.parent().unwrap_or(Path::new("/")));
    // Debian installs libraries of several machines side by side.
    let own = found.iter().find(|path| is_for_this_machine(path));
    match own.or(found.first()) {
        Some(path) => check(path).map_err(|what| {
            Failure::new(
                format!("{}: {what}", path.display()),
                format!("set {VARIABLE} to the path of another libobmalloc.so"),
            )
        }),
        None => Err(Failure::new(
            format!("no libobmalloc.so near {}", here.display()),
            format!("install it (make install), or set {VARIABLE} to its path"),
        )),
    }
}

/// The libraries in the places of each kind of installation, relative to the command's folder.
fn near(folder: &Path) -> Vec<PathBuf> {
    let above = folder.parent().unwrap_or(folder);
    let lib = above.join("lib");
    let mut folders = vec![folder.to_path_buf(), lib.clone(), above.join("lib64")];
    // `pip install --target` puts the package beside the folder of its commands.
    folders.push(above.join("obmalloc"));
    // Debian's lib/x86_64-linux-gnu, lib/aarch64-linux-gnu; and the package's folder of a wheel, in
    // lib/python3.11/site-packages or the distribution's dist-packages.
    for inner in folders_in(&lib) {
        for packages in ["site-packages", "dist-packages"] {
            folders.push(inner.join(packages).join("obmalloc"));
        }
        folders.push(inner);
    }
    let files = folders
        .iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)));
    files.filter(|file| file.is_file()).collect()
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// The absolute path to preload; the error is a phrase.
pub fn check(path: &Path) -> Result<PathBuf, String> {
    let elf = match elf::look(path) {
        Ok(Kind::Elf(elf)) => elf,
        Ok(_) => return Err("is no shared library".into()),
        Err(error) => return Err(reason(&error)),
    };
    if let Some(other) = unlike_this_machine(&elf) {
        return Err(format!("is for another machine ({other})"));
    }
    // The loader refuses a program, and crashes on a truncated library.
    if !elf.is_whole {
        return Err("is cut off".into());
    }
    if !elf.is_dynamic || !elf.has_libraries || elf.loader.is_some() {
        return Err("is no shared library".into());
    }
    let path = std::path::absolute(path).map_err(|error| reason(&error))?;
    // The loader separates LD_PRELOAD at both.
    if path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b" :".contains(byte))
    {
        return Err("has a blank or a colon in its path, which LD_PRELOAD cannot hold".into());
    }
    Ok(path)
}

/// The machine that this command and the library are for.
pub const MACHINE: u16 = if cfg!(target_arch = "aarch64") {
    EM_AARCH64
} else {
    EM_X86_64
};

/// The file's machine, if it is another one.
fn unlike_this_machine(elf: &Elf) -> Option<String> {
    let alike = elf.bits == 64 && elf.machine == MACHINE;
    (!alike).then(|| elf::machine_name(elf.machine))
}

fn is_for_this_machine(path: &Path) -> bool {
    matches!(elf::look(path), Ok(Kind::Elf(elf)) if unlike_this_machine(&elf).is_none())
}

/// Whether an entry of LD_PRELOAD is this library, in any version.
pub fn is_named_by(word: &OsStr) -> bool {
    let name = Path::new(word).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let rest = name.strip_prefix(NAMES[0]);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The text of an error, without its number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_install_is_looked_at() {
        let root = env::temp_dir().join(format!("obmalloc-library-{}", std::process::id()));
        for place in [
            "bin/libobmalloc.so",
            "lib/libobmalloc.so",
            "lib64/libobmalloc.so.0",
            "lib/x86_64-linux-gnu/libobmalloc.so.0",
            "lib/aarch64-linux-gnu/libobmalloc.so.0",
            "lib/python3.11/site-packages/obmalloc/libobmalloc.so",
            "lib/python3/dist-packages/obmalloc/libobmalloc.so",
            "obmalloc/libobmalloc.so",
        ] {
            let file = root.join(place);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            assert_eq!(near(&root.join("bin")), [] as [PathBuf; 0]);
            fs::write(&file, "").unwrap();
            assert_eq!(near(&root.join("bin")), std::slice::from_ref(&file));
            assert_eq!(check(&file).unwrap_err(), "is no shared library");
            fs::remove_file(file).unwrap();
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_library_of_this_machine_is_told_from_others() {
        let own = env::current_exe().unwrap();
        assert!(is_for_this_machine(&own));
        let mut header = fs::read(&own).unwrap();
        header[18] ^= 0x80; // the machine's number
        let other = env::temp_dir().join(format!("obmalloc-machine-{}", std::process::id()));
        fs::write(&other, header).unwrap();
        assert!(!is_for_this_machine(&other));
        let said = check(&other).unwrap_err();
        assert!(said.starts_with("is for another machine ("), "{said}");
        fs::remove_file(other).unwrap();
        assert!(!is_for_this_machine(Path::new("/")));
    }

    #[test]
    fn the_small_library_is_beside_the_other_or_in_a_folder_of_its_own() {
        let root = env::temp_dir().join(format!("obmalloc-beside-{}", std::process::id()));
        let library = root.join(NAMES[1]);
        let said = |place: &str| {
            let file = root.join(place).join(PYTHONS);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            let what = format!("{}: is no shared library", file.display());
            assert_eq!(beside(&library, PYTHONS).unwrap_err().what(), what);
            fs::remove_file(file).unwrap();
        };
        said("");
        said("obmalloc");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn words_of_the_preload_are_recognised() {
        for own in [
            "/a/libobmalloc.so",
            "libobmalloc.so.0",
            "/x/libobmalloc.so.0.1.0",
        ] {
            assert!(is_named_by(OsStr::new(own)), "{own}");
        }
        for other in [
            "",
            "/libobmalloc.so/libjemalloc.so.2",
            "libobmalloc.sol",
            "libobmalloc_x.so",
        ] {
            assert!(!is_named_by(OsStr::new(other)), "{other}");
        }
    }
}
