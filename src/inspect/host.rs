//! The version of the process's CPython.

use core::ffi::{CStr, c_char};

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
