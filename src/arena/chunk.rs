//! Chunks: the address space of an arena, from the kernel or from the allocator that a program has
//! set by `PyObject_SetArenaAllocator`.
//!
//! ```text
//!    kernel            ARENA_SIZE bytes, aligned: 32 pools
//!    custom            the size that CPython would request, at any address:
//!                      as many whole pools as fit in it
//! ```
//!
//! A program's functions are called with no lock held: they may take time, and allocate.
//!
//! After the kernel has refused a mapping, [`Refusal`] skips requests for a while: a process whose
//! mappings all fail would otherwise make a system call that fails for every request, and then the
//! C library's own.
//!
//! # Invariants
//!
//! CHUNK-1  Memory belongs to the owner of its `Chunk`; it is released once, whole.
//! CHUNK-2  No chunk from the kernel begins where the library's own data end, or a write downwards
//!     from a block would reach them. (Before the data there are pages that cannot be written; the
//!     library's other mappings have fences of their own.)
//!
//! # Threads
//!
//! The table changes as CPython's tables do: before threads run, or under the GIL. A `Refusal` is an
//! atomic; threads that count at once may skip a few more or fewer requests, which does no harm.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};

use crate::base::callback::Callback;
use crate::base::layout::{ARENA_SIZE, POOL_SIZE, POOLS_PER_ARENA, REGION_BITS, REGIONS};
use crate::base::vtable::ArenaAllocator;
use crate::os::memory;
use crate::os::process::name_mapping;
use crate::policy::huge_pages;
use crate::pool::bitmap::Pages;
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// Memory for an arena, as its source returned it.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    start: NonNull<u8>,
    size: usize,
    source: Source,
    /// Whether huge pages were requested and the kernel has accepted that.
    huge: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Kernel,
    /// A program's arena allocator.
    Custom,
}

/// The program's arena allocator, or the standard one.
struct Current(UnsafeCell<ArenaAllocator>);
// SAFETY: written before threads run or under the GIL, as CPython's own table is.
unsafe impl Sync for Current {}
static CURRENT: Current = Current(UnsafeCell::new(STANDARD));

/// Bytes that a program's allocator is called for; 0 while there is none. Release publishes the
/// table.
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// The table before a program sets another: the kernel, for any size.
pub(crate) const STANDARD: ArenaAllocator = ArenaAllocator {
    ctx: ptr::null_mut(),
    alloc: standard_alloc,
    free: standard_free,
};

/// Whether new arenas are from the kernel.
pub(crate) fn is_standard() -> bool {
    SIZE.load(Relaxed) == 0
}

/// The current table.
pub(crate) fn get() -> ArenaAllocator {
    // SAFETY: no thread writes the table at the same time: that is under the GIL.
    unsafe { *CURRENT.0.get() }
}

/// Sets the table. A program's allocator is called for `size` bytes from now on.
pub(crate) fn set(table: &ArenaAllocator, size: usize) {
    let standard = table.ctx == STANDARD.ctx
        && table.alloc as *const () == standard_alloc as *const ()
        && table.free as *const () == standard_free as *const ();
    // SAFETY: no thread accesses the table at the same time: that is under the GIL.
    unsafe { *CURRENT.0.get() = *table };
    SIZE.store(if standard { 0 } else { size }, Release);
}

/// Maps `size` bytes, rounded up to OS pages; NULL on failure.
///
/// # Safety
/// None: any size is valid.
pub(crate) unsafe extern "C" fn standard_alloc(_: *mut c_void, size: usize) -> *mut c_void {
    let rounded = size.checked_next_multiple_of(memory::page_size());
    let map = rounded.filter(|&size| size > 0).and_then(memory::map);
    map.map_or(ptr::null_mut(), |start| start.as_ptr().cast())
}

/// Unmaps the bytes.
///
/// # Safety
/// `p` is NULL or came from `standard_alloc`, for this size.
pub(crate) unsafe extern "C" fn standard_free(_: *mut c_void, p: *mut c_void, size: usize) {
    let rounded = size.checked_next_multiple_of(memory::page_size());
    if let (Some(start), Some(size)) = (NonNull::new(p.cast()), rounded) {
        // SAFETY: `standard_alloc` has mapped `size` bytes there.
        unsafe { memory::unmap(start, size) };
    }
}

