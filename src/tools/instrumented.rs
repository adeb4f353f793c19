//! The object allocator with annotations of each block for a tool (`tools/annotate.rs`).
//!
//! ```text
//!    the program's n bytes            at least 16 inaccessible bytes
//!    +------------------------------+------------------------+-----------+
//!    |                              |                        | n, or     |
//!    |                              |                        | FREE      |
//!    +------------------------------+------------------------+-----------+
//!    address                                      the block's last word
//! ```
//!
//! The tool reports each access to inaccessible bytes. A freed block waits in a ring before it is used
//! again, so that late accesses hit it.
//!
//! # Invariants
//!
//! TOOLS-1  The last word of a block of a pool is the requested size while the block is live, and
//!     `FREE` from the program's free until the block is allocated again.

use core::ffi::c_void;
use core::ptr;

use super::annotate;
use crate::arena::page_map::MAP;
use crate::base::layout::{ALIGNMENT, REQUEST_MAX, pool_base};
use crate::base::size_class::{SMALL_MAX, SizeClass};
use crate::base::vtable::Allocator;
use crate::object;
use crate::os::errno;
use crate::policy::size_policy;
use crate::pool::invalid_free::{self, InvalidFree};
use crate::sync::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

/// Minimum inaccessible bytes after each block.
const BEHIND: usize = 16;
/// A value that is no size.
const FREE: usize = usize::MAX;
const WORD: usize = size_of::<usize>();

/// Maximum freed blocks that wait.
const WAITING_MAX: usize = 1024;
#[unsafe(link_section = ".bss.tables")]
static WAITING: [AtomicPtr<c_void>; WAITING_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; WAITING_MAX];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Calls `look` with the last word of the block at `p` (TOOLS-1).
fn with_last_word<T>(p: *mut c_void, class: SizeClass, look: impl FnOnce(*mut usize) -> T) -> T {
    let last = p.addr() + class.size() - WORD;
    annotate::unseen(last, || look(ptr::with_exposed_provenance_mut(last)))
}

fn remember(p: *mut c_void, class: SizeClass, n: usize) {
    // SAFETY: within the block, after the program's bytes.
    with_last_word(p, class, |word| unsafe { word.write(n) });
}

fn remembered(p: *mut c_void, class: SizeClass) -> usize {
    // SAFETY: within the block, after the program's bytes.
    with_last_word(p, class, |word| unsafe { word.read() })
}

fn class_of(p: *mut c_void) -> Option<SizeClass> {
    MAP.find(p.addr()).class()
}

/// As [`object::malloc`]. The tool sees blocks of the fallback allocator by itself, which also serves
/// a request that fits a pool only without the bytes after it.
///
/// # Safety
/// The contract of [`object::malloc`].
pub(crate) unsafe fn malloc(below: &Allocator, n: usize) -> *mut c_void {
    let wide = n.saturating_add(BEHIND);
    if wide > SMALL_MAX && size_policy::class_of(wide).is_none() {
        if n > REQUEST_MAX {
            return errno::no_memory();
        }
        // SAFETY: VTABLE-1 holds for the fallback.
        return object::alloc_from_fallback(below, n, || unsafe { (below.malloc)(below.ctx, n) });
    }
    // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
    let block = unsafe { object::malloc::<ALIGNMENT>(below, wide) };
    if let Some(class) = class_of(block) {
        remember(block, class, n);
        // The bytes after the previous block, or before the pool's first block.
        let before = (block.addr() - pool_base(block.addr())).min(BEHIND);
        annotate::block_begins(block.addr(), n, class.size(), before);
    }
    block
}

/// As [`object::calloc`].
///
/// # Safety
/// The contract of [`object::calloc`].
pub(crate) unsafe fn calloc(below: &Allocator, nelem: usize, elsize: usize) -> *mut c_void {
    let n = nelem.checked_mul(elsize).filter(|&n| n <= REQUEST_MAX);
    let Some(n) = n else {
        return errno::no_memory();
    };
    // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
    let block = unsafe { malloc(below, n) };
    if !block.is_null() {
        // SAFETY: a new block of `n` bytes.
        unsafe { block.write_bytes(0, n) };
    }
    block
}

/// As [`object::realloc`]. A block of a pool always moves, so that its old place is inaccessible.
///
/// # Safety
/// The contract of [`object::realloc`].
pub(crate) unsafe fn realloc(below: &Allocator, p: *mut c_void, n: usize) -> *mut c_void {
    if p.is_null() {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        return unsafe { malloc(below, n) };
    }
    let Some(class) = class_of(p) else {
        // SAFETY: `below` keeps VTABLE-1; `p` is a block of `below`.
        return unsafe { object::realloc::<ALIGNMENT>(below, p, n) };
    };
    let Some(size) = requested(p, class) else {
        return ptr::null_mut();
    };
    // SAFETY: `p` is a live block of `size` bytes, which is freed once its content is copied.
    unsafe {
        let new = malloc(below, n);
        object::move_block(new, p, size, n, || free(below, p))
    }
}

/// As [`object::free`].
///
/// # Safety
/// The contract of [`object::free`].
pub(crate) unsafe fn free(below: &Allocator, p: *mut c_void) {
    let Some(class) = class_of(p) else {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        return unsafe { object::free(below, p) };
    };
    if requested(p, class).is_none() {
        return;
    }
    remember(p, class, FREE);
    annotate::block_ends(p.addr(), class.size());
    let place = &WAITING[NEXT.fetch_add(1, Relaxed) % WAITING_MAX];
    // Release publishes what the program did with `p` before it freed it; Acquire pairs with that
    // of the thread that put `older` there, because this one makes it available again.
    let older = place.swap(p, AcqRel);
    if !older.is_null() {
        // SAFETY: a block that the program freed once (TOOLS-1).
        unsafe { object::free(below, older) };
    }
}

/// The requested size of the live block at `p`; `None`, and a report, if there is none.
fn requested(p: *mut c_void, class: SizeClass) -> Option<usize> {
    let pool = MAP.arena(p.addr()).map(|arena| arena.pool(p.addr()));
    let begins = pool.is_some_and(|pool| pool.is_block_start(p.addr()));
    let invalid_free = if begins {
        let n = remembered(p, class);
        if n <= class.size() - BEHIND {
            return Some(n);
        }
        InvalidFree::AlreadyFree
    } else {
        InvalidFree::NotABlock
    };
    annotate::block_ends(p.addr(), 0); // memcheck's own report has stacks
    invalid_free::report(Some(class), p.cast(), invalid_free);
    None
}
