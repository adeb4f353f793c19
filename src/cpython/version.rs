//! Which CPython the host is, from the text of `Py_GetVersion`.
#![forbid(unsafe_code)]

/// A version of CPython.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    /// As in 3.11.7.
    pub major: u32,
    /// As in 3.11.7.
    pub minor: u32,
    /// As in 3.11.7; 0 where the text has no such number.
    pub patch: u32,
    /// The digits and dots at the front of the text, and what is glued to
    /// them: `3.11.7`, `3.14.0rc1`.
    pub text: &'static str,
    /// Whether it is built without a GIL.
    pub free_threaded: bool,
}

/// How a version is taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WayIn {
    /// By the symbols `PyObject_*`: 2.7 has no table of allocators.
    Symbols,
    /// By `PyMem_SetAllocator`.
    Table,
    /// By `PyMem_SetAllocator`, in the domain MEM only: a build without a GIL.
    MemTable,
}

impl Version {
    /// Reads the text of `Py_GetVersion`; `None` if it begins with no version.
    pub(crate) fn parse(text: &'static str) -> Option<Version> {
        let (number, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = number.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let digits = |part: &'static str| part.split(|c: char| !c.is_ascii_digit()).next();
        let patch = parts
            .next()
            .and_then(digits)
            .and_then(|patch| patch.parse().ok());
        // Not `contains`, whose search is 2.6 KiB of code.
        const FREE_THREADED: &[u8] = b"free-threading build";
        let mut parts_of_rest = rest.as_bytes().windows(FREE_THREADED.len());
        let free_threaded = parts_of_rest.any(|part| part == FREE_THREADED);
        Some(Version {
            major,
            minor,
            patch: patch.unwrap_or(0),
            text: number,
            free_threaded,
        })
    }

    /// How it is taken over, if it is one of those that are served.
    ///
    /// 3.4 has a table without calloc and 3.5 was never tried. There is no newest version:
    /// `PyMem_SetAllocator` is public, and `self_check` finds out whether it works.
    pub(crate) fn way_in(&self) -> Option<WayIn> {
        match (self.major, self.minor) {
            (2, 7) => Some(WayIn::Symbols),
            (..=2, _) | (3, ..=5) => None,
            _ => Some(WayIn::Table),
        }
    }

    /// Whether it has tables of allocators at all, ours to fill or not.
    pub(crate) fn has_tables(&self) -> bool {
        (self.major, self.minor) >= (3, 4)
    }

    /// Whether `PYTHON_PYMALLOC_HUGEPAGES` requests huge pages.
    pub(crate) fn has_huge_pages(&self) -> bool {
        (self.major, self.minor) >= (3, 15)
    }

    /// Whether it has a development mode (`-X dev`, `PYTHONDEVMODE`).
    pub(crate) fn has_dev_mode(&self) -> bool {
        (self.major, self.minor) >= (3, 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_their_texts() {
        let parse = |text| Version::parse(text).unwrap();
        let usual = parse("3.11.7 (main, Jan  1 2024, 00:00:00) [GCC 12.2.0]");
        assert_eq!((usual.major, usual.minor, usual.patch), (3, 11, 7));
        assert_eq!(usual.text, "3.11.7");
        assert_eq!(parse("3.14.0rc1 (main)").patch, 0);
        assert!(!usual.free_threaded);
        assert!(parse("3.13.0 experimental free-threading build (main, x) [GCC]").free_threaded);
        assert!(parse("3.14.0rc1 free-threading build (main, x) [GCC]").free_threaded);
        assert_eq!(parse("3.14.0rc1 (main)").text, "3.14.0rc1");
        assert_eq!(parse("2.7.18+ (default)").text, "2.7.18+");
        assert_eq!(Version::parse("PyPy"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn versions_from_3_6_on_have_a_way_in() {
        let way = |text| Version::parse(text).unwrap().way_in();
        assert_eq!(way("2.7.18"), Some(WayIn::Symbols));
        for served in ["3.6.15", "3.9.18", "3.13.0", "3.15.2", "3.99.0", "4.0.0"] {
            assert_eq!(way(served), Some(WayIn::Table), "{served}");
        }
        for other in ["0.9.1", "2.6.9", "3.0.1", "3.3.7", "3.4.10", "3.5.3"] {
            assert_eq!(way(other), None, "{other}");
        }
    }
}
