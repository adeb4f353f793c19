//! The domain MEM: `PyMem_*`, for buffers. It has one allocator with the domain OBJ.

use core::ffi::c_void;

use crate::cpython::dispatch::jump;

/// Allocates `n` bytes in the domain MEM. Aligned to 16 bytes; a request for
/// 0 bytes returns a block of its own. NULL if there is no memory, or `n` exceeds
/// `PY_SSIZE_T_MAX`. In a process with a CPython the caller holds the GIL; in other processes
/// any thread may call it.
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

/// Changes the size of the block `p` of the domain MEM to `n` bytes, moving it if necessary;
/// it does not move while `n` fits the block and is more than three quarters of it. `p` may be
/// NULL: then it allocates. NULL if there is no memory; then the block is unchanged. A block
/// of the C library remains one.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_Realloc(p: *mut c_void, n: usize) -> *mut c_void {
    jump!(mem.realloc)
}

/// Frees the block `p` of the domain MEM; does nothing if it is NULL. Blocks of
/// `PyObject_Malloc` and of the C library's malloc are accepted, too.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_Free(p: *mut c_void) {
    jump!(mem.free)
}
