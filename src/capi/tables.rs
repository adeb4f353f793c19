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

/// Writes the table of a domain to `allocator`; all NULL if there is no such
/// domain.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_GetAllocator(
    domain: PyMemAllocatorDomain,
    allocator: *mut PyMemAllocatorEx,
) {
    jump!(tables.get)
}

/// Makes a copy of `allocator` the table of a domain; nothing if there is no
/// such domain. To be called before other threads allocate. Blocks that the
/// table before has handed out will be given to the new one: so it has to be a
/// hook, which hands on to the old, or to be set before anything is allocated.
/// A function that is NULL ends the process, with a reason, when it is called.
///
/// Requests of `PyMem_*` and `PyObject_*` that no pool serves go to the domain
/// RAW, by whatever is in its table.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_SetAllocator(
    domain: PyMemAllocatorDomain,
    allocator: *mut PyMemAllocatorEx,
) {
    jump!(tables.set)
}

/// Puts CPython's debug hooks over the tables of all domains, once: each block
/// then has 16 bytes before it and 8 behind it that nobody may change, new
/// bytes are filled with 0xCD and freed ones with 0xDD, and a block that was
/// damaged, or is given back by another domain, is described on stderr and ends
/// the process. To be called before anything is allocated, and again after
/// `PyMem_SetAllocator`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyMem_SetupDebugHooks() {
    jump!(tables.setup_debug_hooks)
}

/// Writes to `allocator` where arenas come from.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_GetArenaAllocator(allocator: *mut PyObjectArenaAllocator) {
    jump!(tables.get_arenas)
}

/// Has arenas come from `allocator` from now on: 1 MiB each, as CPython asks
/// for (256 KiB up to 3.9), at any address; those aligned to 64 KiB are used to
/// the last byte, of others one pool's worth is lost. An arena goes back when all its blocks
/// are free; one that is empty is kept. When NULL is returned, the domain RAW
/// serves the request. The functions are called with no lock held, and without
/// a host from any thread. Arenas that `allocator` has made go back to what is
/// set then.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyObject_SetArenaAllocator(allocator: *mut PyObjectArenaAllocator) {
    jump!(tables.set_arenas)
}
