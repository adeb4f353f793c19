//! Differences between CPython's versions. A C program gets the behaviour of the latest.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The version as minor * 256 + patch, of CPython 3.
static VERSION: AtomicU32 = AtomicU32::new(u32::MAX);

const fn version(minor: u32, patch: u32) -> u32 {
    minor * 256 + patch
}

/// Sets the version of CPython.
pub(crate) fn set(minor: u32, patch: u32) {
    VERSION.store(version(minor, patch), Relaxed);
}

fn before(minor: u32, patch: u32) -> bool {
    VERSION.load(Relaxed) < version(minor, patch)
}

/// The bytes of the debug hooks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DebugStyle {
    /// Fills new blocks.
    pub clean: u8,
    /// Fills freed blocks.
    pub dead: u8,
    /// Fills the padding before and after every block.
    pub forbidden: u8,
    /// Whether a serial number follows the block.
    pub serial: bool,
}

/// The bytes of this version's debug hooks.
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

/// Whether `_PyMem_SetupAllocators` takes a string; later versions pass a number.
pub(crate) fn setup_takes_text() -> bool {
    before(8, 0)
}

/// Whether `PYTHONMALLOC=debug` sets the hooks over the present allocator; in later versions over the
/// default.
pub(crate) fn debug_keeps_tables() -> bool {
    before(7, 0)
}

/// Whether `mimalloc` is a value of PYTHONMALLOC.
pub(crate) fn knows_mimalloc() -> bool {
    !before(13, 0)
}

/// Whether the hooks check for a thread state; earlier versions check for the GIL.
pub(crate) fn asks_for_thread_state() -> bool {
    !before(14, 0)
}

/// Bytes of an arena that a program's allocator is called for.
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
