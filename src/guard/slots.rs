//! The slots: which are free, and what is known of the block in each.
//!
//! ```text
//!    never used --take--> TAKEN --> LIVE --begin_free--> DYING --> FREED
//!                           ^                                       | last in
//!                           +------------ take, first in -----------+
//! ```
//!
//! A freed block stays shut as long as possible: the slot that has been free the
//! longest is used again, and only if enough others are free.
//!
//! # Invariants
//!
//! GUARD-2  The record of a slot that is TAKEN or DYING is written by the thread that has
//!     made it so, of a LIVE or FREED one by nobody.
//! GUARD-3  A slot that is pinned is not taken: a report reads its record.

use core::cell::{Cell, UnsafeCell};
use core::ptr;

use super::region::Region;
use super::trace::Trace;
use crate::os::file;
use crate::os::lock::Lock;
use crate::os::memory;
use crate::sync::{AtomicBool, Ordering::Relaxed};

/// Slots, at the most. Each live one takes two mappings of the process's, and some
/// kilobytes.
const SLOTS_MAX: usize = 16 * 1024;
/// Slots that stay free before one is used again, if there are so many.
const QUARANTINE: usize = 1024;

/// Where a slot is in its life. Zero is a slot that was never used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum State {
    /// Nothing was ever there.
    Unused,
    /// A thread is about to give a block out.
    Taken,
    /// A block.
    Live,
    /// A thread is about to shut it.
    Dying,
    /// A block that was freed.
    Freed,
}

/// What is known of a slot's block.
#[repr(C)]
pub(super) struct Slot {
    state: Cell<State>,
    pinned: AtomicBool,
    /// The next one that is free, plus one.
    next: Cell<u32>,
    block: Cell<usize>,
    size: Cell<usize>,
    allocated: UnsafeCell<Trace>,
    freed: UnsafeCell<Trace>,
}

impl Slot {
    /// Where it is in its life; under the lock.
    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    /// The block's address and the bytes that were asked for.
    pub(super) fn block(&self) -> (usize, usize) {
        (self.block.get(), self.size.get())
    }

    /// Writes down where a block of `n` bytes is, and who gets it.
    ///
    /// # Safety
    /// The caller has taken the slot (GUARD-2).
    pub(super) unsafe fn record_alloc(&self, block: usize, n: usize) {
        self.block.set(block);
        self.size.set(n);
        // SAFETY: GUARD-2.
        unsafe { &mut *self.allocated.get() }.take();
    }

    /// Writes down who frees the block.
    ///
    /// # Safety
    /// The slot is dying by the caller (GUARD-2).
    pub(super) unsafe fn record_free(&self) {
        // SAFETY: GUARD-2.
        unsafe { &mut *self.freed.get() }.take();
    }

    /// Who got the block.
    ///
    /// # Safety
    /// The slot is pinned, or the caller's (GUARD-2, GUARD-3).
    pub(super) unsafe fn allocated(&self) -> &Trace {
        // SAFETY: nobody writes.
        unsafe { &*self.allocated.get() }
    }

    /// Who freed it.
    ///
    /// # Safety
    /// As for [`Slot::allocated`], and it was seen freed when it was pinned.
    pub(super) unsafe fn freed(&self) -> &Trace {
        // SAFETY: nobody writes.
        unsafe { &*self.freed.get() }
    }

    /// Keeps the record as it is, until it is unpinned; under the lock.
    pub(super) fn pin(&self) {
        self.pinned.store(true, Relaxed);
    }

    /// The slot may be used again.
    pub(super) fn unpin(&self) {
        self.pinned.store(false, Relaxed);
    }
}

/// All slots. Reached under the lock.
pub(super) struct Slots {
    region: Cell<Region>,
    records: Cell<*const Slot>,
    /// The kernel has refused, and is not asked again.
    refused: Cell<bool>,
    /// So many were used at some time: those below.
    used: Cell<u32>,
    /// Free ones that were used: their number, the first and the last, plus one.
    resting: Cell<u32>,
    first: Cell<u32>,
    last: Cell<u32>,
}

/// The slots of the process.
pub(super) static SLOTS: Lock<Slots> = Lock::new(Slots {
    region: Cell::new(Region::NONE),
    records: Cell::new(ptr::null()),
    refused: Cell::new(false),
    used: Cell::new(0),
    resting: Cell::new(0),
    first: Cell::new(0),
    last: Cell::new(0),
});

impl Slots {
    /// The region of all slots; a copy is as good, once there are any.
    pub(super) fn region(&self) -> Region {
        self.region.get()
    }

    /// Whether there are any, or can be.
    pub(super) fn exist_or_can(&self) -> bool {
        !self.records.get().is_null() || !self.refused.get()
    }

    /// Makes them, if they are not there. Whether they were made just now.
    pub(super) fn make(&self) -> bool {
        if !self.records.get().is_null() || self.refused.get() {
            return false;
        }
        let made = Region::reserve(slots_wanted());
        let records = made.and_then(|region| {
            memory::map_sparse(
                (region.slots * size_of::<Slot>()).next_multiple_of(memory::page_size()),
            )
        });
        if let (Some(region), Some(records)) = (made, records) {
            region.announce();
            self.region.set(region);
            self.records.set(records.as_ptr().cast());
        }
        self.refused.set(records.is_none());
        records.is_some()
    }

