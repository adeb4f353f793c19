//! Invalid frees: the report, and what follows. The process is ended, because the next owner of
//! the memory would be corrupted; or, with `OBMALLOC_ON_ERROR=report`, the free is ignored and
//! the program continues.
//!
//! # Threads
//!
//! Any thread, with or without locks held: a line is written, nothing is allocated.
#![forbid(unsafe_code)]

use core::fmt;

use crate::base::size_class::SizeClass;
use crate::os::text::{self, log};
use crate::sync::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Why a free is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InvalidFree {
    /// No block begins at this address.
    NotABlock,
    AlreadyFree,
    /// The pool was returned to its arena, or serves another class now: all of its blocks were
    /// free.
    NoSuchPool,
    /// The arena was unmapped: all of its blocks were free.
    NoSuchArena,
}

impl InvalidFree {
    fn text(self) -> &'static str {
        match self {
            InvalidFree::NotABlock => "freed, but no block begins there",
            InvalidFree::AlreadyFree => "freed twice",
            InvalidFree::NoSuchPool => "freed, but its pool holds no live block",
            InvalidFree::NoSuchArena => "freed, but its arena was unmapped",
        }
    }
}

/// Bound on lines that are written: an error in a loop fills no disk.
const LINES_MAX: u32 = 100;

static CONTINUE: AtomicBool = AtomicBool::new(false);
static LINES: AtomicU32 = AtomicU32::new(0);

/// Sets whether the program continues after an error.
pub(crate) fn set_continue(on: bool) {
    CONTINUE.store(on, Relaxed);
}

/// Reports an invalid free. If this returns, the caller ignores the free. `class` is `None` if it
/// is not known any more.
#[cold]
#[inline(never)]
pub(crate) fn report(class: Option<SizeClass>, block: *mut u8, invalid_free: InvalidFree) {
    let (what, pid) = (invalid_free.text(), text::pid());
    match class.map(SizeClass::size) {
        Some(size) => fatal_unless_continuing(format_args!(
            "{block:p}: {what} (size class {size}, pid {pid})"
        )),
        None => fatal_unless_continuing(format_args!("{block:p}: {what} (pid {pid})")),
    }
}

/// Reports an error in one line, and ends the process unless the program is to continue.
pub(crate) fn fatal_unless_continuing(what: fmt::Arguments<'_>) {
    if !CONTINUE.load(Relaxed) {
        text::fatal(what);
    }
    match LINES.fetch_add(1, Relaxed) {
        0..LINES_MAX => log(format_args!("{what}; ignored")),
        LINES_MAX => log(format_args!("further reports like these are not written")),
        _ => {}
    }
}
