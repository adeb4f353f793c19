//! Functions by which CPython queries its allocator. They are not for programs: the shared library
//! exports them so that a host that looks them up by name finds the library's.

use core::ffi::{c_char, c_int};

use crate::cpython::dispatch::jump;

/// Sets the tables anew, by a name until 3.7 and a number later. (3.6 calls it in its `main`, and the
/// library installs itself again after that.)
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_SetupAllocators(name: usize) -> c_int {
    jump!(tables.setup)
}

/// Writes the table of statistics. Returns 0 if the library does not serve objects.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyObject_DebugMallocStats(out: *mut libc::FILE) -> c_int {
    jump!(answers.debug_malloc_stats)
}

/// The number of blocks of all sizes in the domains MEM and OBJ: 3.4 to 3.11.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Py_GetAllocatedBlocks() -> isize {
    jump!(answers.allocated_blocks)
}

/// The name of the allocator, NULL if it has none: 3.8 and later.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_GetCurrentAllocatorName() -> *const c_char {
    jump!(answers.allocator_name)
}

/// The name of the allocator, NULL if it has none: 3.7.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_GetAllocatorsName() -> *const c_char {
    jump!(answers.allocator_name)
}

/// Whether the library serves objects: 3.6.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_PymallocEnabled() -> c_int {
    jump!(answers.pymalloc_enabled)
}
