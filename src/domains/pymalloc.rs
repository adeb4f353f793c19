//! Ours as a domain's allocator, under the names that CPython knows: pymalloc,
//! and mimalloc for those who ask for that; and the domains MEM and OBJ, which
//! start with it.

use core::ffi::c_void;

use super::raw::WHATEVER_IS_IN_RAW;
use super::table::Table;
use crate::allocator::Allocator;
use crate::object;

/// `PYTHONMALLOC=pymalloc`, the default.
pub const PYMALLOC: Allocator = Allocator {
    ctx: core::ptr::null_mut(),
    malloc,
    calloc,
    realloc,
    free,
};

/// `PYTHONMALLOC=mimalloc`: the same, told apart by its context.
pub const MIMALLOC: Allocator = Allocator {
    ctx: (&raw const MIMALLOC_MARK).cast::<c_void>().cast_mut(),
    ..PYMALLOC
};

static MIMALLOC_MARK: u8 = 0;

/// The domain MEM.
pub static MEM: Table = Table::new(PYMALLOC);
/// The domain OBJ.
pub static OBJ: Table = Table::new(PYMALLOC);

/// Whether `table` is ours, under whichever name.
pub fn is_ours(table: &Allocator) -> bool {
    table.malloc as *const () == malloc as *const ()
}

/// # Safety
/// As [`object::malloc`], for any context; so the three that follow.
pub unsafe extern "C" fn malloc(_: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: T1.
    unsafe { object::malloc(&WHATEVER_IS_IN_RAW, n) }
}

/// # Safety
/// As [`object::calloc`].
pub unsafe extern "C" fn calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    // SAFETY: T1.
    unsafe { object::calloc(&WHATEVER_IS_IN_RAW, nelem, elsize) }
}

/// # Safety
/// As [`object::realloc`].
pub unsafe extern "C" fn realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: T1; the pointer's contract is the caller's.
    unsafe { object::realloc(&WHATEVER_IS_IN_RAW, p, n) }
}

/// # Safety
/// As [`object::free`].
pub unsafe extern "C" fn free(_: *mut c_void, p: *mut c_void) {
    // SAFETY: T1; the pointer's contract is the caller's.
    unsafe { object::free(&WHATEVER_IS_IN_RAW, p) }
}
