//! Loom's objects for the atomics and cells of an execution, by their addresses; its threads, and
//! the kernel's part of their waits.
//!
//! ```text
//!    memory       | 0 | 0 | 7 |     the value of each at the start of an execution
//!                       |
//!    by address         +--> loom's atomic: all values that a load may return
//! ```
//!
//! Loom needs an atomic before threads can touch it. So spare ones are made before the first thread
//! starts, all 0; a word that did not start as 0 is kept as the difference to its initial value.

use core::cell::Cell;
use core::mem;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::vec::Vec;

use loom::cell::UnsafeCell as LoomCell;
use loom::sync::atomic::AtomicU64 as LoomAtomic;
use loom::sync::{Condvar, Mutex};

/// Spare atomics and cells, for words that threads touch first.
const SPARES: usize = 1024;

/// An atomic of the execution.
#[derive(Clone)]
pub(crate) struct Known {
    /// Loom's atomic: the difference to `start`.
    pub atomic: Rc<LoomAtomic>,
    /// Its value at the start.
    pub start: u64,
    /// Each load is a step on this one, too. Loom keeps only the last load of an atomic, so it
    /// would miss that a store of a thread that has just loaded could have come before another
    /// thread's load.
    turns: Rc<LoomAtomic>,
}

impl Known {
    /// Before a load.
    pub(crate) fn take_turn(&self) {
        self.turns.fetch_add(1, Relaxed);
    }
}

#[derive(Default)]
struct Execution {
    atomics: BTreeMap<usize, Known>,
    cells: BTreeMap<usize, Rc<LoomCell<()>>>,
    spare_atomics: Vec<Rc<LoomAtomic>>,
    spare_cells: Vec<Rc<LoomCell<()>>>,
    has_threads: bool,
    words: HashMap<loom::thread::ThreadId, NonNull<()>>,
    futex: Option<Rc<Futex>>,
}

std::thread_local! {
    /// The execution under way. All of loom's threads run on one thread of the system.
    static NOW: RefCell<Option<Execution>> = const { RefCell::new(None) };
}

fn with<R>(f: impl FnOnce(&mut Execution) -> R) -> Option<R> {
    NOW.with(|now| now.borrow_mut().as_mut().map(f))
}

/// Whether a model runs.
pub(crate) fn is_under_way() -> bool {
    with(|_| ()).is_some()
}

/// Makes spares, if there are none and no thread has started.
fn stock<T>(spares: &mut Vec<Rc<T>>, too_late: bool, make: fn() -> T) -> Rc<T> {
    assert!(!spares.is_empty() || !too_late, "more spares are needed");
    spares.pop().unwrap_or_else(|| Rc::new(make()))
}

fn new_atomic() -> LoomAtomic {
    LoomAtomic::new(0)
}

fn new_cell() -> LoomCell<()> {
    LoomCell::new(())
}

pub(crate) fn known(address: usize, start: u64) -> Option<Known> {
    with(|now| {
        if let Some(known) = now.atomics.get(&address) {
            return known.clone();
        }
        let [atomic, turns] =
            [(), ()].map(|()| stock(&mut now.spare_atomics, now.has_threads, new_atomic));
        let known = Known {
            atomic,
            start,
            turns,
        };
        now.atomics.insert(address, known.clone());
        known
    })
}

pub(crate) fn cell(address: usize) -> Option<Rc<LoomCell<()>>> {
    with(|now| {
        if let Some(cell) = now.cells.get(&address) {
            return Rc::clone(cell);
        }
        let cell = stock(&mut now.spare_cells, now.has_threads, new_cell);
        now.cells.insert(address, Rc::clone(&cell));
        cell
    })
}

/// Runs `f` in every order that loom finds, with at most `preemptions` if there would be too many;
/// with `MODELS=short` with at most one. Returns the number of orders.
pub(crate) fn model(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) -> usize {
    let orders = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    let is_short = std::env::var_os("MODELS").is_some_and(|value| value == "short");
    builder.preemption_bound = if is_short { Some(1) } else { preemptions };
    builder.max_branches = 200_000;
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        let start = Execution {
            futex: Some(Rc::default()),
            ..Execution::default()
        };
        NOW.with(|now| *now.borrow_mut() = Some(start));
        f();
    });
    NOW.with(|now| *now.borrow_mut() = None);
    let orders = orders.load(Relaxed);
    std::eprintln!("    {orders} orders");
    orders
}

/// Starts a thread of the model.
pub(crate) fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> loom::thread::JoinHandle<T> {
    with(|now| {
        // All before the first thread: a running one may not touch those that another makes.
        if !mem::replace(&mut now.has_threads, true) {
            now.spare_atomics
                .resize_with(SPARES, || Rc::new(new_atomic()));
            now.spare_cells.resize_with(SPARES, || Rc::new(new_cell()));
        }
    });
    loom::thread::spawn(f)
}

/// Forgets the atomics in some memory, which is unmapped or reused.
pub(crate) fn forget(start: usize, size: usize) {
    with(|now| {
        now.atomics
            .retain(|at, _| !(start..start + size).contains(at));
        now.cells
            .retain(|at, _| !(start..start + size).contains(at));
    });
}

/// A load of a word that another thread is to change.
pub(crate) fn spin_loop() {
    if with(|_| ()).is_some() {
        loom::thread::yield_now();
    }
}

/// The number of this thread, never 0.
pub(crate) fn this_thread() -> usize {
    with(|_| ()).map_or(1, |()| {
        let id = std::format!("{:?}", loom::thread::current().id());
        let digits: std::string::String = id.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<usize>().unwrap() + 1
    })
}

/// This thread's word, if it was set.
pub(crate) fn word() -> Option<NonNull<()>> {
    let id = with(|_| ()).map(|()| loom::thread::current().id())?;
    with(|now| now.words.get(&id).copied())?
}

/// Sets this thread's word.
pub(crate) fn set_word(word: NonNull<()>) {
    let id = loom::thread::current().id();
    with(|now| now.words.insert(id, word));
}

/// The sleeping threads: the address of the word, and whether the thread was woken.
type Sleepers = Vec<(usize, Rc<Cell<bool>>)>;

/// The kernel's part of a futex.
#[derive(Default)]
struct Futex {
    sleepers: Mutex<Sleepers>,
    woken: Condvar,
}

/// Sleeps on the word at `address` while `still` is true, until it is woken.
pub(crate) fn wait(address: usize, still: impl Fn() -> bool) {
    let futex = with(|now| now.futex.clone()).flatten().unwrap();
    let mut sleepers = futex.sleepers.lock().unwrap();
    if !still() {
        return;
    }
    let woken = Rc::new(Cell::new(false));
    sleepers.push((address, Rc::clone(&woken)));
    while !woken.get() {
        sleepers = futex.woken.wait(sleepers).unwrap();
    }
}

/// Wakes one thread that sleeps on the word at `address`.
pub(crate) fn wake(address: usize) {
    let futex = with(|now| now.futex.clone()).flatten().unwrap();
    let mut sleepers = futex.sleepers.lock().unwrap();
    let first = sleepers.iter().position(|(at, _)| *at == address);
    if let Some(first) = first {
        sleepers.remove(first).1.set(true);
    }
    futex.woken.notify_all();
}
