//! The object allocator: malloc, calloc, realloc and free for every size and
//! every pointer. Small and medium requests are served from pools; all else
//! goes *below*, to the table that each call brings along: what was in the
//! domain before us, or the C library.
//!
//! ```text
//!    request in bytes    0 .. 512     513 .. 32768      more
//!    served by           small        medium (cutoff.rs) below
//!
//!    address map says    a class                nothing
//!    freed to            that class's magazine  below
//! ```
//!
//! A domain that is packed (`ALIGN` 8 instead of 16) rounds small requests up to 8
//! bytes; where a block comes from and goes to is the same.
//!
//! # Invariants
//!
//! O1  A pointer that the address map knows is ours; any other is handed to
//!     `below` unread, whatever its value.
//! O2  A failed realloc leaves the block as it was; one that shrinks never
//!     fails.
//!
//! # Threads
//!
//! Any thread may call anything, with or without a GIL, and free what another
//! one allocated.

use core::ffi::c_void;
use core::ptr;

use crate::address_map::MAP;
use crate::allocator::Allocator;
use crate::cutoff;
use crate::decay;
use crate::first_use;
use crate::geometry::{ALIGNMENT, REQUEST_MAX};
use crate::heap::{self, HEAP};
use crate::lane::Lane;
use crate::limits;
use crate::magazines::{self, Magazines};
use crate::os::text;
use crate::size_class::{SMALL_MAX, SizeClass};
use crate::tally::Event;
use crate::threads;

/// Allocates `n` bytes. Null if there is no memory for them.
///
/// # Safety
/// `below` keeps T1.
#[inline(always)]
pub unsafe fn malloc<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    if n > SMALL_MAX {
        // SAFETY: the caller's promise.
        return unsafe { beyond_small(below, n) };
    }
    let block = magazines::mine().pop_small::<ALIGN>(n);
    if !block.is_null() {
        return block.cast();
    }
    // SAFETY: the caller's promise.
    unsafe { miss::<ALIGN>(below, n) }
}

/// A medium request or a large one.
#[inline(never)]
unsafe fn beyond_small(below: &Allocator, n: usize) -> *mut c_void {
    let Some(class) = cutoff::class_of(n) else {
        if n > REQUEST_MAX {
            return ptr::null_mut();
        }
        // SAFETY: T1.
        return make_below(n, || unsafe { (below.malloc)(below.ctx, n) });
    };
    let block = magazines::mine().pop(class);
    if !block.is_null() {
        return block.cast();
    }
    // SAFETY: the caller's promise.
    unsafe { miss::<ALIGNMENT>(below, n) }
}

/// The thread's magazine of the class is empty, or it has none yet. `n` is a
/// request that pools serve.
#[cold]
#[inline(never)]
unsafe fn miss<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    let Some(class) = SizeClass::aligned::<ALIGN>(n) else {
        return ptr::null_mut();
    };
    let mut block = take(class, n);
    if block.is_null() && limits::is_over() && decay::make_room() {
        block = take(class, n);
    }
    if heap::grew() {
        decay::heed_growth();
    }
    if !block.is_null() {
        return block.cast();
    }
    // No arena to be had. As in obmalloc, what is below may still have some.
    // SAFETY: T1.
    make_below(class.size(), || unsafe {
        (below.malloc)(below.ctx, class.size())
    })
}

/// A block of `class` from the pools, for a request for `n` bytes.
fn take(class: SizeClass, n: usize) -> *mut u8 {
    match magazines_of_this_thread() {
        Some(magazines) => match magazines.pop(class) {
            // The thread's first miss: its magazines may hold what a thread
            // that a fork has ended left in them.
            block if !block.is_null() => block,
            _ => magazines.refill(&HEAP, class, n),
        },
        None => HEAP.take_one(Lane::FIRST, class, n),
    }
}

/// Whether the hard limit allows `n` bytes more, once what is free went back.
fn is_allowed(n: usize) -> bool {
    limits::allow(n) || decay::make_room() && limits::allow(n)
}

