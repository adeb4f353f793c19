//! The object allocator: malloc, calloc and free for every size and every pointer;
//! realloc is in `object/realloc.rs`. Small and medium requests are served from pools; all else
//! goes *below* (`object/fallback.rs`), to the table that each call brings along.
//!
//! ```text
//!    request in bytes    0 .. 512     513 .. 32768      more
//!    served by           small        medium (policy/size_policy.rs) below
//!
//!    address map says    a class                nothing
//!    freed to            that class's magazine  below
//! ```
//!
//! A domain that is packed (`ALIGN` 8 instead of 16) rounds small requests up to 8
//! bytes; where a block comes from and goes to is the same.
//!
//! # Threads
//!
//! Any thread may call anything, with or without a GIL, and free what another
//! one allocated.

pub(crate) mod fallback;

pub(crate) mod realloc;

pub(crate) use realloc::realloc;

use core::ffi::c_void;
use core::ptr;

use crate::arena::page_map::MAP;
use crate::background::decay;
use crate::base::layout::{ALIGNMENT, REQUEST_MAX};
use crate::base::size_class::{SMALL_MAX, SizeClass};
use crate::base::vtable::Allocator;
use crate::heap::{self, HEAP};
use crate::os::errno;
use crate::policy::limits;
use crate::policy::size_policy;
use crate::pool::shard::{self, Shard};
use crate::tcache::current;
use crate::tcache::registry;

/// Allocates `n` bytes. Null if there is no memory for them.
///
/// # Safety
/// `below` keeps VTABLE-1.
#[inline(always)]
pub(crate) unsafe fn malloc<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    if n > SMALL_MAX {
        // SAFETY: the caller's promise.
        return unsafe { beyond_small(below, n) };
    }
    let block = current::magazines().pop_small::<ALIGN>(n);
    if !block.is_null() {
        return block.cast();
    }
    // SAFETY: the caller's promise.
    unsafe { miss::<ALIGN>(below, n) }
}

/// A medium request or a large one. (Cold for the compiler: so that the hit path of
/// small ones falls through to its end. A jump that is taken costs it two cycles.)
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn beyond_small(below: &Allocator, n: usize) -> *mut c_void {
    let Some(class) = size_policy::class_of(n) else {
        if n > REQUEST_MAX {
            return errno::no_memory();
        }
        // SAFETY: VTABLE-1.
        return fallback::make(n, || unsafe { (below.malloc)(below.ctx, n) });
    };
    // SAFETY: the caller's promise.
    unsafe { medium(below, class, n) }
}

/// A request for `n` bytes, which `class`, a medium one, serves.
///
/// # Safety
/// `below` keeps VTABLE-1.
#[inline]
unsafe fn medium(below: &Allocator, class: SizeClass, n: usize) -> *mut c_void {
    let block = current::magazines().pop(class);
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
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn miss<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    let Some(class) = SizeClass::aligned::<ALIGN>(n) else {
        return ptr::null_mut();
    };
    let mut block = take(class, n);
    if block.is_null() && limits::is_over() && decay::reclaim() {
        block = take(class, n);
    }
    if heap::grew() {
        decay::purge_before_growth();
    }
    if !block.is_null() {
        return block.cast();
    }
    // No arena to be had. As in obmalloc, what is below may still have some.
    // SAFETY: VTABLE-1.
    fallback::make(class.size(), || unsafe {
        (below.malloc)(below.ctx, class.size())
    })
}

/// A block of `class` from the pools, for a request for `n` bytes.
#[unsafe(link_section = ".text.hot.rest")]
fn take(class: SizeClass, n: usize) -> *mut u8 {
    match fallback::current_magazines() {
        Some(magazines) => match magazines.pop(class) {
            // The thread's first miss: its magazines may hold what a thread
            // that a fork has ended left in them.
            block if !block.is_null() => block,
            _ => {
                if shard::is_contended() {
                    registry::part();
                }
                magazines.refill(&HEAP, class, n)
            }
        },
        None => HEAP.take_one(Shard::FIRST, class, n),
    }
}

/// Allocates `nelem` times `elsize` bytes, all zero. Null if there is no
/// memory for them, or the product exceeds `PY_SSIZE_T_MAX`.
///
/// # Safety
/// `below` keeps VTABLE-1.
#[inline(always)]
pub(crate) unsafe fn calloc<const ALIGN: usize>(
    below: &Allocator,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    let Some(n @ ..=SMALL_MAX) = nelem.checked_mul(elsize) else {
        // SAFETY: the caller's promise.
        return unsafe { calloc_beyond_small(below, nelem, elsize) };
    };
    let block = current::magazines().pop_small::<ALIGN>(n);
    if block.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { calloc_miss::<ALIGN>(below, n) };
    }
    // SAFETY: at least `n` bytes, which nobody else has.
    unsafe { clear(block, n) };
    block.cast()
}

/// What is medium, large, or more than there can be.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn calloc_beyond_small(below: &Allocator, nelem: usize, elsize: usize) -> *mut c_void {
    let Some(n @ ..=REQUEST_MAX) = nelem.checked_mul(elsize) else {
        return errno::no_memory();
    };
    let Some(class) = size_policy::class_of(n) else {
        // SAFETY: VTABLE-1.
        return fallback::make(n, || unsafe { (below.calloc)(below.ctx, nelem, elsize) });
    };
    // SAFETY: the caller's promise.
    let block = unsafe { medium(below, class, n) };
    // SAFETY: as in `calloc`.
    unsafe { cleared(block, n) }
}

/// As [`miss`].
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn calloc_miss<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    let block = unsafe { miss::<ALIGN>(below, n) };
    // SAFETY: as in `calloc`.
    unsafe { cleared(block, n) }
}

/// The block with its first `n` bytes cleared, if there is one.
///
/// # Safety
/// As for [`clear`].
unsafe fn cleared(block: *mut c_void, n: usize) -> *mut c_void {
    if !block.is_null() {
        // SAFETY: the caller's promise.
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
/// `below` keeps VTABLE-1. A pointer into one of our pools is a block that is live;
/// nobody uses it any more.
#[inline(always)]
pub(crate) unsafe fn free(below: &Allocator, p: *mut c_void) {
    match MAP.find_near(p.addr()) {
        Some(found) if current::magazines().push(found, p.cast()) => {}
        // SAFETY: the caller's promises.
        _ => unsafe { not_pushed(below, p) },
    }
}

/// The magazine is full, the thread has none yet, or the pointer is foreign or far from
/// the first arena.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn not_pushed(below: &Allocator, p: *mut c_void) {
    let found = MAP.find(p.addr());
    let Some(class) = found.class() else {
        // SAFETY: the caller's promises.
        return unsafe { fallback::free(below, p) };
    };
    let Some(magazines) = fallback::current_magazines() else {
        return HEAP.give(class, &[p.cast()]);
    };
    if magazines.push(found, p.cast()) {
        return; // far, or into magazines that the thread has just got
    }
    let mut back = magazines.flush(&HEAP, class);
    if !magazines.push(found, p.cast()) {
        HEAP.give(class, &[p.cast()]); // a class without magazine
        back += 1;
    }
    if back > 0 {
        decay::tick(back * class.size());
    }
}
