//! What our exported names do, which depends on the process they are in.
//!
//! ```text
//!    host                    PyMem_Raw*      PyMem_*      PyObject_*
//!    none (a C program)      C library       ours         ours
//!    2.7, taken over         C library       the host's   ours
//!    2.7, left alone         C library       the host's   the host's
//!    3.4 and later           the host's      the host's   the host's
//! ```
//!
//! One truth: where a host has tables, our names lead to the host's functions,
//! which look into its tables, whatever hooks are there, and come back to us
//! by them. One thing is added on the way: a block of ours given to
//! `PyMem_RawFree` is ours all the same. That is how blocks of the first life
//! of an interpreter survive its second: from 3.12 on another `Py_Initialize`
//! resets the tables, and what pymalloc does not know it passes to
//! `PyMem_RawFree`.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use super::python2;
use super::symbols::Host;
use super::table;
use crate::address_map::MAP;
use crate::allocator::{Allocator, LIBC};
use crate::geometry::REQUEST_MAX;
use crate::object;

pub(crate) type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
pub(crate) type Calloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
pub(crate) type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
pub(crate) type Free = unsafe extern "C" fn(*mut c_void);
/// The argument is a name up to 3.7 and a number later.
pub(crate) type Setup = unsafe extern "C" fn(usize) -> c_int;

/// The four functions of a domain, without a context.
#[derive(Clone, Copy)]
pub struct Domain {
    pub(crate) malloc: Malloc,
    pub(crate) calloc: Calloc,
    pub(crate) realloc: Realloc,
    pub(crate) free: Free,
}

/// What the exported names do.
#[derive(Clone, Copy)]
pub struct Exports {
    pub(crate) raw: Domain,
    pub(crate) mem: Domain,
    pub(crate) object: Domain,
    pub(crate) setup_allocators: Setup,
}

/// Functions without a context, over a table below.
macro_rules! domain_over {
    ($below:expr) => {{
        unsafe extern "C" fn malloc(n: usize) -> *mut c_void {
            // SAFETY: T1 holds for this table.
            unsafe { object::malloc($below, n) }
        }
        unsafe extern "C" fn calloc(nelem: usize, elsize: usize) -> *mut c_void {
            // SAFETY: as above.
            unsafe { object::calloc($below, nelem, elsize) }
        }
        unsafe extern "C" fn realloc(p: *mut c_void, n: usize) -> *mut c_void {
            // SAFETY: as above; the pointer's contract is the caller's.
            unsafe { object::realloc($below, p, n) }
        }
        unsafe extern "C" fn free(p: *mut c_void) {
            // SAFETY: as above.
            unsafe { object::free($below, p) }
        }
        Domain {
            malloc,
            calloc,
            realloc,
            free,
        }
    }};
}

/// In a process without CPython.
pub static OWN: Exports = Exports {
    raw: Domain {
        malloc: raw_malloc,
        calloc: raw_calloc,
        realloc: raw_realloc,
        free: raw_free,
    },
    mem: domain_over!(&LIBC),
    object: domain_over!(&LIBC),
    setup_allocators: no_setup,
};

static OVER_PYTHON_2: Domain = domain_over!(&python2::BELOW);

unsafe extern "C" fn raw_malloc(n: usize) -> *mut c_void {
    if n > REQUEST_MAX {
        ptr::null_mut()
    } else {
        // SAFETY: T1.
        unsafe { (LIBC.malloc)(LIBC.ctx, n) }
    }
}

unsafe extern "C" fn raw_calloc(nelem: usize, elsize: usize) -> *mut c_void {
    match nelem.checked_mul(elsize) {
        // SAFETY: T1.
        Some(n) if n <= REQUEST_MAX => unsafe { (LIBC.calloc)(LIBC.ctx, nelem, elsize) },
        _ => ptr::null_mut(),
    }
}

unsafe extern "C" fn raw_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if n > REQUEST_MAX {
        ptr::null_mut()
    } else if is_ours(p) {
        // SAFETY: T1; the pointer's contract is the caller's.
        unsafe { object::realloc(&LIBC, p, n) }
    } else {
        // SAFETY: as above.
        unsafe { (LIBC.realloc)(LIBC.ctx, p, n) }
    }
}

unsafe extern "C" fn raw_free(p: *mut c_void) {
    // SAFETY: as above; what is not ours goes to the C library.
    unsafe { object::free(&LIBC, p) }
}

unsafe extern "C" fn no_setup(_: usize) -> c_int {
    -1
}

fn is_ours(p: *mut c_void) -> bool {
    MAP.find(p.addr()).class().is_some()
}

/// A place for `Exports` that are made once.
struct Once {
    exports: UnsafeCell<Exports>,
    /// Release: they are made. Pairs with the Acquire in `or_make`.
    made: AtomicBool,
}
// SAFETY: written at start or under the host's GIL, before anybody is led
// there, and never again.
unsafe impl Sync for Once {}

impl Once {
    const fn new() -> Once {
        Once {
            exports: UnsafeCell::new(OWN),
            made: AtomicBool::new(false),
        }
    }

