//! The C library as a domain's allocator, and the domain RAW, which starts
//! with it.
//!
//! A block of ours that goes astray here is ours all the same. So a domain may
//! be switched between the C library and us with blocks alive.

use core::ffi::c_void;

use super::table::Table;
use crate::arena::page_map::MAP;
use crate::base::layout::ALIGNMENT;
use crate::base::vtable::{Allocator, LIBC};
use crate::object;

/// `PYTHONMALLOC=malloc`: the C library's functions.
pub(crate) const MALLOC: Allocator = Allocator {
    ctx: core::ptr::null_mut(),
    malloc: LIBC.malloc,
    calloc: LIBC.calloc,
    realloc,
    free,
};

/// The domain RAW.
pub(crate) static RAW: Table = Table::new(MALLOC);

/// Whatever is in the domain RAW when it is called. Below us it serves what
/// pools do not: as in CPython, with whatever hooks are on RAW.
pub(crate) const WHATEVER_IS_IN_RAW: Allocator = Allocator {
    ctx: core::ptr::null_mut(),
    malloc: current_malloc,
    calloc: current_calloc,
    realloc: current_realloc,
    free: current_free,
};

/// Realloc of the C library, for any pointer.
///
/// # Safety
/// `p` is NULL, a block of ours, or one of the C library's.
pub(crate) unsafe extern "C" fn realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    if MAP.find(p.addr()).class().is_some() {
        // SAFETY: VTABLE-1; the pointer is a block of ours.
        unsafe { object::realloc::<ALIGNMENT>(&LIBC, p, n) }
    } else {
        // SAFETY: VTABLE-1; the pointer is NULL or the C library's.
        unsafe { (LIBC.realloc)(LIBC.ctx, p, n) }
    }
}

/// Free of the C library, for any pointer.
///
/// # Safety
/// As for [`realloc`](fn@realloc).
pub(crate) unsafe extern "C" fn free(_: *mut c_void, p: *mut c_void) {
    if MAP.find(p.addr()).class().is_some() {
        // SAFETY: VTABLE-1; the pointer is a block of ours.
        unsafe { object::free(&LIBC, p) }
    } else {
        // SAFETY: VTABLE-1; the pointer is NULL or the C library's.
        unsafe { (LIBC.free)(LIBC.ctx, p) }
    }
}

unsafe extern "C" fn current_malloc(_: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: VTABLE-1, as in the three that follow.
    unsafe { RAW.malloc(n) }
}

unsafe extern "C" fn current_calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { RAW.calloc(nelem, elsize) }
}

unsafe extern "C" fn current_realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { RAW.realloc(p, n) }
}

unsafe extern "C" fn current_free(_: *mut c_void, p: *mut c_void) {
    // SAFETY: as above.
    unsafe { RAW.free(p) }
}
