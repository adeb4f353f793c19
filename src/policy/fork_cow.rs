//! Copy-on-write after a fork: whether a forked child allocates from the pools that it inherited.
//!
//! A child that allocates in holes of inherited pools writes to pages that it shares with its
//! parent: each write copies 4 KiB for the sake of a few blocks. So pools that were used at the
//! fork are *frozen*: blocks are still freed to them, but new blocks come from the child's own
//! pools until the parent is gone and its pages are shared no more. A frozen pool that becomes
//! empty is like any other empty pool.
//!
//! ```text
//!    generation of a pool:   the process's generation when the pool was assigned
//!    frozen:                 its generation is before the class's `first_own`
//! ```
//!
//! # Threads
//!
//! Atomics; they change in a forked child while it has one thread.
#![forbid(unsafe_code)]

use crate::sync::{AtomicI32, AtomicU8, AtomicU32, Ordering::Relaxed};

/// When a forked child allocates from inherited pools.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Rule {
    /// When the parent is gone.
    Auto,
    /// Always.
    Share,
    /// Never.
    Freeze,
}

static RULE: AtomicU8 = AtomicU8::new(Rule::Auto as u8);
/// Forks from the first process to this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The process id of the parent at the last fork.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// Sets the rule.
pub(crate) fn set_rule(rule: Rule) {
    RULE.store(rule as u8, Relaxed);
}

fn is(rule: Rule) -> bool {
    RULE.load(Relaxed) == rule as u8
}

/// The generation of pools that are assigned now.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Relaxed)
}

/// Starts a new generation in a forked child. `parent` returns the process id of its parent, or
/// `None` where a sandbox forbids the call. Returns the first generation whose pools are the
/// child's own, if older pools are to be frozen.
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

/// Whether inherited pools may be used. `parent` returns the process id of the parent now; if it
/// is unknown, they may.
pub(crate) fn may_be_used(parent: impl FnOnce() -> Option<i32>) -> bool {
    is(Rule::Share) || is(Rule::Auto) && parent() != Some(PARENT.load(Relaxed))
}
