//! The reporter: one thread at a time, from its report to the end of what follows.
//!
//! ```text
//!             writes            has written          abort, the previous handler, or
//!    none  ----------> -n ------------------> n      the kernel ends the process
//!      ^                                      |
//!      +-------- the program continues -------+
//! ```
//!
//! A thread that has reported stays the reporter while the process ends: a waiting thread must not
//! report a second error in between, or be cut short. The next thread becomes the reporter only if
//! what follows returns.
//!
//! What follows may also leave by a jump. That thread becomes the reporter again at its next error;
//! other threads do when they have waited for `PATIENCE`.

use core::ptr;

use super::trace;
use crate::os::errno;
use crate::sync::{
    AtomicI32,
    Ordering::{AcqRel, Relaxed},
};

/// The id of the reporter, negative while it writes; 0 without one. Acquire and Release publish the
/// state of a report.
static REPORTER: AtomicI32 = AtomicI32::new(0);

/// Milliseconds that a thread waits for the reporter.
const PATIENCE: u32 = 10_000;

/// Makes the calling thread the reporter until it is dropped; if it is forgotten, until the end of
/// the process.
pub(super) struct Reporter {
    thread: i32,
}

impl Reporter {
    /// Makes the calling thread the reporter as soon as there is no other. `None` if another one
    /// writes for too long, or this thread itself does.
    pub(super) fn when_alone() -> Option<Reporter> {
        let thread = trace::this_thread();
        let mut waited = 0;
        loop {
            let now = REPORTER.load(Relaxed);
            let is_over = now == 0 || now == thread || now > 0 && waited >= PATIENCE;
            if is_over && change(now, thread) {
                return Some(Reporter { thread });
            }
            if now == -thread || waited >= PATIENCE {
                return None;
            }
            pause();
            waited += 1;
        }
    }

    /// Calls `say`, which writes; not if another thread has become the reporter after its patience
    /// ended.
    pub(super) fn says(&self, say: impl FnOnce()) {
        if change(self.thread, -self.thread) {
            say();
            has_said();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        change(self.thread, 0);
    }
}

/// Whether the calling thread is within [`Reporter::says`].
pub(super) fn is_saying() -> bool {
    REPORTER.load(Relaxed) == -trace::this_thread()
}

/// Marks the calling thread's report as written, also if it was interrupted.
pub(super) fn has_said() {
    let thread = trace::this_thread();
    change(-thread, thread);
}

/// In a forked child: there is no reporter.
pub(super) fn forked() {
    REPORTER.store(0, Relaxed);
}

/// Changes it from `from` to `to`. Returns whether it was `from`.
fn change(from: i32, to: i32) -> bool {
    REPORTER.compare_exchange(from, to, AcqRel, Relaxed).is_ok()
}

fn pause() {
    let millisecond = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    let none = ptr::null_mut::<libc::timespec>();
    let _ = errno::checked(|| {
        // SAFETY: a time to sleep, and NULL for the rest of it. By number: the C library's own
        // function is a cancellation point.
        unsafe { libc::syscall(libc::SYS_nanosleep, &raw const millisecond, none) }
    });
}
