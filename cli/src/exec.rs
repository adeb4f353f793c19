//! Becoming another program: no child, so its exit status, its signals and its pid are
//! those that the caller sees.
//!
//! Rust ignores SIGPIPE from the start of `main` on, and opens /dev/null in the place of
//! descriptors 0 to 2 that are closed; a program that is executed inherits both. So what was
//! there before is kept by a constructor, and put back: the signal at once, the descriptors
//! for the program.

use std::ffi::{CString, OsString};
use std::hint::black_box;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether SIGPIPE was ignored. (A program that was just executed has no handlers.)
static WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Whether 0 to 2 were closed.
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

extern "C" fn keep() {
    // LeakSanitizer, if it is preloaded for the program, begins with the first block; before
    // that its sigaction, which Rust's start calls, leads nowhere.
    // SAFETY: a block, and its end.
    unsafe { libc::free(black_box(libc::malloc(1))) };
    // The kernel's form: handler, flags, restorer, mask. A sanitizer that is preloaded stands
    // before the C library's function, and is not ready yet.
    let mut action = [0usize; 4];
    // SAFETY: only asks; the place is as large as the form, and a mask has 8 bytes.
    let error = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            libc::SIGPIPE,
            ptr::null::<usize>(),
            action.as_mut_ptr(),
            size_of::<u64>(),
        )
    };
    WAS_IGNORED.store(error == 0 && action[0] == libc::SIG_IGN, Relaxed);
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: asks only.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = keep;

/// Puts SIGPIPE back to what the caller of this command had.
pub fn restore_sigpipe() {
    let before = if WAS_IGNORED.load(Relaxed) {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, before) };
}

/// Children are waited for from now on, whatever the caller of this command does with its own:
/// where SIGCHLD is ignored, nobody learns how they end.
pub fn wait_for_children() {
    // SAFETY: no handler of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
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
    for (fd, closed) in (0..).zip(&CLOSED) {
        if closed.load(Relaxed) {
            // SAFETY: a descriptor that the program is not to have.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    // SAFETY: both vectors end with NULL, and their strings live until the call returns.
    unsafe { libc::execvpe(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}
