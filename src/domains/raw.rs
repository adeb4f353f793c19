//! The C library as a domain's allocator, and the domain RAW, which starts with it.
//!
//! A block of a pool that is given to this domain is freed to its pool. So a domain may be
//! switched between the C library and the object allocator while blocks are live.

use core::ffi::c_void;
use core::ptr;

use super::adapter::{Fallback, Forward, StaticTable};
use super::table::Table;
use crate::arena::page_map::MAP;
use crate::base::layout::ALIGNMENT;
use crate::base::vtable::{Allocator, Backend, LIBC, Libc};
use crate::object;
use crate::profile;
use crate::profile::live::Domain;
use crate::tcache::sampled;

/// The C library, which takes blocks of pools back, too.
pub(crate) struct Malloc;

/// `PYTHONMALLOC=malloc`: its table.
pub(crate) const MALLOC: Allocator = Allocator::of::<Malloc>(ptr::null_mut());

/// The domain RAW.
pub(crate) static RAW: Table = Table::new(MALLOC);

/// The domain RAW as a type.
pub(crate) struct Raw;

impl StaticTable for Raw {
    fn table() -> &'static Table {
        &RAW
    }
}

/// Whatever is in the domain RAW at each call. As in CPython, it serves what pools do not, with
/// whatever hooks are on RAW.
pub(crate) static RAW_FORWARD: Allocator = Allocator::of::<Forward<Raw>>(ptr::null_mut());

/// [`RAW_FORWARD`] is the fallback, whatever the context.
pub(crate) struct InRaw;

impl Fallback for InRaw {
    unsafe fn of<'a>(_: *mut c_void) -> &'a Allocator {
        &RAW_FORWARD
    }
}

impl Backend for Malloc {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: malloc takes any size.
        let block = unsafe { Libc::malloc(ctx, n) };
        if profile::is_on() {
            sampled::count_foreign(Domain::Raw, block, n);
        }
        block
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        // SAFETY: calloc takes any sizes.
        let block = unsafe { Libc::calloc(ctx, nelem, elsize) };
        if profile::is_on() {
            sampled::count_foreign(Domain::Raw, block, nelem.saturating_mul(elsize));
        }
        block
    }

    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        if MAP.find(p.addr()).class().is_some()
            || profile::may_own(p.addr()) && sampled::class_of(p).is_some()
        {
            // SAFETY: `p` is a block of a pool (MAP-1), or in place of one.
            return unsafe { object::realloc::<ALIGNMENT>(&LIBC, p, n) };
        }
        // SAFETY: `p` is NULL or the C library's.
        sampled::around_realloc(Domain::Raw, p, n, || unsafe { Libc::realloc(ctx, p, n) })
    }

    unsafe fn free(ctx: *mut c_void, p: *mut c_void) {
        if MAP.find(p.addr()).class().is_some() {
            // SAFETY: `p` is a block of a pool (MAP-1).
            unsafe { object::free(&LIBC, p) }
        } else if !(profile::may_own(p.addr()) && sampled::free(p).is_some()) {
            // SAFETY: `p` is NULL or the C library's.
            unsafe { Libc::free(ctx, p) }
        }
    }
}
