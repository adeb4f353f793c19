//! LD_PRELOAD as a list. What stands in it stays, in its order, behind us: another
//! allocator is the one that large blocks come from.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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
    let mut bytes = library.as_os_str().as_bytes().to_vec();
    for word in words(value) {
        if word != library.as_os_str() && !library::is_named_by(word) {
            bytes.push(b':');
            bytes.extend_from_slice(word.as_bytes());
        }
    }
    OsString::from_vec(bytes)
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
    }
}
