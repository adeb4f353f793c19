//! Whether tracemalloc is tracing in the host.
//!
//! It saves the tables when it starts and restores them when it stops: a table that was installed in
//! between would be lost, with its blocks alive.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem;
use core::ptr;

use super::symbols::Host;

type Object = *mut c_void;

/// The host's function of this name, if it has one.
macro_rules! host_function {
    ($host:expr, $name:literal as $type:ty) => {
        $host.symbol($name).map(|function| {
            // SAFETY: the function has this signature in every CPython 3.
            unsafe { mem::transmute::<*mut c_void, $type>(function.as_ptr()) }
        })
    };
}

/// Whether the host's interpreter is initialised.
pub(crate) fn is_initialized(host: &Host) -> bool {
    let ask = host_function!(host, c"Py_IsInitialized" as unsafe extern "C" fn() -> c_int);
    // SAFETY: the function may be called at any time.
    ask.is_some_and(|ask| unsafe { ask() } != 0)
}

/// Whether the calling thread holds the GIL of the running interpreter.
pub(crate) fn holds_gil(host: &Host) -> bool {
    let ask = host_function!(host, c"PyGILState_Check" as unsafe extern "C" fn() -> c_int);
    // SAFETY: the function may be called at any time.
    ask.is_some_and(|ask| unsafe { ask() } != 0)
}

/// Whether tracemalloc is tracing. Called under the GIL of the initialised interpreter.
pub(crate) fn is_on(host: &Host) -> bool {
    // SAFETY: under the GIL; `_tracemalloc` is built into every CPython 3.
    unsafe { ask(host, c"_tracemalloc", c"is_tracing") }.unwrap_or(false)
}

/// Calls `module.function()` and returns whether the result is true; `None` if something is missing
/// or fails. Leaves no exception set.
///
/// # Safety
/// The thread holds the GIL of the initialised interpreter.
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
    // SAFETY: a C string; the result is NULL or a new reference.
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
        // SAFETY: NULL, or a reference of this function that ends here.
        unsafe { release(reference) };
    }
    // SAFETY: the thread holds the GIL.
    unsafe { clear() };
    truth
}
