//! What happens once in a process, at the first block that is asked of us or
//! given to us: fork handlers are registered, what a helper thread needs is
//! looked for, the live page is made if one is wanted, and whoever wants to be told
//! is told. A process that never allocates here pays for none of it.

use core::mem;
use core::ptr;

use crate::fork;
use crate::live;
use crate::os::thread;
use crate::sync::{
    AtomicBool, AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Release: the fork handlers are registered; pairs with the Acquire in
/// `happened`, so that no thread gets ahead of them.
static HAPPENED: AtomicBool = AtomicBool::new(false);
/// The function to tell, or null.
static TELL: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Has `tell` called at the first use, on the thread where it happens, if it
/// has not happened yet.
pub fn then(tell: fn()) {
    TELL.store(tell as *mut (), Relaxed);
}

/// To be called at each thread's first miss.
pub fn happened() {
    if HAPPENED.load(Acquire) {
        return;
    }
    fork::register();
    if HAPPENED.swap(true, AcqRel) {
        return;
    }
    thread::prepare();
    live::begin();
    let tell = TELL.load(Relaxed);
    if !tell.is_null() {
        // SAFETY: only `then` sets it, from such a function.
        let tell = unsafe { mem::transmute::<*mut (), fn()>(tell) };
        tell();
    }
}

/// Whether it has happened.
pub fn has_happened() -> bool {
    HAPPENED.load(Acquire)
}
