//! What Miri cannot interpret, said in Rust: calls of the kernel that it does not know, and
//! the word that is defined in assembly. Only there under Miri (`make miri`).

use core::cell::Cell;
use core::ffi::{c_char, c_int, c_uchar, c_void};
use core::ptr::NonNull;

unsafe extern "Rust" {
    /// What the thread word starts as (`start_at!`).
    safe fn obmalloc_thread_word() -> NonNull<()>;
}

std::thread_local! {
    /// The thread word.
    pub static WORD: Cell<NonNull<()>> = Cell::new(obmalloc_thread_word());
}

/// Nothing is unmapped: Miri can only give a mapping back as a whole.
///
/// # Safety
/// As the kernel's.
pub unsafe fn munmap(_: *mut c_void, _: usize) -> c_int {
    0
}

/// Pages that nobody needs are zero. No other advice is taken.
///
/// # Safety
/// As the kernel's.
pub unsafe fn madvise(start: *mut c_void, size: usize, advice: c_int) -> c_int {
    if advice != libc::MADV_DONTNEED {
        return -1;
    }
    // SAFETY: the caller's promise.
    unsafe { start.write_bytes(0, size) };
    0
}

/// Whatever is asked about is mapped.
///
/// # Safety
/// As the kernel's.
pub unsafe fn mincore(_: *mut c_void, _: usize, _: *mut c_uchar) -> c_int {
    0
}

/// Mappings have no names.
///
/// # Safety
/// As the kernel's.
pub unsafe fn prctl(_: c_int, _: usize, _: *mut u8, _: usize, _: *const c_char) -> c_int {
    -1
}

/// Nobody counts.
///
/// # Safety
/// As the kernel's.
pub unsafe fn getrusage(_: c_int, _: *mut libc::rusage) -> c_int {
    -1
}
