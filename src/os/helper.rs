//! A helper thread: at most one of each kind, with all signals blocked, which sleeps most of the
//! time and can be stopped.
//!
//! ```text
//!    NONE  --- start --->  RUNS  --- stop --->  STOPPING
//!      ^                    |                       |
//!      +----- leave --------+      the thread's last store
//!      +--------------------------------------------+
//! ```
//!
//! From 3.12 on CPython counts the kernel's threads at a fork, and warns of more than one. So a
//! fork stops the thread and waits until the kernel does not list it any more
//! ([`Helper::wait_until_gone`]), but not for long: if the thread gets no processor, the fork
//! happens beside it, which does no harm, because the fork holds all locks.
//!
//! `_Fork` and `clone` run no fork handlers: their child has the state but not the thread. A mark
//! that the kernel wipes from the copy tells the two apart. (The process id cannot: a child of
//! `vfork` has another one and the very same memory.) On a kernel without these marks the thread
//! belongs to the process that started it, and no other process starts one.

use core::ffi::{CStr, c_void};
use core::ptr;

use super::clock;
use super::lock::{Lock, Word};
use super::memory;
use super::sandbox;
use super::text;
use super::thread;
use super::wait;
use crate::sync::{
    AtomicI32, AtomicU32, AtomicU64, Cell,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Milliseconds before a failed start is tried again.
const AGAIN: u64 = 5000;
/// Microseconds between two checks of a thread that ends.
const LOOK: u64 = 25;

/// Nanoseconds after which its last store is checked, too.
const GOING: u64 = 5_000_000;
/// Nanoseconds that a real-time thread waits for it.
const REAL_TIME: u64 = 300_000;

const NONE: u32 = 0;
const RUNS: u32 = 1;
const STOPPING: u32 = 2;

/// The helper thread. It and its state live as long as the process.
pub(crate) struct Helper {
    state: Lock<State>,
    /// The state. It starts and leaves under the lock, and sleeps on this word.
    phase: AtomicU32,
    /// The kernel's id of the thread, 0 before it runs.
    id: AtomicI32,
    /// The id of the last thread that left: the kernel may still list it.
    left: AtomicI32,
    /// When it left, in milliseconds.
    left_at: AtomicU64,
    work: fn(&Helper),
    /// The thread's name.
    name: &'static CStr,
    /// Wakes it if it sleeps on something else than `phase`.
    kick: fn(),
}

struct State {
    /// True in the process that has started it; null before.
    mark: Cell<Option<&'static Cell<bool>>>,
    /// The process that has started it.
    process: Cell<i32>,
    /// When the next start may be tried, after one has failed.
    none_until: Cell<u64>,
}

impl State {
    /// Whether there is no mark, and another process has started the thread: this is a copy
    /// without it, or a child of `vfork` whose parent has it.
    fn is_anothers(&self) -> bool {
        self.mark.get().is_none() && self.process.get() != text::pid()
    }

    /// Notes that it was started by this process.
    fn mark(&self) {
        self.process.set(text::pid());
        if self.mark.get().is_none() {
            let page = memory::map_wiped_in_children();
            // SAFETY: mapped zero, which is false; never unmapped, and reached only here, under
            // the lock.
            self.mark
                .set(page.map(|page| unsafe { page.cast().as_ref() }));
        }
        if let Some(mark) = self.mark.get() {
            mark.set(true);
        }
    }
}

impl Helper {
    /// A helper that has not started, and will do `work`.
    pub(crate) const fn new(work: fn(&Helper)) -> Helper {
        Helper::called(c"obmalloc", work, || {})
    }

    /// A helper with a name, for work that sleeps on something else than [`Helper::sleep`]: `kick`
    /// wakes it there when it is to stop.
    pub(crate) const fn called(name: &'static CStr, work: fn(&Helper), kick: fn()) -> Helper {
        Helper {
            state: Lock::new(State {
                mark: Cell::new(None),
                process: Cell::new(0),
                none_until: Cell::new(0),
            }),
            phase: AtomicU32::new(NONE),
            id: AtomicI32::new(0),
            left: AtomicI32::new(0),
            left_at: AtomicU64::new(0),
            work,
            name,
            kick,
        }
    }

    /// The state in this process, under the lock.
    fn phase(&self, state: &State) -> u32 {
        let phase = self.phase.load(Acquire);
        let is_lost = state.mark.get().is_some_and(|mark| !mark.get());
        if phase != NONE && is_lost {
            self.phase.store(NONE, Relaxed);
            return NONE;
        }
        phase
    }

    /// Whether the thread runs, or may: see `is_anothers`.
    pub(crate) fn is_there(&self) -> bool {
        let state = self.state.lock();
        self.phase(&state) != NONE && !state.is_anothers()
    }

    /// Starts the thread, unless it runs. False if that fails.
    pub(crate) fn start(&'static self) -> bool {
        // No signal handler of the program may interrupt this and fork.
        thread::without_signals(|| self.start_undisturbed())
    }

    fn start_undisturbed(&'static self) -> bool {
        let state = self.state.lock();
        match self.phase(&state) {
            NONE => {}
            phase => return phase == RUNS && !state.is_anothers(),
        }
        let now = clock::now();
        if !sandbox::allows() || now < state.none_until.get() || self.is_leaving(now) {
            return false;
        }
        state.mark();
        self.id.store(0, Relaxed);
        self.phase.store(RUNS, Release);
        let this = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `run` gets `self`, which lives as long as the process.
        let started = unsafe { thread::start(run, this) };
        if !started {
            self.phase.store(NONE, Relaxed);
            state.none_until.set(clock::now() + AGAIN);
        }
        started
    }

    /// Whether the kernel still lists the thread that left: a second one beside it would be one
    /// more than a fork waits for. (Long after it left, its id may be another thread's.)
    fn is_leaving(&self, now: u64) -> bool {
        let left = self.left.load(Relaxed);
        left != 0 && now < self.left_at.load(Relaxed) + AGAIN && thread::is_there(left)
    }

    /// Notes the id of the thread that is about to end.
    fn note_left(&self, number: i32) {
        self.left_at.store(clock::now(), Relaxed);
        self.left.store(number, Relaxed);
    }

    /// For the thread itself: sleeps at most `microseconds`. False if it is to stop.
    pub(crate) fn sleep(&self, microseconds: u64) -> bool {
        wait::wait_for(&self.phase, RUNS, microseconds);
        !self.is_to_stop()
    }

    /// For the thread itself: whether it is to stop.
    pub(crate) fn is_to_stop(&self) -> bool {
        self.phase.load(Acquire) == STOPPING
    }

    /// For the thread itself: leaves, if `done` is true under the lock that `start` takes. Then the
    /// thread must return at once.
    pub(crate) fn leave(&self, done: impl Fn() -> bool) -> bool {
        // No wait for the lock: a fork may hold it, which waits for the thread to stop.
        let Some(_state) = self.state.try_lock() else {
            return false;
        };
        if self.is_to_stop() || !done() {
            return false;
        }
        self.note_left(self.id.swap(0, Relaxed));
        self.phase.store(NONE, Release);
        true
    }

    /// The lock that `start` takes, for forks.
    pub(crate) fn word(&self) -> &Word {
        self.state.word()
    }

    /// Stops the thread, if it runs. Called with the lock held, so that no thread starts another.
    fn tell_to_stop(&self, state: &State) {
        state.none_until.set(0);
        if self.phase(state) == RUNS && !state.is_anothers() {
            let told = self.phase.compare_exchange(RUNS, STOPPING, AcqRel, Relaxed);
            if told.is_ok() {
                wait::wake(&self.phase);
                (self.kick)();
            }
        }
    }

    /// Stops the thread before a fork that holds the lock. (If the fork could not take the lock, the
    /// thread continues: it waits for the fork at its next step that needs a lock.)
    pub(crate) fn stop_for_fork(&self) {
        if let Some(state) = self.state.of_fork() {
            self.tell_to_stop(state);
        }
    }

    /// Whether this thread forks and holds the lock that `start` takes.
    pub(crate) fn is_held_for_fork(&self) -> bool {
        self.state.of_fork().is_some()
    }

    /// Waits until the kernel no longer lists the thread that was stopped, or one that has left: at
    /// most `patience` nanoseconds, and on a real-time thread at most `REAL_TIME`. Returns whether
    /// it is gone.
    pub(crate) fn wait_until_gone(&self, patience: u64) -> bool {
        let begin = clock::nanoseconds();
        let (mut until, mut hurried) = (begin.saturating_add(patience), 0);
        loop {
            let is_stopping = self.phase.load(Acquire) == STOPPING;
            let id = if is_stopping { &self.id } else { &self.left }.load(Acquire);
            let is_going = match id {
                0 => is_stopping, // it has not begun yet
                // In a sandbox that may forbid the call, its last store decides.
                id => {
                    is_stopping && !sandbox::allows() || sandbox::allows() && thread::is_there(id)
                }
            };
            if !is_going {
                if is_stopping && self.state.of_fork().is_some() {
                    self.phase.store(NONE, Relaxed); // as its last store did
                }
                // Unless another thread has left since.
                let _ = self.left.compare_exchange(id, 0, Relaxed, Relaxed);
                return true;
            }
            if clock::nanoseconds() >= until {
                return false;
            }
            if id != hurried {
                if thread::hurry(id) {
                    until = until.min(begin + REAL_TIME);
                }
                hurried = id;
            }
            if is_stopping {
                wait::wait_for(&self.phase, STOPPING, LOOK);
            } else {
                wait::pause(LOOK);
            }
        }
    }

    /// Stops the thread, and runs `work` while there is none.
    pub(crate) fn without(&self, work: impl FnOnce()) {
        let state = self.state.lock();
        self.tell_to_stop(&state);
        // Its id may be another thread's by now, so its last store decides.
        while !self.wait_until_gone(GOING) && self.phase.load(Acquire) == STOPPING {}
        self.phase.store(NONE, Relaxed);
        work();
    }

    /// In a forked child, under the lock: there is no thread.
    pub(crate) fn forked(&self) {
        if self.state.of_fork().is_some() {
            self.phase.store(NONE, Relaxed);
            self.left.store(0, Relaxed);
        }
    }

    /// The last store of a thread that was stopped. (The id of one that has left is in `left`, and
    /// another may run.)
    fn has_stopped(&self, number: i32) {
        if self.id.load(Relaxed) == number {
            self.note_left(number);
            self.phase.store(NONE, Release);
            wait::wake(&self.phase);
        }
    }
}

extern "C" fn run(helper: *mut c_void) -> *mut c_void {
    // SAFETY: `start` passed the helper, which lives as long as the process.
    let helper = unsafe { &*helper.cast::<Helper>() };
    let number = thread::begun(helper.name);
    helper.id.store(number, Release);
    (helper.work)(helper);
    helper.has_stopped(number);
    #[cfg(not(all(test, loom)))]
    if !sandbox::allows() {
        thread::end_at_once();
    }
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::AtomicUsize;

    static ROUNDS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn it_runs_stops_and_starts_again() {
        static HELPER: Helper = Helper::new(|helper| {
            while helper.sleep(1000) {
                ROUNDS.fetch_add(1, Relaxed);
            }
        });
        for _ in 0..20 {
            let before = ROUNDS.load(Relaxed);
            // Not while the kernel still lists the thread that has stopped.
            while !HELPER.start() {
                std::thread::yield_now();
            }
            assert!(HELPER.start());
            while ROUNDS.load(Relaxed) < before + 2 {
                std::thread::yield_now();
            }
            HELPER.without(|| {
                let after = ROUNDS.load(Relaxed);
                std::thread::sleep(core::time::Duration::from_millis(3));
                assert_eq!(ROUNDS.load(Relaxed), after, "it is gone");
            });
        }
        HELPER.without(|| ());
        assert!(HELPER.wait_until_gone(u64::MAX));
    }

    #[test]
    fn it_may_leave_by_itself() {
        static LEFT: AtomicUsize = AtomicUsize::new(0);
        static HELPER: Helper = Helper::new(|helper| {
            // `start` may still hold the lock, which `leave` does not wait for.
            while !helper.leave(|| true) {
                std::thread::yield_now();
            }
            LEFT.fetch_add(1, Relaxed);
        });
        for round in 1..20 {
            // Not while the kernel still lists the thread that is leaving.
            while !HELPER.start() {
                std::thread::yield_now();
            }
            while LEFT.load(Relaxed) < round {
                std::thread::yield_now();
            }
        }
    }
}
