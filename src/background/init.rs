//! What happens once in a process, at the first block that is asked of us or
//! given to us: fork handlers have something to do, what a helper thread needs is
//! looked for, the live page is made if one is wanted, what unwinds the stack is loaded if
//! blocks are guarded, and whoever wants to be told is told. A process that never allocates
//! here pays for none of it.

use crate::background::decay;
use crate::background::fork;
use crate::base::callback::Callback;
use crate::guard;
use crate::os::{errno, thread};
use crate::stats_page;
use crate::sync::{
    AtomicBool,
    Ordering::{AcqRel, Acquire},
};
use crate::tcache::registry;

/// Release: the fork handlers are registered; pairs with the Acquire in
/// `happened`, so that no thread gets ahead of them.
static HAPPENED: AtomicBool = AtomicBool::new(false);
/// Who is told.
static TELL: Callback<fn()> = Callback::unset();

/// Has `tell` called at the first use, on the thread where it happens, if it
/// has not happened yet.
pub(crate) fn then(tell: fn()) {
    TELL.set(tell);
}

/// To be called at each thread's first miss.
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
    registry::after_each_end(decay::tick);
    stats_page::begin();
    guard::begin();
    if let Some(tell) = TELL.get() {
        tell();
    }
}

/// Whether it has happened.
pub(crate) fn has_happened() -> bool {
    HAPPENED.load(Acquire)
}
