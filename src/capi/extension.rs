//! The library's own functions: `obmalloc_*`.

use core::ffi::{CStr, c_char, c_int, c_uint};
use core::slice;

use format::status::Reason;

use crate::background::decay;
use crate::cpython::dispatch;
use crate::cpython::state::host_version;
use crate::os::text::Buffer;
use crate::profile;
use crate::stats;
use crate::stats::json;
use crate::stats::page::snapshot;

/// What `obmalloc_install` returns: 0 if the library serves the process, else why not.
#[allow(non_camel_case_types, reason = "the name is C's")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum obmalloc_error {
    /// The library serves this process.
    OBMALLOC_OK = 0,
    /// There is no CPython in this process.
    OBMALLOC_ERR_NO_HOST = 1,
    /// This version of CPython is not served.
    OBMALLOC_ERR_UNSUPPORTED = 2,
    /// This CPython is built without a GIL.
    OBMALLOC_ERR_FREE_THREADED = 3,
    /// PYTHONMALLOC or the development mode chooses another allocator.
    OBMALLOC_ERR_USER_CHOICE = 4,
    /// Another allocator is installed already.
    OBMALLOC_ERR_OTHER_ALLOCATOR = 5,
    /// tracemalloc is tracing; stop it first.
    OBMALLOC_ERR_TRACING = 6,
    /// The host's calls cannot be made to reach the library: it has no tables of
    /// allocators, or is a 2.7 that was not preloaded.
    OBMALLOC_ERR_NOT_INTERPOSABLE = 7,
    /// The calling thread does not hold the GIL.
    OBMALLOC_ERR_NO_GIL = 8,
    /// Another CPython of this process is served already.
    OBMALLOC_ERR_SERVES_ANOTHER = 9,
}

use obmalloc_error::*;

/// Deprecated: OBMALLOC_OK.
pub const OBMALLOC_ACTIVE: c_int = 0;
/// Deprecated: OBMALLOC_ERR_NO_HOST.
pub const OBMALLOC_NO_HOST: c_int = 1;
/// Deprecated: OBMALLOC_ERR_UNSUPPORTED.
pub const OBMALLOC_UNSUPPORTED: c_int = 2;
/// Deprecated: OBMALLOC_ERR_FREE_THREADED.
pub const OBMALLOC_FREE_THREADED: c_int = 3;
/// Deprecated: OBMALLOC_ERR_USER_CHOICE.
pub const OBMALLOC_CHOSEN: c_int = 4;
/// Deprecated: OBMALLOC_ERR_OTHER_ALLOCATOR.
pub const OBMALLOC_OTHER_ALLOCATOR: c_int = 5;
/// Deprecated: OBMALLOC_ERR_TRACING.
pub const OBMALLOC_TRACING: c_int = 6;
/// Deprecated: OBMALLOC_ERR_NOT_INTERPOSABLE.
pub const OBMALLOC_NO_WAY_IN: c_int = 7;
/// Deprecated: OBMALLOC_ERR_NO_GIL.
pub const OBMALLOC_NO_GIL: c_int = 8;
/// Deprecated: OBMALLOC_ERR_SERVES_ANOTHER.
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

/// Installs the library in the CPython of this process (3.6 and later), whether it existed at
/// the start or was loaded later, and whether it runs or not. Blocks of its own allocator
/// are freed to that allocator.
///
/// If the interpreter runs, the caller holds the GIL: from Python by `ctypes.PyDLL(...)`, not
/// `CDLL`. With several CPythons in the process, the one whose GIL the calling thread holds is
/// served; one of them can be. Returns an `obmalloc_error`: OBMALLOC_OK (0) if the library
/// serves the process now, else the reason; then nothing has changed. May be called again.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_install() -> c_int {
    let error = match dispatch::install() {
        Ok(()) => OBMALLOC_OK,
        Err(reason) => error_of(reason),
    };
    error as c_int
}

