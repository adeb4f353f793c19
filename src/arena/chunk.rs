//! Where arenas come from: the kernel, or the allocator that a program has
//! set by `PyObject_SetArenaAllocator`.
//!
//! ```text
//!    the kernel            ARENA_SIZE bytes, aligned: 32 pools
//!    a program's           the size that CPython would ask for, at any address:
//!                          as many whole pools as lie in it
//! ```
//!
//! A program's functions are called with no lock of ours held: they may take
//! their time, and allocate.
//!
//! # Invariants
//!
//! CHUNK-1  Chunk belongs to whoever has the `Chunk`; it goes back once, whole.
//! CHUNK-2  No chunk from the kernel begins where the library's own data end, or it would be reached
//!     by writing from a block downwards. (Before the data lies what nobody can write; what else
//!     the library maps has its own fences.)
//!
//! # Threads
//!
//! The table changes as CPython's tables do: before threads run, or under the
//! GIL.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};

use crate::arena::refusal::Refusal;
use crate::base::callback::Callback;
use crate::base::layout::{ARENA_SIZE, POOL_SIZE, POOLS_PER_ARENA, REGION_BITS, REGIONS};
use crate::base::vtable::ArenaAllocator;
use crate::os::memory;
use crate::os::process::name_mapping;
use crate::policy::huge_pages;
use crate::pool::pages::Pages;
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// Memory for an arena, as its source gave it.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    start: NonNull<u8>,
    size: usize,
    source: Source,
    /// Whether huge pages were asked for, and the kernel has taken note.
    huge: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Kernel,
    Program,
}

/// The program's allocator, or the standard one.
struct Current(UnsafeCell<ArenaAllocator>);
// SAFETY: see the module's page.
unsafe impl Sync for Current {}
static CURRENT: Current = Current(UnsafeCell::new(STANDARD));

/// Bytes that the program's allocator is asked for; 0 while there is none.
/// Release publishes the table.
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// What there is before a program sets another: the kernel, for any size.
pub(crate) const STANDARD: ArenaAllocator = ArenaAllocator {
    ctx: ptr::null_mut(),
    alloc: standard_alloc,
    free: standard_free,
};

/// Whether new arenas come from the kernel.
pub(crate) fn is_the_kernel() -> bool {
    SIZE.load(Relaxed) == 0
}

/// What is in the table now.
pub(crate) fn get() -> ArenaAllocator {
    // SAFETY: see the module's page.
    unsafe { *CURRENT.0.get() }
}

/// Changes the table. A program's allocator is asked for arenas of `size`
/// bytes from now on.
pub(crate) fn set(table: &ArenaAllocator, size: usize) {
    let standard = table.ctx == STANDARD.ctx
        && table.alloc as *const () == standard_alloc as *const ()
        && table.free as *const () == standard_free as *const ();
    // SAFETY: see the module's page.
    unsafe { *CURRENT.0.get() = *table };
    SIZE.store(if standard { 0 } else { size }, Release);
}

/// Maps `size` bytes, rounded up to OS pages; NULL for none.
///
/// # Safety
/// None: any size will do.
pub(crate) unsafe extern "C" fn standard_alloc(_: *mut c_void, size: usize) -> *mut c_void {
    let rounded = size.checked_next_multiple_of(memory::page_size());
    let map = rounded.filter(|&size| size > 0).and_then(memory::map);
    map.map_or(ptr::null_mut(), |start| start.as_ptr().cast())
}

/// Unmaps them.
///
/// # Safety
/// `p` is NULL or came from `standard_alloc`, for this size.
pub(crate) unsafe extern "C" fn standard_free(_: *mut c_void, p: *mut c_void, size: usize) {
    let rounded = size.checked_next_multiple_of(memory::page_size());
    if let (Some(start), Some(size)) = (NonNull::new(p.cast()), rounded) {
        // SAFETY: the caller's promise.
        unsafe { memory::unmap(start, size) };
    }
}

/// Who is told of each new arena.
static TELL: Callback<fn()> = Callback::unset();

/// Has `tell` called after each arena that is added, without any lock held.
pub(crate) fn then(tell: fn()) {
    TELL.set(tell);
}

/// Tells of a new arena.
pub(crate) fn tell() {
    if let Some(tell) = TELL.get() {
        tell();
    }
}

