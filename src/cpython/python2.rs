//! CPython 2.7: it has no tables, so its symbols are interposed: the library's `PyObject_Malloc`,
//! `Realloc` and `Free` come before its own in the lookup order, *if* its calls are bound by name.
//!
//! A library may be linked so that its own calls are not (`-Bsymbolic`, LTO): then a block could be
//! allocated by one allocator and freed by the other. So its relocations are read first, and it is
//! served only if they prove that each use of the three is bound by name, and, if it is bound
//! already, to the library.
//!
//! `PyMem_*` are never interposed: in 2.7 half of their uses are macros for malloc and free.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_void};
use core::mem;
use core::ptr;

use format::status::Reason;

use super::symbols::{self, Host};
use crate::base::layout::REQUEST_MAX;
use crate::base::vtable::{Allocator, Backend};
use crate::os::arch::relocation::{ABSOLUTE, GLOB_DAT, JUMP_SLOT, RELATIVE};

/// The interposed names.
const NAMES: [&CStr; 3] = [c"PyObject_Malloc", c"PyObject_Realloc", c"PyObject_Free"];

/// The host's own functions.
struct Real {
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

struct Kept(UnsafeCell<Option<Real>>);
// SAFETY: written once, before the host's calls reach the library.
unsafe impl Sync for Kept {}
static REAL: Kept = Kept(UnsafeCell::new(None));

fn real() -> Option<&'static Real> {
    // SAFETY: written before any call of the host reaches the library, which reads it.
    unsafe { (*REAL.0.get()).as_ref() }
}

/// The host's own functions.
struct Python2;

/// The host's own functions as a fallback allocator.
pub(crate) static BELOW: Allocator = Allocator::of::<Python2>(ptr::null_mut());

impl Backend for Python2 {
    unsafe fn malloc(_: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: the host's malloc takes any size.
        real().map_or(ptr::null_mut(), |real| unsafe { (real.malloc)(n) })
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        let Some(n) = nelem.checked_mul(elsize).filter(|&n| n <= REQUEST_MAX) else {
            return ptr::null_mut();
        };
        // SAFETY: the host's malloc takes any size.
        let block = unsafe { Python2::malloc(ctx, n) };
        if !block.is_null() {
            // SAFETY: a new block of `n` bytes.
            unsafe { block.cast::<u8>().write_bytes(0, n) };
        }
        block
    }

    unsafe fn realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: `p` is NULL or a block of the host.
        real().map_or(ptr::null_mut(), |real| unsafe { (real.realloc)(p, n) })
    }

    unsafe fn free(_: *mut c_void, p: *mut c_void) {
        if let Some(real) = real() {
            // SAFETY: `p` is NULL or a block of the host.
            unsafe { (real.free)(p) };
        }
    }
}

/// Notes the host's own functions as the fallback, if its calls are proved to reach the library. The
/// loader has bound them already.
pub(crate) fn serve(host: &Host) -> Result<(), Reason> {
    if real().is_some() {
        return Ok(());
    }
    for name in NAMES {
        let bound = symbols::first_in_scope(name);
        if !bound.is_some_and(|bound| symbols::is_this_library(bound.as_ptr())) {
            return Err(Reason::NotInterposable);
        }
    }
    if !calls_go_by_name(host) {
        return Err(Reason::NotInterposable);
    }
    let symbol = |name| {
        host.symbol(name)
            .map(ptr::NonNull::as_ptr)
            .ok_or(Reason::NotInterposable)
    };
    let [malloc, realloc, free] = NAMES;
    let (malloc, realloc, free) = (symbol(malloc)?, symbol(realloc)?, symbol(free)?);
    // SAFETY: the functions have these signatures in 2.7.
    let real = unsafe {
        Real {
            malloc: mem::transmute::<*mut c_void, unsafe extern "C" fn(usize) -> *mut c_void>(
                malloc,
            ),
            realloc: mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
            >(realloc),
            free: mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(free),
        }
    };
    // SAFETY: no call of the host has happened yet; see `Kept`.
    unsafe { *REAL.0.get() = Some(real) };
    Ok(())
}

/// Whether the host's relocations prove that every use of the three is bound by name.
fn calls_go_by_name(host: &Host) -> bool {
    let object = host.object();
    let Some(dynamic) = object.dynamic().filter(|dynamic| !dynamic.is_unproved()) else {
        return false;
    };
    let own = NAMES.map(|name| host.symbol(name).map_or(0, |own| own.addr().get()));
    let mut uses = [0; NAMES.len()];
    for (offset, kind, symbol, addend) in dynamic.relocations() {
        if kind == RELATIVE {
            if own.contains(&object.slide().wrapping_add(addend)) {
                return false; // bound within the object
            }
            continue;
        }
        if symbol == 0 {
            continue;
        }
        let Some(which) = NAMES.iter().position(|&name| name == dynamic.name(symbol)) else {
            continue;
        };
        if !matches!(kind, ABSOLUTE | GLOB_DAT | JUMP_SLOT) {
            return false;
        }
        let place = ptr::with_exposed_provenance::<usize>(object.slide() + offset);
        // SAFETY: the loader has written this word, which stays readable.
        let bound = unsafe { place.read_unaligned() };
        // An unused jump slot leads into the object, to the stub that looks the name up.
        let is_stub = kind == JUMP_SLOT
            && bound != own[which]
            && host.defines(ptr::without_provenance(bound));
        if !is_stub && !symbols::is_this_library(ptr::without_provenance(bound)) {
            return false;
        }
        uses[which] += 1;
    }
    !uses.contains(&0)
}
