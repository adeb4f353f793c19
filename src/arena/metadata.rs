//! Memory for what the library itself keeps: records of arenas and of threads, leaves of the
//! address map, slots of depots, the classes of shards.
//!
//! ```text
//!    a chunk
//!    +-------+--------+---------+---------+-- ... --+---------------+-------+
//!    | fence | header | piece 0 | piece 1 |         | never touched | fence |
//!    +-------+--------+---------+---------+-- ... --+---------------+-------+
//!                                                   next
//! ```
//!
//! Pieces are cut off one behind the other and never given back. The pages at both ends of a
//! chunk cannot be accessed: a program that writes beyond the end of a block, upwards or
//! downwards, faults there before it reaches what is kept here.
//!
//! # Invariants
//!
//! METADATA-1  `next` only grows, and what lies before it belongs to whom it was handed out to. What lies
//!     behind it is zero.
//! METADATA-2  A chunk in the list stays mapped as long as the process lives, and its `older` does not change.
//!
//! # Threads
//!
//! Any thread, with or without a lock: one compare-and-swap hands a piece out, another lists a chunk.
//! So a forked child needs no care: it loses at most the piece that another thread was taking.
//! (It is no part of the models in `tests/loom/`: what it orders is within this file.)

use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::arena::refusal::Refusal;
use crate::os::memory;
use crate::os::process::name_mapping;

/// Bytes of the first chunk, and of each that follows: most processes need only the first.
const FIRST: usize = 256 * 1024;
const FURTHER: usize = 512 * 1024;
/// Every piece begins at a multiple of so many bytes: two cache lines, which processors fetch in
/// pairs.
pub(crate) const ALIGNMENT: usize = 128;

/// The header of a chunk.
#[repr(C, align(128))]
struct Chunk {
    /// The chunk that was mapped before this one (METADATA-2).
    older: *const Chunk,
    /// Bytes of the chunk, header included.
    bytes: usize,
    /// Offset of the first byte that nobody has (METADATA-1).
    next: AtomicUsize,
}

const _: () = assert!(size_of::<Chunk>() == ALIGNMENT);

/// The chunk that was mapped last. Release publishes its header; pairs with the Acquire of each load.
static NEWEST: AtomicPtr<Chunk> = AtomicPtr::new(ptr::null_mut());
static REFUSAL: Refusal = Refusal::new();

/// `bytes` that are all zero and belong to the caller for good. `None` if the kernel has no memory
/// for them.
#[cold]
pub(crate) fn take(bytes: usize) -> Option<NonNull<u8>> {
    // In the models, what happens must not depend on how much an earlier order of events has taken.
    #[cfg(all(test, loom))]
    if bytes > 0 {
        return memory::map(bytes.next_multiple_of(memory::page_size()));
    }
    let bytes = bytes.checked_next_multiple_of(ALIGNMENT)?;
    loop {
        let newest = NEWEST.load(Acquire);
        if let Some(piece) = NonNull::new(newest).and_then(|chunk| Chunk::cut(chunk, bytes)) {
            return Some(piece);
        }
        let chunk = REFUSAL.ask(|| Chunk::map(bytes, newest))?;
        let listed = NEWEST.compare_exchange(newest, chunk.as_ptr(), Release, Relaxed);
        if listed.is_err() {
            // Another thread was faster: its chunk will do.
            // SAFETY: mapped just now, and nobody has seen it.
            let size = unsafe { chunk.as_ref() }.bytes;
            // SAFETY: the same.
            unsafe { memory::unmap_fenced(chunk.cast(), size) };
        }
    }
}

