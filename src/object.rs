//! The object allocator: malloc, calloc, realloc and free for every size and every pointer. Small
//! and medium requests are served from pools; the fallback allocator serves all others. It is a
//! table that each call brings along: the one that was in the domain before us, or the C library's.
//!
//! ```text
//!    request in bytes    0 .. 512     513 .. 32768                    more
//!    served by           small        medium (policy/size_policy.rs)  fallback
//!
//!    page map finds      a class                  nothing
//!    freed to            that class's magazine    fallback
//!
//!    realloc of          n fits, and is more      else
//!                        than 3/4 of the block
//!    a pool's block      stays                    moves: to another class, or to the fallback
//!                                                 if it grows beyond the small classes
//!    any other           is the fallback's, whatever its size
//! ```
//!
//! A packed domain (`ALIGN` 8 instead of 16) rounds small requests up to 8 bytes; all else is
//! equal.
//!
//! # Invariants
//!
//! OBJECT-1  A pointer that the page map does not find is passed to the fallback unread, whatever
//!     its value.
//! OBJECT-2  A failed realloc leaves the block as it was; one that shrinks never fails.
//!
//! # Threads
//!
//! Any thread may call anything, with or without a GIL, with no lock of the library held, and free
//! blocks of another thread.
//!
//! # Uses
//!
//! `tcache` for the hit path, `heap` where a thread has no magazines, `background` for the first
//! use and for returning memory, `policy` for sizes and limits.

use core::ffi::{c_int, c_void};
use core::ptr;

use crate::arena::page_map::MAP;
use crate::background::{decay, init};
use crate::base::layout::{ALIGNMENT, REQUEST_MAX};
use crate::base::size_class::{SMALL_MAX, SizeClass};
use crate::base::vtable::Allocator;
use crate::heap::{self, HEAP};
use crate::os::errno;
use crate::policy::limits;
use crate::policy::size_policy;
use crate::pool::Shard;
use crate::pool::invalid_free::{self, InvalidFree};
use crate::profile;
use crate::profile::live::Domain;
use crate::sync::{AtomicPtr, Ordering::Relaxed};
use crate::tcache::counters::Event;
use crate::tcache::magazine::{self, Magazines, Refilled};
use crate::tcache::registry;
use crate::tcache::sampled;

/// Allocates `n` bytes. Null if there is no memory for them.
///
/// # Safety
/// `fallback` keeps VTABLE-1.
#[inline(always)]
pub(crate) unsafe fn malloc<const ALIGN: usize>(fallback: &Allocator, n: usize) -> *mut c_void {
    if n > SMALL_MAX {
        // SAFETY: `fallback` keeps VTABLE-1.
        return unsafe { malloc_beyond_small(fallback, n) };
    }
    let block = magazine::current().pop_small::<ALIGN>(n);
    if !block.is_null() {
        return block.cast();
    }
    // SAFETY: `fallback` keeps VTABLE-1.
    unsafe { miss::<ALIGN>(fallback, n) }
}

/// A medium or large request. (Cold for the compiler, so that the hit path of small ones falls
/// through to its end: a taken jump costs it two cycles.)
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn malloc_beyond_small(fallback: &Allocator, n: usize) -> *mut c_void {
    let Some(class) = size_policy::class_of(n) else {
        if n > REQUEST_MAX {
            return errno::no_memory();
        }
        // SAFETY: VTABLE-1: the functions of a table accept its own context.
        return alloc_from_fallback(fallback, n, || unsafe {
            (fallback.malloc)(fallback.ctx, n)
        });
    };
    // SAFETY: `fallback` keeps VTABLE-1.
    unsafe { medium(fallback, class, n) }
}

/// A request for `n` bytes that `class`, a medium one, serves.
///
/// # Safety
/// `fallback` keeps VTABLE-1.
#[inline]
unsafe fn medium(fallback: &Allocator, class: SizeClass, n: usize) -> *mut c_void {
    let block = magazine::current().pop(class);
    if !block.is_null() {
        return block.cast();
    }
    // SAFETY: `fallback` keeps VTABLE-1.
    unsafe { miss::<ALIGNMENT>(fallback, n) }
}

