//! The MEM domain: `PyMem_*`, for buffers. One allocator with the OBJ domain.

use core::ffi::c_void;

use crate::cpython::dispatch::jump;

/// Allocates `n` bytes in the domain MEM. Aligned to 16 bytes; a request for
/// nothing returns a block of its own. NULL if there is no memory, or `n`
/// exceeds `PY_SSIZE_T_MAX`. In a CPython host, call it as the host demands
/// (with the GIL); elsewhere from any thread.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_Malloc(n: usize) -> *mut c_void {
    jump!(mem.malloc)
}

/// Allocates `nelem` times `elsize` bytes, all zero, in the domain MEM. NULL
/// also if the product exceeds `PY_SSIZE_T_MAX`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_Calloc(nelem: usize, elsize: usize) -> *mut c_void {
    jump!(mem.calloc)
}

/// Changes the size of the block `p` of the domain MEM to `n` bytes, moving it
/// if need be; it stays where it is while `n` fits the block and is more than
/// three quarters of it. `p` may be NULL: then it allocates. NULL if there is
/// no memory, and the block is as it was. A block of the C library's stays
/// one.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_Realloc(p: *mut c_void, n: usize) -> *mut c_void {
    jump!(mem.realloc)
}

/// Frees the block `p` of the domain MEM; nothing if it is NULL. A block of
/// `PyObject_Malloc` or of the C library's malloc is taken, too.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_Free(p: *mut c_void) {
    jump!(mem.free)
}
