//! What is said of a block that cannot have been freed rightly, before the process
//! stops: the next owner of that memory would be damaged.
#![forbid(unsafe_code)]

use crate::os::text;
use crate::size_class::SizeClass;

/// Why a block cannot have been freed rightly.
#[derive(Clone, Copy)]
pub enum Misuse {
    /// No block begins at this address.
    NotABlock,
    /// The block is free already.
    AlreadyFree,
    /// The pool has gone back to its arena, or to another class: all of its
    /// blocks were free.
    NoSuchPool,
}

/// Reports a block that cannot have been freed rightly, and stops.
#[cold]
#[inline(never)]
pub fn stop(class: SizeClass, block: *mut u8, misuse: Misuse) -> ! {
    let what = match misuse {
        Misuse::NotABlock => "freed, but no block begins there",
        Misuse::AlreadyFree => "freed twice",
        Misuse::NoSuchPool => "freed, but its pool holds no live block",
    };
    let (size, pid) = (class.size(), text::pid());
    text::fatal(format_args!(
        "{block:p}: {what} (size class {size}, pid {pid})"
    ))
}
