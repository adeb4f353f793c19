//! The thread's errno, which calls into the library leave as it is.
//!
//! C code relies on free (POSIX 2024) and on a malloc that succeeds to keep errno. So every function
//! of `os/` that makes a system call, or calls a function of the C library that may, does it within
//! [`kept`] or [`checked`]: callers need not care.

use core::ffi::{c_int, c_long};

/// The calling thread's errno.
pub(crate) fn get() -> c_int {
    // SAFETY: the C library returns the address of the thread's own variable, which lives as
    // long as the thread.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's errno.
pub(crate) fn set(value: c_int) {
    // SAFETY: the address is valid as long as the thread lives, and no other thread writes to it.
    unsafe { *libc::__errno_location() = value };
}

/// NULL for a request that cannot be served, with errno as a C program expects it: ENOMEM.
#[cold]
pub(crate) fn no_memory<T>() -> *mut T {
    set(libc::ENOMEM);
    core::ptr::null_mut()
}

/// Runs `call` and restores errno.
#[inline]
pub(crate) fn kept<T>(call: impl FnOnce() -> T) -> T {
    let before = get();
    let result = call();
    set(before);
    result
}

/// Runs `call`, which reports failure by a negative result and errno. Returns the result or the
/// error number, and restores errno.
#[inline]
pub(crate) fn checked(call: impl FnOnce() -> c_long) -> Result<usize, c_int> {
    kept(|| usize::try_from(call()).map_err(|_| get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_survives_a_call_that_fails() {
        set(77);
        let closed = checked(|| {
            // SAFETY: -1 is never an open descriptor; the kernel refuses it.
            unsafe { libc::syscall(libc::SYS_close, -1) }
        });
        assert_eq!(closed, Err(libc::EBADF));
        assert_eq!(get(), 77);
        assert_eq!(kept(|| set(5)), ());
        assert_eq!(get(), 77);
        set(0);
    }
}
