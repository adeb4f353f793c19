//! What differs between CPython's versions. A C program gets the latest.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The version as minor * 256 + patch, of CPython 3.
static VERSION: AtomicU32 = AtomicU32::new(u32::MAX);

const fn version(minor: u32, patch: u32) -> u32 {
    minor * 256 + patch
}

/// To be told which CPython this is.
pub(crate) fn set(minor: u32, patch: u32) {
    VERSION.store(version(minor, patch), Relaxed);
}

fn before(minor: u32, patch: u32) -> bool {
    VERSION.load(Relaxed) < version(minor, patch)
}

/// What the debug hooks write, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DebugStyle {
    /// Fills blocks that were just allocated.
    pub clean: u8,
    /// Fills blocks that were freed.
    pub dead: u8,
    /// Stands before and behind every block.
    pub forbidden: u8,
    /// Whether a serial number stands behind the block.
    pub serial: bool,
}

/// What this version's debug hooks write.
pub(crate) fn debug_style() -> DebugStyle {
    let (clean, dead, forbidden) = if before(7, 4) {
        (0xcb, 0xdb, 0xfb)
    } else {
        (0xcd, 0xdd, 0xfd)
    };
    DebugStyle {
        clean,
        dead,
        forbidden,
        serial: before(8, 0),
    }
}

/// Whether `_PyMem_SetupAllocators` takes a text; later, a number.
pub(crate) fn setup_takes_text() -> bool {
    before(8, 0)
}

/// Whether `PYTHONMALLOC=debug` puts the hooks over what there is; later,
/// over the default.
pub(crate) fn debug_keeps_tables() -> bool {
    before(7, 0)
}

/// Whether `mimalloc` is a value of PYTHONMALLOC.
pub(crate) fn knows_mimalloc() -> bool {
    !before(13, 0)
}

/// Whether the hooks ask for a thread state; before, for the GIL.
pub(crate) fn asks_for_thread_state() -> bool {
    !before(14, 0)
}

/// Bytes of an arena that a user's allocator is asked for.
pub(crate) fn arena_size() -> usize {
    if before(10, 0) { 256 << 10 } else { 1 << 20 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_ways() {
        let latest = debug_style();
        assert_eq!(latest.forbidden, 0xfd);
        assert!(!latest.serial);
        for (minor, patch, clean, serial) in [
            (6, 15, 0xcb, true),
            (7, 3, 0xcb, true),
            (7, 16, 0xcd, true),
            (8, 0, 0xcd, false),
            (13, 0, 0xcd, false),
        ] {
            set(minor, patch);
            assert_eq!((debug_style().clean, debug_style().serial), (clean, serial));
            assert_eq!(setup_takes_text(), minor < 8);
            assert_eq!(knows_mimalloc(), minor >= 13);
            assert_eq!(arena_size() == 1 << 20, minor >= 10);
        }
        VERSION.store(u32::MAX, Relaxed);
    }
}