static ON_ARENA_ADDED: Callback<fn()> = Callback::unset();

/// Sets the callback for each arena that is added. It is called with no lock held.
pub(crate) fn on_arena_added(callback: fn()) {
    ON_ARENA_ADDED.set(callback);
}

/// Calls the callback for an arena that was added.
pub(crate) fn notify_arena_added() {
    if let Some(notify) = ON_ARENA_ADDED.get() {
        notify();
    }
}

/// Requests for a mapping that fail without a system call, after the kernel has refused one. (A
/// count, not a time: no clock is read, and a program with few requests loses little.)
pub(crate) const SKIPPED: usize = 100;

/// The kernel's refusals of mappings of one kind.
pub(crate) struct Refusal {
    /// Requests that are still to be skipped.
    remaining: AtomicUsize,
}

impl Refusal {
    pub(crate) const fn new() -> Refusal {
        Refusal {
            remaining: AtomicUsize::new(0),
        }
    }

    /// Calls `map`, unless this request is to be skipped. `None` if it is, or if `map` fails.
    pub(crate) fn attempt<T>(&self, map: impl FnOnce() -> Option<T>) -> Option<T> {
        let remaining = self.remaining.load(Relaxed);
        if remaining > 0 {
            self.remaining.store(remaining - 1, Relaxed);
            return None;
        }
        let mapped = map();
        if mapped.is_none() {
            self.remaining.store(SKIPPED, Relaxed);
        }
        mapped
    }

    /// Ends the skipping: memory was unmapped, so a mapping may succeed.
    pub(crate) fn reset(&self) {
        if self.remaining.load(Relaxed) != 0 {
            self.remaining.store(0, Relaxed);
        }
    }
}

static REFUSAL: Refusal = Refusal::new();

/// Maps an arena (CHUNK-2).
fn map_apart() -> Option<NonNull<u8>> {
    let start = memory::map_aligned(ARENA_SIZE)?;
    if start.addr().get() != memory::end_of_data() {
        return Some(start);
    }
    let other = memory::map_aligned(ARENA_SIZE);
    // SAFETY: mapped above, and nothing uses it.
    unsafe { memory::unmap(start, ARENA_SIZE) };
    other
}

impl Chunk {
    /// A chunk for one more arena. The caller holds no lock.
    pub(crate) fn take() -> Option<Chunk> {
        let size = SIZE.load(Acquire);
        if size == 0 {
            let start = REFUSAL.attempt(map_apart)?;
            let huge = huge_pages::are_wanted() && memory::advise_huge_pages(start, ARENA_SIZE);
            if !huge && huge_pages::are_to_be_refused() {
                memory::advise_small_pages(start, ARENA_SIZE);
            }
            name_mapping(start, ARENA_SIZE, c"obmalloc: arena");
            return Some(Chunk {
                start,
                size: ARENA_SIZE,
                source: Source::Kernel,
                huge,
            });
        }
        let table = get();
        // SAFETY: VTABLE-1: the functions of a table accept its own context and any size.
        let start = NonNull::new(unsafe { (table.alloc)(table.ctx, size) })?.cast();
        let chunk = Chunk {
            start,
            size,
            source: Source::Custom,
            huge: false,
        };
        if chunk.pools() == 0 || !chunk.is_mappable() {
            chunk.release();
            return None;
        }
        Some(chunk)
    }

    /// Returns the chunk to its source: a custom one to the allocator that the program has set by
    /// now. The caller holds no lock.
    pub(crate) fn release(self) {
        if self.source == Source::Kernel {
            // SAFETY: CHUNK-1; mapped in `take`.
            unsafe { memory::unmap(self.start, self.size) };
            REFUSAL.reset();
        } else {
            let table = get();
            // SAFETY: CHUNK-1; VTABLE-1: the program's allocator accepts what it has allocated.
            unsafe { (table.free)(table.ctx, self.start.as_ptr().cast(), self.size) };
        }
    }