fn error_of(reason: Reason) -> obmalloc_error {
    match reason {
        Reason::NoHost => OBMALLOC_ERR_NO_HOST,
        Reason::Unsupported => OBMALLOC_ERR_UNSUPPORTED,
        Reason::FreeThreaded => OBMALLOC_ERR_FREE_THREADED,
        Reason::PythonMalloc | Reason::DevOption | Reason::DevVariable => OBMALLOC_ERR_USER_CHOICE,
        Reason::OtherAllocator | Reason::LinkedIn | Reason::DebugHooks | Reason::Replaced => {
            OBMALLOC_ERR_OTHER_ALLOCATOR
        }
        Reason::Tracing => OBMALLOC_ERR_TRACING,
        Reason::NoTables
        | Reason::SelfCheck
        | Reason::NotInterposable
        | Reason::LoadedLate
        | Reason::TooLate => OBMALLOC_ERR_NOT_INTERPOSABLE,
        Reason::NoGil => OBMALLOC_ERR_NO_GIL,
        Reason::ServesAnother => OBMALLOC_ERR_SERVES_ANOTHER,
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

/// Writes a snapshot of the heap, with the content of each page and the types of CPython's
/// objects, to the file at `path`, for `obmalloc map`, `pins` and `types`. The file is created, or
/// replaced once the new one is complete. Returns 0 or an error number: ESPIPE if the target is
/// no regular file, ELOOP or EPERM if a privileged process finds a link or another user's file.
/// Allocates nothing. Any thread may call it, without the GIL. It takes about a microsecond for
/// a pool of 64 KiB, and with objects about 0.1 for each; it delays other threads at most for
/// one pool. While other threads allocate, pools are of different moments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn obmalloc_snapshot(path: *const c_char) -> c_int {
    // SAFETY: by the function's contract.
    unsafe { obmalloc_snapshot_with(path, OBMALLOC_SNAPSHOT_TYPES) }
}

/// In `flags` of `obmalloc_snapshot_with`: with the types of CPython's objects.
pub const OBMALLOC_SNAPSHOT_TYPES: c_uint = 1;

/// `obmalloc_snapshot` with the parts in `flags`: without types it reads no block, and takes a small
/// part of the time. EINVAL if a flag is unknown.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn obmalloc_snapshot_with(path: *const c_char, flags: c_uint) -> c_int {
    if path.is_null() {
        return libc::EFAULT;
    }
    if flags & !OBMALLOC_SNAPSHOT_TYPES != 0 {
        return libc::EINVAL;
    }
    let with_types = flags & OBMALLOC_SNAPSHOT_TYPES != 0;
    // SAFETY: a C string by the function's contract.
    match snapshot::write_to(unsafe { CStr::from_ptr(path) }, with_types) {
        Ok(()) => 0,
        Err(error) => error,
    }
}

/// Starts the heap profiler: a new profile, with a mean of `interval` bytes between two samples; 0: the
/// default of 512 KiB; 1: every allocation is sampled. Blocks that were allocated before are not in
/// it. Returns 0 or an error number: EALREADY if it runs, ENOMEM, EPERM in a sandbox that forbids the
/// system calls for it. If a CPython runs in the process, the caller holds its GIL: from Python by
/// `ctypes.PyDLL(...)`. Then the domain RAW is sampled, too; without a GIL it is not.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_profile_start(interval: usize) -> c_int {
    match dispatch::start_profile(interval) {
        Ok(()) => 0,
        Err(error) => error,
    }
}

/// Stops the heap profiler. The samples so far stay in the profile until their blocks are freed, or
/// the profiler is started again. Returns 0. Any thread may call it, without the GIL.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_profile_stop() -> c_int {
    profile::stop();
    0
}

/// Whether the heap profiler runs: the mean number of bytes between two samples, which doubles when
/// the profiler's memory is full; 0 if it does not run. Any thread may call it, without the GIL.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_profile_interval() -> usize {
    profile::interval()
}

/// Writes the heap profile to the file at `path`, in pprof's format (gzipped profile.proto). The file
/// is created, or replaced once the new one is complete. Returns 0 or an error number: ENODATA if the
/// profiler was never started; ELOOP or EPERM if a privileged process finds a link or another user's
/// file. Allocates nothing. Any thread may call it, without the GIL; threads whose allocations are
/// sampled wait for some milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn obmalloc_profile_dump(path: *const c_char) -> c_int {
    if path.is_null() {
        return libc::EFAULT;
    }
    // SAFETY: a C string by the function's contract.
    let path = unsafe { CStr::from_ptr(path) };
    match stats::profile::write_to(|name| name.push(path.to_bytes())) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deprecated_constants_are_the_enums() {
        for (deprecated, error) in [
            (OBMALLOC_ACTIVE, OBMALLOC_OK),
            (OBMALLOC_NO_HOST, OBMALLOC_ERR_NO_HOST),
            (OBMALLOC_UNSUPPORTED, OBMALLOC_ERR_UNSUPPORTED),
            (OBMALLOC_FREE_THREADED, OBMALLOC_ERR_FREE_THREADED),
            (OBMALLOC_CHOSEN, OBMALLOC_ERR_USER_CHOICE),
            (OBMALLOC_OTHER_ALLOCATOR, OBMALLOC_ERR_OTHER_ALLOCATOR),
            (OBMALLOC_TRACING, OBMALLOC_ERR_TRACING),
            (OBMALLOC_NO_WAY_IN, OBMALLOC_ERR_NOT_INTERPOSABLE),
            (OBMALLOC_NO_GIL, OBMALLOC_ERR_NO_GIL),
            (OBMALLOC_SERVES_ANOTHER, OBMALLOC_ERR_SERVES_ANOTHER),
        ] {
            assert_eq!(deprecated, error as c_int);
        }
    }
}
