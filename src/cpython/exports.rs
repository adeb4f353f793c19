//! The functions behind the exported names, which depend on the process.
//!
//! ```text
//!    host                    PyMem_Raw*      PyMem_*      PyObject_*
//!    none (a C program)      own table       own table    own table
//!    linked with us          own table       own table    own table
//!    2.7, served             C library       the host's   the library's
//!    2.7, not served         C library       the host's   the host's
//!    3.4 and later           the host's      the host's   the host's
//! ```
//!
//! "Own tables" are those of `domains/`; a 2.7 that is linked with the library uses only that of the
//! domain OBJ. The functions are in `builtin.rs` and `forward.rs`.

use core::ffi::{c_char, c_int};

use crate::domains::adapter::Functions;
use crate::domains::ffi::{PyMemAllocatorEx, PyObjectArenaAllocator};

/// The argument is a name until 3.7, and a number later.
pub(crate) type Setup = unsafe extern "C" fn(usize) -> c_int;
/// `PyMem_GetAllocator`
pub(crate) type GetAllocator = unsafe extern "C" fn(c_int, *mut PyMemAllocatorEx);
/// `PyMem_SetAllocator`
pub(crate) type SetAllocator = unsafe extern "C" fn(c_int, *const PyMemAllocatorEx);
/// `PyMem_SetupDebugHooks`
pub(crate) type SetupDebugHooks = unsafe extern "C" fn();
/// `PyObject_GetArenaAllocator`
pub(crate) type GetArenas = unsafe extern "C" fn(*mut PyObjectArenaAllocator);
/// `PyObject_SetArenaAllocator`
pub(crate) type SetArenas = unsafe extern "C" fn(*const PyObjectArenaAllocator);
/// `_PyObject_DebugMallocStats`
pub(crate) type DebugMallocStats = unsafe extern "C" fn(*mut libc::FILE) -> c_int;
/// `_Py_GetAllocatedBlocks`
pub(crate) type AllocatedBlocks = unsafe extern "C" fn() -> isize;
/// `_PyMem_GetCurrentAllocatorName`
pub(crate) type AllocatorName = unsafe extern "C" fn() -> *const c_char;
/// `_PyMem_PymallocEnabled`
pub(crate) type PymallocEnabled = unsafe extern "C" fn() -> c_int;

/// The functions that read and change the tables.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    /// `PyMem_GetAllocator`
    pub get: GetAllocator,
    /// `PyMem_SetAllocator`
    pub set: SetAllocator,
    /// `PyMem_SetupDebugHooks`
    pub setup_debug_hooks: SetupDebugHooks,
    /// `_PyMem_SetupAllocators`
    pub setup: Setup,
    /// `PyObject_GetArenaAllocator`
    pub get_arenas: GetArenas,
    /// `PyObject_SetArenaAllocator`
    pub set_arenas: SetArenas,
}

/// The functions by which CPython queries its allocator.
#[derive(Clone, Copy)]
pub(crate) struct Answers {
    /// `_PyObject_DebugMallocStats`
    pub debug_malloc_stats: DebugMallocStats,
    /// `_Py_GetAllocatedBlocks`
    pub allocated_blocks: AllocatedBlocks,
    /// `_PyMem_GetCurrentAllocatorName`, in 3.7 `_PyMem_GetAllocatorsName`
    pub allocator_name: AllocatorName,
    /// `_PyMem_PymallocEnabled`
    pub pymalloc_enabled: PymallocEnabled,
}

/// The functions behind the exported names.
#[derive(Clone, Copy)]
pub(crate) struct Exports {
    /// `PyMem_Raw*`
    pub raw: Functions,
    /// `PyMem_*`
    pub mem: Functions,
    /// `PyObject_*`
    pub object: Functions,
    pub tables: Tables,
    pub answers: Answers,
}
