//! The memory of the whole process, by the kernel's and the C library's counts.

use core::ffi::CStr;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[cfg(not(miri))]
use libc::{getrusage, prctl};

use super::errno;
use super::file::read;
#[cfg(miri)]
use super::interpreted::{getrusage, prctl};
use super::memory::page_size;
use super::sandbox;
use super::weak::{function, weak_symbol};

/// The process id of the parent now; `None` if a sandbox forbids the call.
pub(crate) fn parent() -> Option<i32> {
    // SAFETY: `getppid` has no conditions, and never fails.
    sandbox::allows().then(|| unsafe { libc::getppid() })
}

/// Whether a filter of system calls (seccomp) is on; `None` without `/proc`. Opens a file: for the
/// start only, while the process has one thread.
#[cold]
pub(crate) fn is_filtered() -> Option<bool> {
    let mut buffer = [0; 4096];
    let text = read(c"/proc/self/status", &mut buffer)?;
    let mode = text
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))?;
    Some(mode.trim() != "0")
}

/// The resident memory of the process in bytes; `None` without `/proc`.
pub(crate) fn resident() -> Option<usize> {
    let mut buffer = [0; 128];
    let text = read(c"/proc/self/statm", &mut buffer)?;
    let pages = text.split(' ').nth(1)?;
    Some(pages.parse::<usize>().ok()? * page_size())
}

/// The peak of the resident memory in bytes, if the kernel reports it: one system call, without a
/// file. It may be that of the program before `execve`.
pub(crate) fn peak() -> Option<usize> {
    let mut usage = core::mem::MaybeUninit::<libc::rusage>::uninit();
    let which = libc::RUSAGE_SELF;
    let known = errno::kept(|| {
        // SAFETY: `usage` has room for the result.
        unsafe { getrusage(which, usage.as_mut_ptr()) }
    }) == 0;
    // SAFETY: the call succeeded, so it is filled.
    let usage = known.then(|| unsafe { usage.assume_init() })?;
    usize::try_from(usage.ru_maxrss).ok()?.checked_mul(1024)
}

/// The memory of the C library's malloc.
#[derive(Clone, Copy)]
pub(crate) struct LibcMemory {
    /// Bytes of blocks that are in use.
    pub in_use: usize,
    /// Bytes of free blocks that it keeps.
    pub kept: usize,
}

/// The result of `mallinfo2`, by its name in the C library.
#[repr(C)]
struct MallInfo2 {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

/// The memory of the C library's malloc; `None` before glibc 2.33, and on musl.
pub(crate) fn libc_memory() -> Option<LibcMemory> {
    type Function = unsafe extern "C" fn() -> MallInfo2;
    let ask = weak_symbol!("mallinfo2")?;
    // SAFETY: `mallinfo2` has this type.
    let ask = unsafe { function::<Function>(ask) };
    // SAFETY: no preconditions; it takes the C library's own locks.
    let info = errno::kept(|| unsafe { ask() });
    Some(LibcMemory {
        in_use: info.uordblks + info.hblkhd,
        kept: info.fordblks,
    })
}

/// Whether the kernel has refused a name: it refuses the next one, too.
static NAMELESS: AtomicBool = AtomicBool::new(false);

/// Names `size` bytes at `start` in the process's list of mappings, if the kernel supports names
/// (from 5.17 on, by its configuration).
pub(crate) fn name_mapping(start: ptr::NonNull<u8>, size: usize, name: &'static CStr) {
    const PR_SET_VMA: i32 = 0x5356_4d41;
    const PR_SET_VMA_ANON_NAME: usize = 0;
    if NAMELESS.load(Relaxed) || !sandbox::allows() {
        return;
    }
    let (what, start) = (PR_SET_VMA_ANON_NAME, start.as_ptr());
    // SAFETY: a name changes no memory; a kernel without names returns EINVAL.
    let named =
        errno::checked(|| unsafe { prctl(PR_SET_VMA, what, start, size, name.as_ptr()).into() });
    if named.is_err_and(|error| error != libc::ENOMEM) {
        NAMELESS.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri makes no system calls")]
    fn the_process_has_memory() {
        assert!(resident().is_some_and(|bytes| bytes > page_size()));
        assert!(peak().is_some_and(|bytes| bytes > page_size()));
        assert!(libc_memory().is_none_or(|memory| memory.in_use > 0));
        assert!(parent().is_some_and(|parent| parent > 0));
        let _ = is_filtered(); // depends on the machine
    }
}
