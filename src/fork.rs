//! Fork: the child must find the heap whole.
//!
//! ```text
//!    prepare:          the helper threads end (live/, decay.rs); their locks,
//!                      THREADS, class 1, class 2, ..., class 80, arenas,
//!                      the guarded slots
//!    parent, child:    the same, opened in the opposite order
//! ```
//!
//! That is the order of all locks (H2); a constant number of them, whatever
//! the size of the heap. The hit path holds no lock, and its steps leave the
//! magazines whole at each instruction (M4), so a thread that is in the midst
//! of one when another forks loses at most the run of blocks it carries, in
//! the child, where it does not exist any more.
//!
//! `vfork`, `posix_spawn` and `system` run no handlers, and need none.

use crate::decay;
use crate::guard;
use crate::heap::HEAP;
use crate::live;
use crate::os::{lock, once::Once};
use crate::threads;

unsafe extern "C" fn prepare() {
    live::stop_for_fork();
    decay::stop_for_fork();
    threads::hold_for_fork();
    HEAP.hold_for_fork();
    guard::hold_for_fork();
    lock::fork_begins();
}

unsafe extern "C" fn parent() {
    open_locks();
    decay::go_on_after_fork();
    live::go_on_after_fork();
}

unsafe extern "C" fn child() {
    REGISTERED.is_done(); // or they would not run here
    threads::forked();
    HEAP.forked();
    guard::forked();
    open_locks();
    decay::go_on_in_child();
    live::go_on_after_fork();
    live::forked();
}

/// The same on both sides.
fn open_locks() {
    lock::fork_ends();
    guard::open_after_fork();
    HEAP.open_after_fork();
    threads::open_after_fork();
}

static REGISTERED: Once = Once::new();

/// Has the handlers called at each fork from now on; once, however often and by
/// however many threads it is called. They are registered when it returns.
pub fn register() {
    REGISTERED.call(have_called);
}

fn have_called() {
    // SAFETY: three functions that stay loaded. Without memory for them the
    // C library refuses; then forks go unhandled, as they would without us,
    // and a child of a threaded program may find a lock closed.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}
