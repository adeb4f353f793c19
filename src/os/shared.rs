//! Memory that other processes of the same user can open: a file without a name in any
//! folder (memfd), gone with the last process that has it.
//!
//! ```text
//!    /proc/PID/fd/N -> /memfd:NAME (deleted)      who may look at the process may open it
//! ```
//!
//! The file is made as long as it will ever be, without memory, and its length is sealed:
//! nobody can cut off what is mapped here. The calls are made by number, as an old C
//! library has no functions for some of them.

use core::ffi::{CStr, c_int, c_uint};
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;

use super::errno::{self, checked};
use super::memory;
use super::sandbox;

/// The lowest number that the descriptor is moved to, where so many are allowed: programs
/// count on the low ones, and a table for much higher ones costs the kernel memory.
const HIGH: u64 = 1000;

/// Such a file, by its descriptor and by what the kernel knows it by: the program may
/// close the descriptor, and have another file under its number.
#[derive(Clone, Copy)]
pub struct Shared {
    fd: c_int,
    file: (u64, u64),
}

impl Shared {
    /// Makes a file that is as long as it may be, but no longer than `longest`; `None` if
    /// there is none or it cannot have `needed` bytes. Returns its length, too.
    #[cold]
    pub fn create(name: &CStr, needed: u64, longest: u64) -> Option<(Shared, u64)> {
        let length = longest.min(limit(libc::RLIMIT_FSIZE)); // beyond it comes a signal
        if length < needed {
            return None;
        }
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        let low = memfd(name, flags | libc::MFD_NOEXEC_SEAL).or_else(|| memfd(name, flags))?;
        let fd = move_up(low);
        // SAFETY: `fd` is a file made here, which has no contents to lose.
        let sized = checked(|| unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) });
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: `fd` is a file made here, which nobody means to cut or lengthen.
        let sealed =
            checked(|| unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_ADD_SEALS, seals) });
        match identity(fd).filter(|_| sized.is_ok() && sealed.is_ok()) {
            Some(file) => Some((Shared { fd, file }, length)),
            None => {
                close(fd);
                None
            }
        }
    }

    /// Whether the descriptor is there and is this file.
    pub fn is_open(&self) -> bool {
        identity(self.fd) == Some(self.file)
    }

    /// Closes the descriptor, if it is this file.
    #[cold]
    pub fn close(&self) {
        if self.is_open() {
            close(self.fd);
        }
    }

    /// Maps the first `size` bytes.
    #[cold]
    pub fn map(&self, size: usize) -> Option<NonNull<u8>> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let p = errno::kept(|| {
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            unsafe { libc::mmap(ptr::null_mut(), size, access, libc::MAP_SHARED, self.fd, 0) }
        });
        if p == libc::MAP_FAILED {
            None
        } else {
            NonNull::new(p.cast())
        }
    }
}

/// Maps `size` bytes of what `start` is a mapping of once more: without the descriptor,
/// which may be another file's at any moment.
#[cold]
pub fn map_again(start: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    let flags = libc::MREMAP_MAYMOVE;
    if !sandbox::allows() {
        return None;
    }
    let p = checked(|| {
        // SAFETY: an old size of 0 leaves the mapping, which is shared, as it is.
        unsafe { libc::syscall(libc::SYS_mremap, start.as_ptr(), 0, size, flags, 0) }
    });
    NonNull::new(ptr::with_exposed_provenance_mut(p.ok()?))
}

/// Takes a mapping made here away.
///
/// # Safety
/// Nothing points into it any more.
#[cold]
pub unsafe fn unmap(start: NonNull<u8>, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { memory::unmap(start, size) };
}

/// Gives the memory of `size` bytes at `start`, in a mapping made here, back: they read as
/// zero from now on, here and in every other mapping of the file.
#[cold]
pub fn empty(start: NonNull<u8>, size: usize) {
    if !sandbox::allows() {
        return;
    }
    // SAFETY: a mapping of ours, in which the caller has nothing to lose.
    errno::kept(|| unsafe { libc::madvise(start.as_ptr().cast(), size, libc::MADV_REMOVE) });
}

