//! Memory for the library's own records: those of arenas and of threads, leaves of the page map,
//! slots of depots, the classes of shards.
//!
//! ```text
//!    a segment
//!    +-------+--------+---------+---------+-- ... --+---------------+-------+
//!    | fence | header | piece 0 | piece 1 |         | never touched | fence |
//!    +-------+--------+---------+---------+-- ... --+---------------+-------+
//!                                                   next
//! ```
//!
//! Pieces are cut off one behind the other and never returned. The pages at both ends of a segment
//! cannot be accessed: a program that writes beyond the end of a block, upwards or downwards,
//! faults there before it reaches the records.
//!
//! # Invariants
//!
//! METADATA-1  `next` only grows. The bytes before it belong to the callers that took them; those
//!     behind it are zero.
//! METADATA-2  A segment in the list stays mapped as long as the process lives, and its `older` does
//!     not change.
//!
//! # Threads
//!
//! Any thread, with or without a lock: one compare-and-swap takes a piece, another lists a segment.
//! So a forked child needs no care: it loses at most the piece that another thread was taking.
//! (It is not part of the models in `tests/loom/`: its ordering stays within this file.)

use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::arena::chunk::Refusal;
use crate::os::memory;
use crate::os::process::name_mapping;

/// Bytes of the first segment, and of each further one: most processes need only the first.
const FIRST: usize = 256 * 1024;
const FURTHER: usize = 512 * 1024;
/// Every piece begins at a multiple of this: two cache lines, which processors fetch in pairs.
pub(crate) const ALIGNMENT: usize = 128;

/// The header of a segment.
#[repr(C, align(128))]
struct Segment {
    /// The segment that was mapped before this one (METADATA-2).
    older: *const Segment,
    /// Bytes of the segment, header included.
    bytes: usize,
    /// Offset of the first byte that was not taken (METADATA-1).
    next: AtomicUsize,
}

const _: () = assert!(size_of::<Segment>() == ALIGNMENT);

/// The newest segment. Release publishes its header; pairs with the Acquire of each load.
static NEWEST: AtomicPtr<Segment> = AtomicPtr::new(ptr::null_mut());
static REFUSAL: Refusal = Refusal::new();

/// Takes `bytes` that are all zero and belong to the caller for the life of the process. `None` if
/// the kernel has no memory for them.
#[cold]
pub(crate) fn take(bytes: usize) -> Option<NonNull<u8>> {
    // In the models, an order of events must not depend on what an earlier order has taken.
    #[cfg(all(test, loom))]
    if bytes > 0 {
        return memory::map(bytes.next_multiple_of(memory::page_size()));
    }
    let bytes = bytes.checked_next_multiple_of(ALIGNMENT)?;
    loop {
        let newest = NEWEST.load(Acquire);
        if let Some(piece) = NonNull::new(newest).and_then(|segment| Segment::cut(segment, bytes)) {
            return Some(piece);
        }
        let segment = REFUSAL.attempt(|| Segment::map(bytes, newest))?;
        let listed = NEWEST.compare_exchange(newest, segment.as_ptr(), Release, Relaxed);
        if listed.is_err() {
            // Another thread was faster: its segment is used.
            // SAFETY: mapped above, and no other thread has seen it.
            let size = unsafe { segment.as_ref() }.bytes;
            // SAFETY: mapped above with this size, and no other thread has seen it.
            unsafe { memory::unmap_fenced(segment.cast(), size) };
        }
    }
}

impl Segment {
    /// Maps a segment with room for `bytes`.
    fn map(bytes: usize, older: *const Segment) -> Option<NonNull<Segment>> {
        let least = bytes.checked_add(size_of::<Segment>())?;
        let size = if older.is_null() { FIRST } else { FURTHER };
        let size = size
            .max(least)
            .checked_next_multiple_of(memory::page_size())?;
        let start = memory::map_fenced(size)?;
        name_mapping(start, size, c"obmalloc: metadata");
        let segment = start.cast::<Segment>();
        let header = Segment {
            older,
            bytes: size,
            next: AtomicUsize::new(size_of::<Segment>()),
        };
        // SAFETY: mapped above, large enough for the header and aligned to an OS page.
        unsafe { segment.write(header) };
        Some(segment)
    }

    /// Cuts `bytes` off a listed segment, if it has room for them.
    fn cut(segment: NonNull<Segment>, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: METADATA-2.
        let header = unsafe { segment.as_ref() };
        let after = |next: usize| {
            let end = next.checked_add(bytes)?;
            (end <= header.bytes).then_some(end)
        };
        let at = header.next.fetch_update(Relaxed, Relaxed, after).ok()?;
        // SAFETY: within the mapping of the segment (METADATA-1).
        Some(unsafe { segment.cast::<u8>().add(at) })
    }
}

fn segments() -> impl Iterator<Item = &'static Segment> {
    // SAFETY: METADATA-2.
    let newest = unsafe { NEWEST.load(Acquire).as_ref() };
    core::iter::successors(newest, |segment| {
        // SAFETY: METADATA-2.
        unsafe { segment.older.as_ref() }
    })
}

/// The address and bytes of each segment.
#[cold]
pub(crate) fn mappings() -> impl Iterator<Item = (usize, usize)> {
    segments().map(|segment| (ptr::from_ref(segment).addr(), segment.bytes))
}

/// Bytes of address space in all segments.
pub(crate) fn mapped() -> usize {
    segments().map(|segment| segment.bytes).sum()
}

/// Bytes of all pieces and headers.
pub(crate) fn used() -> usize {
    let taken = |segment: &Segment| segment.next.load(Relaxed);
    segments().map(taken).sum()
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
            // SAFETY: METADATA-1: the piece is this caller's alone.
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
                    // SAFETY: METADATA-1: the piece is this caller's alone.
                    unsafe {
                        assert_eq!(piece.replace(thread + 1), 0);
                    }
                    piece
                })
                .collect();
            for piece in pieces {
                // SAFETY: METADATA-1: the piece is this caller's alone.
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