/// The kernel's refusals to map an arena.
static REFUSAL: Refusal = Refusal::new();

/// A mapping for an arena (CHUNK-2).
fn map_apart() -> Option<NonNull<u8>> {
    let start = memory::map_aligned(ARENA_SIZE)?;
    if start.addr().get() != memory::end_of_data() {
        return Some(start);
    }
    let other = memory::map_aligned(ARENA_SIZE);
    // SAFETY: mapped just now, and nobody has seen it.
    unsafe { memory::unmap(start, ARENA_SIZE) };
    other
}

impl Chunk {
    /// Chunk for one more arena. To be called without any lock.
    pub(crate) fn take() -> Option<Chunk> {
        let size = SIZE.load(Acquire);
        if size == 0 {
            let start = REFUSAL.ask(map_apart)?;
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
        // SAFETY: the contract of such a table.
        let start = NonNull::new(unsafe { (table.alloc)(table.ctx, size) })?.cast();
        let chunk = Chunk {
            start,
            size,
            source: Source::Program,
            huge: false,
        };
        if chunk.pools() == 0 || !chunk.can_be_mapped() {
            chunk.give_back();
            return None;
        }
        Some(chunk)
    }

    /// Gives the chunk back to where it came from: a program's to whatever
    /// allocator the program has set by now. To be called without any lock.
    pub(crate) fn give_back(self) {
        if self.source == Source::Kernel {
            // SAFETY: CHUNK-1; mapped in `take`.
            unsafe { memory::unmap(self.start, self.size) };
            REFUSAL.forget();
        } else {
            let table = get();
            // SAFETY: CHUNK-1; the contract of such a table.
            unsafe { (table.free)(table.ctx, self.start.as_ptr().cast(), self.size) };
        }
    }

    /// A program's chunk, for tests: `size` bytes, `offset` behind the start of
    /// a mapping.
    #[cfg(test)]
    pub(crate) fn of_a_program(offset: usize, size: usize) -> Chunk {
        let map = memory::map_aligned((offset + size).next_power_of_two()).unwrap();
        // SAFETY: within the mapping.
        Chunk::of_a_program_at(unsafe { map.add(offset) }, size)
    }

    /// A program's chunk, for tests: `size` bytes at `start`.
    #[cfg(test)]
    pub(crate) fn of_a_program_at(start: NonNull<u8>, size: usize) -> Chunk {
        Chunk {
            start,
            size,
            source: Source::Program,
            huge: false,
        }
    }

    /// Where its first pool begins.
    pub(crate) fn first_pool(&self) -> usize {
        // Exposed: blocks are made of addresses.
        let start = self.start.as_ptr().expose_provenance();
        start.saturating_add(POOL_SIZE - 1) & !(POOL_SIZE - 1)
    }

    /// How many whole pools lie in it.
    pub(crate) fn pools(&self) -> usize {
        let end = self.start.addr().get().saturating_add(self.size);
        let room = end.saturating_sub(self.first_pool());
        (room / POOL_SIZE).min(POOLS_PER_ARENA)
    }

    /// Bytes in it.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether huge pages were asked for.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }

    /// What of each pool is in memory from the first byte on.
    pub(crate) fn resident(&self) -> Pages {
        if self.huge { Pages::ALL } else { Pages::NONE }
    }

    /// Asks for small pages from now on.
    pub(crate) fn use_small_pages(&self) {
        memory::advise_small_pages(self.start, self.size);
    }

    /// Whether it is a program's.
    pub(crate) fn is_programs(&self) -> bool {
        self.source == Source::Program
    }

    /// Whether the address map has a place for all of it.
    fn can_be_mapped(&self) -> bool {
        self.start.addr().get().saturating_add(self.size) >> REGION_BITS < REGIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(start: usize, size: usize) -> Chunk {
        Chunk {
            start: NonNull::new(ptr::without_provenance_mut(start)).unwrap(),
            size,
            source: Source::Program,
            huge: false,
        }
    }

    #[test]
    fn whole_pools_are_counted_wherever_the_land_begins() {
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
        assert!(!chunk(1 << 47, 1 << 20).can_be_mapped());
        assert!(chunk(1 << 46, 1 << 20).can_be_mapped());
    }
}
