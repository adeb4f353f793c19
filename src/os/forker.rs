//! Which thread forks with our locks, and whether that fork makes progress.
//!
//! One thread at a time does. Fork handlers of other libraries may run while it holds the locks,
//! and may wait for threads of their own to end, which need one of our locks first. So a thread
//! that waits for the forking thread reads its processor time. While that rises, the fork makes
//! progress; if it stands still, the thread sleeps, most likely for the end of another thread, and
//! its locks may be borrowed. They may be borrowed, too, if it has run for a small part of several
//! seconds only: then it wakes again and again to poll.
//!
//! On a busy machine the forking thread may only wait for a processor, which the kernel reports as
//! different from sleep; but `/proc` may not be there. So the time is long enough for other threads
//! to be scheduled many times. A wrong guess damages nothing, because the child finds in each lock
//! that the state was not whole; but the child could not allocate.

#[cfg(not(all(test, loom)))]
use core::ffi::CStr;
#[cfg(not(all(test, loom)))]
use core::fmt::Write as _;

#[cfg(not(all(test, loom)))]
use super::file;
#[cfg(not(all(test, loom)))]
use super::text::Buffer;
use super::wait::{self, this_thread};
use super::{clock, sandbox, thread};
use crate::sync::{
    AtomicI32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// The thread that holds the locks because it forks; 0 if none does. Acquire and Release: a fork
/// sees the other statics here as the fork before it left them.
static FORKER: AtomicUsize = AtomicUsize::new(0);
/// Thread ID of the forking thread; 0 between forks, and until [`begin`] has counted the fork.
static NUMBER: AtomicI32 = AtomicI32::new(0);
/// Its processor time when it was last found asleep.
#[cfg_attr(loom, allow(dead_code))]
static ASLEEP_AT: AtomicU64 = AtomicU64::new(u64::MAX);
/// Forks that have begun, and the number of the one that was last found to poll.
static FORKS: AtomicU64 = AtomicU64::new(0);
#[cfg_attr(loom, allow(dead_code))]
static DOZES: AtomicU64 = AtomicU64::new(u64::MAX);

/// Readings in a row without progress after which it counts as asleep. Readings are counted,
/// and not time, because the reading thread waits for a processor, too.
#[cfg_attr(loom, allow(dead_code))]
const LOOKS: u32 = 40;
#[cfg_attr(loom, allow(dead_code))]
const BETWEEN: u64 = 4_000_000;
/// Nanoseconds after which a fork that has run for less than one part in `PART` of them counts as
/// polling.
#[cfg_attr(loom, allow(dead_code))]
const LONG: u64 = 2_000_000_000;
#[cfg_attr(loom, allow(dead_code))]
const PART: u64 = 8;
/// Microseconds between two checks of a thread that wants to fork while another one does.
const PAUSE: u64 = 100;

fn is(thread: usize) -> bool {
    FORKER.load(Relaxed) == thread
}

/// Whether this thread forks and holds the locks.
pub(crate) fn is_this_thread() -> bool {
    is(this_thread())
}

/// Whose turn to fork it is.
pub(crate) enum Turn {
    /// The calling thread's.
    Own,
    /// Another thread's, which is asleep, and may wait for this one.
    Asleep,
    /// Another thread's for longer than this one waits.
    Late,
}

/// Enters this thread as the forking one, before it takes the first lock. Waits while another
/// thread forks, until `until` (nanoseconds of the clock).
pub(crate) fn begin(until: u64) -> Turn {
    let me = this_thread();
    let mut patience = Patience::begin();
    loop {
        match FORKER.compare_exchange(0, me, Acquire, Relaxed) {
            Ok(_) => {
                FORKS.store(FORKS.load(Relaxed) + 1, Relaxed);
                note_number();
                return Turn::Own;
            }
            Err(other) if patience.is_spent(other) => return Turn::Asleep,
            Err(_) if clock::nanoseconds() >= until => return Turn::Late,
            Err(_) => wait::pause(PAUSE),
        }
    }
}

/// Notes the kernel's id of this thread. Not where a sandbox forbids the call: there no waiting
/// thread borrows a lock of the fork.
fn note_number() {
    if !sandbox::is_restricted() {
        NUMBER.store(thread::number(), Release);
    }
}

/// Ends the fork, after its locks are open.
pub(crate) fn end() {
    NUMBER.store(0, Relaxed);
    FORKER.store(0, Release);
}

/// In a forked child: whether this thread forked with the locks. Another thread that did is
/// gone.
pub(crate) fn forked() -> bool {
    let was_this = is_this_thread();
    if was_this {
        note_number();
    } else {
        end();
    }
    was_this
}

/// Whether the thread with this id neither runs, nor waits for a processor, nor is in an
/// uninterruptible system call such as the copy. True if the kernel does not report it.
#[cfg(not(all(test, loom)))]
fn is_asleep(number: i32) -> bool {
    let (mut name, mut room) = ([0; 48], [0; 128]);
    let written = write!(Buffer::new(&mut name), "/proc/self/task/{number}/stat");
    let Ok(path) = CStr::from_bytes_until_nul(&name) else {
        return true;
    };
    let state = || {
        written.ok()?;
        // Id, name in parentheses, state.
        let text = file::read(path, &mut room)?.as_bytes();
        let end_of_name = text.iter().rposition(|&byte| byte == b')')?;
        text.get(end_of_name + 2).copied()
    };
    !matches!({ state }(), Some(b'R' | b'D'))
}

/// How long a thread waits for the forking thread before it borrows a lock.
pub(crate) struct Patience {
    /// Its processor time, the readings with that value, and when the next one counts.
    #[cfg_attr(loom, allow(dead_code))]
    time: u64,
    #[cfg_attr(loom, allow(dead_code))]
    looks: u32,
    #[cfg_attr(loom, allow(dead_code))]
    next: u64,
    /// The number of the fork, its processor time at the first reading, and when that was.
    #[cfg_attr(loom, allow(dead_code))]
    fork: u64,
    #[cfg_attr(loom, allow(dead_code))]
    first_time: u64,
    #[cfg_attr(loom, allow(dead_code))]
    first_look: u64,
}

impl Patience {
    pub(crate) fn begin() -> Patience {
        Patience {
            time: 0,
            looks: 0,
            next: 0,
            fork: u64::MAX,
            first_time: 0,
            first_look: 0,
        }
    }

    /// Whether the fork has run for a small part of a long time only: it polls.
    #[cfg(not(all(test, loom)))]
    fn sees_it_doze(&mut self, fork: u64, time: u64, now: u64) -> bool {
        if self.fork != fork {
            (self.fork, self.first_time, self.first_look) = (fork, time, now);
        }
        let waited = now.saturating_sub(self.first_look);
        waited >= LONG && time.saturating_sub(self.first_time) < waited / PART
    }

    /// Whether `forker` forks and has been asleep for a while. It is not copying the memory then:
    /// if it were, the next write of the borrower could have to wait for the copy, and the child
    /// would find the borrower's lock held.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn is_spent(&mut self, forker: usize) -> bool {
        let number = NUMBER.load(Acquire);
        let fork = FORKS.load(Relaxed);
        if number == 0 || !is(forker) {
            return false;
        }
        let (time, now) = (clock::of_thread(number), clock::nanoseconds());
        if time != self.time || now >= self.next {
            self.looks = if time == self.time { self.looks + 1 } else { 0 };
            (self.time, self.next) = (time, now + BETWEEN);
        }
        // Both are kept for the next lock that a thread needs: the one until the forking thread has
        // run again, the other until the end of the fork.
        if self.sees_it_doze(fork, time, now) {
            DOZES.store(fork, Relaxed);
        } else if self.looks >= LOOKS {
            ASLEEP_AT.store(time, Relaxed);
        }
        let is_known = ASLEEP_AT.load(Relaxed) == time || DOZES.load(Relaxed) == fork;
        if !is_known || !is_asleep(number) {
            return false;
        }
        wait::until_memory_is_not_copied((&raw const FORKER).addr());
        clock::of_thread(number) == time && is(forker) && FORKS.load(Relaxed) == fork
    }

    /// In models: if the model has set `SLEEPS`.
    #[cfg(all(test, loom))]
    pub(crate) fn is_spent(&mut self, forker: usize) -> bool {
        is(forker) && SLEEPS.get()
    }
}