/// Has a request for `n` bytes more served below, if the hard limit allows it.
/// If there is no memory for it, the empty arenas that are kept for the next
/// peak are given up, and it is asked once more.
#[inline]
fn ask_below(n: usize, ask: impl Fn() -> *mut c_void) -> *mut c_void {
    if !is_allowed(n) {
        limits::refused();
        return ptr::null_mut();
    }
    count(Event::Asked);
    let block = ask();
    if block.is_null() && HEAP.release_empty() {
        return ask();
    }
    block
}

/// The same for a request that makes a block.
#[inline]
fn make_below(n: usize, ask: impl Fn() -> *mut c_void) -> *mut c_void {
    let block = ask_below(n, ask);
    if !block.is_null() {
        count(Event::Made);
    }
    block
}

#[inline]
fn count(event: Event) {
    match magazines_of_this_thread() {
        Some(magazines) => magazines.tally.add(event),
        None => threads::count_without_magazines(event),
    }
}

#[inline]
fn magazines_of_this_thread() -> Option<&'static Magazines> {
    if threads::is_new() {
        first_use::happened();
    }
    threads::mine()
}

/// Allocates `nelem` times `elsize` bytes, all zero. Null if there is no
/// memory for them, or the product exceeds `PY_SSIZE_T_MAX`.
///
/// # Safety
/// `below` keeps T1.
#[inline]
pub unsafe fn calloc<const ALIGN: usize>(
    below: &Allocator,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    let Some(n) = nelem.checked_mul(elsize) else {
        return ptr::null_mut();
    };
    if n > SMALL_MAX && cutoff::class_of(n).is_none() {
        if n > REQUEST_MAX {
            return ptr::null_mut();
        }
        // SAFETY: T1.
        return make_below(n, || unsafe { (below.calloc)(below.ctx, nelem, elsize) });
    }
    // SAFETY: the caller's promise.
    let block = unsafe { malloc::<ALIGN>(below, n) };
    if !block.is_null() {
        // SAFETY: at least `n` bytes, which nobody else has.
        unsafe { clear(block.cast(), n) };
    }
    block
}

/// Writes zeros to the first `n` bytes of the block at `p`, and perhaps to some more
/// of it. Up to 16 bytes, as lists of one or two have, take two stores and no call.
///
/// # Safety
/// A block for `n` bytes that nobody else has.
#[inline(always)]
unsafe fn clear(p: *mut u8, n: usize) {
    const WORD: usize = size_of::<u64>();
    if n <= 2 * WORD {
        // SAFETY: every block has a word.
        unsafe { p.cast::<u64>().write(0) };
        // SAFETY: with more than a word asked for, the last of these bytes is the
        // block's.
        let last = unsafe { p.add(n.saturating_sub(WORD)) };
        // SAFETY: as above.
        unsafe { last.cast::<u64>().write_unaligned(0) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { p.write_bytes(0, n) };
    }
}

/// Gives the block at `p` back; nothing if `p` is null. A pointer that is not
/// ours goes below.
///
/// # Safety
/// `below` keeps T1. A pointer into one of our pools is a block that is live;
/// nobody uses it any more.
#[inline(always)]
pub unsafe fn free(below: &Allocator, p: *mut c_void) {
    let Some(found) = MAP.find_near(p.addr()) else {
        // SAFETY: the caller's promises.
        return unsafe { free_far(below, p) };
    };
    if !magazines::mine().push(found, p.cast()) {
        // SAFETY: the caller's promises.
        unsafe { not_pushed(below, p) };
    }
}

/// A pointer that is foreign, or far from the first arena.
#[inline(never)]
unsafe fn free_far(below: &Allocator, p: *mut c_void) {
    let found = MAP.find_far(p.addr());
    if !magazines::mine().push(found, p.cast()) {
        // SAFETY: the caller's promises.
        unsafe { not_pushed(below, p) };
    }
}

/// The magazine is full, the thread has none yet, or the pointer is foreign.
#[cold]
#[inline(never)]
unsafe fn not_pushed(below: &Allocator, p: *mut c_void) {
    let found = MAP.find(p.addr());
    let Some(class) = found.class() else {
        // SAFETY: the caller's promises.
        return unsafe { free_foreign(below, p) };
    };
    let Some(magazines) = magazines_of_this_thread() else {
        return HEAP.give(class, &[p.cast()]);
    };
    if magazines.push(found, p.cast()) {
        return; // into magazines that the thread has just got
    }
    let mut back = magazines.flush(&HEAP, class);
    if !magazines.push(found, p.cast()) {
        HEAP.give(class, &[p.cast()]); // a class without magazine
        back += 1;
    }
    decay::tick(back * class.size());
}

unsafe fn free_foreign(below: &Allocator, p: *mut c_void) {
    if p.is_null() {
        return;
    }
    stop_if_stale(p);
    count(Event::Freed);
    // SAFETY: O1 and T1.
    unsafe { (below.free)(below.ctx, p) };
}

/// Stops the process if `p` lies in an arena but in no pool: whatever was
/// there is long free, and below would take it for one of its own.
fn stop_if_stale(p: *mut c_void) {
    if MAP.arena(p.addr()).is_some() {
        let pid = text::pid();
        text::fatal(format_args!(
            "{p:p}: freed, but its pool is empty (pid {pid})"
        ));
    }
}

/// Changes the size of the block at `p` to `n` bytes, moving it if need be;
/// the contents stay, up to the smaller of the sizes. Null if there is no
/// memory, and the block is as it was.
///
/// A block stays where it is while `n` fits it and is more than three quarters
/// of it. One that grows beyond the small classes goes below, and a block from
/// below stays with whom it belongs to, whatever its size.
///
/// # Safety
/// As for [`free`], but for the block's use.
#[inline]
pub unsafe fn realloc<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    let Some(class) = MAP.find(p.addr()).class() else {
        // SAFETY: the caller's promises.
        return unsafe { realloc_foreign::<ALIGN>(below, p, n) };
    };
    let size = class.size();
    if n <= size && 4 * n > 3 * size {
        return p;
    }
    // SAFETY: the caller's promises; `p` is a block of this size.
    unsafe { move_block::<ALIGN>(below, p, size, n) }
}

