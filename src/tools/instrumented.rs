//! The object allocator when a tool is told of each block (`tools/annotate.rs`).
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
//! TOOLS-1  The last word of a block of a pool is what was asked for while the block is
//!     live, and `FREE` from when the program frees it until it is handed out again.

use core::ffi::c_void;
use core::ptr;

use super::annotate;
use crate::arena::page_map::MAP;
use crate::base::layout::{ALIGNMENT, REQUEST_MAX, pool_base};
use crate::base::size_class::{SMALL_MAX, SizeClass};
use crate::base::vtable::Allocator;
use crate::object;
use crate::object::fallback;
use crate::object::realloc as plain;
use crate::os::errno;
use crate::policy::size_policy;
use crate::pool::invalid_free::{self, InvalidFree};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// Bytes after each block that are nobody's, at least.
const BEHIND: usize = 16;
/// What no request can be.
const FREE: usize = usize::MAX;
const WORD: usize = size_of::<usize>();

/// Blocks that are free and wait, at the most.
const WAITING_MAX: usize = 1024;
#[unsafe(link_section = ".bss.tables")]
static WAITING: [AtomicPtr<c_void>; WAITING_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; WAITING_MAX];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Has `look` see the last word of the block at `p` (TOOLS-1).
fn with_last_word<T>(p: *mut c_void, class: SizeClass, look: impl FnOnce(*mut usize) -> T) -> T {
    let last = p.addr() + class.size() - WORD;
    annotate::unseen(last, || look(ptr::with_exposed_provenance_mut(last)))
}

fn remember(p: *mut c_void, class: SizeClass, n: usize) {
    // SAFETY: within the block, behind what the program may use.
    with_last_word(p, class, |word| unsafe { word.write(n) });
}

fn remembered(p: *mut c_void, class: SizeClass) -> usize {
    // SAFETY: as above.
    with_last_word(p, class, |word| unsafe { word.read() })
}

fn class_of(p: *mut c_void) -> Option<SizeClass> {
    MAP.find(p.addr()).class()
}

/// As [`object::malloc`]. What goes below the tool sees by itself: so does a request that
/// a pool would serve, but not with what is to lie behind it.
///
/// # Safety
/// The same.
pub(crate) unsafe fn malloc(below: &Allocator, n: usize) -> *mut c_void {
    let wide = n.saturating_add(BEHIND);
    if wide > SMALL_MAX && size_policy::class_of(wide).is_none() {
        if n > REQUEST_MAX {
            return errno::no_memory();
        }
        // SAFETY: VTABLE-1.
        return fallback::make(n, || unsafe { (below.malloc)(below.ctx, n) });
    }
    // SAFETY: the caller's promise.
    let block = unsafe { object::malloc::<ALIGNMENT>(below, wide) };
    if let Some(class) = class_of(block) {
        remember(block, class, n);
        // What lies behind the block before, or before the pool's first block.
        let before = (block.addr() - pool_base(block.addr())).min(BEHIND);
        annotate::block_begins(block.addr(), n, class.size(), before);
    }
    block
}

/// As [`object::calloc`].
///
/// # Safety
/// The same.
pub(crate) unsafe fn calloc(below: &Allocator, nelem: usize, elsize: usize) -> *mut c_void {
    let n = nelem.checked_mul(elsize).filter(|&n| n <= REQUEST_MAX);
    let Some(n) = n else {
        return errno::no_memory();
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
pub(crate) unsafe fn realloc(below: &Allocator, p: *mut c_void, n: usize) -> *mut c_void {
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
    unsafe {
        let new = malloc(below, n);
        plain::into(new, p, size, n, || free(below, p))
    }
}

/// As [`object::free`].
///
/// # Safety
/// The same.
pub(crate) unsafe fn free(below: &Allocator, p: *mut c_void) {
    let Some(class) = class_of(p) else {
        // SAFETY: the caller's promise.
        return unsafe { object::free(below, p) };
    };
    if requested(p, class).is_none() {
        return;
    }
    remember(p, class, FREE);
    annotate::block_ends(p.addr(), class.size());
    let place = &WAITING[NEXT.fetch_add(1, Relaxed) % WAITING_MAX];
    let older = place.swap(p, Relaxed);
    if !older.is_null() {
        // SAFETY: a block that the program has freed, once (TOOLS-1).
        unsafe { object::free(below, older) };
    }
}

/// How many bytes were asked for the live block at `p`; `None`, and a report, if there
/// is none.
fn requested(p: *mut c_void, class: SizeClass) -> Option<usize> {
    let pool = MAP.arena(p.addr()).map(|arena| arena.pool(p.addr()));
    let begins = pool.is_some_and(|pool| pool.begins_block(p.addr()));
    let invalid_free = if begins {
        let n = remembered(p, class);
        if n <= class.size() - BEHIND {
            return Some(n);
        }
        InvalidFree::AlreadyFree
    } else {
        InvalidFree::NotABlock
    };
    annotate::block_ends(p.addr(), 0); // memcheck has more to say
    invalid_free::report(Some(class), p.cast(), invalid_free);
    None
}
