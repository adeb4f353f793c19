//! Instrumented entry points of the object allocator, installed in place of the plain ones when guard
//! sampling or a tool is active.
//!
//! ```text
//!    guard sampling               one allocation in N is a guarded block
//!         | else
//!    memcheck, AddressSanitizer   `instrumented`: each block is annotated
//!         | else
//!    object.rs
//! ```
//!
//! # Threads
//!
//! Any thread may call any function, as in `object.rs`.

use core::ffi::c_void;
use core::ptr;

pub(crate) mod annotate;

pub(crate) mod instrumented;

use crate::background::init;
use crate::base::layout::REQUEST_MAX;
use crate::base::vtable::Allocator;
use crate::guard;
use crate::object;

/// Whether these functions are installed in the tables.
pub(crate) fn is_wanted() -> bool {
    guard::is_on() || annotate::any()
}

/// A guarded block of `n` bytes, or null.
fn guarded(n: usize) -> *mut c_void {
    init::happened(); // loads the unwinder
    guard::allocate(n).cast()
}

/// As [`object::malloc`].
///
/// # Safety
/// The contract of [`object::malloc`].
pub(crate) unsafe fn malloc<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    let block = guarded(n);
    if !block.is_null() {
        return block;
    }
    if annotate::any() {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        return unsafe { instrumented::malloc(below, n) };
    }
    // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
    unsafe { object::malloc::<ALIGN>(below, n) }
}

/// As [`object::calloc`].
///
/// # Safety
/// The contract of [`object::calloc`].
pub(crate) unsafe fn calloc<const ALIGN: usize>(
    below: &Allocator,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    let n = nelem.checked_mul(elsize).filter(|&n| n <= REQUEST_MAX);
    let block = n.map_or(ptr::null_mut(), guarded);
    if !block.is_null() {
        return block; // guarded blocks are zero
    }
    if annotate::any() {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        return unsafe { instrumented::calloc(below, nelem, elsize) };
    }
    // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
    unsafe { object::calloc::<ALIGN>(below, nelem, elsize) }
}

/// As [`object::realloc`]. A guarded block moves, so that uses of its old place are found.
///
/// # Safety
/// The contract of [`object::realloc`].
pub(crate) unsafe fn realloc<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    if p.is_null() {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        return unsafe { malloc::<ALIGN>(below, n) };
    }
    if !guard::owns(p.addr()) {
        if annotate::any() {
            // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
            return unsafe { instrumented::realloc(below, p, n) };
        }
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        return unsafe { object::realloc::<ALIGN>(below, p, n) };
    }
    let Some(size) = guard::size(p.cast()) else {
        return ptr::null_mut();
    };
    // SAFETY: `p` is a live guarded block of `size` bytes, which is freed once its content is copied.
    unsafe {
        let new = malloc::<ALIGN>(below, n);
        object::move_block(new, p, size, n, || guard::free(p.cast()))
    }
}

/// As [`object::free`].
///
/// # Safety
/// The contract of [`object::free`].
pub(crate) unsafe fn free(below: &Allocator, p: *mut c_void) {
    if guard::owns(p.addr()) {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        unsafe { guard::free(p.cast()) };
    } else if annotate::any() {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        unsafe { instrumented::free(below, p) };
    } else {
        // SAFETY: `below` keeps VTABLE-1; a pointer is NULL, a live block of a pool, or `below`'s.
        unsafe { object::free(below, p) };
    }
}