/// The thread's magazine of the class is empty, or the thread has none yet. `n` is a request that
/// pools serve.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn miss<const ALIGN: usize>(fallback: &Allocator, n: usize) -> *mut c_void {
    let Some(class) = SizeClass::aligned::<ALIGN>(n) else {
        return ptr::null_mut();
    };
    let mut taken = take(class, n);
    if taken.block.is_null() && limits::is_over() && decay::reclaim() {
        taken = take(class, n);
    }
    if heap::grew() {
        decay::purge_before_growth();
    }
    if taken.is_due {
        return sampled::replace(domain_of(fallback), class, taken.block).cast();
    }
    if !taken.block.is_null() {
        return taken.block.cast();
    }
    // No arena is available. As in obmalloc, the fallback may still have memory.
    // SAFETY: VTABLE-1: the functions of a table accept its own context.
    alloc_from_fallback(fallback, class.size(), || unsafe {
        (fallback.malloc)(fallback.ctx, class.size())
    })
}

/// The domain whose table has this fallback allocator.
#[cold]
fn domain_of(fallback: &Allocator) -> Domain {
    let is = |of: &AtomicPtr<Allocator>| ptr::eq(of.load(Relaxed), fallback);
    match () {
        () if is(&FALLBACK_MEM) => Domain::Mem,
        () if is(&FALLBACK_OBJ) => Domain::Obj,
        () => Domain::Either,
    }
}

/// The fallback allocators of MEM and OBJ, where each has its own. Only compared.
static FALLBACK_MEM: AtomicPtr<Allocator> = AtomicPtr::new(ptr::null_mut());
static FALLBACK_OBJ: AtomicPtr<Allocator> = AtomicPtr::new(ptr::null_mut());

/// Sets the fallback allocators by which the profiler tells MEM from OBJ.
pub(crate) fn set_fallbacks(mem: *mut Allocator, obj: *mut Allocator) {
    FALLBACK_MEM.store(mem, Relaxed);
    FALLBACK_OBJ.store(obj, Relaxed);
}

/// A block of `class` from the pools, for a request of `n` bytes.
#[unsafe(link_section = ".text.hot.rest")]
fn take(class: SizeClass, n: usize) -> Refilled {
    match current_magazines() {
        Some(magazines) => match magazines.pop(class) {
            // The thread's first miss: its record may be an orphan of a fork, with blocks in it.
            block if !block.is_null() => Refilled::plain(block),
            _ => {
                if registry::is_contended() {
                    registry::split_shards();
                }
                magazines.refill(&HEAP, class, n)
            }
        },
        None => Refilled::plain(HEAP.take_one(Shard::FIRST, class, n)),
    }
}

/// The calling thread's magazines, for a call that is not on the hit path.
#[inline]
fn current_magazines() -> Option<&'static Magazines> {
    if registry::is_new() {
        init::happened();
    }
    registry::current()
}

/// Allocates `nelem` times `elsize` bytes, all zero. Null if there is no memory for them, or the
/// product exceeds `PY_SSIZE_T_MAX`.
///
/// # Safety
/// `fallback` keeps VTABLE-1.
#[inline(always)]
pub(crate) unsafe fn calloc<const ALIGN: usize>(
    fallback: &Allocator,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    let Some(n @ ..=SMALL_MAX) = nelem.checked_mul(elsize) else {
        // SAFETY: `fallback` keeps VTABLE-1.
        return unsafe { calloc_beyond_small(fallback, nelem, elsize) };
    };
    let block = magazine::current().pop_small::<ALIGN>(n);
    if block.is_null() {
        // SAFETY: `fallback` keeps VTABLE-1.
        return unsafe { calloc_miss::<ALIGN>(fallback, n) };
    }
    // SAFETY: HEAP-1: the block has at least `n` bytes and is in no other place.
    unsafe { clear(block, n) };
    block.cast()
}

/// A medium or large request, or an overflow.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn calloc_beyond_small(fallback: &Allocator, nelem: usize, elsize: usize) -> *mut c_void {
    let Some(n @ ..=REQUEST_MAX) = nelem.checked_mul(elsize) else {
        return errno::no_memory();
    };
    let Some(class) = size_policy::class_of(n) else {
        // SAFETY: VTABLE-1: the functions of a table accept its own context.
        return alloc_from_fallback(fallback, n, || unsafe {
            (fallback.calloc)(fallback.ctx, nelem, elsize)
        });
    };
    // SAFETY: `fallback` keeps VTABLE-1.
    let block = unsafe { medium(fallback, class, n) };
    // SAFETY: the block is null, or new and has at least `n` bytes.
    unsafe { cleared(block, n) }
}

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn calloc_miss<const ALIGN: usize>(fallback: &Allocator, n: usize) -> *mut c_void {
    // SAFETY: `fallback` keeps VTABLE-1.
    let block = unsafe { miss::<ALIGN>(fallback, n) };
    // SAFETY: the block is null, or new and has at least `n` bytes.
    unsafe { cleared(block, n) }
}

