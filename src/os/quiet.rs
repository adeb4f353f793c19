//! Writes without side effects for the program: they raise no signal and end in bounded time.
//!
//! ```text
//!    a pipe without a reader     EPIPE; SIGPIPE is blocked, and consumed
//!    a file at its size limit    EFBIG; SIGXFSZ likewise
//!    a terminal in background    written to (SIGTTOU is blocked, so the kernel sends none)
//!    a full pipe                 waits as long as the caller allows, then drops the bytes
//! ```
//!
//! The system calls are made by number, so none of them is a cancellation point.

use core::ffi::{c_int, c_long};
use core::ptr;

use super::clock;
use super::errno;

/// Signals that a write can raise.
const SIGNALS: u64 = bit(libc::SIGPIPE) | bit(libc::SIGXFSZ) | bit(libc::SIGTTOU);
/// Bytes of one write to a file that may have no room: a pipe that poll reports as writable takes
/// this many without waiting, and in one piece.
const MIN_PAGE: usize = 512;
/// Milliseconds between two tries if poll reports room and the write finds none.
const NAP: u64 = 5;
/// Bytes of a set of signals, in the kernel's form.
const SET_BYTES: usize = 8;

const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Keeps `SIGNALS` that a write raises from the calling thread, until it is dropped.
pub(crate) struct Quiet {
    /// The signals that were blocked before.
    blocked: u64,
    /// Those of [`SIGNALS`] that were pending before, not because of these writes.
    pending: u64,
    /// Whether a write may have raised one.
    raised: bool,
}

impl Quiet {
    /// Blocks them.
    pub(crate) fn begin() -> Quiet {
        let (mut blocked, mut pending) = (0u64, 0u64);
        mask(libc::SIG_BLOCK, &SIGNALS, &mut blocked);
        if blocked & SIGNALS != 0 {
            let place = &raw mut pending;
            // SAFETY: room for a set of the size that is passed.
            let call = || unsafe { libc::syscall(libc::SYS_rt_sigpending, place, SET_BYTES) };
            let _ = errno::checked(call);
        }
        Quiet {
            blocked,
            pending: pending & SIGNALS,
            raised: false,
        }
    }

    /// Makes a system call that writes, and notes whether it may have raised a signal.
    pub(crate) fn call(&mut self, call: impl FnOnce() -> c_long) -> Result<usize, c_int> {
        let result = errno::checked(call);
        self.raised |= matches!(result, Err(libc::EPIPE | libc::EFBIG));
        result
    }

    /// Consumes the signals that the writes raised: they are pending for this thread alone.
    fn take_back(&self) {
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let wanted = SIGNALS & !self.pending;
        let (set, time) = (&raw const wanted, &raw const none);
        let information = ptr::null_mut::<libc::siginfo_t>();
        // SAFETY: a set of the size that is passed, a time, and NULL for the details.
        let call = || unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, set, information, time, SET_BYTES)
        };
        let _ = errno::checked(call);
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.raised {
            self.take_back();
        }
        mask(libc::SIG_SETMASK, &self.blocked, &mut 0);
    }
}

/// Changes the set of blocked signals, and stores the old set in `before`.
fn mask(how: c_int, set: &u64, before: &mut u64) {
    let (set, before) = (ptr::from_ref(set), ptr::from_mut(before));
    // SAFETY: two sets of the size that is passed. By number, because the C library's function
    // leaves out its own signals, and its sets are larger.
    let call = || unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, set, before, SET_BYTES) };
    let _ = errno::checked(call);
}

/// Whether a file of this mode may have no room for some time.
fn may_wait(mode: u32) -> bool {
    matches!(
        mode & libc::S_IFMT,
        libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR
    )
}

