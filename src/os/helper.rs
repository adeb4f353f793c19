//! A helper thread: at most one of each kind, with all signals blocked, that sleeps
//! most of the time, can be told to stop, and is gone when [`Helper::stop`] returns.
//!
//! CPython from 3.12 on counts the kernel's threads at a fork and warns of more
//! than one. So "gone" means gone from there, too.
//!
//! `_Fork` and `clone` run no fork handlers: their child has the state, but not
//! the thread. It is told by a mark that the kernel wipes from the copy. (Not by
//! its number: a child of `vfork` has another one, and the very same memory.)
//! Where the kernel makes no such mark, the two cannot be told apart: there the
//! thread is left to the process that started it, and another has none.

use core::ffi::{CStr, c_void};
use core::ptr;

use super::clock;
use super::lock::Lock;
use super::memory;
use super::sandbox;
use super::text;
use super::thread::{self, Thread};
use super::wait;
use crate::sync::{
    AtomicI32, AtomicU32, Cell,
    Ordering::{Acquire, Relaxed, Release},
};

/// Milliseconds after which a thread is asked for again where there was none.
const AGAIN: u64 = 5000;

const GO_ON: u32 = 0;
const STOP: u32 = 1;

/// The helper thread. It and its state live as long as the process.
pub struct Helper {
    state: Lock<State>,
    /// [`STOP`] when it is to end; what it sleeps on.
    word: AtomicU32,
    /// The kernel's number of the thread, 0 before it runs.
    id: AtomicI32,
    /// The number of the last one that left by itself: it may not be gone yet.
    left: AtomicI32,
    /// What it does.
    work: fn(&Helper),
    /// The thread's name.
    name: &'static CStr,
    /// Wakes it where it sleeps on something else than `word`.
    kick: fn(),
}

struct State {
    /// The thread, from its start until it was joined or has detached itself.
    thread: Cell<Option<Thread>>,
    /// True in the process that has started it, and null before.
    mark: Cell<Option<&'static Cell<bool>>>,
    /// The process that has started it.
    process: Cell<i32>,
    /// Somebody waits for it to end.
    stopping: Cell<bool>,
    /// Until when none is asked for, as there was none to be had.
    none_until: Cell<u64>,
}

impl State {
    /// The thread, if there is one in this process.
    fn thread(&self) -> Option<Thread> {
        if self.mark.get().is_some_and(|mark| !mark.get()) {
            self.thread.set(None);
            self.stopping.set(false);
        }
        if self.is_anothers() {
            None
        } else {
            self.thread.get()
        }
    }

    /// Whether there is no mark, and this is not the process that has started the
    /// thread: a copy, where it is not, or a child of `vfork`, whose parent has it.
    fn is_anothers(&self) -> bool {
        self.mark.get().is_none()
            && self.thread.get().is_some()
            && self.process.get() != text::pid()
    }

    /// Notes that it was started by this process.
    fn mark(&self) {
        self.process.set(text::pid());
        if self.mark.get().is_none() {
            let page = memory::map_wiped_in_children();
            // SAFETY: mapped zero, which is false; never unmapped, and reached
            // only from here, under the lock.
            self.mark
                .set(page.map(|page| unsafe { page.cast().as_ref() }));
        }
        if let Some(mark) = self.mark.get() {
            mark.set(true);
        }
    }
}

impl Helper {
    /// A helper that is not there yet, and will do `work`.
    pub const fn new(work: fn(&Helper)) -> Helper {
        Helper::called(c"obmalloc", work, || {})
    }

    /// The same with a name, for work that sleeps on something else than
    /// [`Helper::sleep`]: `kick` wakes it there, to find that it is to stop.
    pub const fn called(name: &'static CStr, work: fn(&Helper), kick: fn()) -> Helper {
        Helper {
            state: Lock::new(State {
                thread: Cell::new(None),
                mark: Cell::new(None),
                process: Cell::new(0),
                stopping: Cell::new(false),
                none_until: Cell::new(0),
            }),
            word: AtomicU32::new(GO_ON),
            id: AtomicI32::new(0),
            left: AtomicI32::new(0),
            work,
            name,
            kick,
        }
    }

