//! Realloc, for every size and every pointer.
//!
//! ```text
//!    the block is     n fits, and is more     else
//!                     than 3/4 of it
//!    ours             stays                   moves: to a class of ours, or below if
//!                                             it grows beyond the small classes
//!    not ours         goes below, whatever its size
//! ```
//!
//! # Invariants
//!
//! OBJECT-2  A failed realloc leaves the block as it was; one that shrinks never
//!     fails.
//!
//! # Threads
//!
//! As in `object/mod.rs`.

use core::ffi::c_void;
use core::ptr;

use crate::arena::page_map::MAP;
use crate::base::layout::{ALIGNMENT, REQUEST_MAX};
use crate::base::size_class::SMALL_MAX;
use crate::base::vtable::Allocator;
use crate::object::fallback;
use crate::object::{free, malloc};
use crate::os::errno;
use crate::policy::size_policy;

/// Whether a block of `size` bytes, 0 if it is not ours, stays as it is for `n`.
#[inline(always)]
fn stays(n: usize, size: usize) -> bool {
    n <= size && 4 * n > 3 * size
}

/// Changes the size of the block at `p` to `n` bytes, moving it if need be;
/// the contents stay, up to the smaller of the sizes. Null if there is no
/// memory, and the block is as it was.
///
/// # Safety
/// As for [`free`], but for the block's use.
#[inline]
pub(crate) unsafe fn realloc<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    let Some(found) = MAP.find_near(p.addr()) else {
        // SAFETY: the caller's promises.
        return unsafe { realloc_far::<ALIGN>(below, p, n) };
    };
    let size = found.size();
    if stays(n, size) {
        return p;
    }
    // SAFETY: the caller's promises; `p` is of this size.
    unsafe { change::<ALIGN>(below, p, n, size) }
}

/// The same for a pointer that is null, foreign, or far from the first arena.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn realloc_far<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    if p.is_null() {
        // A list that gets its first item.
        // SAFETY: the caller's promise.
        return unsafe { malloc::<ALIGN>(below, n) };
    }
    let size = MAP.find_far(p.addr()).size();
    if stays(n, size) {
        return p;
    }
    // SAFETY: as above.
    unsafe { change::<ALIGN>(below, p, n, size) }
}

/// Realloc of what does not simply stay: a block of ours of `size` bytes, or, if that is
/// 0, what is not ours.
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn change<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
    size: usize,
) -> *mut c_void {
    if size == 0 || n > SMALL_MAX {
        // SAFETY: the caller's promises.
        return unsafe { beyond_small(below, p, n, size) };
    }
    if (n.max(1) + (ALIGN - 1)) & !(ALIGN - 1) == size {
        return p; // it is of the right class
    }
    // SAFETY: the caller's promises.
    unsafe { into(malloc::<ALIGN>(below, n), p, size, n, || free(below, p)) }
}

/// What is not ours, or is to be of more than a small size.
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn beyond_small(below: &Allocator, p: *mut c_void, n: usize, size: usize) -> *mut c_void {
    if n > REQUEST_MAX {
        return errno::no_memory();
    }
    if size == 0 {
        // SAFETY: the caller's promises, as in all that follow.
        return unsafe { fallback::realloc(below, p, n) };
    }
    if size_policy::class_of(n).is_some_and(|class| class.size() == size) {
        return p;
    }
    let block = if n > size {
        // What has grown beyond the small classes will grow again; the C
        // library's realloc often extends it where it is, where between our own
        // classes each step would copy.
        // SAFETY: VTABLE-1.
        fallback::make(n, || unsafe { (below.malloc)(below.ctx, n) })
    } else {
        // Medium, so packed nowhere.
        // SAFETY: as above.
        unsafe { malloc::<ALIGNMENT>(below, n) }
    };
    // SAFETY: as above.
    unsafe { into(block, p, size, n, || free(below, p)) }
}

/// Moves what is in the block at `p`, of `size` bytes, into `block`, made for `n`, if
/// there was memory for that; then `free` gives `p` back.
///
/// # Safety
/// Two blocks, the first of which the caller has given up.
#[inline(always)]
pub(crate) unsafe fn into(
    block: *mut c_void,
    p: *mut c_void,
    size: usize,
    n: usize,
    free: impl FnOnce(),
) -> *mut c_void {
    if block.is_null() {
        return if n <= size { p } else { ptr::null_mut() }; // OBJECT-2
    }
    // SAFETY: each is at least so long; the new one is nobody's yet.
    unsafe { block.copy_from_nonoverlapping(p, n.min(size)) };
    free();
    block
}
