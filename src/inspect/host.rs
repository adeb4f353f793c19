//! The version of the process's CPython.

use core::ffi::{CStr, c_char, c_int};

use crate::os::weak::{function, is_debug_build, weak_symbol};
use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Major and minor version in two bytes, or one of these values.
static VERSION: AtomicU32 = AtomicU32::new(UNKNOWN);
const UNKNOWN: u32 = 0;
const NONE: u32 = 1;

/// Major and minor version of the CPython in this process; `None` without one, and for builds whose
/// objects have longer headers: debug builds and free-threaded ones.
pub(super) fn version() -> Option<(u32, u32)> {
    let mut version = VERSION.load(Relaxed);
    if version == UNKNOWN {
        version = ask_version().unwrap_or(NONE);
        VERSION.store(version, Relaxed);
    }
    (version != NONE).then_some((version >> 8, version & 0xff))
}

/// Whether the CPython in this process has begun to end: it has run its exit functions, and frees its
/// modules next. False before 3.7, without one, and for builds that [`version`] does not know.
pub(crate) fn is_finalizing() -> bool {
    // The second until 3.12.
    let ask = weak_symbol!("Py_IsFinalizing").or_else(|| weak_symbol!("_Py_IsFinalizing"));
    ask.is_some_and(|ask| {
        // SAFETY: both have this type in every version, and only read a variable.
        let ask = unsafe { function::<unsafe extern "C" fn() -> c_int>(ask) };
        // SAFETY: the function may be called at any time.
        unsafe { ask() != 0 }
    })
}

fn ask_version() -> Option<u32> {
    type GetVersion = unsafe extern "C" fn() -> *const c_char;
    let ask = weak_symbol!("Py_GetVersion")?;
    // SAFETY: the function has this type in every version.
    let ask = unsafe { function::<GetVersion>(ask) };
    // SAFETY: a C string that lives as long as the process.
    let text = unsafe { CStr::from_ptr(ask()) }.to_str().ok()?;
    if is_debug_build() || text.contains("free-threading") {
        return None;
    }
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok().filter(|&n| n < 256);
    Some(number()? << 8 | number()?)
}