    fn get(&self) -> &Exports {
        // SAFETY: not written any more once somebody is led there.
        unsafe { &*self.exports.get() }
    }

    fn or_make(&self, make: impl FnOnce() -> Exports) -> &Exports {
        if !self.made.load(Acquire) {
            // SAFETY: nobody is led there yet.
            unsafe { *self.exports.get() = make() };
            self.made.store(true, Release);
        }
        self.get()
    }
}

/// The host's own functions, as far as it has them.
static HOSTS: Once = Once::new();
/// What our names do where we stand aside, and where we serve.
static ASIDE: Once = Once::new();
static SERVED: Once = Once::new();

fn hosts() -> &'static Exports {
    HOSTS.get()
}

unsafe extern "C" fn host_raw_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if is_ours(p) {
        // SAFETY: T1; the pointer's contract is the caller's.
        unsafe { object::realloc(&HOST_RAW, p, n) }
    } else {
        // SAFETY: the host's own contract.
        unsafe { (hosts().raw.realloc)(p, n) }
    }
}

unsafe extern "C" fn host_raw_free(p: *mut c_void) {
    // SAFETY: as in `host_raw_realloc`; what is not ours goes to the host.
    unsafe { object::free(&HOST_RAW, p) }
}

/// The host's RAW functions as a table below us.
static HOST_RAW: Allocator = Allocator {
    ctx: ptr::null_mut(),
    malloc: below_malloc,
    calloc: below_calloc,
    realloc: below_realloc,
    free: below_free,
};

unsafe extern "C" fn below_malloc(_: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the host's own contract, as in the three below.
    unsafe { (hosts().raw.malloc)(n) }
}

unsafe extern "C" fn below_calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (hosts().raw.calloc)(nelem, elsize) }
}

unsafe extern "C" fn below_realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (hosts().raw.realloc)(p, n) }
}

unsafe extern "C" fn below_free(_: *mut c_void, p: *mut c_void) {
    // SAFETY: as above.
    unsafe { (hosts().raw.free)(p) }
}

/// CPython 3.6 sets its tables anew from its `main`, whatever is in them.
unsafe extern "C" fn setup_then_install(name: usize) -> c_int {
    // SAFETY: the host's own function, with its own argument.
    let result = unsafe { (hosts().setup_allocators)(name) };
    let name = ptr::with_exposed_provenance::<c_char>(name);
    // SAFETY: in 3.6 the argument is NULL or a C string.
    let default = name.is_null() || unsafe { *name } == 0;
    let host = Host::at_start().filter(|_| default && result == 0);
    if let Some(host) = host {
        // It was possible before, or nothing led here.
        let _ = table::install(&host);
    }
    result
}

macro_rules! domain_of {
    ($host:expr, $malloc:literal, $calloc:literal, $realloc:literal, $free:literal, or $own:expr) => {{
        let own: Domain = $own;
        Domain {
            malloc: function!($host, $malloc as Malloc).unwrap_or(own.malloc),
            calloc: function!($host, $calloc as Calloc).unwrap_or(own.calloc),
            realloc: function!($host, $realloc as Realloc).unwrap_or(own.realloc),
            free: function!($host, $free as Free).unwrap_or(own.free),
        }
    }};
}

macro_rules! function {
    ($host:expr, $name:literal as $type:ty) => {
        // SAFETY: the signature that this name has in every CPython.
        symbol($host, $name).map(|f| unsafe { mem::transmute::<*mut c_void, $type>(f) })
    };
}

fn symbol(host: &Host, name: &CStr) -> Option<*mut c_void> {
    host.symbol(name).map(ptr::NonNull::as_ptr)
}

fn of_host(host: &Host) -> Exports {
    Exports {
        raw: domain_of!(
            host,
            c"PyMem_RawMalloc",
            c"PyMem_RawCalloc",
            c"PyMem_RawRealloc",
            c"PyMem_RawFree",
            or OWN.raw
        ),
        mem: domain_of!(
            host,
            c"PyMem_Malloc",
            c"PyMem_Calloc",
            c"PyMem_Realloc",
            c"PyMem_Free",
            or OWN.mem
        ),
        object: domain_of!(
            host,
            c"PyObject_Malloc",
            c"PyObject_Calloc",
            c"PyObject_Realloc",
            c"PyObject_Free",
            or OWN.object
        ),
        setup_allocators: function!(host, c"_PyMem_SetupAllocators" as Setup).unwrap_or(no_setup),
    }
}

/// What the exported names do in a process with this host; `served` says
/// whether we are in its tables, or before its symbols.
pub fn in_host(host: &Host, served: bool) -> &'static Exports {
    let theirs = HOSTS.or_make(|| of_host(host));
    let place = if served { &SERVED } else { &ASIDE };
    place.or_make(|| {
        let mut ours = *theirs;
        if host.version.has_tables() {
            ours.raw.realloc = host_raw_realloc;
            ours.raw.free = host_raw_free;
            if served && (host.version.major, host.version.minor) == (3, 6) {
                ours.setup_allocators = setup_then_install;
            }
        } else if served {
            ours.object = OVER_PYTHON_2;
        }
        ours
    })
}
