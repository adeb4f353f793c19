//! Reads files without taking one of the program's descriptors.
//!
//! `open` takes the lowest free descriptor, and a program that closes 0 and opens its input
//! relies on getting 0. So where other threads may run, a file is read by a thread that has
//! its own table of descriptors:
//!
//! ```text
//!   the caller    blocks all signals, clone, sleeps until the thread has ended
//!   the thread                        makes an empty table, opens, reads, exits
//! ```
//!
//! The C library has no record of the thread: it has no thread-local storage, runs on 2 KiB of the
//! caller's stack, and makes system calls directly, without errno. A child process would do as
//! well, but other threads that wait for children would find it, it would count in
//! RUSAGE_CHILDREN, and in a new PID namespace it would be the first process, whose end is that of
//! the namespace. `close_range` makes the table empty, at a cost that does not
//! depend on the number of open files; before Linux 5.9 the table is a copy.
//!
//! In a process with one thread, the caller reads the file itself, at a tenth of the cost. So it
//! does if the kernel refuses the thread (RLIMIT_NPROC, a new PID namespace, a sandbox), and under
//! Valgrind, which does not support these threads: then the lowest descriptor is taken for some
//! microseconds.

use core::ffi::c_char;
#[cfg(not(miri))]
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed},
};

#[cfg(not(miri))]
use super::arch::{self, syscall as call};
#[cfg(not(miri))]
use super::memcheck;
#[cfg(not(any(miri, target_env = "musl")))]
use super::weak::weak_symbol;

/// Under Miri there are no system calls.
#[cfg(miri)]
unsafe fn call(_: libc::c_long, _: [usize; 4]) -> isize {
    -(libc::ENOSYS as isize)
}

/// A file to be read into a buffer.
pub(crate) struct Errand {
    path: *const c_char,
    room: *mut u8,
    size: usize,
    /// Whether the thread begins with an empty table of descriptors.
    #[cfg_attr(miri, expect(dead_code))]
    empties: bool,
    /// Bytes that were read; negative on failure.
    answer: isize,
}

/// The result if the thread could not leave the table of descriptors.
#[cfg(not(miri))]
const STAYED: isize = isize::MIN;

/// Whether the kernel has no `close_range` that makes an empty table.
#[cfg(not(miri))]
static COPIES: AtomicBool = AtomicBool::new(false);

/// Reads the file at `path`, a C string, into `room`. Returns the bytes that were read, at most the
/// length of `room`; `None` if the file cannot be opened.
pub(crate) fn read(path: &core::ffi::CStr, room: &mut [u8]) -> Option<usize> {
    let mut errand = Errand {
        path: path.as_ptr(),
        room: room.as_mut_ptr(),
        size: room.len(),
        empties: false,
        answer: -1,
    };
    without_signals(|| {
        if !errand.is_done_apart() {
            errand.run();
        }
    });
    usize::try_from(errand.answer).ok()
}

impl Errand {
    #[cfg(miri)]
    fn is_done_apart(&mut self) -> bool {
        false
    }

    /// For tests: whether a thread of its own read it.
    #[cfg(not(miri))]
    fn is_done_apart(&mut self) -> bool {
        if is_alone() || memcheck::is_valgrind() {
            return false;
        }
        if !COPIES.load(Relaxed) {
            self.empties = true;
            let started = self.start_and_wait();
            self.empties = false;
            if !started {
                return false;
            }
            if self.answer != STAYED {
                return true;
            }
            COPIES.store(true, Relaxed);
        }
        self.start_and_wait()
    }

    /// Reads the file by a thread, and waits for its end. False if there is none.
    #[cfg(not(miri))]
    #[inline(never)]
    fn start_and_wait(&mut self) -> bool {
        /// The thread's stack: `run` and the calls in it take some hundred bytes.
        #[repr(align(16))]
        #[expect(dead_code, reason = "only its size and place count")]
        struct Stack([u8; 2048]);
        let mut stack = core::mem::MaybeUninit::<Stack>::uninit();
        let top = stack.as_mut_ptr().wrapping_add(1);
        let mut flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_PARENT_SETTID
            | libc::CLONE_CHILD_CLEARTID;
        if self.empties {
            flags |= libc::CLONE_FILES; // shared until `close_range` makes another
        }
        let there = AtomicU32::new(0);
        // SAFETY: the thread runs on `stack`, which lives until its end, for which this function
        // waits below. It writes to `self`, which no other thread uses until then, and `begin` uses
        // no thread-local storage.
        let answer = unsafe {
            let (top, word) = (top.cast(), there.as_ptr());
            arch::run_apart(flags, top, word, begin, core::ptr::from_mut(self))
        };
        // The kernel writes the thread's id there before the thread runs, and 0 when the thread no
        // longer uses the memory.
        loop {
            let number = there.load(Acquire);
            if number == 0 {
                break;
            }
            let word = there.as_ptr().expose_provenance();
            // SAFETY: a word that lives until this function returns. Not a private wait, because
            // the kernel's wake is not private.
            unsafe {
                call(
                    libc::SYS_futex,
                    [word, libc::FUTEX_WAIT as usize, number as usize, 0],
                )
            };
        }
        let number = usize::try_from(answer).unwrap_or(0);
        wait_until_gone(number);
        number != 0
    }

