//! The route of our exported names: one pointer to what they do now.
//!
//! It starts at functions that decide and then go on, so that a call before
//! our constructor, or in a program whose constructor found no host, is right;
//! a call that is decided costs one load and one jump.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

use super::attach;
use super::exports::{Answers, Exports, Functions, Tables};
use super::own;
use super::reason::Reason;
use crate::domains::outside::{PyMemAllocatorEx, PyObjectArenaAllocator};

/// What the exported names do. Release publishes what it points to.
static ROUTE: AtomicPtr<Exports> = AtomicPtr::new((&raw const UNDECIDED).cast_mut());

static UNDECIDED: Exports = Exports {
    raw: undecided!(raw),
    mem: undecided!(mem),
    object: undecided!(object),
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
};

/// A domain whose functions decide first.
macro_rules! undecided {
    ($domain:ident) => {{
        unsafe extern "C" fn malloc(n: usize) -> *mut c_void {
            // SAFETY: the caller's own contract, as in the three below.
            unsafe { (decide().$domain.malloc)(n) }
        }
        unsafe extern "C" fn calloc(nelem: usize, elsize: usize) -> *mut c_void {
            // SAFETY: as above.
            unsafe { (decide().$domain.calloc)(nelem, elsize) }
        }
        unsafe extern "C" fn realloc(p: *mut c_void, n: usize) -> *mut c_void {
            // SAFETY: as above.
            unsafe { (decide().$domain.realloc)(p, n) }
        }
        unsafe extern "C" fn free(p: *mut c_void) {
            // SAFETY: as above.
            unsafe { (decide().$domain.free)(p) }
        }
        Functions {
            malloc,
            calloc,
            realloc,
            free,
        }
    }};
}
use undecided;

unsafe extern "C" fn get(domain: c_int, table: *mut PyMemAllocatorEx) {
    // SAFETY: the caller's own contract, as in all that follow.
    unsafe { (decide().tables.get)(domain, table) };
}

unsafe extern "C" fn set(domain: c_int, table: *const PyMemAllocatorEx) {
    // SAFETY: as above.
    unsafe { (decide().tables.set)(domain, table) };
}

unsafe extern "C" fn setup_debug_hooks() {
    // SAFETY: as above.
    unsafe { (decide().tables.setup_debug_hooks)() };
}

unsafe extern "C" fn setup(name: usize) -> c_int {
    // SAFETY: as above.
    unsafe { (decide().tables.setup)(name) }
}

unsafe extern "C" fn get_arenas(table: *mut PyObjectArenaAllocator) {
    // SAFETY: as above.
    unsafe { (decide().tables.get_arenas)(table) };
}

unsafe extern "C" fn set_arenas(table: *const PyObjectArenaAllocator) {
    // SAFETY: as above.
    unsafe { (decide().tables.set_arenas)(table) };
}

unsafe extern "C" fn debug_malloc_stats(out: *mut libc::FILE) -> c_int {
    // SAFETY: as above.
    unsafe { (decide().answers.debug_malloc_stats)(out) }
}

unsafe extern "C" fn allocated_blocks() -> isize {
    // SAFETY: as above.
    unsafe { (decide().answers.allocated_blocks)() }
}

unsafe extern "C" fn allocator_name() -> *const c_char {
    // SAFETY: as above.
    unsafe { (decide().answers.allocator_name)() }
}

unsafe extern "C" fn pymalloc_enabled() -> c_int {
    // SAFETY: as above.
    unsafe { (decide().answers.pymalloc_enabled)() }
}

fn go(exports: &'static Exports) {
    ROUTE.store(ptr::from_ref(exports).cast_mut(), Release);
}

/// What the exported names do now.
#[inline(always)]
pub fn current() -> &'static Exports {
    // SAFETY: it only ever points to statics.
    unsafe { &*ROUTE.load(Acquire) }
}

#[cold]
fn decide() -> &'static Exports {
    let exports = attach::when_called();
    go(exports);
    exports
}

/// At start, from the constructor.
pub fn start() {
    attach::at_start();
}

/// On demand: see `obmalloc_install`.
pub fn install() -> Result<(), Reason> {
    attach::late().map(go)
}

/// To be called after anything that may have changed tables: where they are
/// our own, the exported names look into them from now on, or need not.
pub fn tables_changed() {
    if own::are_own(current()) {
        go(own::current());
    }
}
