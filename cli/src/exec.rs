//! Executes the program in this process, without a child: the caller sees its exit status, its
//! signals and its pid.
//!
//! Rust ignores SIGPIPE from the start of `main` on and opens /dev/null in place of closed
//! descriptors 0 to 2; an executed program inherits both. So a constructor records the state
//! before, and it is restored: the signal at once, the descriptors at the execution.

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
    // A preloaded LeakSanitizer initialises at the first allocation; before that its sigaction,
    // which Rust's start calls, is a null pointer.
    // SAFETY: the block is freed once and not used.
    unsafe { libc::free(black_box(libc::malloc(1))) };
    // The kernel's struct: handler, flags, restorer, mask. The C library's function may be
    // interposed by a preloaded sanitizer that is not initialised yet.
    let mut action = [0usize; 4];
    // SAFETY: reads into `action`, which has the size of the struct with an 8-byte mask.
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
        // SAFETY: F_GETFD changes nothing and takes any number.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = keep;

/// Restores the caller's disposition of SIGPIPE.
pub fn restore_sigpipe() {
    let before = if WAS_IGNORED.load(Relaxed) {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: SIG_IGN and SIG_DFL run no handler.
    unsafe { libc::signal(libc::SIGPIPE, before) };
}

/// Restores the default of SIGCHLD: if the caller ignores it, the exit status of a child is
/// lost.
pub fn wait_for_children() {
    // SAFETY: SIG_DFL runs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Executes `command`, looked up in PATH, with this environment. Returns only on failure.
pub fn execute(command: &[OsString], environment: &[(OsString, OsString)]) -> io::Error {
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
            // SAFETY: the descriptor is Rust's /dev/null, which nothing else uses.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    // SAFETY: both vectors end with NULL, and their strings live until the call returns.
    unsafe { libc::execvpe(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}
