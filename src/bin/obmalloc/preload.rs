//! LD_PRELOAD as a list. What stands in it stays, in its order, behind us: another
//! allocator is the one that large blocks come from.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::library;

/// The variable's name.
pub const VARIABLE: &str = "LD_PRELOAD";

/// Its words: the loader cuts it at blanks and colons.
pub fn words(value: &OsStr) -> impl Iterator<Item = &OsStr> {
    let words = value.as_bytes().split(|byte| b" :".contains(byte));
    words.filter(|word| !word.is_empty()).map(OsStr::from_bytes)
}

/// The value with `library` first, and no other copy of it.
pub fn with_first(library: &Path, value: &OsStr) -> OsString {
    let others = words(value).filter(|word| *word != library && !library::is_named_by(word));
    let all: Vec<_> = [library.as_os_str()].into_iter().chain(others).collect();
    all.join(OsStr::new(":"))
}

/// The value without any copy of the library.
pub fn without(value: &OsStr) -> OsString {
    let others: Vec<_> = words(value)
        .filter(|word| !library::is_named_by(word))
        .collect();
    others.join(OsStr::new(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_first_and_once_and_others_keep_their_order() {
        let with = |value: &str| with_first(Path::new("/o/libobmalloc.so"), OsStr::new(value));
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
        assert_eq!(
            without(OsStr::new("b.so libobmalloc.so.0:a.so")),
            "b.so:a.so"
        );
        assert_eq!(without(OsStr::new("/o/libobmalloc.so")), "");
    }
}
