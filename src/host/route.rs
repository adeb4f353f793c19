//! The route of our exported names: one pointer to what they do now.
//!
//! It starts at functions that decide and then go on, so that a call before
//! our constructor, or in a program whose constructor found no host, is right;
//! a call that is decided costs one load and one jump.

use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

use super::attach;
use super::exports::{Domain, Exports};
use super::reason::Reason;

/// What the exported names do. Release publishes what it points to.
static ROUTE: AtomicPtr<Exports> = AtomicPtr::new((&raw const UNDECIDED).cast_mut());

static UNDECIDED: Exports = Exports {
    raw: undecided!(raw),
    mem: undecided!(mem),
    object: undecided!(object),
    setup_allocators,
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
        Domain {
            malloc,
            calloc,
            realloc,
            free,
        }
    }};
}
use undecided;

unsafe extern "C" fn setup_allocators(name: usize) -> c_int {
    // SAFETY: the caller's own contract.
    unsafe { (decide().setup_allocators)(name) }
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
    if let Some(exports) = attach::at_start() {
        go(exports);
    }
}

/// On demand: see `obmalloc_install`.
pub fn install() -> Result<(), Reason> {
    attach::late().map(go)
}