#[cfg(all(test, loom))]
std::thread_local! {
    /// Whether the forking thread of a model counts as asleep.
    pub static SLEEPS: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicBool;

    #[test]
    #[cfg_attr(miri, ignore = "Miri makes no system calls")]
    fn who_runs_is_not_asleep() {
        static NUMBERS: [AtomicI32; 2] = [AtomicI32::new(0), AtomicI32::new(0)];
        static OVER: AtomicBool = AtomicBool::new(false);
        assert!(is_asleep(i32::MAX), "nobody says");
        std::thread::scope(|scope| {
            let sleeps = scope.spawn(|| {
                NUMBERS[0].store(thread::number(), Relaxed);
                while !OVER.load(Relaxed) {
                    std::thread::park();
                }
            });
            scope.spawn(|| {
                NUMBERS[1].store(thread::number(), Relaxed);
                while !OVER.load(Relaxed) {
                    core::hint::spin_loop();
                }
            });
            let [sleeping, running] = NUMBERS.each_ref().map(|number| {
                while number.load(Relaxed) == 0 {
                    std::thread::yield_now();
                }
                number.load(Relaxed)
            });
            while !is_asleep(sleeping) {
                std::thread::yield_now();
            }
            let awake = (0..50).filter(|_| !is_asleep(running)).count();
            OVER.store(true, Relaxed);
            sleeps.thread().unpark();
            assert_eq!(awake, 50);
        });
    }
}
