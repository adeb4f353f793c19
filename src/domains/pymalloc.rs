//! Ours as a domain's allocator, under the names that CPython knows: pymalloc,
//! and mimalloc for those who ask for that; and the domains MEM and OBJ, which
//! start with it.

use core::ffi::c_void;

use super::raw::WHATEVER_IS_IN_RAW;
use super::table::Table;
use crate::base::layout::{ALIGNMENT, PACKED_ALIGNMENT};
use crate::base::vtable::Allocator;
use crate::object;
use crate::tools;

/// `PYTHONMALLOC=pymalloc`, the default.
pub(crate) const PYMALLOC: Allocator = aligned::<ALIGNMENT>();
/// The same, packed.
const PACKED: Allocator = aligned::<PACKED_ALIGNMENT>();

const fn aligned<const ALIGN: usize>() -> Allocator {
    Allocator {
        ctx: core::ptr::null_mut(),
        malloc: malloc::<ALIGN>,
        calloc: calloc::<ALIGN>,
        realloc: realloc::<ALIGN>,
        free,
    }
}

/// The same, where somebody watches single blocks.
const WATCHED: Allocator = Allocator {
    ctx: (&raw const BELOW).cast::<c_void>().cast_mut(),
    ..tools::TABLE
};

static BELOW: Allocator = WHATEVER_IS_IN_RAW;

/// What serves a domain that is packed, or not, or watched.
pub(crate) fn packed(packed: bool) -> Allocator {
    if tools::is_wanted() {
        WATCHED
    } else if packed {
        PACKED
    } else {
        PYMALLOC
    }
}

/// `PYTHONMALLOC=mimalloc`: the same, told apart by its context.
pub(crate) const MIMALLOC: Allocator = Allocator {
    ctx: (&raw const MIMALLOC_MARK).cast::<c_void>().cast_mut(),
    ..PYMALLOC
};

static MIMALLOC_MARK: u8 = 0;

/// The domain MEM.
pub(crate) static MEM: Table = Table::new(PYMALLOC);
/// The domain OBJ.
pub(crate) static OBJ: Table = Table::new(PYMALLOC);

/// Whether `table` is ours, under whichever name.
pub(crate) fn is_ours(table: &Allocator) -> bool {
    [PYMALLOC, PACKED, WATCHED]
        .iter()
        .any(|ours| table.malloc as *const () == ours.malloc as *const ())
}

/// # Safety
/// As [`object::malloc`], for any context; so the three that follow.
#[unsafe(link_section = ".text.hot.rest")]
pub(crate) unsafe extern "C" fn malloc<const ALIGN: usize>(
    _: *mut c_void,
    n: usize,
) -> *mut c_void {
    // SAFETY: VTABLE-1.
    unsafe { object::malloc::<ALIGN>(&WHATEVER_IS_IN_RAW, n) }
}

/// # Safety
/// As [`object::calloc`].
#[unsafe(link_section = ".text.hot.rest")]
pub(crate) unsafe extern "C" fn calloc<const ALIGN: usize>(
    _: *mut c_void,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    // SAFETY: VTABLE-1.
    unsafe { object::calloc::<ALIGN>(&WHATEVER_IS_IN_RAW, nelem, elsize) }
}

/// # Safety
/// As [`object::realloc()`].
#[unsafe(link_section = ".text.hot.rest")]
pub(crate) unsafe extern "C" fn realloc<const ALIGN: usize>(
    _: *mut c_void,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    // SAFETY: VTABLE-1; the pointer's contract is the caller's.
    unsafe { object::realloc::<ALIGN>(&WHATEVER_IS_IN_RAW, p, n) }
}

/// # Safety
/// As [`object::free`].
#[unsafe(link_section = ".text.hot.rest")]
pub(crate) unsafe extern "C" fn free(_: *mut c_void, p: *mut c_void) {
    // SAFETY: VTABLE-1; the pointer's contract is the caller's.
    unsafe { object::free(&WHATEVER_IS_IN_RAW, p) }
}
