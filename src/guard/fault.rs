//! The handler of faults (SIGSEGV). It reports an access to a closed page of the region; then, and
//! for any other fault, it calls the previous handler.
//!
//! ```text
//!    fault ---> this handler ---> in the region? report ---> the previous handler,
//!                                 |                          as the kernel would call it |
//!                                 +---- other threads with an error wait until then -----+
//! ```
//!
//! faulthandler, if enabled before, is the previous handler. Enabled later it runs first, and
//! raises the signal anew, without the address; but the registers that the kernel saved still have
//! it. In a program whose own handler calls no other handler, faults are not reported.
//!
//! The handler is installed at the first sampled block, and stays.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::{self, MaybeUninit};
use core::ptr;

use super::region;
use super::report::{self, Access, MemoryError};
use super::reporter::Reporter;
use super::trace;
use crate::os::arch;
use crate::os::errno;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// The previous handler.
struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written before our handler is installed, or by it where the kernel would change the
// original in the same way (SA_RESETHAND).
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::zeroed()));
/// The address of the last fault that was reported: the previous handler may return, and then the
/// fault happens again.
static REPORTED: AtomicUsize = AtomicUsize::new(0);

type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Installs the handler; once.
pub(super) fn install() {
    let handler: Handler = on_fault;
    // SAFETY: zero is an action without flags and an empty mask.
    let mut ours: libc::sigaction = unsafe { mem::zeroed() };
    ours.sa_sigaction = handler as *const () as usize;
    // On the thread's signal stack, because the stack may have overflowed. The signal is not
    // blocked in the handler: a fault in a report is handled, too.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
    let previous = PREVIOUS.0.get().cast();
    // SAFETY: reads the handler, then sets one that stays loaded. `PREVIOUS` is read only by that
    // handler, which is not installed yet.
    errno::kept(|| unsafe {
        if libc::sigaction(libc::SIGSEGV, ptr::null(), previous) == 0 {
            libc::sigaction(libc::SIGSEGV, &raw const ours, previous);
        }
    });
}

unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = errno::get();
    // SAFETY: the kernel's arguments of this handler.
    let fault = unsafe { Fault::of(info, context) };
    let is_mistake = !report::go_on() && region::contains(fault.address);
    // Also where the process ends: not in the middle of another thread's report.
    // SAFETY: the kernel's arguments of this handler.
    let reporter = if is_mistake || matches!(unsafe { Next::of(info) }, Next::End) {
        Reporter::when_alone()
    } else {
        None
    };
    if is_mistake
        && let Some(reporter) = &reporter
        && REPORTED.swap(fault.address, Relaxed) != fault.address
    {
        report::report(
            reporter,
            MemoryError {
                access: fault.access,
                address: fault.address,
                instruction: fault.instruction,
            },
        );
    }
    // SAFETY: the kernel's arguments of this handler. The result may differ from the one before, if
    // a handler that is called once (SA_RESETHAND) was called since.
    match unsafe { Next::of(info) } {
        Next::Nothing => {}
        Next::End => {
            // The reporter stays until the end of the process.
            mem::forget(reporter);
            // SAFETY: the kernel's arguments of this handler.
            unsafe { end(signal, info) };
        }
        // SAFETY: the kernel's arguments of this handler.
        Next::Handler(action) => unsafe { call(&action, signal, info, context) },
    }
    errno::set(before);
}

/// A fault, by the kernel's description.
struct Fault {
    address: usize,
    access: Access,
    instruction: Option<usize>,
}

/// Whether a call and not a fault raised the signal.
///
/// # Safety
/// `info` is the kernel's argument of a signal handler.
unsafe fn is_sent(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel's argument, by the contract above.
    unsafe { (*info).si_code <= 0 }
}

impl Fault {
    /// # Safety
    /// The arguments are the kernel's, of a signal handler.
    unsafe fn of(info: *const libc::siginfo_t, context: *const c_void) -> Fault {
        // SAFETY: the kernel's arguments, by the contract above.
        let (info, context) = unsafe { (&*info, &*context.cast::<libc::ucontext_t>()) };
        let Some(fault) = arch::page_fault(context, info) else {
            return Fault {
                address: 0,
                access: Access::Unknown,
                instruction: None,
            };
        };
        // SAFETY: the kernel's argument, by the contract above.
        let sent = unsafe { is_sent(info) };
        Fault {
            address: fault.address,
            access: match fault.access {
                arch::Access::Read => Access::Read,
                arch::Access::Write => Access::Write,
                arch::Access::Run => Access::Run,
                arch::Access::Unknown => Access::Unknown,
            },
            instruction: (!sent).then_some(fault.instruction),
        }
    }
}

/// The action that the kernel would take without our handler.
enum Next {
    Nothing,
    /// The default, and a fault that is ignored: the end of the process.
    End,
    Handler(libc::sigaction),
}

impl Next {
    /// # Safety
    /// `info` is the kernel's argument of a signal handler.
    unsafe fn of(info: *const libc::siginfo_t) -> Next {
        // SAFETY: written when our handler was installed.
        let previous: libc::sigaction = unsafe { *PREVIOUS.0.get().cast() };
        match previous.sa_sigaction {
            // SAFETY: the kernel's argument, by the contract above.
            libc::SIG_IGN if unsafe { is_sent(info) } => Next::Nothing,
            libc::SIG_DFL | libc::SIG_IGN => Next::End,
            _ => Next::Handler(previous),
        }
    }
}

/// Makes the process end: when the instruction is tried again, or by a signal that is sent again.
///
/// # Safety
/// The arguments are the kernel's, of our handler.
unsafe fn end(signal: c_int, info: *const libc::siginfo_t) {
    // SAFETY: zero is the default action.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: sets the default action, which has no handler.
    unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    // SAFETY: the kernel's argument, by the contract above.
    if unsafe { is_sent(info) } {
        let (process, thread) = (crate::os::text::pid(), trace::this_thread());
        // SAFETY: a signal to this thread.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    }
}

/// Calls the previous handler as the kernel would.
///
/// # Safety
/// The arguments are the kernel's, of our handler, and `PREVIOUS`.
unsafe fn call(
    action: &libc::sigaction,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let handler = action.sa_sigaction;
    if action.sa_flags & libc::SA_RESETHAND != 0 {
        let previous: *mut libc::sigaction = PREVIOUS.0.get().cast();
        // SAFETY: the kernel would change the original in the same way; see `PREVIOUS`.
        unsafe { (*previous).sa_sigaction = libc::SIG_DFL };
    }
    let mut mask = action.sa_mask;
    let mut before = MaybeUninit::uninit();
    // SAFETY: valid signal sets; the flags decide the handler's type.
    unsafe {
        if action.sa_flags & libc::SA_NODEFER == 0 {
            libc::sigaddset(&raw mut mask, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, before.as_mut_ptr());
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            mem::transmute::<usize, Handler>(handler)(signal, info, context);
        } else {
            mem::transmute::<usize, unsafe extern "C" fn(c_int)>(handler)(signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
}
