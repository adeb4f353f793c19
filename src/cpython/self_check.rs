//! The self-check before an installation: whether the host's functions reach the table that
//! `PyMem_SetAllocator` sets, with the arguments in the order of that table. Versions that were never
//! tried are served because of it, so there is no newest version that is served.
//!
//! ```text
//!    PyMem_Malloc(24) -> host's table of MEM -> the probe's malloc: returns BLOCK
//!    PyMem_Realloc(BLOCK, 40), PyMem_Free(BLOCK), ... the same for OBJ
//! ```
//!
//! A probe's table is in the host only during the check. Calls of other threads, and requests of other
//! blocks, go to the table that was there before. Nothing is allocated.
//!
//! A host with debug hooks in its tables is not checked: hooks require a thread state, which a host
//! does not have at the start, and `hooks.rs` has checked the form of the tables under them.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;

use super::lookup;
use super::symbols::Host;
use crate::base::vtable::{Allocator, LIBC};
use crate::domains::adapter::Functions;
use crate::domains::ffi::PyMemAllocatorEx;
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// The number of bytes that the probe's block has, and is requested with.
const SIZE: usize = 24;
/// The number of bytes that `realloc` requests.
const NEW_SIZE: usize = 40;

/// The block that a probe returns. Nothing reads it, but a host may write to it.
#[repr(align(16))]
struct Block(UnsafeCell<[u8; 64]>);
// SAFETY: no reference to the bytes is ever made.
unsafe impl Sync for Block {}
static BLOCK: Block = Block(UnsafeCell::new([0; 64]));

fn block() -> *mut c_void {
    BLOCK.0.get().cast()
}

/// A domain's probe: the functions that were reached, and the table that was there before.
pub(super) struct Probe {
    below: UnsafeCell<Allocator>,
    /// The thread that checks; 0 for none.
    thread: AtomicUsize,
    /// A bit for each function that was called as expected.
    reached: AtomicU32,
}

// SAFETY: `below` is written while no table of the host refers to the probe, or with the same value
// (the host's own table, which it has from its start).
unsafe impl Sync for Probe {}

const MALLOC: u32 = 1;
const CALLOC: u32 = 2;
const REALLOC: u32 = 4;
const FREE: u32 = 8;

impl Probe {
    pub(super) const fn new() -> Probe {
        Probe {
            below: UnsafeCell::new(LIBC),
            thread: AtomicUsize::new(0),
            reached: AtomicU32::new(0),
        }
    }

    /// The probe's table for a domain that has the table `before`.
    pub(super) fn table(&'static self, before: &PyMemAllocatorEx) -> PyMemAllocatorEx {
        // SAFETY: no table of the host refers to the probe yet, or the value is the same.
        unsafe { *self.below.get() = before.filled() };
        self.reached.store(0, Relaxed);
        let table = Allocator {
            ctx: ptr::from_ref(self).cast_mut().cast(),
            malloc,
            calloc,
            realloc,
            free,
        };
        table.into()
    }

    /// Whether the host's functions of the domain reach the probe's table, which is in the host.
    pub(super) fn is_reached_by(&self, host: Functions) -> bool {
        self.thread.store(this_thread(), Relaxed);
        // SAFETY: the host's functions, called as its own code calls them. Each result is the probe's
        // block, or else it is not used.
        let whole = unsafe {
            (host.malloc)(SIZE) == block()
                && (host.calloc)(1, SIZE) == block()
                && (host.realloc)(block(), NEW_SIZE) == block()
                && {
                    (host.free)(block());
                    self.reached.load(Relaxed) == MALLOC | CALLOC | REALLOC | FREE
                }
        };
        self.thread.store(0, Relaxed);
        whole
    }

    /// Notes that a function was called as expected, and returns the block; `None` for any other
    /// call.
    fn note(&self, function: u32, is_expected: bool) -> Option<*mut c_void> {
        if !is_expected || self.thread.load(Relaxed) != this_thread() {
            return None;
        }
        self.reached.fetch_or(function, Relaxed);
        Some(block())
    }

    fn below(&self) -> Allocator {
        // SAFETY: written before the host's table refers to the probe.
        unsafe { *self.below.get() }
    }
}

fn this_thread() -> usize {
    // SAFETY: the function has no conditions.
    unsafe { libc::pthread_self() as usize }
}

/// The functions of the host's domains MEM and OBJ.
pub(super) fn functions(host: &Host) -> [Functions; 2] {
    [lookup::mem_of(host), lookup::object_of(host)]
}