/// The block with its first `n` bytes cleared, unless it is null.
///
/// # Safety
/// As for [`clear`], unless the block is null.
unsafe fn cleared(block: *mut c_void, n: usize) -> *mut c_void {
    if !block.is_null() {
        // SAFETY: a new block of at least `n` bytes, by this function's contract.
        unsafe { clear(block.cast(), n) };
    }
    block
}

/// Writes zeros to the first `n` bytes of the block at `p`, and perhaps to some more of it. Up to 16
/// bytes, as lists of one or two items have, take two stores and no call.
///
/// # Safety
/// `p` is a block for `n` bytes that nothing else uses.
#[inline(always)]
unsafe fn clear(p: *mut u8, n: usize) {
    const WORD: usize = size_of::<u64>();
    if n <= 2 * WORD {
        // SAFETY: every block has a word.
        unsafe { p.cast::<u64>().write(0) };
        // SAFETY: with more than a word requested, the last of these bytes is the block's.
        let last = unsafe { p.add(n.saturating_sub(WORD)) };
        // SAFETY: the last word of the requested bytes, or the first word of the block.
        unsafe { last.cast::<u64>().write_unaligned(0) };
    } else {
        // SAFETY: the block has `n` bytes.
        unsafe { p.write_bytes(0, n) };
    }
}

/// Frees the block at `p`; nothing if `p` is null. A foreign pointer goes to the fallback.
///
/// # Safety
/// `fallback` keeps VTABLE-1. A pointer into a pool is a live block that is not used any more.
#[inline(always)]
pub(crate) unsafe fn free(fallback: &Allocator, p: *mut c_void) {
    match MAP.find_near(p.addr()) {
        Some(entry) if magazine::current().push(entry, p.cast()) => {}
        // SAFETY: `fallback` keeps VTABLE-1; a pointer into a pool is a live block.
        _ => unsafe { not_pushed(fallback, p) },
    }
}

/// The magazine is full, the thread has none yet, or the pointer is foreign or far from the first
/// arena.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn not_pushed(fallback: &Allocator, p: *mut c_void) {
    let entry = MAP.find(p.addr());
    let Some(class) = entry.class() else {
        // SAFETY: `fallback` keeps VTABLE-1; the pointer is in no pool.
        return unsafe { free_to_fallback(fallback, p) };
    };
    let Some(magazines) = current_magazines() else {
        return HEAP.give(class, &[p.cast()]);
    };
    if magazines.push(entry, p.cast()) {
        return; // far, or the thread's first magazines
    }
    let mut flushed = magazines.flush(&HEAP, class);
    if !magazines.push(entry, p.cast()) {
        HEAP.give(class, &[p.cast()]); // a class without magazine
        flushed += 1;
    }
    if flushed > 0 {
        decay::tick(flushed * class.size());
    }
}

/// Changes the size of the block at `p` to `n` bytes, moving it if need be; the contents stay, up
/// to the smaller of the sizes. Null if there is no memory, and the block is as it was.
///
/// # Safety
/// As for [`free`], except that the block may be used further if null is returned.
#[inline]
pub(crate) unsafe fn realloc<const ALIGN: usize>(
    fallback: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    match MAP.find_near(p.addr()) {
        // SAFETY: `fallback` keeps VTABLE-1; MAP-1: the block has the entry's size.
        Some(entry) => unsafe { resize::<ALIGN>(fallback, p, n, entry.size()) },
        // SAFETY: `fallback` keeps VTABLE-1; a pointer into a pool is a live block.
        None => unsafe { realloc_far::<ALIGN>(fallback, p, n) },
    }
}

