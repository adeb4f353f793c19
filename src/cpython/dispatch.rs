//! The route of our exported names: one pointer to what they do now.
//!
//! Each exported name is two instructions, a load of the pointer and a jump. The pointer
//! starts at functions that decide and then go on, so that a call before our constructor, or
//! in a program whose constructor found no host, is right.
//!
//! ```text
//!    ROUTE ->  UNDECIDED    decides, then as below
//!              builtin.rs   no host, or linked into it
//!              forward.rs   one host: what it does
//!              BY_CALLER    several hosts: what the caller's host does (several.rs)
//! ```
//!
//! A jump leaves the return address where it was: that is how `BY_CALLER` knows the caller.
//!
//! # A second CPython
//!
//! The loader tells us of each object that it loads. Every object's `_init`, which is the C
//! library's own code, begins with a call of `__gmon_start__` if there is such a function:
//! meant for the profiler gprof, and defined by a program that is linked for it. We define
//! it, too (`capi/start.rs`); so a libpython that is loaded is known before any code in it
//! runs, at no cost for the calls of the first one.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, SeqCst},
};

use super::attach;
use super::builtin;
use super::company;
use super::exports::{Answers, Exports, Tables};
use super::reason::Reason;
use super::several;
use crate::domains::adapter::Functions;
use crate::domains::ffi::{PyMemAllocatorEx, PyObjectArenaAllocator};
use crate::os::errno;
use crate::os::loader;

/// What the exported names do. Release publishes what it points to.
pub(crate) static ROUTE: AtomicPtr<Exports> = AtomicPtr::new((&raw const UNDECIDED).cast_mut());

/// How many objects were loaded.
static LOADS: AtomicUsize = AtomicUsize::new(0);

/// The body of an exported function: goes where [`ROUTE`] leads, with all arguments and the
/// return address as they are.
macro_rules! jump {
    ($($field:ident).+) => {
        core::arch::naked_asm!(
            "mov rax, qword ptr [rip + {route}]",
            "jmp qword ptr [rax + {offset}]",
            route = sym $crate::cpython::dispatch::ROUTE,
            offset = const core::mem::offset_of!($crate::cpython::exports::Exports, $($field).+),
        )
    };
}
pub(crate) use jump;

/// The body of a function that goes on with the exports that `$which` answers, which is
/// given the return address; with both arguments and the return address as they are. (None
/// of the exported functions has more than two.)
macro_rules! jump_by {
    ($which:path, $($field:ident).+) => {
        naked_asm!(
            ".cfi_startproc",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "mov rdi, qword ptr [rsp + 24]",
            "call {which}",
            "add rsp, 8",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "jmp qword ptr [rax + {offset}]",
            ".cfi_endproc",
            which = sym $which,
            offset = const offset_of!(Exports, $($field).+),
        )
    };
}

/// A domain whose functions go on with the exports that `$which` answers.
macro_rules! domain_by {
    ($which:path, $domain:ident) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn malloc(_: usize) -> *mut c_void {
            jump_by!($which, $domain.malloc)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn calloc(_: usize, _: usize) -> *mut c_void {
            jump_by!($which, $domain.calloc)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn realloc(_: *mut c_void, _: usize) -> *mut c_void {
            jump_by!($which, $domain.realloc)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn free(_: *mut c_void) {
            jump_by!($which, $domain.free)
        }
        Functions {
            malloc,
            calloc,
            realloc,
            free,
        }
    }};
}

/// Exports that go on with those that `$which` answers.
macro_rules! exports_by {
    ($which:path) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn get(_: c_int, _: *mut PyMemAllocatorEx) {
            jump_by!($which, tables.get)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn set(_: c_int, _: *const PyMemAllocatorEx) {
            jump_by!($which, tables.set)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn setup_debug_hooks() {
            jump_by!($which, tables.setup_debug_hooks)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn setup(_: usize) -> c_int {
            jump_by!($which, tables.setup)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn get_arenas(_: *mut PyObjectArenaAllocator) {
            jump_by!($which, tables.get_arenas)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn set_arenas(_: *const PyObjectArenaAllocator) {
            jump_by!($which, tables.set_arenas)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn debug_malloc_stats(_: *mut libc::FILE) -> c_int {
            jump_by!($which, answers.debug_malloc_stats)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn allocated_blocks() -> isize {
            jump_by!($which, answers.allocated_blocks)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn allocator_name() -> *const c_char {
            jump_by!($which, answers.allocator_name)
        }
        #[unsafe(naked)]
        unsafe extern "C" fn pymalloc_enabled() -> c_int {
            jump_by!($which, answers.pymalloc_enabled)
        }
        Exports {
            raw: domain_by!($which, raw),
            mem: domain_by!($which, mem),
            object: domain_by!($which, object),
            tables: Tables {
                get,
                set,
                setup_debug_hooks,
                setup,
                get_arenas,
                set_arenas,
            },
            answers: Answers {
                debug_malloc_stats,
                allocated_blocks,
                allocator_name,
                pymalloc_enabled,
            },
        }
    }};
}

static UNDECIDED: Exports = exports_by!(decide);

static BY_CALLER: Exports = exports_by!(several::of_caller);

/// Has the exported names do this from now on. Nothing leads away from [`BY_CALLER`]: a
/// thread that counted the hosts earlier than another one may come later.
fn go(exports: &'static Exports) {
    let by_caller = (&raw const BY_CALLER).cast_mut();
    let to = ptr::from_ref(exports).cast_mut();
    let mut from = ROUTE.load(Acquire);
    while from != by_caller {
        match ROUTE.compare_exchange(from, to, AcqRel, Acquire) {
            Ok(_) => return,
            Err(now) => from = now,
        }
    }
}

/// What the exported names do now.
#[inline(always)]
pub(crate) fn current() -> &'static Exports {
    // SAFETY: it only ever points to statics.
    unsafe { &*ROUTE.load(Acquire) }
}

#[cold]
extern "C" fn decide(caller: usize) -> &'static Exports {
    builtin::CHANGED.set(tables_changed);
    errno::kept(|| {
        loop {
            let loads = LOADS.load(SeqCst);
            let exports = attach::when_called().unwrap_or(&BY_CALLER);
            go(exports);
            // One that was loaded meanwhile found the route undecided.
            if LOADS.load(SeqCst) == loads {
                break;
            }
        }
    });
    if ptr::eq(current(), &raw const BY_CALLER) {
        several::of_caller(caller)
    } else {
        current()
    }
}

/// At start, from the constructor.
pub(crate) fn start() {
    attach::at_start();
}

/// The object at this address was loaded, and nothing in it has run yet.
#[cfg_attr(
    test,
    allow(dead_code, reason = "the caller, `capi::start`, is in no test")
)]
pub(crate) fn object_loaded(address: usize) {
    LOADS.fetch_add(1, SeqCst);
    if ptr::eq(current(), &raw const UNDECIDED) || !company::may_come() {
        return;
    }
    let look = || {
        if company::when_loaded(address) {
            go(&BY_CALLER);
        }
    };
    errno::kept(|| loader::within(look));
}

/// On demand: see `obmalloc_install`.
pub(crate) fn install() -> Result<(), Reason> {
    builtin::CHANGED.set(tables_changed);
    attach::late().map(|exports| go(exports.unwrap_or(&BY_CALLER)))
}

/// To be called after anything that may have changed tables: where they are
/// our own, the exported names look into them from now on, or need not.
pub(crate) fn tables_changed() {
    if builtin::are_own(current()) {
        go(builtin::current());
    } else if several::others().is_some_and(builtin::are_own) {
        several::set_others(builtin::current());
    }
}
