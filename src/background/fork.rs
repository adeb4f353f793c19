//! Fork handlers: a forked child must find the heap whole.
//!
//! ```text
//!    prepare:          stop the helper threads; return free memory for at most 0.35 ms;
//!                      take all locks: those of the helpers (stats/page/,
//!                      background/decay.rs), REGISTRY, the profile's, the classes' shard by
//!                      shard, the arenas', the guarded slots
//!    parent, child:    open the locks
//! ```
//!
//! That is the order of all locks (HEAP-2); their number does not grow with the heap. The hit path
//! holds no lock, and its steps leave the magazines whole at each instruction (MAGAZINE-4). So a
//! thread that is in the middle of one while another thread forks loses, in the child, at most the
//! batch of blocks that it carries; and the child does not have that thread.
//!
//! Prepare handlers run in the opposite order of their registration, and ours must run last: they
//! are registered when the library is loaded. Before the first allocation they only note that a
//! fork is under way, so that the first use of the heap waits for its end, and keep it apart from
//! calls of the dynamic loader (`os/loader.rs`).
//!
//! # A fork in a signal handler
//!
//! The handler may have interrupted its thread anywhere but inside our handlers, which block
//! signals:
//!
//! - In an allocation: the thread holds some locks. They stay held, and the state they guard is
//!   not touched. The other locks are taken, but with a time limit: other threads may wait for
//!   this thread. A lock that could not be taken is poisoned in the child (`os/lock.rs`). In a
//!   process of one thread no lock can be poisoned.
//! - In a fork, between our handlers: that fork holds all locks for this one, too (`DEPTH`).
//!
//! A fork that interrupts nothing gets all locks, however long it takes. If it has to wait for
//! long, it opens all locks in between and unblocks signals: the thread that it waits for may wait
//! for this thread to handle a signal.
//!
//! `vfork`, `posix_spawn` and `system` run no handlers, and need none.

use crate::background::decay;
use crate::guard;
use crate::heap::HEAP;
use crate::os::forker::{self, Turn};
use crate::os::loader;
use crate::os::lock::{MaintenanceScope, Word};
use crate::os::once::Once;
use crate::os::roster::Roster;
use crate::os::wait;
use crate::os::{clock, thread};
use crate::profile;
use crate::stats::{dumps, page};
use crate::sync::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use crate::tcache::registry;

/// Maximum nanoseconds for which a fork returns free memory.
const FOR_MEMORY: u64 = 350_000;
/// Maximum nanoseconds that it waits for the end of the helper threads: before the copy, where it
/// is not needed, and afterwards, when CPython counts threads. A thread needs a tenth of a
/// millisecond to end, and on a busy machine a processor first.
const FOR_HELPERS: u64 = 300_000;
const FOR_HELPERS_AFTERWARDS: u64 = 30_000_000;
/// Nanoseconds after which a fork that waits for a lock opens all locks: the first time, and at
/// most (the time doubles).
const FOR_LOCKS: u64 = 10_000_000;
const FOR_LOCKS_LONGEST: u64 = 1_000_000_000;
/// Nanoseconds after which a fork that interrupted an allocation goes on without the other locks.
const FOR_LOCKS_INTERRUPTED: u64 = 20_000_000;
/// Microseconds before it tries again.
const PAUSE: u64 = 200;

/// Forks of the forking thread that are under way, each in a signal handler that interrupted the
/// one before. Only that thread reads and writes it.
static DEPTH: AtomicUsize = AtomicUsize::new(0);
/// Whether the fork holds all locks.
static ALL_HELD: AtomicBool = AtomicBool::new(false);

/// Whether the heap is in use.
static NEEDED: AtomicBool = AtomicBool::new(false);

/// Threads that fork without the locks, because the heap was not in use when they began. The first use of the heap waits for them, or their children would
/// find locks held by threads that the children do not have.
static EARLY_FORKS: Roster<16> = Roster::new();
/// Maximum nanoseconds that the first use waits: the fork may wait for its thread, in a fork
/// handler of another library.
const FOR_EARLY_FORKS: u64 = 1_000_000_000;