/// Realloc of a pointer that is null, foreign, or far from the first arena.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn realloc_far<const ALIGN: usize>(
    fallback: &Allocator,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    if p.is_null() {
        // The first item of a list.
        // SAFETY: `fallback` keeps VTABLE-1.
        return unsafe { malloc::<ALIGN>(fallback, n) };
    }
    // SAFETY: `fallback` keeps VTABLE-1; MAP-1: the block has the entry's size.
    unsafe { resize::<ALIGN>(fallback, p, n, MAP.find_far(p.addr()).size()) }
}

/// Realloc of a block of `size` bytes, 0 for a foreign one.
#[inline(always)]
unsafe fn resize<const ALIGN: usize>(
    fallback: &Allocator,
    p: *mut c_void,
    n: usize,
    size: usize,
) -> *mut c_void {
    if n <= size && 4 * n > 3 * size {
        return p;
    }
    // SAFETY: `fallback` keeps VTABLE-1; the block has `size` bytes, or is foreign.
    unsafe { change::<ALIGN>(fallback, p, n, size) }
}

/// Realloc of a block of `size` bytes, 0 for a foreign one, that does not simply stay.
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn change<const ALIGN: usize>(
    fallback: &Allocator,
    p: *mut c_void,
    n: usize,
    size: usize,
) -> *mut c_void {
    if size == 0 || n > SMALL_MAX {
        // SAFETY: `fallback` keeps VTABLE-1; the block has `size` bytes, or is foreign.
        return unsafe { change_beyond_small(fallback, p, n, size) };
    }
    if (n.max(1) + (ALIGN - 1)) & !(ALIGN - 1) == size {
        return p; // it is of the right class
    }
    // SAFETY: `fallback` keeps VTABLE-1; `p` is a live block of `size` bytes, freed once.
    unsafe {
        move_block(malloc::<ALIGN>(fallback, n), p, size, n, || {
            free(fallback, p);
        })
    }
}

/// Realloc of a foreign block, or to more than a small size.
#[inline(never)]
#[unsafe(link_section = ".text.hot.rest")]
unsafe fn change_beyond_small(
    fallback: &Allocator,
    p: *mut c_void,
    n: usize,
    size: usize,
) -> *mut c_void {
    if n > REQUEST_MAX {
        return errno::no_memory();
    }
    let mut size = size;
    if size == 0 {
        let Some(class) = sampled_class(p) else {
            // SAFETY: `fallback` keeps VTABLE-1; the pointer is in no pool.
            return unsafe { realloc_in_fallback(fallback, p, n) };
        };
        size = class.size();
        if n <= size && 4 * n > 3 * size || SizeClass::of(n) == Some(class) {
            return p;
        }
    }
    if size_policy::class_of(n).is_some_and(|class| class.size() == size) {
        return p;
    }
    let block = if n > size && n > SMALL_MAX {
        // A block that has grown beyond the small classes will grow again; the C library's realloc
        // often extends it in place, where each step between our classes would copy.
        // SAFETY: VTABLE-1: the functions of a table accept its own context.
        alloc_from_fallback(fallback, n, || unsafe {
            (fallback.malloc)(fallback.ctx, n)
        })
    } else {
        // Medium, so packed in no domain; or the block is a sample.
        // SAFETY: `fallback` keeps VTABLE-1.
        unsafe { malloc::<ALIGNMENT>(fallback, n) }
    };
    // SAFETY: `fallback` keeps VTABLE-1; `p` is a live block of `size` bytes, freed once.
    unsafe { move_block(block, p, size, n, || free(fallback, p)) }
}

/// The class of the block at `p`, which is in no pool, if it is a sample in place of a pool's block.
#[inline]
fn sampled_class(p: *mut c_void) -> Option<SizeClass> {
    if profile::may_own(p.addr()) {
        sampled::class_of(p)
    } else {
        None
    }
}

/// Copies the contents of the block at `p`, of `size` bytes, into `block`, which was allocated for
/// `n` bytes unless it is null; then calls `free` for `p`.
///
/// # Safety
/// Two blocks of these sizes; the program uses neither any more or yet.
#[inline(always)]
pub(crate) unsafe fn move_block(
    block: *mut c_void,
    p: *mut c_void,
    size: usize,
    n: usize,
    free: impl FnOnce(),
) -> *mut c_void {
    if block.is_null() {
        return if n <= size { p } else { ptr::null_mut() }; // OBJECT-2
    }
    // SAFETY: both blocks have at least that many bytes; the new one is used by nothing else yet.
    unsafe { block.copy_from_nonoverlapping(p, n.min(size)) };
    free();
    block
}

