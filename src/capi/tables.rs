//! CPython's API of allocator tables: domains, debug hooks, arenas.

use core::ffi::c_int;

use crate::cpython::dispatch::jump;
pub use crate::domains::ffi::{PyMemAllocatorEx, PyObjectArenaAllocator};

/// A domain, by CPython's number.
pub type PyMemAllocatorDomain = c_int;
/// The domain of `PyMem_RawMalloc`.
pub const PYMEM_DOMAIN_RAW: PyMemAllocatorDomain = 0;
/// The domain of `PyMem_Malloc`.
pub const PYMEM_DOMAIN_MEM: PyMemAllocatorDomain = 1;
/// The domain of `PyObject_Malloc`.
pub const PYMEM_DOMAIN_OBJ: PyMemAllocatorDomain = 2;

/// Writes the table of a domain to `allocator`; all NULL if the domain does not exist.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_GetAllocator(
    domain: PyMemAllocatorDomain,
    allocator: *mut PyMemAllocatorEx,
) {
    jump!(tables.get)
}

/// Makes a copy of `allocator` the table of a domain; does nothing if the domain does not
/// exist. Called before other threads allocate. Blocks of the old table will be freed by the
/// new one: so the new one is a hook that calls the old one, or is set before any block is
/// allocated. A function that is NULL ends the process with a reason when it is called.
///
/// Requests of `PyMem_*` and `PyObject_*` that no pool serves go to the domain RAW, through its
/// table.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_SetAllocator(
    domain: PyMemAllocatorDomain,
    allocator: *mut PyMemAllocatorEx,
) {
    jump!(tables.set)
}

/// Puts CPython's debug hooks over the tables of all domains, once. Then each block has 16 bytes
/// before it and 8 after it that must not change, new bytes are filled with 0xCD and freed ones
/// with 0xDD. A corrupted block, or one that is freed in another domain, is described on stderr
/// and ends the process. Called before any block is allocated, and again after
/// `PyMem_SetAllocator`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_SetupDebugHooks() {
    jump!(tables.setup_debug_hooks)
}

/// Writes the allocator of arenas to `allocator`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_GetArenaAllocator(allocator: *mut PyObjectArenaAllocator) {
    jump!(tables.get_arenas)
}

/// Sets the allocator of arenas: 1 MiB each, as in CPython (256 KiB until 3.9), at any address;
/// one that is aligned to 64 KiB is used completely, others lose one pool. An arena is freed
/// when all its blocks are free; one empty arena is kept. If it returns NULL, the domain RAW
/// serves the request. The functions are called with no lock held, and without a host from any
/// thread. An arena is freed by the allocator that is set at that time.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_SetArenaAllocator(allocator: *mut PyObjectArenaAllocator) {
    jump!(tables.set_arenas)
}
