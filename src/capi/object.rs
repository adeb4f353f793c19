//! The domain OBJ: `PyObject_*`, for objects.

use core::ffi::c_void;

use crate::cpython::dispatch::jump;

/// Allocates `n` bytes in the domain OBJ. Aligned to 16 bytes; a request for
/// 0 bytes returns a block of its own. NULL if there is no memory, or `n` exceeds
/// `PY_SSIZE_T_MAX`. In a process with a CPython the caller holds the GIL; in other processes
/// any thread may call it.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_Malloc(n: usize) -> *mut c_void {
    jump!(object.malloc)
}

/// Allocates `nelem` times `elsize` bytes, all zero, in the domain OBJ. NULL
/// also if the product exceeds `PY_SSIZE_T_MAX`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_Calloc(nelem: usize, elsize: usize) -> *mut c_void {
    jump!(object.calloc)
}

/// Changes the size of the block `p` of the domain OBJ to `n` bytes: see
/// `PyMem_Realloc`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_Realloc(p: *mut c_void, n: usize) -> *mut c_void {
    jump!(object.realloc)
}

/// Frees the block `p` of the domain OBJ; does nothing if it is NULL. Blocks of `PyMem_Malloc`
/// and of the C library's malloc are accepted, too.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_Free(p: *mut c_void) {
    jump!(object.free)
}
