//! Which thread forks with our locks, and whether it comes on with that.
//!
//! One thread at a time does. Another library's fork handlers may run while it holds the
//! locks, and may wait for threads of that library's to end, which need a lock of ours
//! first. So whoever waits for the forking thread looks at its processor time: while that
//! rises, the fork comes on; where it stands still, the thread sleeps, most likely for such
//! an end, and may be gone ahead of.
//!
//! On a busy machine it may only wait for a processor, so that takes long: others have to be
//! served many times meanwhile. Nothing would be damaged else, for the locks say in the
//! child what was not whole; but the child could not allocate.

use super::clock;
use super::sandbox;
use super::thread;
use super::wait::{self, this_thread};
use crate::sync::{
    AtomicI32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// The thread that holds the locks because it is forking; 0 if none does. Acquire and
/// Release: a fork sees what the one before it has written beside it.
static FORKER: AtomicUsize = AtomicUsize::new(0);
/// The kernel's number of it.
static NUMBER: AtomicI32 = AtomicI32::new(0);
/// Its processor time when it was found asleep.
#[cfg_attr(loom, allow(dead_code))]
static ASLEEP_AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// How often it has not run since the look before, for it to be found asleep. Looks are
/// counted, as one who looks waits for a processor, too; nanoseconds between two of them.
#[cfg_attr(loom, allow(dead_code))]
const LOOKS: u32 = 40;
#[cfg_attr(loom, allow(dead_code))]
const BETWEEN: u64 = 4_000_000;
/// Microseconds between two looks of a thread that wants to fork while another one does.
const PAUSE: u64 = 100;

fn is(thread: usize) -> bool {
    FORKER.load(Relaxed) == thread
}

/// Whether this thread is in the midst of a fork, for which it holds the locks.
pub fn is_this_thread() -> bool {
    is(this_thread())
}

/// Whose turn to fork it is.
pub enum Turn {
    /// The calling thread's.
    Own,
    /// Another thread's, which is asleep, and may wait for this one.
    Asleep,
    /// Another thread's for longer than this one waits.
    Late,
}

/// Says that this thread forks now, before it takes the first lock for that. Waits while
/// another one does, until `until` (nanoseconds of the clock).
pub fn begin(until: u64) -> Turn {
    let me = this_thread();
    let mut patience = Patience::begin();
    loop {
        match FORKER.compare_exchange(0, me, Acquire, Relaxed) {
            Ok(_) => {
                note_number();
                return Turn::Own;
            }
            Err(other) if patience.is_spent(other) => return Turn::Asleep,
            Err(_) if clock::nanoseconds() >= until => return Turn::Late,
            Err(_) => wait::pause(PAUSE),
        }
    }
}

/// Notes the kernel's number of this thread, but not where a sandbox has no call for it: there a
/// thread that waits for the fork does not go ahead of it.
fn note_number() {
    if !sandbox::is_restricted() {
        NUMBER.store(thread::number(), Relaxed);
    }
}

/// Says that this thread has opened the locks again.
pub fn end() {
    FORKER.store(0, Release);
}

/// In a forked child: whether it was this thread that forked with the locks. Another one
/// that did is not there.
pub fn forked() -> bool {
    let was_this = is_this_thread();
    if was_this {
        note_number();
    } else {
        FORKER.store(0, Relaxed);
    }
    was_this
}

/// How long the forking thread is waited for.
pub struct Patience {
    /// Its processor time, how often it was that, and when the next look counts.
    #[cfg_attr(loom, allow(dead_code))]
    time: u64,
    #[cfg_attr(loom, allow(dead_code))]
    looks: u32,
    #[cfg_attr(loom, allow(dead_code))]
    next: u64,
}

impl Patience {
    /// At the begin.
    pub fn begin() -> Patience {
        Patience {
            time: 0,
            looks: 0,
            next: 0,
        }
    }

    /// Whether `forker` is forking, and has been asleep for a while. It is not copying the
    /// memory then: if it were, the next write of who goes ahead could have to wait for
    /// that, and the child would find a lock in its hands.
    #[cfg(not(all(test, loom)))]
    pub fn is_spent(&mut self, forker: usize) -> bool {
        if !is(forker) {
            return false;
        }
        let number = NUMBER.load(Relaxed);
        let (time, now) = (clock::of_thread(number), clock::nanoseconds());
        if time != self.time || now >= self.next {
            self.looks = if time == self.time { self.looks + 1 } else { 0 };
            (self.time, self.next) = (time, now + BETWEEN);
        }
        if ASLEEP_AT.load(Relaxed) != time {
            if self.looks < LOOKS {
                return false;
            }
            // For whoever needs the next lock before it has run again.
            ASLEEP_AT.store(time, Relaxed);
        }
        wait::until_memory_is_not_copied((&raw const FORKER).addr());
        clock::of_thread(number) == time && is(forker)
    }

    /// In models: when the model says so.
    #[cfg(all(test, loom))]
    pub fn is_spent(&mut self, forker: usize) -> bool {
        is(forker) && SLEEPS.get()
    }
}

#[cfg(all(test, loom))]
std::thread_local! {
    /// Whether the forking thread of a model is found asleep.
    pub static SLEEPS: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}
