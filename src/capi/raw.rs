//! The domain RAW: `PyMem_Raw*`. With a CPython it is the host's, else the C library's malloc.

use core::ffi::c_void;

use crate::cpython::dispatch::jump;

/// Allocates `n` bytes in the domain RAW, which is the C library's malloc, or in a process with
/// a CPython the host's domain. Aligned to 16 bytes; a request for 0 bytes returns a block of
/// its own. NULL if there is no memory, or `n` exceeds `PY_SSIZE_T_MAX`. Any thread may call
/// it, without the GIL.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_RawMalloc(n: usize) -> *mut c_void {
    jump!(raw.malloc)
}

/// Allocates `nelem` times `elsize` bytes, all zero, in the domain RAW. NULL
/// also if the product exceeds `PY_SSIZE_T_MAX`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_RawCalloc(nelem: usize, elsize: usize) -> *mut c_void {
    jump!(raw.calloc)
}

/// Changes the size of the block `p` of the domain RAW to `n` bytes, moving it if necessary.
/// `p` may be NULL: then it allocates. NULL if there is no memory; then the block is unchanged.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_RawRealloc(p: *mut c_void, n: usize) -> *mut c_void {
    jump!(raw.realloc)
}

/// Frees the block `p` of the domain RAW; does nothing if it is NULL. Blocks of `PyMem_Malloc`
/// and `PyObject_Malloc` are accepted, too.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_RawFree(p: *mut c_void) {
    jump!(raw.free)
}
