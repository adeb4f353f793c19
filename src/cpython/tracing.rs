//! Whether tracemalloc is tracing in the host.
//!
//! It keeps the tables it found when it started and puts them back when it
//! stops: a table installed in between would be lost, with its blocks alive.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem;
use core::ptr;

use super::symbols::Host;

type Object = *mut c_void;

/// A function of the host's, if it has one of this name.
macro_rules! host_function {
    ($host:expr, $name:literal as $type:ty) => {
        $host.symbol($name).map(|function| {
            // SAFETY: the signature that this name has in every CPython 3.
            unsafe { mem::transmute::<*mut c_void, $type>(function.as_ptr()) }
        })
    };
}

/// Whether the host's interpreter runs.
pub(crate) fn is_initialized(host: &Host) -> bool {
    let ask = host_function!(host, c"Py_IsInitialized" as unsafe extern "C" fn() -> c_int);
    // SAFETY: may be called at any time.
    ask.is_some_and(|ask| unsafe { ask() } != 0)
}

/// Whether the calling thread holds the GIL of the running interpreter.
pub(crate) fn holds_gil(host: &Host) -> bool {
    let ask = host_function!(host, c"PyGILState_Check" as unsafe extern "C" fn() -> c_int);
    // SAFETY: may be called at any time.
    ask.is_some_and(|ask| unsafe { ask() } != 0)
}

/// Whether tracemalloc is tracing. Under the GIL of the running interpreter.
pub(crate) fn is_on(host: &Host) -> bool {
    // SAFETY: under the GIL; `_tracemalloc` is built into every CPython 3.
    unsafe { ask(host, c"_tracemalloc", c"is_tracing") }.unwrap_or(false)
}

/// Calls `module.function()` and tells whether the answer is true; `None` if
/// anything is missing or fails, with no exception left behind.
///
/// # Safety
/// Under the GIL of the running interpreter.
unsafe fn ask(host: &Host, module: &CStr, function: &CStr) -> Option<bool> {
    type Import = unsafe extern "C" fn(*const c_char) -> Object;
    type Attribute = unsafe extern "C" fn(Object, *const c_char) -> Object;
    type Call = unsafe extern "C" fn(Object, Object) -> Object;
    let import = host_function!(host, c"PyImport_ImportModule" as Import)?;
    let attribute = host_function!(host, c"PyObject_GetAttrString" as Attribute)?;
    let call = host_function!(host, c"PyObject_CallObject" as Call)?;
    let is_true = host_function!(
        host,
        c"PyObject_IsTrue" as unsafe extern "C" fn(Object) -> c_int
    )?;
    let release = host_function!(host, c"Py_DecRef" as unsafe extern "C" fn(Object))?;
    let clear = host_function!(host, c"PyErr_Clear" as unsafe extern "C" fn())?;
    // SAFETY: a C string; the answer is NULL or a new reference, as below.
    let module = unsafe { import(module.as_ptr()) };
    let function = if module.is_null() {
        ptr::null_mut()
    } else {
        // SAFETY: a live object and a C string.
        unsafe { attribute(module, function.as_ptr()) }
    };
    let answer = if function.is_null() {
        ptr::null_mut()
    } else {
        // SAFETY: a live object; NULL stands for no arguments.
        unsafe { call(function, ptr::null_mut()) }
    };
    // SAFETY: a live object.
    let truth = (!answer.is_null()).then(|| unsafe { is_true(answer) } == 1);
    for reference in [answer, function, module] {
        // SAFETY: NULL is fine, else a reference of ours, given up here.
        unsafe { release(reference) };
    }
    // SAFETY: under the GIL.
    unsafe { clear() };
    truth
}