    /// Slot `i`.
    pub(super) fn slot(&self, i: usize) -> &'static Slot {
        debug_assert!(i < self.region.get().slots);
        // SAFETY: there are so many, mapped for ever, and zero is a slot.
        unsafe { &*self.records.get().add(i) }
    }

    /// Takes a free one, if enough are: its number.
    pub(super) fn take(&self) -> Option<usize> {
        let (count, used, resting) = (self.region.get().slots, self.used.get(), self.resting.get());
        let enough = QUARANTINE.min(count / 4);
        let i = if resting as usize > enough {
            self.take_resting()?
        } else if (used as usize) < count {
            self.used.set(used + 1);
            used as usize
        } else {
            return None;
        };
        self.slot(i).state.set(State::Taken);
        Some(i)
    }

    fn take_resting(&self) -> Option<usize> {
        let i = self.first.get() as usize - 1;
        let slot = self.slot(i);
        if slot.pinned.load(Relaxed) {
            return None;
        }
        self.first.set(slot.next.get());
        self.resting.set(self.resting.get() - 1);
        Some(i)
    }

    /// The slot's block is given out.
    pub(super) fn is_live(&self, i: usize) {
        self.slot(i).state.set(State::Live);
    }

    /// The caller frees the slot's block.
    pub(super) fn set_freeing(&self, i: usize) {
        self.slot(i).state.set(State::Dying);
    }

    /// Gives a slot back: the last one to be used again.
    pub(super) fn give(&self, i: usize, state: State) {
        let slot = self.slot(i);
        slot.state.set(state);
        slot.next.set(0);
        let number = i as u32 + 1;
        if self.resting.get() == 0 {
            self.first.set(number);
        } else {
            self.slot(self.last.get() as usize - 1).next.set(number);
        }
        self.last.set(number);
        self.resting.set(self.resting.get() + 1);
    }

    /// The slot whose block is nearest to the address, of those that ever had one.
    pub(super) fn nearest(&self, address: usize) -> Option<usize> {
        let region = self.region.get();
        if region.slots == 0 {
            return None;
        }
        let i = region.slot_of(address);
        let near = i.saturating_sub(1)..=(i + 1).min(region.slots - 1);
        let has_had = |&i: &usize| {
            i < self.used.get() as usize
                && !matches!(self.slot(i).state(), State::Unused | State::Taken)
        };
        near.filter(has_had).min_by_key(|&i| {
            let (block, n) = self.slot(i).block();
            let last = block + n.max(1) - 1;
            block.saturating_sub(address) + address.saturating_sub(last)
        })
    }
}

/// A quarter of the mappings that the kernel allows the process: three quarters of
/// the slots can be live, with two mappings each. All slots, where it allows as many
/// as it does by default.
fn slots_wanted() -> usize {
    let mut buffer = [0; 32];
    let allowed = file::read(c"/proc/sys/vm/max_map_count", &mut buffer)
        .and_then(|text| text.trim().parse::<usize>().ok())
        .unwrap_or(65530);
    (allowed.next_multiple_of(1024) / 4).min(SLOTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::region::Side;
    use super::*;
    use crate::tests::*;

    fn some_slots(count: usize) -> Slots {
        let records: Vec<Slot> = (0..count)
            // SAFETY: zero is a slot.
            .map(|_| unsafe { core::mem::zeroed() })
            .collect();
        Slots {
            region: Cell::new(Region::reserve(count).unwrap()),
            records: Cell::new(Box::leak(records.into_boxed_slice()).as_ptr()),
            refused: Cell::new(false),
            used: Cell::new(0),
            resting: Cell::new(0),
            first: Cell::new(0),
            last: Cell::new(0),
        }
    }

    #[test]
    fn the_longest_free_is_taken_and_a_quarter_stays_free() {
        let slots = some_slots(16);
        let taken: Vec<_> = (0..16).map(|_| slots.take().unwrap()).collect();
        assert_eq!(taken, (0..16).collect::<Vec<_>>());
        assert_eq!(slots.take(), None);
        for i in [3, 1, 4, 15] {
            slots.give(i, State::Freed);
            assert_eq!(slots.take(), None, "a quarter is resting");
        }
        slots.give(9, State::Freed);
        assert_eq!(slots.take(), Some(3));
        assert_eq!(slots.take(), None);
        slots.give(2, State::Freed);
        slots.slot(1).pin();
        assert_eq!(slots.take(), None);
        slots.slot(1).unpin();
        assert_eq!(slots.take(), Some(1));
    }

    #[test]
    fn the_nearest_block_is_found() {
        let slots = some_slots(4);
        assert_eq!(slots.nearest(slots.region().start(0)), None);
        for (side, n) in [(Side::Right, 40), (Side::Left, 7)] {
            let i = slots.take().unwrap();
            slots.slot(i).block.set(slots.region().place(i, n, side));
            slots.slot(i).size.set(n);
            slots.is_live(i);
        }
        let (first, second) = (slots.slot(0).block().0, slots.slot(1).block().0);
        assert_eq!(slots.nearest(first + 60), Some(0));
        assert_eq!(slots.nearest(first), Some(0));
        assert_eq!(slots.nearest(second), Some(1));
        assert_eq!(slots.nearest(second - 1), Some(1));
        assert_eq!(slots.nearest(slots.region().start(0)), Some(0));
        assert_eq!(slots.nearest(slots.region().start(2)), Some(1));
        assert_eq!(slots.nearest(slots.region().start(3) + 100), None);
    }
}
