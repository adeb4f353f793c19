//! The object allocator when somebody watches single blocks: the plain functions know
//! nothing of it; these are in the tables instead of them.
//!
//! ```text
//!    OBMALLOC_GUARD=N             one allocation in N is a guarded block
//!         | else
//!    memcheck, AddressSanitizer   `told`: the tool knows each block
//!         | else
//!    object.rs
//! ```
//!
//! # Threads
//!
//! As in `object.rs`.

use core::ffi::c_void;
use core::ptr;

pub mod tools;

pub mod told;

use crate::allocator::Allocator;
use crate::first_use;
use crate::geometry::REQUEST_MAX;
use crate::guard;
use crate::object;
use crate::realloc as plain;

/// Whether these functions are to be in the tables.
pub fn is_wanted() -> bool {
    guard::is_on() || tools::any()
}

/// A guarded block of `n` bytes, or null.
fn guarded(n: usize) -> *mut c_void {
    let block = guard::allocate(n);
    if !block.is_null() {
        first_use::happened();
    }
    block.cast()
}

/// As [`object::malloc`].
///
/// # Safety
/// The same.
pub unsafe fn malloc<const ALIGN: usize>(below: &Allocator, n: usize) -> *mut c_void {
    let block = guarded(n);
    if !block.is_null() {
        return block;
    }
    if tools::any() {
        // SAFETY: the caller's promise.
        return unsafe { told::malloc(below, n) };
    }
    // SAFETY: as above.
    unsafe { object::malloc::<ALIGN>(below, n) }
}

/// As [`object::calloc`].
///
/// # Safety
/// The same.
pub unsafe fn calloc<const ALIGN: usize>(
    below: &Allocator,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    let n = nelem.checked_mul(elsize).filter(|&n| n <= REQUEST_MAX);
    let block = n.map_or(ptr::null_mut(), guarded);
    if !block.is_null() {
        return block; // it is zero
    }
    if tools::any() {
        // SAFETY: the caller's promise.
        return unsafe { told::calloc(below, nelem, elsize) };
    }
    // SAFETY: as above.
    unsafe { object::calloc::<ALIGN>(below, nelem, elsize) }
}

/// As [`plain::realloc`]. A guarded block moves, so that its old place is watched.
///
/// # Safety
/// The same.
pub unsafe fn realloc<const ALIGN: usize>(
    below: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    if p.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { malloc::<ALIGN>(below, n) };
    }
    if !guard::owns(p.addr()) {
        if tools::any() {
            // SAFETY: as above.
            return unsafe { told::realloc(below, p, n) };
        }
        // SAFETY: as above.
        return unsafe { plain::realloc::<ALIGN>(below, p, n) };
    }
    let Some(size) = guard::size(p.cast()) else {
        return ptr::null_mut();
    };
    // SAFETY: as above.
    let new = unsafe { malloc::<ALIGN>(below, n) };
    if new.is_null() {
        return if n <= size { p } else { new };
    }
    // SAFETY: two blocks that are live, as far as both reach.
    unsafe { new.cast::<u8>().copy_from(p.cast(), size.min(n)) };
    // SAFETY: the caller's promise.
    unsafe { guard::free(p.cast()) };
    new
}

/// As [`object::free`].
///
/// # Safety
/// The same.
pub unsafe fn free(below: &Allocator, p: *mut c_void) {
    if guard::owns(p.addr()) {
        // SAFETY: the caller's promise.
        unsafe { guard::free(p.cast()) };
    } else if tools::any() {
        // SAFETY: as above.
        unsafe { told::free(below, p) };
    } else {
        // SAFETY: as above.
        unsafe { object::free(below, p) };
    }
}
