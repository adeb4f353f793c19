//! Memory that other processes of the same user can open: a memfd, a file without a name in any
//! folder, which ends with the last process that has it open.
//!
//! ```text
//!    /proc/PID/fd/N -> /memfd:NAME (deleted)      open to users who may trace the process
//! ```
//!
//! The file is as long as its content, so that tools which read every open file of a process finish
//! soon. It grows when more is written and never shrinks, and a seal keeps readers from shrinking
//! it, because that would cut mappings. A reader could extend or overwrite it; but a reader that
//! may open it may trace the process as well.
//!
//! The system calls are made by number, because an old C library lacks functions for some of them.
//!
//! # Which descriptor
//!
//! A high number, which programs do not rely on. If few are left, there is no file: the program
//! needs them more. While the file is made it has the lowest free number for a moment, so it is
//! made while no other thread opens files, or while 0 to 2 are open ([`standard_are_open`]).

use core::ffi::{CStr, c_int, c_uint};
use core::ptr::{self, NonNull};

use super::c_library::Resource;
use super::descriptor::{Identity, about, identity};
use super::errno::{self, checked};
use super::memory;
use super::quiet::Quiet;
use super::sandbox;
use crate::sync::AtomicU32;

/// The lowest number that the descriptor is moved to, if the limit allows it: programs rely on low
/// numbers, and a table for much higher ones costs the kernel memory.
const HIGH: u64 = 1000;
/// Numbers between the descriptor and the limit, its own included.
const SPARE: u64 = 16;

/// A shared file, by its descriptor and its identity: the program may close the descriptor and
/// open another file under its number.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    fd: c_int,
    file: Identity,
}

impl Shared {
    /// Makes a file of `size` bytes, all zero; `None` if that fails.
    #[cold]
    pub(crate) fn create(name: &CStr, size: u64) -> Option<Shared> {
        if size > limit(libc::RLIMIT_FSIZE) {
            return None;
        }
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        let low = memfd(name, flags | libc::MFD_NOEXEC_SEAL).or_else(|| memfd(name, flags))?;
        let high = copy_above(low);
        close(low);
        let fd = high?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        let made = lengthen(fd, size).and_then(|()| {
            // SAFETY: `fd` is a file made here; the seal forbids to shrink it.
            checked(|| unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_ADD_SEALS, seals) })
        });
        let file = identity(fd).filter(|_| made.is_ok());
        if file.is_none() {
            close(fd);
        }
        file.map(|file| Shared { fd, file })
    }

    /// Extends the file to `size` bytes, unless it is longer; new bytes are zero.
    #[cold]
    pub(crate) fn grow(&self, size: u64) -> Result<(), c_int> {
        // The program does not use the second descriptor, so it stays the file that was checked.
        let fd = copy_above(self.fd).ok_or(libc::EBADF)?;
        let grown = match about(fd) {
            _ if identity(fd) != Some(self.file) => Err(libc::EBADF),
            Ok(about) if about.st_size.cast_unsigned() >= size => Ok(()),
            Ok(_) => lengthen(fd, size),
            Err(error) => Err(error),
        };
        close(fd);
        grown
    }

    /// Whether the descriptor is open and has this file.
    pub(crate) fn is_open(&self) -> bool {
        identity(self.fd) == Some(self.file)
    }

    /// Closes the descriptor, if it has this file.
    #[cold]
    pub(crate) fn close(&self) {
        if self.is_open() {
            close(self.fd);
        }
    }

    /// Maps the first `size` bytes between two inaccessible pages.
    #[cold]
    pub(crate) fn map(&self, size: usize) -> Option<NonNull<u8>> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_FIXED;
        memory::fenced(size, |start| {
            let start = start.as_ptr().cast();
            let map = || {
                // SAFETY: replaces pages that `fenced` has reserved for this mapping.
                unsafe { libc::mmap(start, size, access, kind, self.fd, 0) }
            };
            errno::kept(map) != libc::MAP_FAILED
        })
    }
}

/// Maps the first `size` bytes of the file behind the mapping at `start` once more, without the
/// descriptor, which may have another file at any moment.
#[cold]
pub(crate) fn map_again(start: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    if !sandbox::allows() {
        return None;
    }
    let old = start.as_ptr();
    memory::fenced(size, |place| {
        let again = || {
            // SAFETY: with an old size of 0 the shared mapping stays as it is; the new one replaces
            // pages that `fenced` has reserved for it.
            unsafe { libc::syscall(libc::SYS_mremap, old, 0, size, flags, place.as_ptr()) }
        };
        checked(again).is_ok()
    })
}

/// Unmaps a mapping made here.
///
/// # Safety
/// No pointer into it is used any more.
#[cold]
pub(crate) unsafe fn unmap(start: NonNull<u8>, size: usize) {
    // SAFETY: made here by `fenced`, and used no more by the contract above.
    unsafe { memory::unmap_fenced(start, size) };
}

/// Frees `size` bytes at `start` of a mapping made here, in the file: they read as zero from now
/// on, here and in every other mapping of it.
#[cold]
pub(crate) fn empty(start: NonNull<u8>, size: usize) {
    if !sandbox::allows() {
        return;
    }
    // SAFETY: a part of a mapping made here, whose content the caller discards.
    errno::kept(|| unsafe { libc::madvise(start.as_ptr().cast(), size, libc::MADV_REMOVE) });
}

