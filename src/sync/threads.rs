//! Threads that the library starts by itself, as loom knows them.

use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_void};
use std::rc::Rc;
use std::vec::Vec;

use super::execution::{spawn, this_thread};

type Started = (
    Option<loom::thread::JoinHandle<()>>,
    Rc<Cell<bool>>,
    Rc<Cell<i32>>,
);

std::thread_local! {
    /// Those started: the handle, whether it has ended, and its number.
    static STARTED: RefCell<Vec<Started>> = const { RefCell::new(Vec::new()) };
}

/// None was started yet: for the start of a model.
pub fn forget_all() {
    STARTED.with_borrow_mut(Vec::clear);
}

/// How many run.
pub fn running() -> usize {
    STARTED.with_borrow(|all| all.iter().filter(|(_, ended, _)| !ended.get()).count())
}

/// Starts one.
///
/// # Safety
/// `run` may be called with `argument`.
pub unsafe fn start(
    run: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> Option<libc::pthread_t> {
    let (ended, number) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (its_end, its_number) = (Rc::clone(&ended), Rc::clone(&number));
    let index = STARTED.with_borrow_mut(|all| {
        all.push((None, ended, number));
        all.len() - 1
    });
    let handle = spawn(move || {
        its_number.set(begun(c""));
        run(argument);
        its_end.set(true);
    });
    STARTED.with_borrow_mut(|all| all[index].0 = Some(handle));
    Some(index as libc::pthread_t + 1)
}

fn handle(thread: libc::pthread_t) -> loom::thread::JoinHandle<()> {
    let take = |all: &mut Vec<Started>| all[thread as usize - 1].0.take();
    STARTED
        .with_borrow_mut(take)
        .expect("joined or detached once")
}

/// Waits until it has ended.
///
/// # Safety
/// None.
pub unsafe fn join(thread: libc::pthread_t) {
    handle(thread).join().unwrap();
}

/// Lets it end by itself.
///
/// # Safety
/// None.
pub unsafe fn detach(thread: libc::pthread_t) {
    drop(handle(thread));
}

/// The number of the thread that asks.
pub fn begun(_: &'static CStr) -> i32 {
    this_thread() as i32
}

/// Whether a thread of this number has not ended.
pub fn is_there(id: i32) -> bool {
    STARTED.with_borrow(|all| {
        let is_it = |(_, ended, number): &Started| number.get() == id && !ended.get();
        all.iter().any(is_it)
    })
}
