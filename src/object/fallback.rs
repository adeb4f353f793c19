//! What no pool serves goes *below*: to the table that each call brings along, which
//! is what was in the domain before us, or the C library.
//!
//! # Invariants
//!
//! OBJECT-1  A pointer that the address map knows is ours; any other is handed to
//!     `below` unread, whatever its value.
//!
//! # Threads
//!
//! Any thread, with no lock held.

use core::ffi::{c_int, c_void};
use core::ptr;

use crate::arena::page_map::MAP;
use crate::background::decay;
use crate::background::init;
use crate::base::vtable::Allocator;
use crate::heap::HEAP;
use crate::os::errno;
use crate::policy::limits;
use crate::pool::invalid_free::{self, InvalidFree};
use crate::tcache::counters::Event;
use crate::tcache::magazines::Magazines;
use crate::tcache::registry;

/// Whether the hard limit allows `n` bytes more, once what is free went back.
#[inline]
fn is_allowed(n: usize) -> bool {
    limits::allow(n) || is_allowed_with_room(n)
}

#[cold]
#[inline(never)]
fn is_allowed_with_room(n: usize) -> bool {
    decay::reclaim() && limits::allow(n)
}

/// Has a request for `n` bytes more served below, if the hard limit allows it.
/// If there is no memory for it, the empty arenas that are kept for the next
/// peak are given up, and it is asked once more.
#[inline]
pub(crate) fn ask(n: usize, ask: impl Fn() -> *mut c_void) -> *mut c_void {
    if !is_allowed(n) {
        limits::refused();
        return errno::no_memory();
    }
    count(Event::Asked);
    let before = errno::get();
    let block = ask();
    if block.is_null() {
        return again(ask, before);
    }
    block
}

/// There was no memory below. A table that a program has set need not set errno. After a second
/// try that succeeds errno is `before`, as if there had been no first one.
#[cold]
#[inline(never)]
fn again(ask: impl Fn() -> *mut c_void, before: c_int) -> *mut c_void {
    let block = if HEAP.release_empty() {
        ask()
    } else {
        ptr::null_mut()
    };
    if block.is_null() {
        return errno::no_memory();
    }
    errno::set(before);
    block
}

/// The same for a request that makes a block.
#[inline]
pub(crate) fn make(n: usize, make: impl Fn() -> *mut c_void) -> *mut c_void {
    let block = ask(n, make);
    if !block.is_null() {
        count(Event::Made);
    }
    block
}

#[inline]
fn count(event: Event) {
    match current_magazines() {
        Some(magazines) => magazines.counters.add(event),
        None => registry::count_without_magazines(event),
    }
}

/// The calling thread's magazines, for a call that is not on the hit path.
#[inline]
pub(crate) fn current_magazines() -> Option<&'static Magazines> {
    if registry::is_new() {
        init::happened();
    }
    registry::mine()
}

/// Gives a pointer that is not ours back below; nothing if it is null.
///
/// # Safety
/// `below` keeps VTABLE-1.
#[inline(never)]
pub(crate) unsafe fn free(below: &Allocator, p: *mut c_void) {
    if p.is_null() {
        return;
    }
    if is_stale(p) {
        return;
    }
    count(Event::Freed);
    // SAFETY: OBJECT-1 and VTABLE-1.
    unsafe { (below.free)(below.ctx, p) };
}

/// Has the size of a block that is not ours changed below. Null if there is no memory,
/// and the block is as it was. How long it was nobody knows here; buffers that grow do
/// so by an eighth.
///
/// # Safety
/// `below` keeps VTABLE-1.
#[inline(never)]
pub(crate) unsafe fn realloc(below: &Allocator, p: *mut c_void, n: usize) -> *mut c_void {
    if is_stale(p) {
        return ptr::null_mut();
    }
    // SAFETY: OBJECT-1 and VTABLE-1.
    ask(n / 8, || unsafe { (below.realloc)(below.ctx, p, n) })
}

/// Whether `p` lies in an arena but in no pool, or where an arena was: whatever was
/// there is long free, and below would take it for one of its own. Then it is reported.
#[inline]
fn is_stale(p: *mut c_void) -> bool {
    let invalid_free = if MAP.arena(p.addr()).is_some() {
        InvalidFree::NoSuchPool
    } else if MAP.is_unmapped_arena(p.addr()) {
        InvalidFree::NoSuchArena
    } else {
        return false;
    };
    invalid_free::report(None, p.cast(), invalid_free);
    true
}
