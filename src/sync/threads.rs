//! Loom's threads in place of those that the library starts.

use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_void};
use std::rc::Rc;
use std::vec::Vec;

use super::execution::{spawn, this_thread};

/// Whether it has ended, and its number.
type Started = (Rc<Cell<bool>>, Rc<Cell<i32>>);

std::thread_local! {
    static STARTED: RefCell<Vec<Started>> = const { RefCell::new(Vec::new()) };
}

/// Forgets all threads, for the start of a model.
pub(crate) fn forget_all() {
    STARTED.with_borrow_mut(Vec::clear);
}

/// The number of running threads.
pub(crate) fn running() -> usize {
    STARTED.with_borrow(|all| all.iter().filter(|(ended, _)| !ended.get()).count())
}

/// Starts one.
///
/// # Safety
/// `run` may be called with `argument`.
pub(crate) unsafe fn start(
    run: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> bool {
    let (ended, number) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    STARTED.with_borrow_mut(|all| all.push((Rc::clone(&ended), Rc::clone(&number))));
    drop(spawn(move || {
        number.set(begun(c""));
        run(argument);
        ended.set(true);
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
    STARTED.with_borrow(|all| {
        let is_it = |(ended, number): &Started| number.get() == id && !ended.get();
        all.iter().any(is_it)
    })
}
