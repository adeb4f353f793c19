//! The region: the addresses of guarded blocks, divided into slots.
//!
//! ```text
//!   base                                                           base + size
//!   |--page--|---------room--------|--page--|---------room--------|--page--| ...
//!   | closed |       slot 0        | closed |       slot 1        | closed |
//!
//!   a block on the right of its slot        a block on the left of its slot
//!   | closed |     closed   |page  | closed |  page|   closed     |
//!                           |...BBB|        |BBB...|
//!                              its end        its start is where the slot starts
//! ```
//!
//! Only the pages that a block touches are open, and only while it lives. The rest of these pages is
//! filled (see `slack`).
//!
//! # Invariants
//!
//! GUARD-1  A page of the region is open only if it is one of those that the block of
//!     its slot touches, and the slot is taken.

use crate::base::layout::ALIGNMENT;
use crate::os::memory;
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// Maximum size of a guarded block in bytes.
pub(super) const LARGEST: usize = 32 * 1024;

/// The bounds of the region, for [`contains`]. Release of `SIZE`, which is stored last, publishes
/// `BASE`; pairs with the Acquire of `SIZE`, which is loaded first. (With the size and without the
/// base, low addresses would seem to be in the region.)
static BASE: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Whether the address is in the region.
#[inline]
pub(super) fn contains(address: usize) -> bool {
    let size = SIZE.load(Acquire);
    address.wrapping_sub(BASE.load(Relaxed)) < size
}

/// The region's layout.
#[derive(Clone, Copy)]
pub(super) struct Region {
    base: usize,
    page: usize,
    room: usize,
    /// Number of slots.
    pub(super) slots: usize,
}

/// The side of a slot that a block is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// At the slot's start: the byte before it is in a closed page.
    Left,
    /// At the slot's end, less the bytes that alignment leaves.
    Right,
}

impl Region {
    /// No region.
    pub(super) const NONE: Region = Region {
        base: 0,
        page: 0,
        room: 0,
        slots: 0,
    };

    fn of(base: usize, page: usize, slots: usize) -> Region {
        Region {
            base,
            page,
            room: LARGEST.next_multiple_of(page),
            slots,
        }
    }

    /// Reserves addresses for `count` slots, or for fewer if the kernel refuses.
    pub(super) fn reserve(most: usize) -> Option<Region> {
        let page = memory::page_size();
        let mut slots = most;
        while slots > 0 {
            let wanted = Region::of(0, page, slots);
            if let Some(base) = memory::reserve(wanted.size()) {
                let base = base.as_ptr().expose_provenance();
                return Some(Region { base, ..wanted });
            }
            slots /= 2;
        }
        None
    }

    /// Publishes its bounds for [`contains`].
    pub(super) fn announce(&self) {
        BASE.store(self.base, Relaxed);
        SIZE.store(self.size(), Release);
    }

    fn size(&self) -> usize {
        self.page + self.slots * self.stride()
    }

    fn stride(&self) -> usize {
        self.room + self.page
    }

    /// The start of slot `i`.
    pub(super) fn start(&self, i: usize) -> usize {
        self.base + self.page + i * self.stride()
    }

    /// The slot of an address; for a page between slots, the slot before it; 0 for the page before
    /// all slots.
    pub(super) fn slot_of(&self, address: usize) -> usize {
        let offset = address.saturating_sub(self.base + self.page);
        (offset / self.stride()).min(self.slots.saturating_sub(1))
    }

    /// The address of a block of `n` bytes in slot `i`.
    pub(super) fn place(&self, i: usize, n: usize, side: Side) -> usize {
        match side {
            Side::Left => self.start(i),
            Side::Right => self.start(i) + self.room - n.max(1).next_multiple_of(ALIGNMENT),
        }
    }

    /// The pages that `n` bytes at `block` touch: their start and their size in bytes.
    pub(super) fn touched(&self, block: usize, n: usize) -> (usize, usize) {
        let start = block & !(self.page - 1);
        let end = (block + n.max(1)).next_multiple_of(self.page);
        (start, end - start)
    }

    /// Opens the pages of a block of `n` bytes. False if the kernel refuses.
    ///
    /// # Safety
    /// `block` is the result of [`Region::place`] for a slot that the caller has taken.
    pub(super) unsafe fn open(&self, block: usize, n: usize) -> bool {
        let (start, size) = self.touched(block, n);
        // SAFETY: pages of a slot that the caller has taken (GUARD-1).
        unsafe { memory::open(start, size) }
    }

    /// Closes the pages.
    ///
    /// # Safety
    /// `block` is the result of [`Region::place`] for a slot that the caller frees, and the block is
    /// used no more.
    pub(super) unsafe fn close(&self, block: usize, n: usize) -> bool {
        let (start, size) = self.touched(block, n);
        // SAFETY: pages of a slot that the caller frees (GUARD-1).
        unsafe { memory::close(start, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_in_their_slots_and_are_aligned() {
        for page in [4096, 16384, 65536] {
            let region = Region::of(1 << 30, page, 100);
            for n in [0, 1, 15, 16, 17, 4096, 4097, 8192, 20_000, LARGEST] {
                for (i, side) in [(0, Side::Left), (1, Side::Right), (99, Side::Right)] {
                    let block = region.place(i, n, side);
                    assert!(block.is_multiple_of(ALIGNMENT));
                    assert_eq!(region.slot_of(block), i);
                    let (start, size) = region.touched(block, n);
                    assert!(start >= region.start(i));
                    assert!(start + size <= region.start(i) + region.room);
                    let slack = start + size - (block + n.max(1));
                    match side {
                        Side::Left => assert_eq!(block, start),
                        Side::Right => assert!(slack < ALIGNMENT, "{page} {n}"),
                    }
                }
            }
            assert_eq!(region.slot_of(region.base), 0);
            assert_eq!(region.slot_of(region.base + region.size() - 1), 99);
        }
    }
}