/// # Safety
/// `ctx` is the context of a probe's table.
unsafe fn probe<'a>(ctx: *mut c_void) -> &'a Probe {
    // SAFETY: `table` has set the context to a static.
    unsafe { &*ctx.cast() }
}

unsafe extern "C" fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the host passes the table's context.
    let probe = unsafe { probe(ctx) };
    let below = probe.below();
    probe
        .note(MALLOC, n == SIZE)
        // SAFETY: VTABLE-1 of the table below; the arguments are the caller's.
        .unwrap_or_else(|| unsafe { (below.malloc)(below.ctx, n) })
}

unsafe extern "C" fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    // SAFETY: the host passes the table's context.
    let probe = unsafe { probe(ctx) };
    let below = probe.below();
    probe
        .note(CALLOC, (nelem, elsize) == (1, SIZE))
        // SAFETY: VTABLE-1 of the table below; the arguments are the caller's.
        .unwrap_or_else(|| unsafe { (below.calloc)(below.ctx, nelem, elsize) })
}

unsafe extern "C" fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the host passes the table's context.
    let probe = unsafe { probe(ctx) };
    let below = probe.below();
    probe
        .note(REALLOC, p == block() && n == NEW_SIZE)
        // SAFETY: VTABLE-1 of the table below; the arguments are the caller's.
        .unwrap_or_else(|| unsafe { (below.realloc)(below.ctx, p, n) })
}

unsafe extern "C" fn free(ctx: *mut c_void, p: *mut c_void) {
    // SAFETY: the host passes the table's context.
    let probe = unsafe { probe(ctx) };
    if probe.note(FREE, p == block()).is_none() {
        let below = probe.below();
        // SAFETY: VTABLE-1 of the table below; the argument is the caller's.
        unsafe { (below.free)(below.ctx, p) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use std::thread_local;

    thread_local! {
        static TABLE: Cell<PyMemAllocatorEx> = const { Cell::new(PyMemAllocatorEx::NONE) };
        /// Makes the host confuse two functions, as one whose tables have another form.
        static IS_ODD: Cell<bool> = const { Cell::new(false) };
    }

    unsafe extern "C" fn host_malloc(n: usize) -> *mut c_void {
        let table = TABLE.get().filled();
        // SAFETY: a whole table.
        unsafe { (table.malloc)(table.ctx, n) }
    }

    unsafe extern "C" fn host_calloc(nelem: usize, elsize: usize) -> *mut c_void {
        let table = TABLE.get().filled();
        match IS_ODD.get() {
            // SAFETY: a whole table.
            true => unsafe { (table.malloc)(table.ctx, nelem * elsize) },
            // SAFETY: a whole table.
            false => unsafe { (table.calloc)(table.ctx, nelem, elsize) },
        }
    }

    unsafe extern "C" fn host_realloc(p: *mut c_void, n: usize) -> *mut c_void {
        let table = TABLE.get().filled();
        // SAFETY: a whole table.
        unsafe { (table.realloc)(table.ctx, p, n) }
    }

    unsafe extern "C" fn host_free(p: *mut c_void) {
        let table = TABLE.get().filled();
        // SAFETY: a whole table.
        unsafe { (table.free)(table.ctx, p) }
    }

    const HOST: Functions = Functions {
        malloc: host_malloc,
        calloc: host_calloc,
        realloc: host_realloc,
        free: host_free,
    };

    #[test]
    fn a_host_whose_functions_reach_its_table_passes() {
        static PROBE: Probe = Probe::new();
        let before = PyMemAllocatorEx::from(LIBC);
        TABLE.set(PROBE.table(&before));
        assert!(PROBE.is_reached_by(HOST));
        // Every other call goes to the table from before.
        // SAFETY: a block of the C library.
        unsafe {
            let p = host_malloc(SIZE);
            assert!(!p.is_null() && p != block());
            let p = host_realloc(p, NEW_SIZE);
            host_free(p);
        }
    }

    #[test]
    fn a_host_whose_functions_do_not_fails() {
        static PROBE: Probe = Probe::new();
        let before = PyMemAllocatorEx::from(LIBC);
        let table = PROBE.table(&before);
        TABLE.set(before);
        assert!(!PROBE.is_reached_by(HOST), "the table was not set");
        TABLE.set(table);
        IS_ODD.set(true);
        assert!(!PROBE.is_reached_by(HOST), "calloc does not arrive");
    }
}