/// Realloc of a block of ours that does not stay, unless it is of the right class.
#[inline(never)]
unsafe fn move_block<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    size: usize,
    n: usize,
) -> *mut c_void {
    if n <= SMALL_MAX {
        if n.max(1).next_multiple_of(ALIGN) == size {
            return p;
        }
        // SAFETY: the caller's promise.
        let block = unsafe { malloc::<ALIGN>(below, n) };
        // SAFETY: the caller's promises.
        return unsafe { into(block, below, p, size, n) };
    }
    if n > REQUEST_MAX {
        return ptr::null_mut();
    }
    if cutoff::class_of(n).is_some_and(|class| class.size() == size) {
        return p;
    }
    let block = if n > size {
        // What has grown beyond the small classes will grow again; the C
        // library's realloc often extends it where it is, where between our own
        // classes each step would copy.
        // SAFETY: T1.
        make_below(n, || unsafe { (below.malloc)(below.ctx, n) })
    } else {
        // SAFETY: the caller's promise.
        unsafe { malloc::<ALIGN>(below, n) }
    };
    // SAFETY: the caller's promises.
    unsafe { into(block, below, p, size, n) }
}

/// Moves what is in our block at `p` of `size` bytes into a new one for `n`, if there
/// was memory for that.
#[inline(always)]
unsafe fn into(
    block: *mut c_void,
    below: &Allocator,
    p: *mut c_void,
    size: usize,
    n: usize,
) -> *mut c_void {
    if block.is_null() {
        return if n <= size { p } else { ptr::null_mut() }; // O2
    }
    // SAFETY: two blocks, each at least so long; the new one is nobody's yet.
    unsafe { block.copy_from_nonoverlapping(p, n.min(size)) };
    // SAFETY: the caller has given `p` up.
    unsafe { free(below, p) };
    block
}

#[inline(never)]
unsafe fn realloc_foreign<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    if p.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { malloc::<ALIGN>(below, n) };
    }
    stop_if_stale(p);
    if n > REQUEST_MAX {
        return ptr::null_mut();
    }
    // How long the block was nobody knows here; buffers that grow do so by an
    // eighth.
    // SAFETY: O1 and T1; a realloc that failed has left the block as it was.
    ask_below(n / 8, || unsafe { (below.realloc)(below.ctx, p, n) })
}
