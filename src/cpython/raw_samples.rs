//! The domain RAW of a host while the heap profiler runs: its blocks are counted, and some become
//! samples. numpy allocates array data there from 2.5 on.
//!
//! The table passes every call on, so its blocks and those of the table from before are the same: the
//! host may swap the tables at any time, as it does until 3.13. A block that is freed while it has
//! swapped them keeps its record until the address is sampled again.
//!
//! The table stays when the profiler stops: later frees have to be seen.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;

use crate::base::layout::ALIGNMENT;
use crate::base::vtable::{Allocator, Backend, LIBC};
use crate::object;
use crate::profile;
use crate::profile::live::Domain;
use crate::tcache::sampled;

/// The table that was in the domain before.
struct Below(UnsafeCell<Allocator>);
// SAFETY: written before the table that reads it is installed, and later only with the same value.
unsafe impl Sync for Below {}

static BELOW: Below = Below(UnsafeCell::new(LIBC));

fn below() -> &'static Allocator {
    // SAFETY: written before the first call.
    unsafe { &*BELOW.0.get() }
}

/// The table, over `before`.
///
/// # Safety
/// `before` is the table of the domain, and keeps VTABLE-1. It is the same at each call.
pub(super) unsafe fn over(before: Allocator) -> Allocator {
    // SAFETY: no call reads it yet, or it is written with the same value, by the contract above.
    unsafe { *BELOW.0.get() = before };
    TABLE
}

const TABLE: Allocator = Allocator::of::<Sampled>(ptr::null_mut());

/// Whether a table's malloc is that of this file.
pub(super) fn is_malloc(malloc: *const ()) -> bool {
    malloc == TABLE.malloc as *const ()
}

/// The table that was in the domain before, with counts.
struct Sampled;

impl Backend for Sampled {
    unsafe fn malloc(_: *mut c_void, n: usize) -> *mut c_void {
        let below = below();
        // SAFETY: VTABLE-1.
        let block = unsafe { (below.malloc)(below.ctx, n) };
        if profile::is_on() {
            sampled::count_foreign(Domain::Raw, block, n);
        }
        block
    }

    unsafe fn calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        let below = below();
        // SAFETY: VTABLE-1.
        let block = unsafe { (below.calloc)(below.ctx, nelem, elsize) };
        if profile::is_on() {
            sampled::count_foreign(Domain::Raw, block, nelem.saturating_mul(elsize));
        }
        block
    }

    unsafe fn realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        let below = below();
        if profile::may_own(p.addr()) && sampled::class_of(p).is_some() {
            // SAFETY: VTABLE-1; a block of another domain, which the object allocator has given.
            return unsafe { object::realloc::<ALIGNMENT>(below, p, n) };
        }
        // SAFETY: VTABLE-1; `p` is NULL or a block of the table.
        let realloc = || unsafe { (below.realloc)(below.ctx, p, n) };
        sampled::around_realloc(Domain::Raw, p, n, realloc)
    }

    unsafe fn free(_: *mut c_void, p: *mut c_void) {
        let below = below();
        if profile::may_own(p.addr()) && sampled::free(p).is_some() {
            return;
        }
        // SAFETY: VTABLE-1; `p` is NULL or a block of the table.
        unsafe { (below.free)(below.ctx, p) };
    }
}
