//! The first use: what happens once in a process, at the first block that is allocated or freed
//! here. Forks take the heap's locks from then on, the helper thread is prepared, the stats page is
//! made if a setting wants it, the unwinder is loaded if blocks are guarded, and a callback runs. A
//! process that never allocates here pays for none of it.

use crate::background::decay;
use crate::background::fork;
use crate::base::callback::Callback;
use crate::guard;
use crate::os::{errno, thread};
use crate::profile;
use crate::stats::{dumps, page};
use crate::sync::{
    AtomicBool,
    Ordering::{AcqRel, Acquire},
};
use crate::tcache::registry;

/// Release: the fork handlers look after the heap. Pairs with the Acquire in `happened`, so that
/// no thread allocates before that.
static HAPPENED: AtomicBool = AtomicBool::new(false);
/// Called at the first use, on its thread.
static FIRST_USE: Callback<fn()> = Callback::unset();

/// Sets the callback of the first use. It is not called if that has happened.
pub(crate) fn on_first_use(call: fn()) {
    FIRST_USE.set(call);
}

/// Called at each thread's first miss.
#[inline]
pub(crate) fn happened() {
    if HAPPENED.load(Acquire) {
        return;
    }
    errno::kept(happen);
}

#[cold]
#[inline(never)]
fn happen() {
    fork::look_after_heap();
    if HAPPENED.swap(true, AcqRel) {
        return;
    }
    thread::prepare();
    registry::on_thread_exit(decay::tick);
    page::begin();
    guard::begin();
    if profile::begin() {
        dumps::begin();
    }
    if let Some(call) = FIRST_USE.get() {
        call();
    }
}

/// Whether it has happened.
pub(crate) fn has_happened() -> bool {
    HAPPENED.load(Acquire)
}