    /// Reads the file on the calling thread.
    fn run(&mut self) {
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
        let here = libc::AT_FDCWD as isize as usize;
        // SAFETY: `path` is a C string.
        let fd = unsafe {
            call(
                libc::SYS_openat,
                [here, self.path.expose_provenance(), flags, 0],
            )
        };
        self.answer = fd;
        let Ok(fd) = usize::try_from(fd) else {
            return;
        };
        let mut len = 0;
        while len < self.size {
            let room = [fd, self.room.expose_provenance() + len, self.size - len, 0];
            // SAFETY: the rest of the buffer that `read` borrows exclusively.
            match unsafe { call(libc::SYS_read, room) } {
                n @ 1.. => len += n.cast_unsigned(),
                _ => break,
            }
        }
        // SAFETY: opened above, and used here only.
        unsafe { call(libc::SYS_close, [fd, 0, 0, 0]) };
        self.answer = len.cast_signed();
    }
}

/// Waits until the kernel no longer counts the thread: CPython compares that count after a fork.
/// The thread is in its exit by now. On a busy machine the wait may end before that.
#[cfg(not(miri))]
fn wait_until_gone(number: usize) {
    const TRIES: u32 = 200;
    // SAFETY: getpid has no arguments, writes no memory and cannot fail.
    let process = unsafe { call(libc::SYS_getpid, [0; 4]) }.cast_unsigned();
    for _ in 0..TRIES {
        // SAFETY: signal 0 only checks whether the thread exists.
        if number == 0 || unsafe { call(libc::SYS_tgkill, [process, number, 0, 0]) } != 0 {
            return;
        }
        // SAFETY: it lets other threads run.
        unsafe { call(libc::SYS_sched_yield, [0; 4]) };
    }
}

/// The thread's function.
#[cfg(not(miri))]
extern "C" fn begin(errand: *mut Errand) {
    // SAFETY: `start_and_wait` passed it, and waits for the end of this thread.
    let errand = unsafe { &mut *errand };
    if errand.empties {
        let (all, unshare) = (u32::MAX as usize, libc::CLOSE_RANGE_UNSHARE as usize);
        // SAFETY: with this flag the call closes descriptors in a table of the thread's own.
        let left = unsafe { call(libc::SYS_close_range, [0, all, unshare, 0]) };
        if left != 0 {
            errand.answer = STAYED;
            return;
        }
    }
    errand.run();
}

/// Whether the process has one thread, so that no other can notice which descriptors are taken: by
/// the C library's flag (glibc 2.32 and later).
#[cfg(not(any(miri, target_env = "musl")))]
fn is_alone() -> bool {
    weak_symbol!("__libc_single_threaded").is_some_and(|word| {
        // SAFETY: a byte that the C library writes when the first thread is made, by the
        // only thread that there is.
        unsafe { word.cast::<u8>().read_volatile() != 0 }
    })
}

/// Whether the process has one thread. musl does not export its flag: `/proc/self/task` has a link
/// for each thread and two of its own.
#[cfg(all(target_env = "musl", not(miri)))]
fn is_alone() -> bool {
    let mut about = core::mem::MaybeUninit::<libc::stat>::zeroed();
    let (path, place) = (c"/proc/self/task".as_ptr(), about.as_mut_ptr());
    let words = [
        libc::AT_FDCWD as isize as usize,
        path.expose_provenance(),
        place.expose_provenance(),
        0,
    ];
    // SAFETY: a C string, and room for the result.
    let failed = unsafe { call(libc::SYS_newfstatat, words) };
    // SAFETY: zeroed, so initialised whatever the kernel wrote.
    failed == 0 && unsafe { about.assume_init() }.st_nlink == 3
}

/// Blocks all signals until it is dropped, the C library's own included: no handler runs while the
/// lowest descriptor is taken, or on a stack of 2 KiB.
fn without_signals(work: impl FnOnce()) {
    const SIZE: usize = 8;
    let (all, mut before) = (u64::MAX, 0u64);
    let mask = |new: *const u64, old: *mut u64| {
        let how = libc::SIG_SETMASK as usize;
        // SAFETY: a set to read or NULL, and room for another or NULL.
        unsafe {
            call(
                libc::SYS_rt_sigprocmask,
                [how, new.expose_provenance(), old.expose_provenance(), SIZE],
            )
        }
    };
    let blocked = mask(&raw const all, &raw mut before) == 0;
    work();
    if blocked {
        mask(&raw const before, core::ptr::null_mut());
    }
}
