//! Functions of the CPython that the library is linked into: to end with its own message, to check
//! the GIL, and to print where a block was allocated. A process without CPython has none of them.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use super::compat;
use crate::os::descriptor;
use crate::os::weak::{function, weak_symbol};

/// Ends the process as CPython does: `Fatal Python error: FUNCTION: MESSAGE`, without the function
/// until 3.8.
pub(crate) fn fatal(name: &CStr, message: &CStr) -> ! {
    type FatalErrorFunc = unsafe extern "C" fn(*const c_char, *const c_char);
    type FatalError = unsafe extern "C" fn(*const c_char);
    if let Some(fatal) = weak_symbol!("_Py_FatalErrorFunc") {
        // SAFETY: the function has this type in 3.9 and later.
        let fatal = unsafe { function::<FatalErrorFunc>(fatal) };
        // SAFETY: two C strings. It does not return.
        unsafe { fatal(name.as_ptr(), message.as_ptr()) };
    } else if let Some(fatal) = weak_symbol!("Py_FatalError") {
        // SAFETY: the function has this type in every version.
        let fatal = unsafe { function::<FatalError>(fatal) };
        // SAFETY: a C string. It does not return.
        unsafe { fatal(message.as_ptr()) };
    } else {
        let parts = [c"Fatal Python error: ", name, c": ", message, c"\n"];
        for part in parts {
            descriptor::write_to_stderr(part.to_bytes());
        }
    }
    // SAFETY: abort has no conditions.
    unsafe { libc::abort() }
}

/// Whether the calling thread may use the domains MEM and OBJ. True without CPython.
pub(crate) fn may_allocate() -> bool {
    let ask = if compat::asks_for_thread_state() {
        weak_symbol!("PyThreadState_GetUnchecked")
    } else {
        weak_symbol!("PyGILState_Check")
    };
    match ask {
        Some(ask) if compat::asks_for_thread_state() => {
            // SAFETY: the function has this type since 3.13.
            let ask = unsafe { function::<unsafe extern "C" fn() -> *mut c_void>(ask) };
            // SAFETY: the function may be called at any time.
            !unsafe { ask() }.is_null()
        }
        Some(ask) => {
            // SAFETY: the function has this type since 3.4.
            let ask = unsafe { function::<unsafe extern "C" fn() -> c_int>(ask) };
            // SAFETY: the function may be called at any time.
            unsafe { ask() != 0 }
        }
        None => true,
    }
}

/// Makes tracemalloc write to stderr where the block at `address` was allocated.
pub(crate) fn dump_traceback(address: usize) {
    if !descriptor::stderr_is_ours() {
        return;
    }
    type Dump = unsafe extern "C" fn(c_int, *const c_void);
    if let Some(dump) = weak_symbol!("_PyMem_DumpTraceback") {
        // SAFETY: the function has this type since 3.6.
        let dump = unsafe { function::<Dump>(dump) };
        // SAFETY: the function only looks the address up.
        unsafe { dump(libc::STDERR_FILENO, ptr::without_provenance(address)) };
    }
}
