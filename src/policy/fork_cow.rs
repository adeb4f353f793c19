//! What a forked child has from its parent, and when it may use the holes in it.
//!
//! A child that fills holes in the pools it was born with writes to pages that
//! it shares with its parent: each costs 4 KiB of its own, for the sake of a few
//! blocks. So pools that were used at the fork are *sealed*: blocks that are
//! freed go back to them, but new ones come from pools of the child's own, until
//! the parent is gone and the pages are not shared any more. A sealed pool that
//! becomes empty is like any other.
//!
//! ```text
//!    generation of a pool:   the process's, when it began
//!    sealed:                 of an earlier generation than the class's first own
//! ```
//!
//! # Threads
//!
//! Atomics; they change in a forked child, while it has one thread.
#![forbid(unsafe_code)]

use crate::sync::{AtomicI32, AtomicU8, AtomicU32, Ordering::Relaxed};

/// What a forked child does with inherited holes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Rule {
    /// Leaves them alone while the parent lives.
    Auto,
    /// Uses them like any other.
    Share,
    /// Leaves them alone for ever.
    Freeze,
}

static RULE: AtomicU8 = AtomicU8::new(Rule::Auto as u8);
/// How many forks have led to this process.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The process it was forked by.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// Sets the rule.
pub(crate) fn set_rule(rule: Rule) {
    RULE.store(rule as u8, Relaxed);
}

fn is(rule: Rule) -> bool {
    RULE.load(Relaxed) == rule as u8
}

/// The generation of pools that begin now.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Relaxed)
}

/// To be called in a forked child; `parent` is its parent, if that may be asked. Returns the
/// first generation whose pools are the child's own, if older ones are to be sealed.
pub(crate) fn forked(parent: impl FnOnce() -> Option<i32>) -> Option<u32> {
    if is(Rule::Share) {
        return None;
    }
    match parent() {
        Some(parent) => PARENT.store(parent, Relaxed),
        None if is(Rule::Auto) => return None,
        None => {}
    }
    let generation = GENERATION.load(Relaxed) + 1;
    GENERATION.store(generation, Relaxed);
    Some(generation)
}

/// Whether inherited pools may be used after all; `parent` is the process's
/// parent now. They may where nobody can tell.
pub(crate) fn may_be_used(parent: impl FnOnce() -> Option<i32>) -> bool {
    is(Rule::Share) || is(Rule::Auto) && parent() != Some(PARENT.load(Relaxed))
}
