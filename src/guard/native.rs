//! The native frames of the calling thread, and what they are called.
//!
//! The C library unwinds (`backtrace`), where it can. Names are looked up only for
//! a report: a frame is its object and the offset in it, which `addr2line -e OBJECT
//! OFFSET` turns into file and line, and the function if the object exports it.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;

use crate::os::cancel::Uncancelled;
use crate::os::errno;
use crate::os::loader;
use crate::os::weak::{function, weak_symbol};

/// Has the C library load what it needs to unwind: it opens a library, which it
/// must not do in a signal handler.
pub(super) fn prepare() {
    let _guard = Uncancelled::begin(); // it reads files to find the library
    unwind(&mut [0; 4]);
}

/// The addresses of the calling thread's frames, the innermost first. Returns how
/// many there are.
pub(super) fn unwind(frames: &mut [usize]) -> usize {
    type Backtrace = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    let Some(backtrace) = weak_symbol!("backtrace") else {
        return 0;
    };
    // SAFETY: its type; a pointer is as large as an address.
    let backtrace = unsafe { function::<Backtrace>(backtrace) };
    let room = c_int::try_from(frames.len()).unwrap_or(c_int::MAX);
    // SAFETY: `frames` has room for `room` addresses.
    let call = || unsafe { backtrace(frames.as_mut_ptr(), room) };
    let count = errno::kept(|| loader::with(call));
    usize::try_from(count).unwrap_or(0)
}

/// Without this library's own frames at the beginning; all of them where it is
/// linked into the program.
pub(super) fn without_ours(frames: &[usize]) -> &[usize] {
    let ours = object_of(unwind as *const () as usize);
    // SAFETY: a question without conditions.
    let entry = errno::kept(|| unsafe { libc::getauxval(libc::AT_ENTRY) });
    let program = object_of(entry as usize);
    if ours.is_none() || ours == program {
        return frames;
    }
    let first = frames.iter().position(|&frame| object_of(frame) != ours);
    &frames[first.unwrap_or(0)..]
}

/// Where the object that has the address was loaded.
fn object_of(address: usize) -> Option<usize> {
    about(address).map(|info| info.dli_fbase.addr())
}

fn about(address: usize) -> Option<libc::Dl_info> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let address: *const c_void = ptr::without_provenance(address);
    // SAFETY: `info` has room for the result; dladdr takes any address.
    let look_up = || unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    let found = errno::kept(|| loader::with(look_up)) != 0;
    // SAFETY: zero is an answer, too.
    found.then(|| unsafe { info.assume_init() })
}

/// An address as a person reads it.
pub(super) struct Place(pub(super) usize);

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
    // SAFETY: the loader's C string, of an object that has code on this stack.
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
        assert!(count > 3, "{count}");
        let rest = without_ours(&frames[..count]);
        assert!(!rest.is_empty());
        let malloc = Place(libc::malloc as *const () as usize + 1);
        let malloc = format!("{malloc}");
        assert!(malloc.contains("malloc+0x1)"), "{malloc}");
        assert!(malloc.contains("libc"), "{malloc}");
        assert_eq!(format!("{}", Place(16)), "0x10");
    }
}
