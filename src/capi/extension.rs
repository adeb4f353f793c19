//! The library's own functions: `obmalloc_*`.

use core::ffi::{CStr, c_char, c_int};
use core::slice;

use crate::background::decay;
use crate::cpython::dispatch;
use crate::cpython::reason::Reason;
use crate::cpython::state::host_version;
use crate::os::text::Buffer;
use crate::stats::json;
use crate::stats_page::snapshot;

/// `obmalloc_install`: the library serves this process.
pub const OBMALLOC_ACTIVE: c_int = 0;
/// `obmalloc_install`: there is no CPython in this process.
pub const OBMALLOC_NO_HOST: c_int = 1;
/// `obmalloc_install`: this version of CPython is not served.
pub const OBMALLOC_UNSUPPORTED: c_int = 2;
/// `obmalloc_install`: this CPython is built without a GIL.
pub const OBMALLOC_FREE_THREADED: c_int = 3;
/// `obmalloc_install`: PYTHONMALLOC or the development mode is in force.
pub const OBMALLOC_CHOSEN: c_int = 4;
/// `obmalloc_install`: another allocator is installed already.
pub const OBMALLOC_OTHER_ALLOCATOR: c_int = 5;
/// `obmalloc_install`: tracemalloc is tracing; stop it first.
pub const OBMALLOC_TRACING: c_int = 6;
/// `obmalloc_install`: the host's calls cannot be made to reach the library:
/// it has no tables of allocators, or is a 2.7 that was not preloaded.
pub const OBMALLOC_NO_WAY_IN: c_int = 7;
/// `obmalloc_install`: the calling thread does not hold the GIL.
pub const OBMALLOC_NO_GIL: c_int = 8;

/// `obmalloc_install`: another CPython of this process is served already.
pub const OBMALLOC_SERVES_ANOTHER: c_int = 9;

/// The library's version, such as "0.1.0". Lives as long as the process.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL"),
        };
    VERSION.as_ptr()
}

/// Installs the library in the CPython of this process (3.6 to 3.14), whether it existed at
/// the start or was loaded later, and whether it runs or not. Blocks of its own allocator
/// are freed to that allocator.
///
/// If the interpreter runs, the caller holds the GIL: from Python by `ctypes.PyDLL(...)`, not
/// `CDLL`. With several CPythons in the process, the one whose GIL the calling thread holds is
/// served; one of them can be. Returns OBMALLOC_ACTIVE (0) if the library serves the process
/// now, else one of the reasons above; then nothing has changed. May be called again.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_install() -> c_int {
    match dispatch::install() {
        Ok(()) => OBMALLOC_ACTIVE,
        Err(Reason::NoHost) => OBMALLOC_NO_HOST,
        Err(Reason::Unsupported) => OBMALLOC_UNSUPPORTED,
        Err(Reason::FreeThreaded) => OBMALLOC_FREE_THREADED,
        Err(Reason::Chosen(_)) => OBMALLOC_CHOSEN,
        Err(Reason::OtherAllocator) => OBMALLOC_OTHER_ALLOCATOR,
        Err(Reason::Tracing) => OBMALLOC_TRACING,
        Err(Reason::NoGil) => OBMALLOC_NO_GIL,
        Err(Reason::ServesAnother) => OBMALLOC_SERVES_ANOTHER,
        Err(Reason::InPlace | Reason::DebugHooks) => OBMALLOC_OTHER_ALLOCATOR,
        Err(Reason::NoTables | Reason::NotInterposable | Reason::LoadedLate | Reason::TooLate) => {
            OBMALLOC_NO_WAY_IN
        }
    }
}

/// Writes the statistics of the heap as JSON to `buffer`: at most `size` bytes, the last of
/// them NUL. Returns the length of the whole text without NUL, as snprintf does: the text is
/// complete if that is less than `size`. `buffer` may be NULL if `size` is 0. Allocates
/// nothing; if another thread calls it at the same time, it maps 8 KiB for the duration, and
/// returns 0 if that fails. Any thread may call it, without the GIL; while other threads
/// allocate, the numbers of different size classes are of different moments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn obmalloc_stats_json(buffer: *mut c_char, size: usize) -> usize {
    let size = if buffer.is_null() {
        0
    } else {
        size.min(isize::MAX as usize)
    };
    let bytes = if size == 0 {
        &mut []
    } else {
        // SAFETY: the caller's buffer has `size` bytes.
        unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), size) }
    };
    let mut buffer = Buffer::new(bytes);
    // A `Buffer` does not fail: it cuts the text and counts all of it.
    let _ = json::write(&mut buffer, host_version());
    buffer.end()
}

/// Returns free memory to the kernel, page by page, until at most `keep` free bytes are
/// resident. Returns the number of bytes returned. Any thread may call it, without the GIL.
/// Its time grows with the heap and with the memory that is returned, some 10 microseconds
/// for a pool of 64 KiB (benchmark `lock_time`); it delays other threads at most for the
/// pages of one pool. Free blocks in the magazines of other threads stay there.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_trim(keep: usize) -> usize {
    decay::trim(keep)
}

/// Writes a snapshot of the heap, with the content of each page, to the file at `path`, for
/// `obmalloc map` and `pins`. The file is created, or replaced once the new one is complete.
/// Returns 0 or an error number: ESPIPE if the target is no regular file, ELOOP or EPERM if a
/// privileged process finds a link or another user's file. Allocates nothing. Any thread may
/// call it, without the GIL. It takes about a microsecond for a pool of 64 KiB, and delays
/// other threads at most for one pool. While other threads allocate, pools are of different
/// moments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn obmalloc_snapshot(path: *const c_char) -> c_int {
    if path.is_null() {
        return libc::EFAULT;
    }
    // SAFETY: the caller's C string.
    match snapshot::write_to(unsafe { CStr::from_ptr(path) }) {
        Ok(()) => 0,
        Err(error) => error,
    }
}

/// For servers, before a fork: empties the magazines of the calling thread and returns all
/// free pages, so that children share as much memory as possible. Returns the number of bytes
/// returned to the kernel.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_before_fork() -> usize {
    decay::trim(0)
}