/// Visits all locks in their order.
fn each_lock(see: &mut dyn FnMut(&'static Word)) {
    page::each_lock(see);
    decay::each_lock(see);
    see(dumps::word());
    see(registry::word());
    see(profile::word());
    HEAP.each_lock(see);
    see(guard::word());
}

/// Enters this thread into `EARLY_FORKS`. False if the heap is in use.
fn begin_early_fork() -> bool {
    while !NEEDED.load(Acquire) {
        if EARLY_FORKS.enter() {
            // One of the two threads sees the store of the other: see `Roster::enter`.
            if !NEEDED.load(Acquire) {
                return true;
            }
            EARLY_FORKS.leave();
        } else {
            wait::pause(PAUSE);
        }
    }
    false
}

unsafe extern "C" fn prepare() {
    loader::begin_fork();
    if begin_early_fork() {
        return;
    }
    let mut patience = FOR_LOCKS;
    while !thread::without_signals(|| hold(patience)) {
        wait::pause(PAUSE);
        patience = FOR_LOCKS_LONGEST.min(2 * patience);
    }
}

/// Whether this thread was interrupted between taking or entering a lock and its end.
fn is_in_a_lock() -> bool {
    let mut is_in = false;
    each_lock(&mut |word| is_in |= word.is_mine());
    is_in
}

/// Takes all locks. False if that takes more than `patience` nanoseconds; then none is held.
fn hold(patience: u64) -> bool {
    if forker::is_this_thread() {
        DEPTH.store(DEPTH.load(Relaxed) + 1, Relaxed);
        return true;
    }
    let is_interrupted = is_in_a_lock();
    let patience = if is_interrupted {
        FOR_LOCKS_INTERRUPTED
    } else {
        patience
    };
    match forker::begin(clock::nanoseconds() + patience) {
        Turn::Own => {}
        // No lock is taken: those of the other fork are poisoned in this fork's child.
        Turn::Asleep => return true,
        Turn::Late => return is_interrupted,
    }
    DEPTH.store(1, Relaxed);
    let was_asked = stop_helpers(is_interrupted);
    let (mut all, until) = (true, clock::nanoseconds() + patience);
    each_lock(&mut |word| all &= word.take_for_fork(until));
    ALL_HELD.store(all && !is_interrupted, Relaxed);
    if all && !is_interrupted {
        page::write_before_fork(was_asked);
    } else if !is_interrupted {
        open_locks();
    }
    all || is_interrupted
}

/// Stops the helper threads and waits for their end, under the locks without which none can start.
/// Returns whether a reader had requested the stats page.
fn stop_helpers(is_interrupted: bool) -> bool {
    let begin = clock::nanoseconds();
    let mut starts_none = |word: &'static Word| {
        word.take_for_fork(begin + FOR_HELPERS);
    };
    page::lock_of_helper(&mut starts_none);
    decay::lock_of_helper(&mut starts_none);
    let was_asked = page::stop_for_fork();
    decay::stop_for_fork();
    if is_interrupted {
        return was_asked; // the helpers may wait for this thread
    }
    decay::purge_before_fork(begin + FOR_MEMORY); // the helpers end meanwhile
    wait_for_helpers(FOR_HELPERS);
    was_asked
}

fn wait_for_helpers(patience: u64) {
    page::wait_until_gone(patience);
    decay::wait_until_gone(patience);
}

/// Opens all locks, in the parent or the child.
fn open_locks() {
    each_lock(&mut Word::unlock_after_fork);
    DEPTH.store(0, Relaxed);
    forker::end();
}

/// Whether this fork interrupted another fork of this thread.
fn is_nested() -> bool {
    let depth = DEPTH.load(Relaxed);
    if depth > 1 {
        DEPTH.store(depth - 1, Relaxed);
    }
    depth > 1
}

unsafe extern "C" fn parent() {
    loader::end_fork();
    EARLY_FORKS.leave();
    if forker::is_this_thread() {
        thread::without_signals(|| {
            if !is_nested() {
                let all_held = ALL_HELD.load(Relaxed);
                open_locks();
                if all_held {
                    wait_for_helpers(FOR_HELPERS_AFTERWARDS);
                }
                decay::go_on_after_fork(all_held);
                page::go_on_after_fork();
            }
        });
    }
}

unsafe extern "C" fn child() {
    REGISTERED.set_done(); // this handler would not run otherwise
    loader::forked();
    EARLY_FORKS.forked();
    EARLY_FORKS.leave();
    if NEEDED.load(Relaxed) {
        thread::without_signals(go_on_in_child);
    }
}

fn go_on_in_child() {
    let has_locks = forker::forked();
    each_lock(&mut Word::forked);
    // A handler of another library may allocate within the outer fork, and this fork interrupt it.
    let all_held = has_locks && ALL_HELD.load(Relaxed) && !is_in_a_lock();
    MaintenanceScope::forked();
    registry::forked();
    profile::forked();
    dumps::forked();
    guard::forked();
    decay::forked();
    if all_held {
        HEAP.forked();
    }
    page::forked(all_held);
    if has_locks && !is_nested() {
        open_locks();
    }
    decay::go_on_in_child();
    page::go_on_after_fork();
}

static REGISTERED: Once = Once::new();

/// Registers the handlers, once in a process, whichever thread calls first. They are registered
/// when it returns.
fn register() {
    REGISTERED.call(have_called);
}

/// Registers the handlers when the library is loaded, by one thread: without the system calls of
/// [`register`], so that a process that never uses the library does not pay for them.
pub(crate) fn register_at_start() {
    if !REGISTERED.is_done() {
        have_called();
        REGISTERED.set_done();
    }
}

/// Makes forks take the heap's locks from now on.
pub(crate) fn look_after_heap() {
    register();
    NEEDED.store(true, Release);
    fence(SeqCst); // see `Roster::enter`
    EARLY_FORKS.wait_for_others(FOR_EARLY_FORKS);
}

fn have_called() {
    // SAFETY: three functions that stay loaded (`-z nodelete`). Without memory for them the C
    // library refuses; then a child of a threaded program may find a lock held.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}
