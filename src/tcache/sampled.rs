//! Sampled blocks: what replaces a block that is due for a sample, and what happens to it later
//! (`profile/`).
//!
//! ```text
//!    a pool's block, due  -->  a block of the C library, of the same size, is the program's;
//!                              the pool's is its twin
//!    freed                -->  the C library's is freed; the twin returns to the magazine
//! ```
//!
//! Without memory or room for the record the program gets the pool's block.
//!
//! # Threads
//!
//! Any thread, with no lock held.

use core::ffi::c_void;
use core::ptr;

use crate::base::size_class::SizeClass;
use crate::base::vtable::{Backend, Libc};
use crate::heap::HEAP;
use crate::os::errno;
use crate::profile;
use crate::profile::live::{Domain, Freed, Sample, Twin};
use crate::tcache::magazine;
use crate::tcache::registry;

/// The block that the program gets in place of `block`, of `class`, which is due for a sample.
#[cold]
#[inline(never)]
pub(crate) fn replace(domain: Domain, class: SizeClass, block: *mut u8) -> *mut u8 {
    if !profile::is_on() {
        return block;
    }
    // SAFETY: malloc takes any size.
    let sampled = errno::kept(|| unsafe { Libc::malloc(ptr::null_mut(), class.size()) });
    if sampled.is_null() {
        return block;
    }
    let is_kept = record(&Sample {
        address: sampled.expose_provenance(),
        size: class.size(),
        twin: Some(Twin { block, class }),
        domain,
    });
    if !is_kept {
        // SAFETY: allocated above.
        unsafe { Libc::free(ptr::null_mut(), sampled) };
        return block;
    }
    sampled.cast()
}

/// Counts a block of `size` bytes that another allocator has served. It may become a sample.
#[inline]
pub(crate) fn count_foreign(domain: Domain, block: *mut c_void, size: usize) {
    if !magazine::current().countdown.passes(size) {
        count_slowly(domain, block, size);
    }
}

#[cold]
#[inline(never)]
fn count_slowly(domain: Domain, block: *mut c_void, size: usize) {
    let Some(magazines) = registry::current() else {
        return;
    };
    let countdown = &magazines.countdown;
    if !block.is_null() && !countdown.is_suspended() && countdown.is_due(size) {
        record(&Sample {
            address: block.expose_provenance(),
            size,
            twin: None,
            domain,
        });
    }
}

/// Runs `request`, which another allocator serves, without counting what that allocator requests from
/// another domain.
#[cold]
#[inline(never)]
pub(crate) fn within<T>(request: impl FnOnce() -> T) -> T {
    match registry::current() {
        Some(magazines) => magazines.countdown.suspend(request),
        None => request(),
    }
}

fn record(sample: &Sample) -> bool {
    let recorded = errno::kept(|| profile::record(sample));
    if let Some(Twin { block, class }) = recorded.stale {
        HEAP.give(class, &[block]);
    }
    recorded.is_kept
}

/// Removes the record of the block at `p`, which is freed, if it is a sample. Returns the class of its
/// twin if it has one: then the block was the C library's, and is freed.
#[cold]
#[inline(never)]
pub(crate) fn free(p: *mut c_void) -> Option<SizeClass> {
    let Twin { block, class } = profile::remove(p.addr())?.twin?;
    // SAFETY: PROFILE-1: a live block with a twin was allocated by `replace`.
    errno::kept(|| unsafe { Libc::free(ptr::null_mut(), p) });
    match registry::current() {
        Some(magazines) if profile::is_on() => magazines.push_marked(&HEAP, class, block),
        _ => HEAP.give(class, &[block]),
    }
    Some(class)
}

/// The class of the block at `p`, if it is a sample with a twin.
pub(crate) fn class_of(p: *mut c_void) -> Option<SizeClass> {
    profile::twin_of(p.addr()).map(|twin| twin.class)
}

/// Runs `realloc`, by which another allocator changes the size of the block at `p` to `size` bytes: the
/// new block is counted, or the record of the old one restored if it was not moved.
#[inline]
pub(crate) fn around_realloc(
    domain: Domain,
    p: *mut c_void,
    size: usize,
    realloc: impl FnOnce() -> *mut c_void,
) -> *mut c_void {
    let may_be_sampled = profile::may_own(p.addr());
    if !profile::is_on() && !may_be_sampled {
        return realloc();
    }
    // Removed before the call: another thread may get the address after it.
    let before = if may_be_sampled {
        profile::remove(p.addr())
    } else {
        None
    };
    let block = realloc();
    moved(domain, before, block, size);
    block
}

fn moved(domain: Domain, before: Option<Freed>, block: *mut c_void, size: usize) {
    if block.is_null() {
        before.into_iter().for_each(profile::restore);
    } else if profile::is_on() {
        count_foreign(domain, block, size);
    }
}
