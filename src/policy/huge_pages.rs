//! Huge pages: whether the kernel may back an arena with one page of 2 MiB, the arena's size.
//!
//! ```text
//!    wanted           the arena is resident as a whole from its first byte on
//!    a page is purged the arena has small pages from then on; else the kernel would fill the
//!                     hole again
//!    not wanted       the arena is marked NOHUGEPAGE, if the system's setting is `always` or
//!                     unknown
//! ```
//!
//! Huge pages win where much is read, and cost where memory is new: the kernel has to find and
//! clear 2 MiB at a time (benchmark `huge_pages` shows both). So they are off unless a setting turns
//! them on; `auto` is off.
//!
//! # Threads
//!
//! Atomics that any thread may read and write.
#![forbid(unsafe_code)]

use crate::sync::{AtomicBool, Ordering::Relaxed};

static WANTED: AtomicBool = AtomicBool::new(false);

/// Sets whether new arenas are marked HUGEPAGE.
pub(crate) fn want(wanted: bool) {
    WANTED.store(wanted, Relaxed);
}

/// Whether the kernel may use huge pages for memory without a mark.
static UNASKED: AtomicBool = AtomicBool::new(true);

/// Sets whether the kernel uses huge pages for memory without a mark.
pub(crate) fn come_unasked(so: bool) {
    UNASKED.store(so, Relaxed);
}

/// Whether new arenas are marked NOHUGEPAGE.
pub(crate) fn are_to_be_refused() -> bool {
    UNASKED.load(Relaxed)
}

/// Whether new arenas are marked HUGEPAGE.
pub(crate) fn are_wanted() -> bool {
    WANTED.load(Relaxed)
}