/// Sleeps while `word`, in memory that is shared with other processes, is `value`, at most
/// `milliseconds` if given. False after that time.
pub(crate) fn wait(word: &AtomicU32, value: u32, milliseconds: Option<u64>) -> bool {
    let time = milliseconds.map(|limit| libc::timespec {
        tv_sec: (limit / 1000).cast_signed(),
        tv_nsec: (limit % 1000 * 1_000_000).cast_signed(),
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let what = libc::FUTEX_WAIT;
    let result = checked(|| {
        // SAFETY: an atomic word that the borrow keeps alive, and a time or NULL.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what, value, time) }
    });
    result != Err(libc::ETIMEDOUT)
}

/// Wakes all threads of all processes that sleep on `word`.
pub(crate) fn wake(word: &AtomicU32) {
    let what = libc::FUTEX_WAKE;
    let _ = checked(|| {
        // SAFETY: an atomic word that the borrow keeps alive.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what, c_int::MAX) }
    });
}

fn memfd(name: &CStr, flags: c_uint) -> Option<c_int> {
    // SAFETY: a C string.
    let fd = checked(|| unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) });
    c_int::try_from(fd.ok()?).ok()
}

/// Closes a descriptor, without the C library's `close`, which is a cancellation point.
fn close(fd: c_int) {
    // SAFETY: the caller's own descriptor, used no more.
    let _ = checked(|| unsafe { libc::syscall(libc::SYS_close, fd) });
}

/// A second, high number for the same file; `None` if few are left or the file is not open.
fn copy_above(fd: c_int) -> Option<c_int> {
    let all = limit(libc::RLIMIT_NOFILE);
    let lowest = HIGH.min((all / 8).saturating_mul(7));
    let high = checked(|| {
        // SAFETY: a second number does not change the file.
        unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, lowest) }
    });
    let high = c_int::try_from(high.ok()?).ok()?;
    if all.saturating_sub(high as u64) >= SPARE {
        return Some(high);
    }
    close(high);
    None
}

/// Sets the length of the file under `fd`. Raises no signal.
fn lengthen(fd: c_int, size: u64) -> Result<(), c_int> {
    // SAFETY: `fd` is a file made here, and `size` is at least its length.
    let call = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, size) };
    Quiet::begin().call(call).map(|_| ())
}

/// Whether 0 to 2 are open: else the program may be about to open its own files there.
pub(crate) fn standard_are_open() -> bool {
    (0..=2).all(|fd| about(fd).is_ok())
}

/// A limit of the process.
fn limit(which: Resource) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `limit` has room for the result.
    errno::kept(|| unsafe { libc::getrlimit(which, &raw mut limit) });
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_show_the_same_bytes_until_they_are_emptied() {
        let bytes = memory::page_size();
        let file = Shared::create(c"test", bytes as u64).unwrap();
        assert!(file.is_open() && file.fd >= 256);
        assert_eq!(file.grow(3 * bytes as u64), Ok(()));
        let page = file.map(bytes).unwrap();
        file.close();
        assert!(!file.is_open());
        file.close(); // nothing happens
        let again = map_again(page, 3 * bytes).unwrap();
        // SAFETY: a mapping of that size.
        let (first, third) = unsafe { (again.as_ptr(), again.as_ptr().add(2 * bytes)) };
        // SAFETY: a mapping of that size.
        unsafe { third.write(7) };
        // SAFETY: a mapping of that size.
        unsafe { page.as_ptr().write(5) };
        // SAFETY: a mapping of that size.
        assert_eq!(unsafe { (first.read(), third.read()) }, (5, 7));
        empty(NonNull::new(third).unwrap(), bytes);
        // SAFETY: a mapping of that size.
        assert_eq!(unsafe { (first.read(), third.read()) }, (5, 0));
        // SAFETY: no pointer into the mapping is used any more.
        unsafe { unmap(again, 3 * bytes) };
        // SAFETY: a mapping of that size.
        unsafe { unmap(page, bytes) };
    }

    #[test]
    fn the_file_is_as_long_as_it_must_be_and_never_shorter() {
        let length = |file: &Shared| about(file.fd).unwrap().st_size;
        let file = Shared::create(c"test", 8192).unwrap();
        assert_eq!(length(&file), 8192);
        assert_eq!(file.grow(1 << 20), Ok(()));
        assert_eq!(file.grow(4096), Ok(()));
        assert_eq!(length(&file), 1 << 20);
        // SAFETY: a descriptor made here; the seal keeps its length.
        assert_ne!(unsafe { libc::ftruncate(file.fd, 4096) }, 0);
        // Another file under the number is not touched.
        // SAFETY: a C string.
        let other = unsafe { libc::memfd_create(c"other".as_ptr(), 0) };
        // SAFETY: the test's own descriptors.
        assert_eq!(unsafe { libc::dup2(other, file.fd) }, file.fd);
        assert_eq!(file.grow(1 << 21), Err(libc::EBADF));
        file.close(); // nothing happens
        assert_eq!((about(other).unwrap().st_size, length(&file)), (0, 0));
        close(file.fd);
        assert_eq!(file.grow(1 << 21), Err(libc::EBADF));
        close(other);
    }

    #[test]
    fn a_wait_ends_at_another_value_and_by_time() {
        let word = AtomicU32::new(1);
        assert!(wait(&word, 0, None), "another value");
        assert!(!wait(&word, 1, Some(1)), "time is over");
        wake(&word);
    }
}
