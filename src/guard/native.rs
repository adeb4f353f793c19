//! The native frames of the calling thread, and their names.
//!
//! The C library unwinds (`backtrace`), if it can. Names are looked up for a report only: a frame is
//! printed as its object and the offset in it, which `addr2line -e OBJECT OFFSET` turns into file
//! and line, and the function if the object exports it.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;

use crate::os::cancel::Uncancelled;
use crate::os::errno;
use crate::os::loader;
use crate::os::weak::{function, weak_symbol};

/// Makes the C library load its unwinder, which must not happen in a signal handler.
pub(crate) fn prepare() {
    let _guard = Uncancelled::begin(); // it reads files to find the library
    unwind(&mut [0; 4]);
}

/// Stores the addresses of the calling thread's frames, innermost first, and returns their number.
pub(super) fn unwind(frames: &mut [usize]) -> usize {
    type Backtrace = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    let Some(backtrace) = weak_symbol!("backtrace") else {
        return 0;
    };
    // SAFETY: the type of `backtrace`; a pointer is as large as an address.
    let backtrace = unsafe { function::<Backtrace>(backtrace) };
    let room = c_int::try_from(frames.len()).unwrap_or(c_int::MAX);
    // SAFETY: `frames` has room for `room` addresses.
    let call = || unsafe { backtrace(frames.as_mut_ptr(), room) };
    let count = errno::kept(|| loader::with(call));
    usize::try_from(count).unwrap_or(0)
}

/// The frames without this library's own at the beginning; all frames if it is linked into the
/// program.
pub(super) fn without_ours(frames: &[usize]) -> &[usize] {
    let ours = object_of(unwind as *const () as usize);
    // SAFETY: getauxval has no preconditions.
    let entry = errno::kept(|| unsafe { libc::getauxval(libc::AT_ENTRY) });
    let program = object_of(entry as usize);
    if ours.is_none() || ours == program {
        return frames;
    }
    let first = frames.iter().position(|&frame| object_of(frame) != ours);
    &frames[first.unwrap_or(0)..]
}

/// The calling thread's frames, innermost first, without this library's own: those inside the innermost
/// Python frame, if there `is_python`; else all of them.
pub(crate) fn below_python(frames: &mut [usize], is_python: bool) -> &[usize] {
    let count = unwind(frames);
    let frames = without_ours(&frames[..count]);
    if !is_python {
        return frames;
    }
    let Some(eval) = weak_symbol!("_PyEval_EvalFrameDefault") else {
        return frames;
    };
    let is_eval = |&frame: &usize| {
        about(frame).is_some_and(|info| info.dli_saddr.addr() == eval.addr().get())
    };
    &frames[..frames.iter().position(is_eval).unwrap_or(frames.len())]
}

/// The load address of the object that the address is in.
fn object_of(address: usize) -> Option<usize> {
    about(address).map(|info| info.dli_fbase.addr())
}

fn about(address: usize) -> Option<libc::Dl_info> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let address: *const c_void = ptr::without_provenance(address);
    // SAFETY: `info` has room for the result; dladdr takes any address.
    let look_up = || unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    let found = errno::kept(|| loader::with(look_up)) != 0;
    // SAFETY: zeroed, so initialised whatever dladdr wrote.
    found.then(|| unsafe { info.assume_init() })
}

/// Where an address is: the path of its object, and either the function that the object exports, or the
/// offset. Empty if it is in no object.
pub(crate) struct Origin {
    pub object: &'static str,
    pub function: &'static str,
    pub offset: usize,
}

impl Origin {
    /// The origin of an address. Its texts are the loader's, and live as long as the object is loaded.
    pub(crate) fn of(address: usize) -> Option<Origin> {
        let info = about(address)?;
        Some(Origin {
            object: text(info.dli_fname),
            function: text(info.dli_sname),
            offset: address.wrapping_sub(info.dli_fbase.addr()),
        })
    }
}

/// An address, printed as object, offset and function.
pub(crate) struct Place(pub(crate) usize);

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(info) = about(self.0) else {
            return write!(to, "{:#x}", self.0);
        };
        let offset = self.0 - info.dli_fbase.addr();
        write!(to, "{}+{offset:#x}", text(info.dli_fname))?;
        if info.dli_sname.is_null() {
            return Ok(());
        }
        let within = self.0.wrapping_sub(info.dli_saddr.addr());
        write!(to, " ({}+{within:#x})", text(info.dli_sname))
    }
}

fn text<'a>(name: *const c_char) -> &'a str {
    if name.is_null() {
        return "";
    }
    // SAFETY: the loader's C string of an object that is loaded, because its code is on the stack.
    unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn frames_are_found_and_named() {
        prepare();
        let mut frames = [0; 30];
        let count = unwind(&mut frames);
        if cfg!(target_env = "musl") {
            assert_eq!(count, 0);
        } else {
            assert!(count > 3, "{count}");
            let rest = without_ours(&frames[..count]);
            assert!(!rest.is_empty());
        }
        let malloc = Place(libc::malloc as *const () as usize + 1);
        let malloc = format!("{malloc}");
        assert!(malloc.contains("malloc+0x1)"), "{malloc}");
        // musl's C library is named as its loader.
        assert!(
            malloc.contains("libc") || malloc.contains("ld-musl"),
            "{malloc}"
        );
        assert_eq!(format!("{}", Place(16)), "0x10");
        let origin = Origin::of(libc::malloc as *const () as usize + 1).unwrap();
        assert!(malloc.starts_with(origin.object) && origin.function == "malloc");
        assert!(Origin::of(16).is_none());
    }
}
