//! The object allocator when somebody watches single blocks: the plain functions know
//! nothing of it; these are in the tables instead of them.
//!
//! ```text
//!    OBMALLOC_GUARD=N             one allocation in N is a guarded block
//!         | else
//!    memcheck, AddressSanitizer   `told`: the tool knows each block
//!         | else
//!    object/mod.rs
//! ```
//!
//! # Threads
//!
//! As in `object/mod.rs`.

use core::ffi::c_void;
use core::ptr;

pub(crate) mod annotate;

pub(crate) mod instrumented;

use crate::background::init;
use crate::base::layout::REQUEST_MAX;
use crate::base::vtable::Allocator;
use crate::guard;
use crate::object;
use crate::object::realloc as plain;

/// Whether these functions are to be in the tables.
pub(crate) fn is_wanted() -> bool {
    guard::is_on() || annotate::any()
}

/// A guarded block of `n` bytes, or null.
fn guarded(n: usize) -> *mut c_void {
    init::happened(); // what unwinds the stack is loaded then
    guard::allocate(n).cast()
}

/// As [`object::malloc`].
///
/// # Safety
/// The same.
pub(crate) unsafe fn malloc<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    let block = guarded(n);
    if !block.is_null() {
        return block;
    }
    if annotate::any() {
        // SAFETY: the caller's promise.
        return unsafe { instrumented::malloc(below, n) };
    }
    // SAFETY: as above.
    unsafe { object::malloc::<ALIGN>(below, n) }
}

/// As [`object::calloc`].
///
/// # Safety
/// The same.
pub(crate) unsafe fn calloc<const ALIGN: usize>(
    below: &Allocator,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    let n = nelem.checked_mul(elsize).filter(|&n| n <= REQUEST_MAX);
    let block = n.map_or(ptr::null_mut(), guarded);
    if !block.is_null() {
        return block; // it is zero
    }
    if annotate::any() {
        // SAFETY: the caller's promise.
        return unsafe { instrumented::calloc(below, nelem, elsize) };
    }
    // SAFETY: as above.
    unsafe { object::calloc::<ALIGN>(below, nelem, elsize) }
}

/// As [`plain::realloc`]. A guarded block moves, so that its old place is watched.
///
/// # Safety
/// The same.
pub(crate) unsafe fn realloc<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    if p.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { malloc::<ALIGN>(below, n) };
    }
    if !guard::owns(p.addr()) {
        if annotate::any() {
            // SAFETY: as above.
            return unsafe { instrumented::realloc(below, p, n) };
        }
        // SAFETY: as above.
        return unsafe { plain::realloc::<ALIGN>(below, p, n) };
    }
    let Some(size) = guard::size(p.cast()) else {
        return ptr::null_mut();
    };
    // SAFETY: as above; what is guarded goes back to where it came from.
    unsafe {
        let new = malloc::<ALIGN>(below, n);
        plain::into(new, p, size, n, || guard::free(p.cast()))
    }
}

/// As [`object::free`].
///
/// # Safety
/// The same.
pub(crate) unsafe fn free(below: &Allocator, p: *mut c_void) {
    if guard::owns(p.addr()) {
        // SAFETY: the caller's promise.
        unsafe { guard::free(p.cast()) };
    } else if annotate::any() {
        // SAFETY: as above.
        unsafe { instrumented::free(below, p) };
    } else {
        // SAFETY: as above.
        unsafe { object::free(below, p) };
    }
}
