//! Who reports: one thread at a time, from the report on to the end of what follows it.
//!
//! ```text
//!             says              has said             abort, the handler before us, or
//!   nobody ----------> -n ------------------> n      the kernel ends the process
//!      ^                                      |
//!      +----- the program goes on after all --+
//! ```
//!
//! A thread that has reported is still the reporter while the process ends: another
//! one that is waiting must not find the place free in between, and say a second
//! mistake, or be cut short. Only where what follows comes back is the next one let in.
//!
//! What follows may also leave by a jump. That thread is let in again at its next
//! mistake; others are when they have waited long enough.

use core::ptr;

use super::trace;
use crate::os::errno;
use crate::sync::{
    AtomicI32,
    Ordering::{AcqRel, Relaxed},
};

/// The thread that reports: its number, negative while it says what it has to say; 0
/// if none does. Acquire and Release hand over what a report is made of.
static REPORTER: AtomicI32 = AtomicI32::new(0);

/// Milliseconds that a thread waits for the reporter.
const PATIENCE: u32 = 10_000;

/// That the calling thread is the reporter, until this is dropped. Where it is
/// forgotten, that is until the process ends.
pub(super) struct Reporter {
    thread: i32,
}

impl Reporter {
    /// Makes the calling thread the reporter, as soon as there is no other one. `None`
    /// if another one is saying something for too long, or this thread itself is.
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

    /// Has it said, in a call of `say`; not if another thread has lost its patience with
    /// this one.
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

/// The calling thread has said what it had to say: also where that was interrupted.
pub(super) fn has_said() {
    let thread = trace::this_thread();
    change(-thread, thread);
}

/// In a forked child: the thread that was the reporter does not exist.
pub(super) fn forked() {
    REPORTER.store(0, Relaxed);
}

/// Whether it was `from`, and is `to` now.
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
        // SAFETY: a time to sleep, and no wish to hear what is left of it. By number: the C
        // library's own function is a cancellation point.
        unsafe { libc::syscall(libc::SYS_nanosleep, &raw const millisecond, none) }
    });
}
