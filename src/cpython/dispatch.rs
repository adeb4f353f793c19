//! The dispatch of the exported names: one pointer to their present functions.
//!
//! Each exported name is two instructions, a load of the pointer and a jump. At first the pointer
//! leads to functions that decide and then continue, so that a call before the constructor, or in a
//! program whose constructor found no host, is right.
//!
//! ```text
//!    ROUTE ->  UNDECIDED    decides, then one of these:
//!              builtin.rs   no host, or linked into it
//!              forward.rs   one host: its functions
//!              BY_CALLER    several hosts: those of the caller's host (several.rs)
//! ```
//!
//! A jump keeps the return address, by which `BY_CALLER` finds the caller.
//!
//! # A second CPython
//!
//! The library notices each object that is loaded. The `_init` of every object, which is code of the
//! C library, begins with a call of `__gmon_start__` if that function exists: it is meant for the
//! profiler gprof, and defined by a program that is linked for it. The library defines it, too
//! (`capi/start.rs`); so a new libpython is found before any of its code runs, at no cost for the
//! calls of the first one. musl's `_init` calls nothing: there a second CPython goes unnoticed.

use core::ffi::{c_char, c_int, c_void};
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};

use format::status::Reason;

use super::attach;
use super::builtin;
use super::company;
use super::exports::{Answers, Exports, Tables};
use super::several;
use crate::domains::adapter::Functions;
use crate::domains::ffi::{PyMemAllocatorEx, PyObjectArenaAllocator};
use crate::os::arch;
use crate::os::errno;
use crate::os::loader;

/// The present functions of the exported names. Stored with Release, which publishes the exports and
/// what their functions read; pairs with the Acquire of each load (in `arch::jump_through!`, too).
pub(crate) static ROUTE: AtomicPtr<Exports> = AtomicPtr::new((&raw const UNDECIDED).cast_mut());

/// The number of objects that were loaded. [`decide`] stores [`ROUTE`] and then loads this;
/// [`object_loaded`] adds to this and then loads [`ROUTE`]. A `SeqCst` fence is between the two
/// accesses on either side, so at least one of them sees what the other has stored.
static LOADS: AtomicUsize = AtomicUsize::new(0);

/// The body of an exported function: jumps to its function in [`ROUTE`], with all arguments and the
/// return address unchanged.
macro_rules! jump {
    ($($field:ident).+) => {
        $crate::os::arch::jump_through!(
            $crate::cpython::dispatch::ROUTE,
            core::mem::offset_of!($crate::cpython::exports::Exports, $($field).+)
        )
    };
}
pub(crate) use jump;

/// The body of a function that jumps to its function in the exports that `$which` returns for the
/// return address, with both arguments and the return address unchanged. (No exported function has
/// more than two arguments.)
macro_rules! jump_by {
    ($which:path, $($field:ident).+) => {
        arch::jump_by!($which, offset_of!(Exports, $($field).+))
    };
}

/// A domain whose functions jump to those in the exports that `$which` returns.
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

/// Exports that jump to those that `$which` returns.
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

/// Sets the functions of the exported names. [`BY_CALLER`] is final: a thread that counted the hosts
/// earlier than another one may store later.
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

/// The present functions of the exported names.
#[inline(always)]
pub(crate) fn current() -> &'static Exports {
    // SAFETY: the pointer always leads to a static.
    unsafe { &*ROUTE.load(Acquire) }
}

#[cold]
extern "C" fn decide(caller: usize) -> &'static Exports {
    builtin::CHANGED.set(tables_changed);
    errno::kept(|| {
        loop {
            let loads = LOADS.load(Acquire);
            let exports = attach::when_called().unwrap_or(&BY_CALLER);
            go(exports);
            fence(SeqCst);
            // An object that was loaded in between found the dispatch undecided.
            if LOADS.load(Relaxed) == loads {
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

/// Called by the constructor.
pub(crate) fn start() {
    attach::at_start();
}

/// Called when the object at this address was loaded and none of its code has run.
#[cfg_attr(
    test,
    allow(dead_code, reason = "the caller, `capi::start`, is in no test")
)]
pub(crate) fn object_loaded(address: usize) {
    LOADS.fetch_add(1, Release);
    fence(SeqCst);
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

/// Installs the library on demand: see `obmalloc_install`.
pub(crate) fn install() -> Result<(), Reason> {
    builtin::CHANGED.set(tables_changed);
    attach::late().map(|exports| go(exports.unwrap_or(&BY_CALLER)))
}

/// Starts the heap profiler: see `obmalloc_profile_start`.
pub(crate) fn start_profile(interval: usize) -> Result<(), c_int> {
    attach::start_profile(interval)
}

/// Called after tables may have changed. If they are the library's own, the exported names read them
/// from now on, or no longer need to.
pub(crate) fn tables_changed() {
    if builtin::are_own(current()) {
        go(builtin::current());
    } else if several::others().is_some_and(builtin::are_own) {
        several::set_others(builtin::current());
    }
}
