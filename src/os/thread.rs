//! Threads of the kernel and the C library: which signals reach the calling one, and how the
//! library starts its own, detached and with a small stack. (In the models of `tests/loom/` threads
//! are loom's.)

#[cfg(not(all(test, loom)))]
use core::ffi::CStr;
#[cfg(not(all(test, loom)))]
use core::ffi::c_int;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

#[cfg(not(all(test, loom)))]
use super::errno;
use super::loader;
use super::sandbox;
use super::weak::function;
use crate::sync::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

/// The function of a thread.
#[cfg_attr(loom, allow(dead_code))]
pub(crate) type Run = extern "C" fn(*mut c_void) -> *mut c_void;

/// Bytes of its stack, without the part that the C library takes.
#[cfg_attr(loom, allow(dead_code))]
const STACK: usize = 128 * 1024;

/// Runs `work` with all signals blocked, so that no handler of the program interrupts it. (In a
/// sandbox that allows only the calls of CPython's own allocator, signals are not blocked.)
pub(crate) fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    if !sandbox::allows() {
        return work();
    }
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: places for two sets of signals; the first is filled before it is read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = work();
    // SAFETY: the set that was written above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

/// Starts a detached thread. False if that fails. Called with all signals blocked, which the
/// thread inherits.
///
/// # Safety
/// `run` may be called with `argument`.
#[cfg(not(all(test, loom)))]
pub(crate) unsafe fn start(run: Run, argument: *mut c_void) -> bool {
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: each call fills its place before the next one reads it; `run` may be called with
    // `argument` by the contract above.
    errno::kept(|| unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr());
        let stack = STACK + taken_of_stack(attributes.as_ptr());
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack);
        let state = libc::PTHREAD_CREATE_DETACHED;
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), state);
        let created =
            libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, argument) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        created
    })
}

/// For the thread itself: ends it without the C library, which would return the pages of its stack
/// by `madvise`. The stack stays mapped.
#[cfg(not(all(test, loom)))]
pub(crate) fn end_at_once() {
    // SAFETY: the thread is detached, holds no lock, and owns nothing but its stack.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// For the thread itself, when it begins: sets its name, which tools show. Returns the kernel's id
/// of it.
#[cfg(not(all(test, loom)))]
pub(crate) fn begun(name: &'static CStr) -> i32 {
    // SAFETY: a literal that ends with NUL.
    errno::kept(|| unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) });
    number()
}

/// The kernel's id of the calling thread. (By the number of the system call: the C library has
/// `gettid` from 2.30 on, and older ones are supported.)
#[cfg(not(all(test, loom)))]
pub(crate) fn number() -> i32 {
    // SAFETY: the call has no conditions, and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// The calling thread's name, as the kernel has it; empty if a sandbox forbids the call.
#[cfg(not(all(test, loom)))]
pub(crate) fn name(buffer: &mut [u8; 16]) -> &[u8] {
    // SAFETY: the kernel writes at most 16 bytes, of which the last is NUL.
    let asked = errno::kept(|| unsafe { libc::prctl(libc::PR_GET_NAME, buffer.as_mut_ptr()) });
    let len = buffer.iter().position(|&byte| byte == 0);
    if asked == 0 {
        &buffer[..len.unwrap_or(0)]
    } else {
        &[]
    }
}

/// In the models: none.
#[cfg(all(test, loom))]
pub(crate) fn name(_: &mut [u8; 16]) -> &[u8] {
    &[]
}

/// Whether the kernel lists a thread with this id in the process. It lists a thread for a moment
/// after its end.
#[cfg(not(all(test, loom)))]
pub(crate) fn is_there(number: i32) -> bool {
    // SAFETY: signal 0 is not sent; the kernel only checks whether it could be.
    let asked =
        errno::checked(|| unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, 0) });
    asked != Err(libc::ESRCH)
}

/// Gives the thread with this id the scheduling policy of the calling thread, if that is a
/// real-time thread: else it could wait for ever for a processor that the calling thread takes.
/// Returns whether the calling thread is one.
#[cfg(not(all(test, loom)))]
pub(crate) fn hurry(number: i32) -> bool {
    if !sandbox::allows() {
        return false;
    }
    // SAFETY: the call has no conditions; 0 is the calling thread.
    let policy = errno::checked(|| unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) });
    let Ok(policy) = policy.map(|policy| policy as c_int) else {
        return false;
    };
    if !matches!(
        policy & !libc::SCHED_RESET_ON_FORK,
        libc::SCHED_FIFO | libc::SCHED_RR
    ) {
        return false;
    }
    let mut priority = MaybeUninit::<libc::sched_param>::uninit();
    let _ = errno::checked(|| {
        // SAFETY: a place for the priority, which the second call reads if the first one
        // has written it. A kernel that refuses changes nothing.
        unsafe {
            match libc::syscall(libc::SYS_sched_getparam, 0, priority.as_mut_ptr()) {
                0 => libc::syscall(
                    libc::SYS_sched_setscheduler,
                    number,
                    policy,
                    priority.as_ptr(),
                ),
                refused => refused,
            }
        }
    });
    true
}

#[cfg(all(test, loom))]
pub(crate) use crate::sync::threads::{begun, hurry, is_there, number, start};

/// The C library's function that returns how much of a thread's stack it takes for the
/// thread-local storage of all objects that are loaded at start; or null.
static ASK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Looks that function up at the first use. That takes the loader's lock, for which a later call
/// must not wait: a thread that frees may hold other locks. (A weak symbol would bind the library
/// to the C library's private version.)
pub(crate) fn prepare() {
    let look_up = || {
        // SAFETY: a literal that ends with NUL.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__pthread_get_minstack".as_ptr()) }
    };
    ASK.store(loader::with(look_up), Release);
}

/// Bytes that the C library takes of the stack of a thread with these attributes.
#[cfg_attr(loom, allow(dead_code))]
fn taken_of_stack(attributes: *const libc::pthread_attr_t) -> usize {
    type MinStack = unsafe extern "C" fn(*const libc::pthread_attr_t) -> usize;
    let Some(ask) = NonNull::new(ASK.load(Acquire)) else {
        return 0;
    };
    // SAFETY: `__pthread_get_minstack` has this type in every version of glibc.
    let ask = unsafe { function::<MinStack>(ask) };
    // SAFETY: the caller's attributes are initialised.
    unsafe { ask(attributes) }
}
