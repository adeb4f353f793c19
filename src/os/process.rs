//! What the process takes as a whole, as the kernel and the C library say.

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

/// The process that this one's parent is now, if a sandbox lets us know.
pub(crate) fn parent() -> Option<i32> {
    // SAFETY: `getppid` has no conditions, and never fails.
    sandbox::allows().then(|| unsafe { libc::getppid() })
}

/// Whether a filter of system calls (seccomp) is on, as `/proc` says; `None` if it does not.
/// Opens a file: only for the start, while the process has one thread.
#[cold]
pub(crate) fn is_filtered() -> Option<bool> {
    let mut buffer = [0; 4096];
    let text = read(c"/proc/self/status", &mut buffer)?;
    let mode = text
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))?;
    Some(mode.trim() != "0")
}

/// Bytes of the process that are in memory; `None` without `/proc`.
pub(crate) fn resident() -> Option<usize> {
    let mut buffer = [0; 128];
    let text = read(c"/proc/self/statm", &mut buffer)?;
    let pages = text.split(' ').nth(1)?;
    Some(pages.parse::<usize>().ok()? * page_size())
}

/// The most that the process ever had in memory, in bytes, as far as the kernel says so: one
/// system call, without a file. It may be the program's before this one (`execve` keeps it).
pub(crate) fn peak() -> Option<usize> {
    let mut usage = core::mem::MaybeUninit::<libc::rusage>::uninit();
    let which = libc::RUSAGE_SELF;
    let known = errno::kept(|| {
        // SAFETY: a place for the answer.
        unsafe { getrusage(which, usage.as_mut_ptr()) }
    }) == 0;
    // SAFETY: filled, if the kernel says so.
    let usage = known.then(|| unsafe { usage.assume_init() })?;
    usize::try_from(usage.ru_maxrss).ok()?.checked_mul(1024)
}

/// What the C library's malloc has.
#[derive(Clone, Copy)]
pub(crate) struct LibcMemory {
    /// Bytes of blocks that are in use.
    pub in_use: usize,
    /// Bytes that it has from the kernel and keeps for later.
    pub kept: usize,
}

/// What the C library's malloc has, if it can say (glibc 2.33 and later).
pub(crate) fn libc_memory() -> Option<LibcMemory> {
    type MallInfo2 = unsafe extern "C" fn() -> libc::mallinfo2;
    let ask = weak_symbol!("mallinfo2")?;
    // SAFETY: its type.
    let ask = unsafe { function::<MallInfo2>(ask) };
    // SAFETY: no conditions; it takes the C library's own locks.
    let info = errno::kept(|| unsafe { ask() });
    Some(LibcMemory {
        in_use: info.uordblks + info.hblkhd,
        kept: info.fordblks,
    })
}

/// Whether the kernel has refused a name: it will refuse the next one, too.
static NAMELESS: AtomicBool = AtomicBool::new(false);

/// Gives `size` bytes at `start` a name in the process's list of mappings, where
/// the kernel has such (5.17, if it was built so).
pub(crate) fn name_mapping(start: ptr::NonNull<u8>, size: usize, name: &'static CStr) {
    const PR_SET_VMA: i32 = 0x5356_4d41;
    const PR_SET_VMA_ANON_NAME: usize = 0;
    if NAMELESS.load(Relaxed) || !sandbox::allows() {
        return;
    }
    let (what, start) = (PR_SET_VMA_ANON_NAME, start.as_ptr());
    // SAFETY: a name changes no memory; a kernel without such says EINVAL.
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
        let _ = is_filtered(); // which the machine decides
    }
}
