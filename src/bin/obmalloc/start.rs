//! Becoming another program: no child, so its exit status, its signals and its pid are
//! those that the caller sees.
//!
//! Rust ignores SIGPIPE from the start of `main` on, and a program that is executed
//! inherits that. So what was there before is kept by a constructor, and put back at once.

use std::cell::UnsafeCell;
use std::ffi::{CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

struct Kept(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written by the constructor only, before there is a second thread.
unsafe impl Sync for Kept {}
static SIGPIPE_BEFORE: Kept = Kept(UnsafeCell::new(MaybeUninit::zeroed()));

extern "C" fn keep() {
    let place = SIGPIPE_BEFORE.0.get().cast::<libc::sigaction>();
    // SAFETY: asks only; the place is ours.
    unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), place) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = keep;

/// Puts SIGPIPE back to what the caller of this command had. (Zeros, if the constructor
/// has not run, are the default.)
pub fn restore_sigpipe() {
    let kept = SIGPIPE_BEFORE.0.get().cast::<libc::sigaction>();
    // SAFETY: filled by the constructor, or zeros.
    unsafe { libc::sigaction(libc::SIGPIPE, kept, ptr::null_mut()) };
}

/// Becomes `command`, looked up in PATH, with this environment. Returns only if it
/// cannot.
pub fn become_program(command: &[OsString], environment: &[(OsString, OsString)]) -> io::Error {
    let words = command.iter().map(|word| CString::new(word.as_bytes()));
    let entries = environment.iter().map(|(name, value)| {
        let mut entry = name.as_bytes().to_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        CString::new(entry)
    });
    let (Ok(words), Ok(entries)) = (
        words.collect::<Result<Vec<_>, _>>(),
        entries.collect::<Result<Vec<_>, _>>(),
    ) else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    let vector = |strings: &[CString]| -> Vec<_> {
        let pointers = strings.iter().map(|string| string.as_ptr());
        pointers.chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (vector(&words), vector(&entries));
    // SAFETY: both vectors end with NULL, and their strings live until the call returns.
    unsafe { libc::execvpe(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}
