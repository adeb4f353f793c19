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

/// Installs the library in the CPython of this process (3.6 to 3.14), whether
/// it was there from the start or loaded since, running or not. Blocks that
/// its own allocator has handed out go back to that.
///
/// To be called with the GIL, if the interpreter runs: from Python, by
/// `ctypes.PyDLL(...)`, not `CDLL`. Of several CPythons in the process that one is
/// meant whose GIL the calling thread holds; one of them is served. Returns OBMALLOC_ACTIVE (0) if the library
/// serves the process now, else one of the reasons above, with nothing
/// changed. May be called again.
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

/// Writes what the heap holds now as JSON to `buffer`: at most `size` bytes,
/// the last of them NUL. Returns the length of the whole text without NUL, as
/// snprintf does: the text is whole if that is less than `size`. `buffer` may
/// be NULL if `size` is 0. Allocates nothing; where another thread calls it at the
/// same time, 8 KiB are mapped meanwhile, and 0 is returned if they cannot be. Any thread may call it, without
/// the GIL; while others allocate, the numbers of different size classes are
/// of different moments.
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
        // SAFETY: the caller's buffer of `size` bytes.
        unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), size) }
    };
    let mut buffer = Buffer::new(bytes);
    // A `Buffer` takes everything: it cuts and counts.
    let _ = json::write(&mut buffer, host_version());
    buffer.end()
}

/// Gives memory that is free back to the kernel, page by page, until no more
/// than `keep` bytes are left that are free and resident; returns how many bytes
/// went back. Any thread may call it, without the GIL; it takes time with the
/// size of the heap and of what goes back, some 10 microseconds for a pool's 64
/// KiB (benchmark `lock_time`), and stops nobody for longer than the return of one
/// pool's pages. Free blocks that other threads
/// have at hand stay where they are.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_trim(keep: usize) -> usize {
    decay::trim(keep)
}

/// Writes what lies on each page of the heap now to the file at `path`, which is
/// made, or replaced when the new one is whole: for `obmalloc map` and `pins`. Returns
/// 0, or the errno that it failed by: ESPIPE for what is no file, ELOOP and EPERM where
/// a privileged process finds a link or a file of somebody else. Allocates nothing. Any thread may call it, without the GIL; it
/// takes about a microsecond for a pool's 64 KiB, and stops nobody for longer than a
/// look at one pool. While others allocate, pools are of different moments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn obmalloc_snapshot(path: *const c_char) -> c_int {
    if path.is_null() {
        return libc::EFAULT;
    }
    // SAFETY: the caller's string.
    match snapshot::write_to(unsafe { CStr::from_ptr(path) }) {
        Ok(()) => 0,
        Err(error) => error,
    }
}

/// For servers that are about to fork: empties what the calling thread has at
/// hand and gives all free pages back, so that children share as much as can be
/// shared. Returns how many bytes went back to the kernel.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_before_fork() -> usize {
    decay::trim(0)
}
