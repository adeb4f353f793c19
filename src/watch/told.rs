//! The object allocator when a tool is told of each block (`tools.rs`).
//!
//! ```text
//!    the program's n bytes            at least 16 bytes that are nobody's
//!    +------------------------------+------------------------+-----------+
//!    |                              |                        | n, or     |
//!    |                              |                        | FREE      |
//!    +------------------------------+------------------------+-----------+
//!    address                                      the block's last word
//! ```
//!
//! The tool reports each access to what is nobody's. A block that is freed waits in a
//! ring before it is used again, so that late accesses fall into it.
//!
//! # Invariants
//!
//! Y1  The last word of a block of a pool is what was asked for while the block is
//!     live, and `FREE` from when the program frees it until it is handed out again.

use core::ffi::c_void;
use core::ptr;

use super::tools;
use crate::address_map::MAP;
use crate::allocator::Allocator;
use crate::below;
use crate::cutoff;
use crate::geometry::{ALIGNMENT, REQUEST_MAX, pool_base};
use crate::misuse::{self, Misuse};
use crate::object;
use crate::realloc as plain;
use crate::size_class::{SMALL_MAX, SizeClass};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// Bytes after each block that are nobody's, at least.
const BEHIND: usize = 16;
/// What no request can be.
const FREE: usize = usize::MAX;
const WORD: usize = size_of::<usize>();

/// Blocks that are free and wait.
static WAITING: [AtomicPtr<c_void>; 1024] =
    [const { AtomicPtr::new(ptr::null_mut()) }; WAITING_MAX];
static NEXT: AtomicUsize = AtomicUsize::new(0);
const WAITING_MAX: usize = 1024;

/// The last word of the block at `p`, read and set to `now`.
fn swap_last_word(p: *mut c_void, class: SizeClass, now: usize) -> usize {
    let last = p.addr() + class.size() - WORD;
    let word = ptr::with_exposed_provenance_mut::<usize>(last);
    // SAFETY: within the block, behind what the program may use (Y1).
    tools::unseen(last, || unsafe { word.replace(now) })
}

fn class_of(p: *mut c_void) -> Option<SizeClass> {
    MAP.find(p.addr()).class()
}

/// As [`object::malloc`]. What goes below the tool sees by itself: so does a request that
/// a pool would serve, but not with what is to lie behind it.
///
/// # Safety
/// The same.
pub unsafe fn malloc(below: &Allocator, n: usize) -> *mut c_void {
    let wide = n.saturating_add(BEHIND);
    if wide > SMALL_MAX && cutoff::class_of(wide).is_none() {
        if n > REQUEST_MAX {
            return ptr::null_mut();
        }
        // SAFETY: T1.
        return below::make(n, || unsafe { (below.malloc)(below.ctx, n) });
    }
    // SAFETY: the caller's promise.
    let block = unsafe { object::malloc::<ALIGNMENT>(below, wide) };
    if let Some(class) = class_of(block) {
        swap_last_word(block, class, n);
        // What lies behind the block before, or before the pool's first block.
        let before = (block.addr() - pool_base(block.addr())).min(BEHIND);
        tools::block_begins(block.addr(), n, class.size(), before);
    }
    block
}

/// As [`object::calloc`].
///
/// # Safety
/// The same.
pub unsafe fn calloc(below: &Allocator, nelem: usize, elsize: usize) -> *mut c_void {
    let n = nelem.checked_mul(elsize).filter(|&n| n <= REQUEST_MAX);
    let Some(n) = n else {
        return ptr::null_mut();
    };
    // SAFETY: the caller's promise.
    let block = unsafe { malloc(below, n) };
    if !block.is_null() {
        // SAFETY: `n` bytes that nobody else has.
        unsafe { block.write_bytes(0, n) };
    }
    block
}

/// As [`plain::realloc`]. A block of a pool moves always, so that its old place is
/// nobody's.
///
/// # Safety
/// The same.
pub unsafe fn realloc(below: &Allocator, p: *mut c_void, n: usize) -> *mut c_void {
    if p.is_null() {
        // SAFETY: the caller's promise, as in all that follow.
        return unsafe { malloc(below, n) };
    }
    let Some(class) = class_of(p) else {
        // SAFETY: as above.
        return unsafe { plain::realloc::<ALIGNMENT>(below, p, n) };
    };
    let Some(size) = requested(p, class) else {
        return ptr::null_mut();
    };
    // SAFETY: as above.
    let new = unsafe { malloc(below, n) };
    if new.is_null() {
        return if n <= size { p } else { new };
    }
    // SAFETY: two live blocks, as far as both reach.
    unsafe { new.copy_from_nonoverlapping(p, size.min(n)) };
    // SAFETY: as above.
    unsafe { free(below, p) };
    new
}

/// As [`object::free`].
///
/// # Safety
/// The same.
pub unsafe fn free(below: &Allocator, p: *mut c_void) {
    let Some(class) = class_of(p) else {
        // SAFETY: the caller's promise.
        return unsafe { object::free(below, p) };
    };
    if requested(p, class).is_none() {
        return;
    }
    swap_last_word(p, class, FREE);
    tools::block_ends(p.addr(), class.size());
    let place = &WAITING[NEXT.fetch_add(1, Relaxed) % WAITING_MAX];
    let older = place.swap(p, Relaxed);
    if !older.is_null() {
        // SAFETY: a block that the program has freed, once (Y1).
        unsafe { object::free(below, older) };
    }
}

/// How many bytes were asked for the live block at `p`; `None`, and a report, if there
/// is none.
fn requested(p: *mut c_void, class: SizeClass) -> Option<usize> {
    let begins = |address| Some(MAP.arena(address)?.pool(address).begins_block(address));
    let misuse = if begins(p.addr()) != Some(true) {
        Misuse::NotABlock
    } else {
        let n = swap_last_word(p, class, FREE);
        if n <= class.size() - BEHIND {
            swap_last_word(p, class, n);
            return Some(n);
        }
        Misuse::AlreadyFree
    };
    tools::block_ends(p.addr(), 0); // memcheck has more to say
    misuse::report(Some(class), p.cast(), misuse);
    None
}
