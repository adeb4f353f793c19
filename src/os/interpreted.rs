//! Rust in place of what Miri cannot interpret: unknown system calls, and the word that is defined
//! in assembly. Compiled under Miri only.

use core::cell::Cell;
use core::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use core::ptr::NonNull;

unsafe extern "Rust" {
    /// The initial value of the thread word (`start_at!`).
    safe fn obmalloc_thread_word() -> NonNull<()>;
}

std::thread_local! {
    /// The thread word.
    pub(crate) static WORD: Cell<NonNull<()>> = Cell::new(obmalloc_thread_word());
}

/// Unmaps nothing: Miri can only unmap a whole mapping.
///
/// # Safety
/// The contract of the system call.
pub(crate) unsafe fn munmap(_: *mut c_void, _: usize) -> c_int {
    0
}

/// Zeroes purged pages, and ignores other advice.
///
/// # Safety
/// The contract of the system call.
pub(crate) unsafe fn madvise(start: *mut c_void, size: usize, advice: c_int) -> c_int {
    if advice != libc::MADV_DONTNEED {
        return -1;
    }
    // SAFETY: the pages are the caller's and have no live data, by the contract of DONTNEED.
    unsafe { start.write_bytes(0, size) };
    0
}

/// Reports every page as mapped.
///
/// # Safety
/// The contract of the system call.
pub(crate) unsafe fn mincore(_: *mut c_void, _: usize, _: *mut c_uchar) -> c_int {
    0
}

/// Ignores names of mappings.
///
/// # Safety
/// The contract of the system call.
pub(crate) unsafe fn prctl(_: c_int, _: usize, _: *mut u8, _: usize, _: *const c_char) -> c_int {
    -1
}

/// Reports that there are no counts.
///
/// # Safety
/// The contract of the system call.
pub(crate) unsafe fn getrusage(_: c_int, _: *mut libc::rusage) -> c_int {
    -1
}

/// Reports that limits are unknown.
///
/// # Safety
/// The contract of the system call.
pub(crate) unsafe fn getrlimit(_: c_uint, _: *mut libc::rlimit) -> c_int {
    -1
}