impl Chunk {
    /// Maps a chunk in which `bytes` have room.
    fn map(bytes: usize, older: *const Chunk) -> Option<NonNull<Chunk>> {
        let least = bytes.checked_add(size_of::<Chunk>())?;
        let size = if older.is_null() { FIRST } else { FURTHER };
        let size = size
            .max(least)
            .checked_next_multiple_of(memory::page_size())?;
        let start = memory::map_fenced(size)?;
        name_mapping(start, size, c"obmalloc: metadata");
        let chunk = start.cast::<Chunk>();
        let header = Chunk {
            older,
            bytes: size,
            next: AtomicUsize::new(size_of::<Chunk>()),
        };
        // SAFETY: mapped just now for it, aligned to an OS page.
        unsafe { chunk.write(header) };
        Some(chunk)
    }

    /// Cuts `bytes` off a listed chunk, if they have room there.
    fn cut(chunk: NonNull<Chunk>, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: METADATA-2.
        let header = unsafe { chunk.as_ref() };
        let after = |next: usize| {
            let end = next.checked_add(bytes)?;
            (end <= header.bytes).then_some(end)
        };
        let at = header.next.fetch_update(Relaxed, Relaxed, after).ok()?;
        // SAFETY: within the mapping of the chunk (METADATA-1).
        Some(unsafe { chunk.cast::<u8>().add(at) })
    }
}

fn chunks() -> impl Iterator<Item = &'static Chunk> {
    // SAFETY: METADATA-2.
    let newest = unsafe { NEWEST.load(Acquire).as_ref() };
    core::iter::successors(newest, |chunk| {
        // SAFETY: METADATA-2.
        unsafe { chunk.older.as_ref() }
    })
}

/// Where each chunk begins, and its bytes.
#[cold]
pub(crate) fn mappings() -> impl Iterator<Item = (usize, usize)> {
    chunks().map(|chunk| (ptr::from_ref(chunk).addr(), chunk.bytes))
}

/// Bytes of all chunks: of address space, that is.
pub(crate) fn mapped() -> usize {
    chunks().map(|chunk| chunk.bytes).sum()
}

/// Bytes of all pieces.
pub(crate) fn used() -> usize {
    let cut_off = |chunk: &Chunk| chunk.next.load(Relaxed);
    chunks().map(cut_off).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_apart() {
        let sizes = [1, 127, 128, 129, 4096, 65536, 300_000, 2 << 20];
        let mut ends = std::vec::Vec::new();
        for size in sizes.into_iter().cycle().take(40) {
            let piece = take(size).unwrap();
            let start = piece.addr().get();
            assert!(start.is_multiple_of(ALIGNMENT));
            // SAFETY: the caller's own.
            let bytes = unsafe { core::slice::from_raw_parts_mut(piece.as_ptr(), size) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(0xa5);
            assert!(mappings().any(|(at, bytes)| at < start && start + size <= at + bytes));
            let apart = |&(from, to): &(usize, usize)| start + size <= from || to <= start;
            assert!(ends.iter().all(apart));
            ends.push((start, start + size));
        }
        assert!(mapped() >= 40 * 4096);
    }

    #[test]
    fn there_is_no_piece_of_an_impossible_size() {
        assert!(take(usize::MAX).is_none());
    }

    #[test]
    fn threads_get_pieces_of_their_own() {
        const THREADS: usize = 4;
        const PIECES: usize = 4000;
        let begin = std::sync::Barrier::new(THREADS);
        let takes = |thread: usize| {
            begin.wait();
            let pieces: std::vec::Vec<_> = (0..PIECES)
                .map(|_| {
                    let piece = take(ALIGNMENT).unwrap().cast::<usize>();
                    // SAFETY: the caller's own, zero before.
                    unsafe {
                        assert_eq!(piece.replace(thread + 1), 0);
                    }
                    piece
                })
                .collect();
            for piece in pieces {
                // SAFETY: the same.
                assert_eq!(unsafe { piece.read() }, thread + 1);
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || takes(thread));
            }
        });
        let listed = mappings().map(|(at, _)| at).collect::<std::vec::Vec<_>>();
        let mut once = listed.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), listed.len());
        assert!(used() >= THREADS * PIECES * ALIGNMENT);
    }
}