    /// Whether the thread is there.
    pub fn is_there(&self) -> bool {
        self.state.lock().thread().is_some()
    }

    /// Starts the thread, unless it runs. False if there can be none.
    pub fn start(&'static self) -> bool {
        let state = self.state.lock();
        if state.thread().is_some() {
            return true;
        }
        if !sandbox::allows() || state.is_anothers() || clock::now() < state.none_until.get() {
            return false;
        }
        self.word.store(GO_ON, Relaxed);
        self.id.store(0, Relaxed);
        state.mark();
        let this = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `run` gets `self`, which lives as long as the process.
        let thread = unsafe { thread::start(run, this) };
        state.thread.set(thread);
        if thread.is_none() {
            state.none_until.set(clock::now() + AGAIN);
        }
        thread.is_some()
    }

    /// For the thread itself: sleeps so many microseconds. False if it is to
    /// stop.
    pub fn sleep(&self, microseconds: u64) -> bool {
        wait::wait_for(&self.word, GO_ON, microseconds);
        self.word.load(Acquire) == GO_ON
    }

    /// For the thread itself: whether it is to stop.
    pub fn is_to_stop(&self) -> bool {
        self.word.load(Acquire) == STOP
    }

    /// For the thread itself: ends it of its own will, if `done` still says so
    /// under the lock that `start` takes. Then it must return at once.
    pub fn leave(&self, done: impl Fn() -> bool) -> bool {
        let state = self.state.lock();
        if state.stopping.get() || !done() {
            return false;
        }
        self.left.store(self.id.load(Relaxed), Release);
        if let Some(thread) = state.thread.take() {
            // SAFETY: this thread; nobody will join it.
            unsafe { thread::detach(thread) };
        }
        true
    }

    /// Ends the thread, waits until it is gone, and keeps it from being started
    /// until [`Helper::open`]: for a fork.
    pub fn stop(&self) {
        loop {
            self.state.hold_for_fork();
            // SAFETY: held just now.
            let state = unsafe { self.state.held() };
            state.none_until.set(0);
            thread::wait_until_gone(self.left.swap(0, Acquire));
            let Some(thread) = state.thread() else {
                return;
            };
            if state.stopping.replace(true) {
                self.state.open_after_fork();
                wait::give_way(); // another thread is in the loop's end
                continue;
            }
            self.state.open_after_fork();
            self.join(thread);
            self.state.hold_for_fork();
            // SAFETY: as above.
            let state = unsafe { self.state.held() };
            state.thread.set(None);
            state.stopping.set(false);
            return;
        }
    }

    fn join(&self, thread: Thread) {
        self.word.store(STOP, Release);
        wait::wake(&self.word);
        (self.kick)();
        // SAFETY: a thread that is joined once (`stopping`).
        unsafe { thread::join(thread) };
        thread::wait_until_gone(self.id.load(Acquire));
    }

    /// Lets it be started again after [`Helper::stop`].
    pub fn open(&self) {
        self.state.open_after_fork();
    }
}

extern "C" fn run(helper: *mut c_void) -> *mut c_void {
    // SAFETY: what `create` handed over.
    let helper = unsafe { &*helper.cast::<Helper>() };
    helper.id.store(thread::begun(helper.name), Release);
    (helper.work)(helper);
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
            assert!(HELPER.start() && HELPER.start());
            while ROUNDS.load(Relaxed) < before + 2 {
                std::thread::yield_now();
            }
            HELPER.stop();
            let after = ROUNDS.load(Relaxed);
            std::thread::sleep(core::time::Duration::from_millis(3));
            assert_eq!(ROUNDS.load(Relaxed), after, "it is gone");
            HELPER.open();
        }
        HELPER.stop();
        HELPER.open();
    }

    #[test]
    fn it_may_leave_by_itself() {
        static LEFT: AtomicUsize = AtomicUsize::new(0);
        static HELPER: Helper = Helper::new(|helper| {
            if helper.leave(|| true) {
                LEFT.fetch_add(1, Relaxed);
            }
        });
        for round in 1..20 {
            assert!(HELPER.start());
            while LEFT.load(Relaxed) < round {
                std::thread::yield_now();
            }
        }
    }
}
