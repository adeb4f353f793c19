//! CPython's tables as C programs pass them: any function may be missing. A missing one is replaced
//! by a function that ends the process with a reason when it is called, and not before: CPython
//! accepts these tables.

use core::ffi::c_void;

use crate::base::vtable::{Allocator, ArenaAllocator, Backend};
use crate::os::text;

/// A domain's allocator: four functions and their first argument. Sizes are in bytes, at most
/// PY_SSIZE_T_MAX; a request for 0 bytes returns a pointer that is not NULL; blocks are aligned to 16
/// bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PyMemAllocatorEx {
    /// Passed to the functions as their first argument.
    pub ctx: *mut c_void,
    /// As C's malloc.
    pub malloc: Option<unsafe extern "C" fn(ctx: *mut c_void, size: usize) -> *mut c_void>,
    /// As C's calloc.
    pub calloc:
        Option<unsafe extern "C" fn(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void>,
    /// As C's realloc.
    pub realloc: Option<
        unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void, new_size: usize) -> *mut c_void,
    >,
    /// As C's free.
    pub free: Option<unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void)>,
}

/// The allocator of arenas. `alloc` returns NULL or `size` bytes; `free` is called with the result
/// of `alloc` and its size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PyObjectArenaAllocator {
    /// Passed to the functions as their first argument.
    pub ctx: *mut c_void,
    /// Allocates an arena.
    pub alloc: Option<unsafe extern "C" fn(ctx: *mut c_void, size: usize) -> *mut c_void>,
    /// Frees an arena.
    pub free: Option<unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void, size: usize)>,
}

// SAFETY: five words; VTABLE-1 holds for calls of the functions.
unsafe impl Sync for PyMemAllocatorEx {}
// SAFETY: three words; VTABLE-1 holds for calls of the functions.
unsafe impl Sync for PyObjectArenaAllocator {}

impl PyMemAllocatorEx {
    /// The table of an unknown domain.
    pub const NONE: PyMemAllocatorEx = PyMemAllocatorEx {
        ctx: core::ptr::null_mut(),
        malloc: None,
        calloc: None,
        realloc: None,
        free: None,
    };

    /// The table with every function.
    pub fn filled(&self) -> Allocator {
        Allocator {
            ctx: self.ctx,
            malloc: self.malloc.unwrap_or(MISSING.malloc),
            calloc: self.calloc.unwrap_or(MISSING.calloc),
            realloc: self.realloc.unwrap_or(MISSING.realloc),
            free: self.free.unwrap_or(MISSING.free),
        }
    }
}

/// A function of a table; `None` if it stands for a missing one.
macro_rules! unless_missing {
    ($function:expr, $missing:expr) => {
        Some($function).filter(|&function| function as *const () != $missing as *const ())
    };
}

impl From<Allocator> for PyMemAllocatorEx {
    fn from(table: Allocator) -> PyMemAllocatorEx {
        PyMemAllocatorEx {
            ctx: table.ctx,
            malloc: unless_missing!(table.malloc, MISSING.malloc),
            calloc: unless_missing!(table.calloc, MISSING.calloc),
            realloc: unless_missing!(table.realloc, MISSING.realloc),
            free: unless_missing!(table.free, MISSING.free),
        }
    }
}

impl PyObjectArenaAllocator {
    /// The table with every function.
    pub fn filled(&self) -> ArenaAllocator {
        ArenaAllocator {
            ctx: self.ctx,
            alloc: self.alloc.unwrap_or(no_arena_alloc),
            free: self.free.unwrap_or(no_arena_free),
        }
    }
}

impl From<ArenaAllocator> for PyObjectArenaAllocator {
    fn from(table: ArenaAllocator) -> PyObjectArenaAllocator {
        PyObjectArenaAllocator {
            ctx: table.ctx,
            alloc: unless_missing!(table.alloc, no_arena_alloc),
            free: unless_missing!(table.free, no_arena_free),
        }
    }
}

/// Ends the process: a function was called with NULL for a table.
pub(crate) fn no_table(function: &str) -> ! {
    let pid = text::pid();
    text::fatal(format_args!("{function}: NULL is no table (pid {pid})"))
}

fn missing(table: &str, function: &str) -> ! {
    let pid = text::pid();
    text::fatal(format_args!(
        "the table given to {table} has no {function} (pid {pid})"
    ))
}

const SET: &str = "PyMem_SetAllocator";
const SET_ARENA: &str = "PyObject_SetArenaAllocator";

/// Stands for a function that a table does not have.
struct Missing;

impl Backend for Missing {
    unsafe fn malloc(_: *mut c_void, _: usize) -> *mut c_void {
        missing(SET, "malloc")
    }

    unsafe fn calloc(_: *mut c_void, _: usize, _: usize) -> *mut c_void {
        missing(SET, "calloc")
    }

    unsafe fn realloc(_: *mut c_void, _: *mut c_void, _: usize) -> *mut c_void {
        missing(SET, "realloc")
    }

    unsafe fn free(_: *mut c_void, _: *mut c_void) {
        missing(SET, "free")
    }
}

const MISSING: Allocator = Allocator::of::<Missing>(core::ptr::null_mut());

unsafe extern "C" fn no_arena_alloc(_: *mut c_void, _: usize) -> *mut c_void {
    missing(SET_ARENA, "alloc")
}

unsafe extern "C" fn no_arena_free(_: *mut c_void, _: *mut c_void, _: usize) {
    missing(SET_ARENA, "free")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::vtable::LIBC;

    #[test]
    fn holes_are_filled_inside_and_holes_again_outside() {
        let whole = PyMemAllocatorEx::from(LIBC);
        assert!(whole.malloc.is_some() && whole.free.is_some());
        let half = PyMemAllocatorEx {
            calloc: None,
            ..whole
        };
        let back = PyMemAllocatorEx::from(half.filled());
        assert!(back.calloc.is_none() && back.realloc.is_some());
        let none = PyMemAllocatorEx::from(PyMemAllocatorEx::NONE.filled());
        assert!(none.malloc.is_none() && none.realloc.is_none() && none.free.is_none());
    }
}