/// Sleeps while `word`, in memory that is shared with other processes, is `value`; for so
/// many milliseconds at the most, if that is said. False if they are over.
pub fn wait(word: &AtomicU32, value: u32, milliseconds: Option<u64>) -> bool {
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

/// Wakes all, of whatever process, that sleep on `word`.
pub fn wake(word: &AtomicU32) {
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

/// Closes a descriptor of ours: not by the C library's `close`, which is a cancellation point.
fn close(fd: c_int) {
    // SAFETY: the caller's own descriptor, which nobody uses any more.
    let _ = checked(|| unsafe { libc::syscall(libc::SYS_close, fd) });
}

/// The same file under a high number, if it can be had.
fn move_up(low: c_int) -> c_int {
    let lowest = HIGH.min((limit(libc::RLIMIT_NOFILE) / 8).saturating_mul(7));
    let high = checked(|| {
        // SAFETY: a second number for a file of ours changes nothing.
        unsafe { libc::syscall(libc::SYS_fcntl, low, libc::F_DUPFD_CLOEXEC, lowest) }
    });
    match high.ok().and_then(|high| c_int::try_from(high).ok()) {
        Some(high) => {
            close(low);
            high
        }
        None => low,
    }
}

/// A limit of the process.
fn limit(which: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a place for the answer.
    errno::kept(|| unsafe { libc::getrlimit(which, &raw mut limit) });
    limit.rlim_cur
}

/// The device and the number of the file that is open under this descriptor.
fn identity(fd: c_int) -> Option<(u64, u64)> {
    let mut about = core::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a place for the answer, in the kernel's own form.
    let known = checked(|| unsafe { libc::syscall(libc::SYS_fstat, fd, about.as_mut_ptr()) });
    // SAFETY: filled, if the kernel says so.
    let about = known.ok().map(|_| unsafe { about.assume_init() })?;
    Some((about.st_dev, about.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_show_the_same_bytes_until_they_are_emptied() {
        let (file, length) = Shared::create(c"test", 8192, 1 << 30).unwrap();
        assert!(file.is_open() && length == 1 << 30 && file.fd >= 256);
        let page = file.map(4096).unwrap();
        file.close();
        assert!(!file.is_open());
        file.close(); // nothing happens
        let again = map_again(page, 3 * 4096).unwrap();
        // SAFETY: a mapping of that size; so in what follows.
        let (first, third) = unsafe { (again.as_ptr(), again.as_ptr().add(2 * 4096)) };
        // SAFETY: as above.
        unsafe { third.write(7) };
        // SAFETY: as above.
        unsafe { page.as_ptr().write(5) };
        // SAFETY: as above.
        assert_eq!(unsafe { (first.read(), third.read()) }, (5, 7));
        empty(NonNull::new(third).unwrap(), 4096);
        // SAFETY: as above.
        assert_eq!(unsafe { (first.read(), third.read()) }, (5, 0));
        // SAFETY: nothing points there any more.
        unsafe { unmap(again, 3 * 4096) };
        // SAFETY: as above.
        unsafe { unmap(page, 4096) };
    }

    #[test]
    fn the_length_is_sealed() {
        let (file, _) = Shared::create(c"test", 8192, 1 << 20).unwrap();
        for length in [0, 1 << 21] {
            // SAFETY: a descriptor of ours.
            assert_ne!(unsafe { libc::ftruncate(file.fd, length) }, 0);
        }
        file.close();
        assert!(Shared::create(c"test", 1 << 21, 1 << 20).is_none());
    }

    #[test]
    fn a_wait_ends_at_another_value_and_by_time() {
        let word = AtomicU32::new(1);
        assert!(wait(&word, 0, None), "another value");
        assert!(!wait(&word, 1, Some(1)), "time is over");
        wake(&word);
    }
}
