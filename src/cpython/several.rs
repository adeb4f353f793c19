//! Several CPythons in one process, for instance in plugins: each is a libpython with its own GIL, and
//! calls by name from each of them reach the exported names. No call may reach another host's
//! functions.
//!
//! ```text
//!    return address of the call is in    the call goes to
//!    a libpython                         that libpython's own function
//!    another object, in a thread that    that host's
//!      holds one host's GIL
//!    an object that needs a libpython    that libpython's
//!    any other object                    those of the one in the global scope, else the first
//! ```
//!
//! A process that used the library before it had a CPython continues to use it: calls from the
//! program itself lead to the library's own tables, and so do calls that belong to no host.
//!
//! The host that is served has the exports of `forward.rs` in place of its own functions; a process
//! has at most one. Speed does not matter here: with one host none of this runs. (`dispatch.rs`
//! decides when it begins.)
//!
//! # Threads
//!
//! Any thread reads at any time, without a lock. Threads that load objects write; they have the
//! loader's lock, so no lock is held here while the loader is called.
//!
//! # Invariants
//!
//! SEVERAL-1  A `Known` is written before it is in the list, and stays in it. Only its exports, which
//!     are atomic, are written again.
//! SEVERAL-2  A host in the list stays loaded, even if the program closes it: its functions are called
//!     to find the GIL that a thread holds.

use core::ffi::{CStr, c_void};
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::builtin;
use super::elf::Loaded;
use super::exports::Exports;
use super::gil::{Gil, only_holder};
use super::lookup;
use super::symbols::{Host, first_in_scope};
use crate::os::{errno, memory};

/// One of the hosts.
struct Known {
    next: *const Known,
    /// Its first address, and the first one after its last segment.
    range: (usize, usize),
    /// The exports for its calls by name.
    exports: AtomicPtr<Exports>,
    /// Its own functions.
    own: Exports,
    gil: Gil,
    library: Option<&'static CStr>,
}

static FIRST: AtomicPtr<Known> = AtomicPtr::new(ptr::null_mut());
/// The exports for calls that belong to no host. Null unless there are several hosts.
static OTHERS: AtomicPtr<Exports> = AtomicPtr::new(ptr::null_mut());
/// The host in the global scope when an object was last loaded.
static GLOBAL: AtomicPtr<Known> = AtomicPtr::new(ptr::null_mut());
/// The address range of the program.
static PROGRAM: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

fn all() -> impl Iterator<Item = &'static Known> {
    let mut next = FIRST.load(Acquire).cast_const();
    core::iter::from_fn(move || {
        // SAFETY: SEVERAL-1; null ends the list.
        let known = unsafe { next.as_ref() }?;
        next = known.next;
        Some(known)
    })
}

fn at(address: usize) -> Option<&'static Known> {
    all().find(|known| (known.range.0..known.range.1).contains(&address))
}

/// Whether calls are dispatched by their callers.
pub(crate) fn is_on() -> bool {
    !OTHERS.load(Acquire).is_null()
}

/// The exports for calls that belong to no host, if there are several hosts.
pub(crate) fn others() -> Option<&'static Exports> {
    // SAFETY: null, or exports that live as long as the process.
    unsafe { OTHERS.load(Acquire).as_ref() }
}

/// Sets the exports for calls that belong to no host.
pub(crate) fn set_others(exports: &'static Exports) {
    if !is_on()
        && let Some(program) = Loaded::find(Loaded::is_program)
    {
        let (start, end) = program.range();
        PROGRAM[0].store(start, Relaxed);
        PROGRAM[1].store(end, Relaxed);
    }
    OTHERS.store(ptr::from_ref(exports).cast_mut(), Release);
}

/// Adds a host, which stays loaded, with these exports or its own functions. Returns whether it is
/// new.
pub(crate) fn enter(host: &Host, exports: Option<&'static Exports>) -> bool {
    let (start, end) = host.range();
    if let Some(known) = at(start) {
        if let Some(exports) = exports {
            known
                .exports
                .store(ptr::from_ref(exports).cast_mut(), Release);
        }
        return false;
    }
    let Some(place) = memory::map(memory::page_size().max(size_of::<Known>())) else {
        return false; // no memory: its calls count as those of another object
    };
    let place = place.cast::<Known>().as_ptr();
    // SAFETY: a new mapping, large enough, to which no other pointer exists.
    unsafe {
        place.write(Known {
            next: ptr::null(),
            range: (start, end),
            exports: AtomicPtr::new(ptr::null_mut()),
            own: lookup::all_of(host),
            gil: Gil::of(host),
            library: host
                .object()
                .dynamic()
                .and_then(|dynamic| dynamic.library()),
        });
        let exports = exports.unwrap_or(&(*place).own);
        (*place)
            .exports
            .store(ptr::from_ref(exports).cast_mut(), Relaxed);
    }
    let mut first = FIRST.load(Acquire);
    loop {
        if at(start).is_some() {
            // Another thread was faster; this page stays unused.
            return false;
        }
        // SAFETY: not in the list yet.
        unsafe { (*place).next = first };
        match FIRST.compare_exchange(first, place, AcqRel, Acquire) {
            Ok(_) => return true,
            Err(now) => first = now,
        }
    }
}

/// Finds the host in the global scope: names of an object that needs no libpython are bound to it.
pub(crate) fn look_for_global() {
    let known = match first_in_scope(c"Py_GetVersion") {
        Some(symbol) => at(symbol.addr().get()),
        None => {
            // SAFETY: clears the error of this look-up. The program's own error was cleared when
            // it called the loader, within which this runs.
            errno::kept(|| unsafe { libc::dlerror() });
            None
        }
    };
    GLOBAL.store(
        known.map_or(ptr::null_mut(), |known| ptr::from_ref(known).cast_mut()),
        Release,
    );
}

/// The exports for a call that returns to this address.
pub(crate) extern "C" fn of_caller(address: usize) -> &'static Exports {
    let exports = match at(address) {
        Some(known) => known.exports.load(Acquire),
        None => return errno::kept(|| of_stranger(address)),
    };
    // SAFETY: SEVERAL-1; exports that live as long as the process.
    unsafe { &*exports }
}

/// The exports for a call from outside every libpython: an extension module or the program.
#[cold]
fn of_stranger(address: usize) -> &'static Exports {
    let Some(others) = others() else {
        return builtin::current();
    };
    let [start, end] = [0, 1].map(|i| PROGRAM[i].load(Relaxed));
    if builtin::are_own(others) && (start..end).contains(&address) {
        return others;
    }
    let known = only_holder(all().map(|known| (known, known.gil)))
        .or_else(|| needed_at(address))
        .or_else(|| {
            // SAFETY: SEVERAL-1, or null.
            unsafe { GLOBAL.load(Acquire).as_ref() }
        });
    match known {
        // SAFETY: SEVERAL-1; exports that live as long as the process.
        Some(known) => unsafe { &*known.exports.load(Acquire) },
        None => others,
    }
}

/// The host that the object at this address names as needed.
fn needed_at(address: usize) -> Option<&'static Known> {
    let object = Loaded::at(ptr::without_provenance::<c_void>(address))?;
    all().find(|known| known.library.is_some_and(|library| object.needs(library)))
}