    /// A custom chunk, for tests: `size` bytes, `offset` behind the start of a mapping.
    #[cfg(test)]
    pub(crate) fn custom(offset: usize, size: usize) -> Chunk {
        let map = memory::map_aligned((offset + size).next_power_of_two()).unwrap();
        // SAFETY: within the mapping.
        Chunk::custom_at(unsafe { map.add(offset) }, size)
    }

    /// A custom chunk, for tests: `size` bytes at `start`.
    #[cfg(test)]
    pub(crate) fn custom_at(start: NonNull<u8>, size: usize) -> Chunk {
        Chunk {
            start,
            size,
            source: Source::Custom,
            huge: false,
        }
    }

    /// The address of the first pool.
    pub(crate) fn first_pool(&self) -> usize {
        // Exposed: blocks are made of addresses.
        let start = self.start.as_ptr().expose_provenance();
        start.saturating_add(POOL_SIZE - 1) & !(POOL_SIZE - 1)
    }

    /// The number of whole pools.
    pub(crate) fn pools(&self) -> usize {
        let end = self.start.addr().get().saturating_add(self.size);
        let room = end.saturating_sub(self.first_pool());
        (room / POOL_SIZE).min(POOLS_PER_ARENA)
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether huge pages were requested.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }

    /// The pages of each pool that are resident from the first byte on.
    pub(crate) fn resident(&self) -> Pages {
        if self.huge { Pages::ALL } else { Pages::NONE }
    }

    /// Advises the kernel to use small pages from now on.
    pub(crate) fn use_small_pages(&self) {
        memory::advise_small_pages(self.start, self.size);
    }

    /// Whether it is from a program's arena allocator.
    pub(crate) fn is_custom(&self) -> bool {
        self.source == Source::Custom
    }

    /// Whether the page map covers all of it.
    fn is_mappable(&self) -> bool {
        self.start.addr().get().saturating_add(self.size) >> REGION_BITS < REGIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::ADDRESS_BITS;

    fn chunk(start: usize, size: usize) -> Chunk {
        Chunk {
            start: NonNull::new(ptr::without_provenance_mut(start)).unwrap(),
            size,
            source: Source::Custom,
            huge: false,
        }
    }

    #[test]
    fn whole_pools_are_counted_wherever_the_chunk_begins() {
        for (start, size, first, pools) in [
            (0x10_0000, 1 << 20, 0x10_0000, 16),
            (0x10_1000, 1 << 20, 0x11_0000, 15),
            (0x10_f000, 256 << 10, 0x11_0000, 3),
            (0x10_1000, POOL_SIZE, 0x11_0000, 0),
            (0x20_0000, 1 << 30, 0x20_0000, POOLS_PER_ARENA),
            (usize::MAX - 16, 1 << 20, usize::MAX & !(POOL_SIZE - 1), 0),
        ] {
            let chunk = chunk(start, size);
            assert_eq!(
                (chunk.first_pool(), chunk.pools()),
                (first, pools),
                "{start:#x}"
            );
        }
        assert!(!chunk(1 << ADDRESS_BITS, 1 << 20).is_mappable());
        assert!(chunk(1 << (ADDRESS_BITS - 1), 1 << 20).is_mappable());
    }

    #[test]
    fn the_kernel_is_called_again_after_some_requests() {
        let (refusal, calls) = (Refusal::new(), core::cell::Cell::new(0));
        let refuse = || {
            calls.set(calls.get() + 1);
            None::<()>
        };
        for _ in 0..10 * (SKIPPED + 1) {
            assert!(refusal.attempt(refuse).is_none());
        }
        assert_eq!(calls.get(), 10);
        assert!(refusal.attempt(refuse).is_none());
        refusal.reset();
        assert_eq!(refusal.attempt(|| Some(1)), Some(1));
        assert_eq!(refusal.attempt(|| Some(2)), Some(2));
    }
}
