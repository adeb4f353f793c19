//! What is said of a block that cannot have been freed rightly, and what follows: the
//! process stops, since the next owner of that memory would be damaged; or, where
//! `OBMALLOC_ON_ERROR=report` asks for it, the wrong call is left undone and the program
//! goes on.
//!
//! # Threads
//!
//! Any thread, with or without locks held: a line is written, nothing is allocated.
#![forbid(unsafe_code)]

use core::fmt;

use crate::base::size_class::SizeClass;
use crate::os::text::{self, log};
use crate::sync::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Why a block cannot have been freed rightly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InvalidFree {
    /// No block begins at this address.
    NotABlock,
    /// The block is free already.
    AlreadyFree,
    /// The pool has gone back to its arena, or to another class: all of its
    /// blocks were free.
    NoSuchPool,
    /// The arena has gone back to the kernel: all of its blocks were free.
    NoSuchArena,
}

impl InvalidFree {
    fn text(self) -> &'static str {
        match self {
            InvalidFree::NotABlock => "freed, but no block begins there",
            InvalidFree::AlreadyFree => "freed twice",
            InvalidFree::NoSuchPool => "freed, but its pool holds no live block",
            InvalidFree::NoSuchArena => "freed, but its arena went back to the kernel",
        }
    }
}

/// Lines that are written at the most: what is wrong in a loop fills no disk.
const LINES_MAX: u32 = 100;

static GO_ON: AtomicBool = AtomicBool::new(false);
static LINES: AtomicU32 = AtomicU32::new(0);

/// Says whether the program goes on after a misuse.
pub(crate) fn set_go_on(go_on: bool) {
    GO_ON.store(go_on, Relaxed);
}

/// Reports a block that cannot have been freed rightly. Where this returns, the caller
/// leaves the call undone. `class` is `None` if nobody knows it any more.
#[cold]
#[inline(never)]
pub(crate) fn report(class: Option<SizeClass>, block: *mut u8, invalid_free: InvalidFree) {
    let (what, pid) = (invalid_free.text(), text::pid());
    match class.map(SizeClass::size) {
        Some(size) => end_or_go_on(format_args!(
            "{block:p}: {what} (size class {size}, pid {pid})"
        )),
        None => end_or_go_on(format_args!("{block:p}: {what} (pid {pid})")),
    }
}

/// Reports damage in one line, and ends the process unless the program is to go on.
pub(crate) fn end_or_go_on(what: fmt::Arguments<'_>) {
    if !GO_ON.load(Relaxed) {
        text::fatal(what);
    }
    match LINES.fetch_add(1, Relaxed) {
        0..LINES_MAX => log(format_args!("{what}; ignored")),
        LINES_MAX => log(format_args!("further reports like these are not written")),
        _ => {}
    }
}
