//! The handler of faults (SIGSEGV): an access to a shut page of the region is
//! reported; then, and for any other fault, whoever handled faults before is asked.
//!
//! ```text
//!    fault ---> ours ---> in the region? report ---> the handler before us,
//!                         |                          exactly as the kernel would |
//!                         +---- other threads that make mistakes wait so long ---+
//! ```
//!
//! faulthandler, enabled before us, is that handler. Enabled after us it comes
//! first, and raises the signal anew for us, without the address: but the kernel
//! still has that in the registers it saves. A program whose own handler calls
//! nobody else has no reports of faults.
//!
//! The handler is there from the first sampled block on, and stays.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::{self, MaybeUninit};
use core::ptr;

use super::region;
use super::report::{self, Access, MemoryError};
use super::reporter::Reporter;
use super::trace;
use crate::os::errno;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// What handled faults before us.
struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written before our handler is there, or by it in the one case that
// `sigaction` does the same to the original.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::zeroed()));
/// The address of the last fault that was reported: what handles it may return, and
/// then it happens again.
static REPORTED: AtomicUsize = AtomicUsize::new(0);

type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Installs the handler; once.
pub(super) fn install() {
    let handler: Handler = on_fault;
    // SAFETY: zero is an action without flags and an empty mask.
    let mut ours: libc::sigaction = unsafe { mem::zeroed() };
    ours.sa_sigaction = handler as *const () as usize;
    // On the thread's own stack for signals, as a stack may have overflowed. Not
    // blocked meanwhile: a fault in a report is handled, too.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
    let previous = PREVIOUS.0.get().cast();
    // SAFETY: asks only, and then sets a handler that stays loaded. Nobody reads
    // `PREVIOUS` before.
    errno::kept(|| unsafe {
        if libc::sigaction(libc::SIGSEGV, ptr::null(), previous) == 0 {
            libc::sigaction(libc::SIGSEGV, &raw const ours, previous);
        }
    });
}

unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = errno::get();
    // SAFETY: what the kernel has handed us.
    let fault = unsafe { Fault::of(info, context) };
    let is_mistake = !report::go_on() && region::contains(fault.address);
    // Where the process ends, too: not in the middle of another thread's report.
    // SAFETY: as above.
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
    // SAFETY: as above. Another answer than before, if one was called meanwhile that is
    // to be called once.
    match unsafe { Next::of(info) } {
        Next::Nothing => {}
        Next::End => {
            // The reporter stays, until the process has ended.
            mem::forget(reporter);
            // SAFETY: as above.
            unsafe { end(signal, info) };
        }
        // SAFETY: as above.
        Next::Handler(action) => unsafe { call(&action, signal, info, context) },
    }
    errno::set(before);
}

/// What the kernel says of a fault.
struct Fault {
    address: usize,
    access: Access,
    instruction: Option<usize>,
}

/// Whether the signal was sent, by a call and not by a fault.
///
/// # Safety
/// The kernel's.
unsafe fn is_sent(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*info).si_code <= 0 }
}

impl Fault {
    /// # Safety
    /// What a handler of signals was called with.
    #[cfg(target_arch = "x86_64")]
    unsafe fn of(info: *const libc::siginfo_t, context: *const c_void) -> Fault {
        const PAGE_FAULT: i64 = 14;
        const WRITE: i64 = 2;
        const FETCH: i64 = 16;
        // SAFETY: the caller's promise.
        let (sent, context) = unsafe { (is_sent(info), &*context.cast::<libc::ucontext_t>()) };
        let register = |i: c_int| context.uc_mcontext.gregs[i as usize];
        // A signal that is sent from the handler of a fault still has these three of
        // the fault, but not its instruction.
        if register(libc::REG_TRAPNO) != PAGE_FAULT {
            return Fault {
                address: 0,
                access: Access::Unknown,
                instruction: None,
            };
        }
        let error = register(libc::REG_ERR);
        let access = if error & FETCH != 0 {
            Access::Run
        } else if error & WRITE != 0 {
            Access::Write
        } else {
            Access::Read
        };
        let instruction = register(libc::REG_RIP).cast_unsigned() as usize;
        Fault {
            address: register(libc::REG_CR2).cast_unsigned() as usize,
            access,
            instruction: (!sent).then_some(instruction),
        }
    }

    /// # Safety
    /// What a handler of signals was called with.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn of(info: *const libc::siginfo_t, _: *const c_void) -> Fault {
        // SAFETY: the caller's promise.
        let sent = unsafe { is_sent(info) };
        // SAFETY: as above.
        let address = unsafe { (*info).si_addr() }.addr();
        Fault {
            address: if sent { 0 } else { address },
            access: Access::Unknown,
            instruction: None,
        }
    }
}

/// What the kernel would do if our handler were not there.
enum Next {
    Nothing,
    /// A fault that is ignored or nobody's ends the process.
    End,
    Handler(libc::sigaction),
}

impl Next {
    /// # Safety
    /// The kernel's `info`.
    unsafe fn of(info: *const libc::siginfo_t) -> Next {
        // SAFETY: written when our handler was installed.
        let previous: libc::sigaction = unsafe { *PREVIOUS.0.get().cast() };
        match previous.sa_sigaction {
            // SAFETY: the caller's promise.
            libc::SIG_IGN if unsafe { is_sent(info) } => Next::Nothing,
            libc::SIG_DFL | libc::SIG_IGN => Next::End,
            _ => Next::Handler(previous),
        }
    }
}

/// Has the process end: when the instruction is tried again, or the signal sent again.
///
/// # Safety
/// What our handler was called with.
unsafe fn end(signal: c_int, info: *const libc::siginfo_t) {
    // SAFETY: zero is the default action.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    // SAFETY: the caller's promise.
    if unsafe { is_sent(info) } {
        let (process, thread) = (crate::os::text::pid(), trace::this_thread());
        // SAFETY: a signal to ourselves.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    }
}

/// Calls the handler that was there before ours, as the kernel would.
///
/// # Safety
/// What our handler was called with, and that handler.
unsafe fn call(
    action: &libc::sigaction,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let handler = action.sa_sigaction;
    if action.sa_flags & libc::SA_RESETHAND != 0 {
        let previous: *mut libc::sigaction = PREVIOUS.0.get().cast();
        // SAFETY: as `PREVIOUS` says.
        unsafe { (*previous).sa_sigaction = libc::SIG_DFL };
    }
    let mut mask = action.sa_mask;
    let mut before = MaybeUninit::uninit();
    // SAFETY: sets of signals; the handler's own type, by its flags.
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