/// Writes all of `bytes` to `fd`, a file of this mode. Returns the error number on failure;
/// ETIMEDOUT if the file takes nothing for `patience` milliseconds.
pub(crate) fn write_all(
    fd: c_int,
    mode: u32,
    mut bytes: &[u8],
    patience: u64,
) -> Result<(), c_int> {
    let mut quiet = Quiet::begin();
    let waits = may_wait(mode);
    let mut until = None;
    while !bytes.is_empty() {
        let now = || if waits { clock::now() } else { 0 };
        let until_now = *until.get_or_insert_with(|| now() + patience);
        if waits && !is_writable(fd, until_now) {
            return Err(libc::ETIMEDOUT);
        }
        let len = if waits {
            bytes.len().min(MIN_PAGE)
        } else {
            bytes.len()
        };
        let start = bytes.as_ptr();
        // SAFETY: a slice is readable over its length.
        let written = quiet.call(|| unsafe { libc::syscall(libc::SYS_write, fd, start, len) });
        match written {
            Ok(0) => return Err(libc::EIO),
            Ok(n) => {
                bytes = &bytes[n.min(bytes.len())..];
                until = None;
            }
            Err(libc::EINTR) => {}
            Err(libc::EAGAIN) if waits => {
                if clock::now() >= until_now {
                    return Err(libc::ETIMEDOUT);
                }
                let _ = poll(None, NAP);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` to the file `fd` at this offset.
pub(crate) fn write_all_at(fd: c_int, mut at: u64, mut bytes: &[u8]) -> Result<(), c_int> {
    let mut quiet = Quiet::begin();
    while !bytes.is_empty() {
        let (start, len) = (bytes.as_ptr(), bytes.len());
        // SAFETY: a slice is readable over its length.
        let call = || unsafe { libc::syscall(libc::SYS_pwrite64, fd, start, len, at) };
        match quiet.call(call) {
            Ok(0) => return Err(libc::EIO),
            Ok(n) => {
                at += n as u64;
                bytes = &bytes[n.min(bytes.len())..];
            }
            Err(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until `fd` is writable or has an error. False if that takes until `until`.
fn is_writable(fd: c_int, until: u64) -> bool {
    loop {
        let left = until.saturating_sub(clock::now());
        match poll(Some(fd), left) {
            Ok(0) => return false,
            Err(libc::EINTR) if left > 0 => {}
            // The write that follows reports an error.
            Ok(_) | Err(_) => return true,
        }
    }
}

/// Waits at most `milliseconds` for `fd` to be writable, or, without one, that long. 0 after that
/// time.
fn poll(fd: Option<c_int>, milliseconds: u64) -> Result<usize, c_int> {
    let mut wanted = libc::pollfd {
        fd: fd.unwrap_or(-1),
        events: libc::POLLOUT,
        revents: 0,
    };
    let mut time = libc::timespec {
        tv_sec: (milliseconds / 1000).cast_signed(),
        tv_nsec: (milliseconds % 1000 * 1_000_000).cast_signed(),
    };
    let (wanted, time) = (&raw mut wanted, &raw mut time);
    let same_mask = ptr::null::<u64>();
    // SAFETY: one entry and a time, both writable; NULL for the set of signals.
    errno::checked(|| unsafe {
        libc::syscall(libc::SYS_ppoll, wanted, 1, time, same_mask, SET_BYTES)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    fn pipe() -> [c_int; 2] {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        ends
    }

    fn close(fd: c_int) {
        // SAFETY: the test's own descriptor.
        unsafe { libc::close(fd) };
    }

    fn pending() -> u64 {
        let mut set = 0u64;
        // SAFETY: room for the set.
        unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, SET_BYTES) };
        set & SIGNALS
    }

    #[test]
    fn a_pipe_without_a_reader_is_an_error_and_no_signal() {
        let [reader, writer] = pipe();
        close(reader);
        let before = Quiet::begin().blocked;
        errno::set(77);
        assert_eq!(
            write_all(writer, libc::S_IFIFO, b"text", 0),
            Err(libc::EPIPE)
        );
        assert_eq!((errno::get(), pending()), (77, 0));
        assert_eq!(Quiet::begin().blocked, before);
        close(writer);
    }

    #[test]
    fn a_signal_that_was_pending_before_stays() {
        let [reader, writer] = pipe();
        close(reader);
        let mut outer = Quiet::begin();
        let call = || {
            // SAFETY: raises a signal that is blocked, for this thread.
            unsafe {
                libc::syscall(
                    libc::SYS_tkill,
                    libc::syscall(libc::SYS_gettid),
                    libc::SIGPIPE,
                )
            }
        };
        assert_eq!(outer.call(call), Ok(0));
        assert_eq!(
            write_all(writer, libc::S_IFIFO, b"text", 0),
            Err(libc::EPIPE)
        );
        assert_eq!(pending(), bit(libc::SIGPIPE));
        outer.take_back();
        assert_eq!(pending(), 0);
        close(writer);
    }

    #[test]
    fn a_full_pipe_is_waited_for_and_no_longer() {
        let [reader, writer] = pipe();
        let all = vec![b'x'; 1 << 20];
        let begin = std::time::Instant::now();
        let written = write_all(writer, libc::S_IFIFO, &all, 50);
        assert_eq!(written, Err(libc::ETIMEDOUT));
        let record_take = begin.elapsed().as_millis();
        assert!((40..5000).contains(&record_take), "{record_take}");
        // With a slow reader nothing is lost.
        let thread = std::thread::spawn(move || {
            let mut bytes = [0u8; 4096];
            for _ in 0..17 {
                std::thread::sleep(core::time::Duration::from_millis(2));
                // SAFETY: room for the bytes.
                assert!(unsafe { libc::read(reader, bytes.as_mut_ptr().cast(), 4096) } > 0);
            }
            reader
        });
        assert_eq!(
            write_all(writer, libc::S_IFIFO, &all[..16 * 4096], 5000),
            Ok(())
        );
        close(thread.join().unwrap());
        close(writer);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        // SAFETY: a C string.
        let fd = unsafe { libc::open(c"/dev/full".as_ptr(), libc::O_WRONLY) };
        assert_eq!(write_all(fd, libc::S_IFCHR, b"text", 0), Err(libc::ENOSPC));
        assert_eq!(write_all_at(fd, 5, b"text"), Err(libc::ENOSPC));
        close(fd);
    }
}
