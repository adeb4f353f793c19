//! Loom's threads in place of those that the library starts.

use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_void};
use std::rc::Rc;
use std::vec::Vec;

use loom::sync::atomic::AtomicBool as LoomBool;

use super::Ordering::{Acquire, Release};
use super::execution::{spawn, this_thread};

/// A thread that the library started.
struct Thread {
    has_ended: Cell<bool>,
    number: Cell<i32>,
    /// Its last store: a thread that finds that it is not listed sees all its stores.
    last: LoomBool,
}

std::thread_local! {
    static STARTED: RefCell<Vec<Rc<Thread>>> = const { RefCell::new(Vec::new()) };
}

/// Forgets all threads, for the start of a model.
pub(crate) fn forget_all() {
    STARTED.with_borrow_mut(Vec::clear);
}

/// The number of running threads.
pub(crate) fn running() -> usize {
    STARTED.with_borrow(|all| all.iter().filter(|thread| !thread.has_ended.get()).count())
}

/// Starts one.
///
/// # Safety
/// `run` may be called with `argument`.
pub(crate) unsafe fn start(
    run: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> bool {
    let thread = Rc::new(Thread {
        has_ended: Cell::new(false),
        number: Cell::new(0),
        last: LoomBool::new(false),
    });
    STARTED.with_borrow_mut(|all| all.push(Rc::clone(&thread)));
    drop(spawn(move || {
        thread.number.set(begun(c""));
        run(argument);
        thread.last.swap(true, Release);
        thread.has_ended.set(true);
    }));
    true
}

/// The id of the calling thread.
pub(crate) fn begun(_: &'static CStr) -> i32 {
    number()
}

/// See above.
pub(crate) fn number() -> i32 {
    this_thread() as i32
}

/// Does nothing: loom has no priorities.
pub(crate) fn hurry(_: i32) -> bool {
    false
}

/// Whether the thread with this id has not ended.
pub(crate) fn is_there(id: i32) -> bool {
    let is_it = |thread: &&Rc<Thread>| thread.number.get() == id;
    let Some(thread) = STARTED.with_borrow(|all| all.iter().find(is_it).cloned()) else {
        return false;
    };
    let has_ended = thread.has_ended.get();
    if has_ended {
        thread.last.swap(true, Acquire);
    }
    !has_ended
}
