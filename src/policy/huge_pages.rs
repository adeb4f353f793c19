//! Huge pages: whether the kernel may back an arena with one page of 2 MiB, the
//! arena's own size.
//!
//! ```text
//!    asked for        the arena is in memory as a whole from the first byte on,
//!                     so all of its pages count as resident
//!    a page goes back the arena has small pages from then on: or the kernel
//!                     would fill it up again
//!    not asked for    the kernel is told not to, where the system's setting is to use
//!                     them unasked, or is not known
//! ```
//!
//! They gain where much is read, and cost where memory is new: the kernel has to
//! find and clear 2 MiB at a time. So they are for who asks (benchmark `huge_pages`
//! shows both); `auto` asks for none.
//!
//! # Threads
//!
//! An atomic that any thread may read and write.
#![forbid(unsafe_code)]

use crate::sync::{AtomicBool, Ordering::Relaxed};

static WANTED: AtomicBool = AtomicBool::new(false);

/// Has arenas that are added from now on ask for huge pages, or not.
pub(crate) fn want(wanted: bool) {
    WANTED.store(wanted, Relaxed);
}

/// Whether the kernel would use them unasked, as far as is known.
static UNASKED: AtomicBool = AtomicBool::new(true);

/// Says whether the kernel uses huge pages where nobody has asked for them.
pub(crate) fn come_unasked(so: bool) {
    UNASKED.store(so, Relaxed);
}

/// Whether the kernel has to be told not to use them.
pub(crate) fn are_to_be_refused() -> bool {
    UNASKED.load(Relaxed)
}

/// Whether the next arena is to ask for huge pages.
pub(crate) fn are_wanted() -> bool {
    WANTED.load(Relaxed)
}