/// Whether the hard limit allows `n` bytes more, if need be after free memory was returned.
#[inline]
fn is_allowed(n: usize) -> bool {
    limits::allow(n) || is_allowed_after_reclaim(n)
}

#[cold]
#[inline(never)]
fn is_allowed_after_reclaim(n: usize) -> bool {
    decay::reclaim() && limits::allow(n)
}

/// Passes a request for `n` bytes more to the fallback, if the hard limit allows it. If there is no
/// memory for it, the empty arenas that are kept for the next peak are unmapped, and the request is
/// repeated once.
#[inline]
fn request_from_fallback(n: usize, request: impl Fn() -> *mut c_void) -> *mut c_void {
    if !is_allowed(n) {
        limits::refused();
        return errno::no_memory();
    }
    count(Event::Request);
    let before = errno::get();
    let block = request();
    if block.is_null() {
        return retry(request, before);
    }
    block
}

/// The fallback had no memory. A table that a program has set need not set errno. After a second
/// try that succeeds errno is `before`, as if there had been no first one.
#[cold]
#[inline(never)]
fn retry(request: impl Fn() -> *mut c_void, before: c_int) -> *mut c_void {
    let block = if HEAP.release_empty() {
        request()
    } else {
        ptr::null_mut()
    };
    if block.is_null() {
        return errno::no_memory();
    }
    errno::set(before);
    block
}

/// Allocates a block of `n` bytes from the fallback by `alloc`.
#[inline]
pub(crate) fn alloc_from_fallback(
    fallback: &Allocator,
    n: usize,
    alloc: impl Fn() -> *mut c_void,
) -> *mut c_void {
    let block = if profile::is_on() {
        let block = sampled::within(|| request_from_fallback(n, alloc));
        sampled::count_foreign(domain_of(fallback), block, n);
        block
    } else {
        request_from_fallback(n, alloc)
    };
    if !block.is_null() {
        count(Event::Alloc);
    }
    block
}

#[inline]
fn count(event: Event) {
    match current_magazines() {
        Some(magazines) => magazines.counters.add(event),
        None => registry::count_without_magazines(event),
    }
}

/// Frees a foreign pointer; nothing if it is null.
///
/// # Safety
/// `fallback` keeps VTABLE-1.
#[inline(never)]
unsafe fn free_to_fallback(fallback: &Allocator, p: *mut c_void) {
    if p.is_null() {
        return;
    }
    if profile::may_own(p.addr())
        && let Some(class) = sampled::free(p)
    {
        // With every allocation sampled there may be no other tick.
        return decay::tick(class.size());
    }
    if is_stale(p) {
        return;
    }
    count(Event::Free);
    // SAFETY: VTABLE-1; OBJECT-1: the pointer is in no pool, so it is the fallback's.
    unsafe { (fallback.free)(fallback.ctx, p) };
}

/// Changes the size of a foreign block. Null if there is no memory, and the block is as it was. Its
/// old size is not known; buffers that grow do so by an eighth, so that is the estimate of what the
/// request adds.
///
/// # Safety
/// `fallback` keeps VTABLE-1.
#[inline(never)]
unsafe fn realloc_in_fallback(fallback: &Allocator, p: *mut c_void, n: usize) -> *mut c_void {
    if is_stale(p) {
        return ptr::null_mut();
    }
    // SAFETY: VTABLE-1; OBJECT-1: the pointer is in no pool, so it is the fallback's.
    let realloc = || unsafe { (fallback.realloc)(fallback.ctx, p, n) };
    if !profile::is_on() && !profile::may_own(p.addr()) {
        return request_from_fallback(n / 8, realloc);
    }
    sampled::around_realloc(domain_of(fallback), p, n, || {
        sampled::within(|| request_from_fallback(n / 8, realloc))
    })
}

/// Whether `p` is in an arena but in no pool, or where an arena was: its block was freed long ago,
/// and the fallback would take it for one of its own. Reports it in that case.
#[inline]
fn is_stale(p: *mut c_void) -> bool {
    let invalid_free = if MAP.arena(p.addr()).is_some() {
        InvalidFree::NoSuchPool
    } else if MAP.is_unmapped_arena(p.addr()) {
        InvalidFree::NoSuchArena
    } else {
        return false;
    };
    invalid_free::report(None, p.cast(), invalid_free);
    true
}
