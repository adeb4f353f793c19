//! Names that CPython asks about its allocator by. They are not for programs:
//! the shared library has them so that a host finds us in the place of its own
//! functions, where it looks them up by name.

use core::ffi::{c_char, c_int};

use crate::cpython::dispatch::jump;

/// Sets the tables anew, from a name up to 3.7 and a number later. (3.6 does
/// so from its `main`, and the library installs itself again behind it.)
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_SetupAllocators(name: usize) -> c_int {
    jump!(tables.setup)
}

/// Writes the table of statistics. 0 if objects do not come from us.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyObject_DebugMallocStats(out: *mut libc::FILE) -> c_int {
    jump!(answers.debug_malloc_stats)
}

/// Blocks of all sizes in the domains MEM and OBJ: 3.4 to 3.11.
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

/// The same in 3.7.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_GetAllocatorsName() -> *const c_char {
    jump!(answers.allocator_name)
}

/// Whether objects come from us: 3.6.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_PymallocEnabled() -> c_int {
    jump!(answers.pymalloc_enabled)
}
