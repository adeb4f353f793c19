//! LD_PRELOAD as a list. Its entries stay, in their order, after the library: another allocator
//! there serves the large blocks. Only the runtimes of sanitizers stay before the library:
//! AddressSanitizer's aborts a program in which it is not first.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::library;

/// The variable's name.
pub const VARIABLE: &str = "LD_PRELOAD";

/// The preload that `exec-scope/` restores in the environment of Pythons.
pub const PYTHONS_VARIABLE: &str = "LIBOBMALLOC_PYTHONS";

/// Paths as a value of the variable.
pub fn joined(paths: &[PathBuf]) -> OsString {
    let words: Vec<_> = paths.iter().map(|path| path.as_os_str()).collect();
    words.join(OsStr::new(":"))
}

/// The entries of a value: the loader separates them at blanks and colons.
pub fn words(value: &OsStr) -> impl Iterator<Item = &OsStr> {
    let words = value.as_bytes().split(|byte| b" :".contains(byte));
    words.filter(|word| !word.is_empty()).map(OsStr::from_bytes)
}

/// The value with these libraries first, after sanitizers, and without other copies of them.
pub fn with_first(libraries: &[PathBuf], value: &OsStr) -> OsString {
    let own = libraries.iter().map(|path| path.as_os_str());
    let sanitizers = others(value).filter(|word| is_sanitizer(word));
    let rest = others(value).filter(|word| !is_sanitizer(word));
    let words: Vec<_> = sanitizers.chain(own).chain(rest).collect();
    words.join(OsStr::new(":"))
}

/// Whether an entry is a sanitizer's runtime, of GCC or LLVM, which has to be first.
fn is_sanitizer(word: &OsStr) -> bool {
    const GCC: [&str; 5] = [
        "libasan.so",
        "liblsan.so",
        "libtsan.so",
        "libubsan.so",
        "libhwasan.so",
    ];
    const LLVM: [&str; 6] = ["asan", "lsan", "tsan", "ubsan", "hwasan", "memprof"];
    let name = Path::new(word)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let of_llvm = name.strip_prefix("libclang_rt.");
    GCC.iter().any(|start| name.starts_with(start))
        || of_llvm.is_some_and(|rest| LLVM.iter().any(|start| rest.starts_with(start)))
}

fn others(value: &OsStr) -> impl Iterator<Item = &OsStr> {
    let is_pythons =
        |word: &OsStr| Path::new(word).file_name() == Some(OsStr::new(library::PYTHONS));
    words(value).filter(move |word| !library::is_named_by(word) && !is_pythons(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_first_and_once_and_others_keep_their_order() {
        let with = |value: &str| with_first(&["/o/libobmalloc.so".into()], OsStr::new(value));
        assert_eq!(with(""), "/o/libobmalloc.so");
        assert_eq!(with("::  "), "/o/libobmalloc.so");
        assert_eq!(with("/o/libobmalloc.so"), "/o/libobmalloc.so");
        assert_eq!(
            with("b.so libobmalloc.so.0:a.so"),
            "/o/libobmalloc.so:b.so:a.so"
        );
        assert_eq!(
            with("/usr/lib/libjemalloc.so.2:/other/libobmalloc.so"),
            "/o/libobmalloc.so:/usr/lib/libjemalloc.so.2"
        );
        let both = [
            "/o/libobmalloc.so".into(),
            "/o/libobmalloc_pythons.so".into(),
        ];
        let value = OsStr::new("/x/libobmalloc_pythons.so:a.so:libobmalloc.so");
        let expected = "/o/libobmalloc.so:/o/libobmalloc_pythons.so:a.so";
        assert_eq!(with_first(&both, value), expected);
    }

    #[test]
    fn sanitizers_stay_first() {
        let with = |value: &str| with_first(&["/o/libobmalloc.so".into()], OsStr::new(value));
        assert_eq!(with("libasan.so.8"), "libasan.so.8:/o/libobmalloc.so");
        assert_eq!(
            with("a.so:/usr/lib/libclang_rt.asan-x86_64.so libubsan.so.1:/o/libobmalloc.so"),
            "/usr/lib/libclang_rt.asan-x86_64.so:libubsan.so.1:/o/libobmalloc.so:a.so"
        );
        assert_eq!(with("libasanity.so"), "/o/libobmalloc.so:libasanity.so");
    }
}
