//! Names that CPython asks about its allocator by. They are not for programs:
//! the shared library has them so that a host finds us in the place of its own
//! functions, where it looks them up by name.

use core::ffi::{c_char, c_int};

use crate::host::route;

/// Sets the tables anew, from a name up to 3.7 and a number later. (3.6 does
/// so from its `main`, and the library installs itself again behind it.)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_SetupAllocators(name: usize) -> c_int {
    // SAFETY: the host's own argument, as in all that follow.
    let result = unsafe { (route::current().tables.setup)(name) };
    route::tables_changed();
    result
}

/// Writes the table of statistics. 0 if objects do not come from us.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyObject_DebugMallocStats(out: *mut libc::FILE) -> c_int {
    // SAFETY: as above.
    unsafe { (route::current().answers.debug_malloc_stats)(out) }
}

/// Blocks of all sizes in the domains MEM and OBJ: 3.4 to 3.11.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Py_GetAllocatedBlocks() -> isize {
    // SAFETY: as above.
    unsafe { (route::current().answers.allocated_blocks)() }
}

/// The name of the allocator, NULL if it has none: 3.8 and later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_GetCurrentAllocatorName() -> *const c_char {
    // SAFETY: as above.
    unsafe { (route::current().answers.allocator_name)() }
}

/// The same in 3.7.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_GetAllocatorsName() -> *const c_char {
    // SAFETY: as above.
    unsafe { (route::current().answers.allocator_name)() }
}

/// Whether objects come from us: 3.6.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _PyMem_PymallocEnabled() -> c_int {
    // SAFETY: as above.
    unsafe { (route::current().answers.pymalloc_enabled)() }
}
