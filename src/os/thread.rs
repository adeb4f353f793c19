//! A thread of the library's own, as the kernel and the C library know it: with all
//! signals blocked and a small stack. (In the models of `tests/loom/` it is loom's.)

#[cfg(not(all(test, loom)))]
use core::ffi::CStr;
use core::ffi::c_void;
#[cfg(not(all(test, loom)))]
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::clock;
use super::errno;
use super::sandbox;
use super::wait;
use super::weak::function;
use crate::sync::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

/// A thread that can be joined or detached.
pub type Thread = libc::pthread_t;

/// What it does.
pub type Run = extern "C" fn(*mut c_void) -> *mut c_void;

/// Milliseconds that an ended thread is waited for, which takes microseconds, but on
/// a busy machine until the kernel lets it run once more.
const GOING: u64 = 500;
/// Bytes of its stack, beside what the C library takes of it.
#[cfg_attr(loom, allow(dead_code))]
const STACK: usize = 128 * 1024;

/// Starts one. `None` if there can be none.
///
/// # Safety
/// `run` may be called with `argument`.
#[cfg(not(all(test, loom)))]
pub unsafe fn start(run: Run, argument: *mut c_void) -> Option<Thread> {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: places for what each of these makes before the next reads it. A thread
    // inherits which signals are blocked.
    errno::kept(|| unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        libc::pthread_attr_init(attributes.as_mut_ptr());
        let stack = STACK + taken_of_stack(attributes.as_ptr());
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack);
        let created =
            libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, argument) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        created.then(|| thread.assume_init())
    })
}

/// Waits until the thread has returned.
///
/// # Safety
/// It is neither joined nor detached otherwise.
#[cfg(not(all(test, loom)))]
pub unsafe fn join(thread: Thread) {
    // SAFETY: the caller's promise.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
}

/// Lets the thread end without being joined.
///
/// # Safety
/// As for `join`.
#[cfg(not(all(test, loom)))]
pub unsafe fn detach(thread: Thread) {
    // SAFETY: the caller's promise.
    unsafe { libc::pthread_detach(thread) };
}

/// For the thread itself: ends it without a call of the C library's, which would give the
/// pages of its stack back by advice. Not for a thread that is detached, whose stack stays.
#[cfg(not(all(test, loom)))]
pub fn end_at_once() {
    // SAFETY: the thread holds no lock and no memory of its own; who joins it is woken by the
    // kernel, and gives the stack back.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// For the thread itself, when it begins: gives it its name for who looks at the process's
/// threads. Returns the kernel's number of it.
#[cfg(not(all(test, loom)))]
pub fn begun(name: &'static CStr) -> i32 {
    // SAFETY: a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    number()
}

/// The kernel's number of the calling thread. (By number, as the C library's `gettid` is
/// of 2.30 and the library is to load with older ones.)
pub fn number() -> i32 {
    // SAFETY: a question without conditions.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Waits until the kernel knows no thread of this number in the process: a
/// thread that was joined, or has detached itself, is still going. But not for
/// ever: the kernel gives numbers again, and it may be another's by now. In a sandbox that
/// may not know the calls, not at all.
pub fn wait_until_gone(id: i32) {
    let until = clock::now() + GOING;
    while id != 0 && sandbox::allows() && is_there(id) && clock::now() < until {
        wait::give_way();
    }
}

/// Whether the kernel knows a thread of this number in the process.
#[cfg(not(all(test, loom)))]
fn is_there(id: i32) -> bool {
    // SAFETY: signal 0 only asks.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, 0) == 0 }
}

#[cfg(all(test, loom))]
pub use crate::sync::threads::{begun, detach, is_there, join, start};

/// The C library's function that says how much of a thread's stack it takes,
/// for the thread-local storage of all that is loaded at start; or null.
static ASK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Looks for that function. The loader's lock is taken for it, which may not be
/// waited for later on: who frees may hold other locks. (A weak symbol would
/// bind the library to the C library's private version.)
pub fn prepare() {
    // SAFETY: a C string.
    let ask = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__pthread_get_minstack".as_ptr()) };
    ASK.store(ask, Release);
}

/// Bytes that the C library takes of the stack of a thread with these attributes.
#[cfg_attr(loom, allow(dead_code))]
fn taken_of_stack(attributes: *const libc::pthread_attr_t) -> usize {
    type MinStack = unsafe extern "C" fn(*const libc::pthread_attr_t) -> usize;
    let Some(ask) = NonNull::new(ASK.load(Acquire)) else {
        return 0;
    };
    // SAFETY: its type.
    let ask = unsafe { function::<MinStack>(ask) };
    // SAFETY: attributes that were initialised.
    unsafe { ask(attributes) }
}
