//! The slots: which are free, and the record of the block in each.
//!
//! ```text
//!    never used --take--> TAKEN --> LIVE --begin_free--> DYING --> FREED
//!                           ^                                       | last in
//!                           +------------ take, first in -----------+
//! ```
//!
//! A freed block stays closed as long as possible: the slot that was freed first is used again first,
//! and only if enough others are free (quarantine).
//!
//! # Invariants
//!
//! GUARD-2  Only the thread that made a slot TAKEN or DYING writes its record; no thread writes that
//!     of a LIVE or FREED one.
//! GUARD-3  A pinned slot is not taken: a report reads its record.

use core::cell::{Cell, UnsafeCell};
use core::ptr;

use super::region::Region;
use super::trace::Trace;
use crate::os::file;
use crate::os::lock::Lock;
use crate::os::memory;
use crate::sync::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};

/// Maximum slots. Each live one takes two mappings of the process and some kilobytes.
const SLOTS_MAX: usize = 16 * 1024;
/// Free slots below which none is used again, if there are that many slots.
const QUARANTINE: usize = 1024;

/// The state of a slot. Zero is a slot that was never used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum State {
    /// Never used.
    Unused,
    /// A thread is about to allocate a block in it.
    Taken,
    /// It has a live block.
    Live,
    /// A thread is about to close its pages.
    Dying,
    /// Its block was freed.
    Freed,
}

/// A slot, with the record of its block.
#[repr(C)]
pub(super) struct Slot {
    state: Cell<State>,
    pinned: AtomicBool,
    /// The next free slot, plus one.
    next: Cell<u32>,
    block: Cell<usize>,
    size: Cell<usize>,
    allocated: UnsafeCell<Trace>,
    freed: UnsafeCell<Trace>,
}

impl Slot {
    /// Under the lock.
    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    /// The block's address and its requested size.
    pub(super) fn block(&self) -> (usize, usize) {
        (self.block.get(), self.size.get())
    }

    /// Records a block of `n` bytes and the stack that allocates it.
    ///
    /// # Safety
    /// The caller has taken the slot (GUARD-2).
    pub(super) unsafe fn record_alloc(&self, block: usize, n: usize) {
        self.block.set(block);
        self.size.set(n);
        // SAFETY: only the caller writes the record of this slot (GUARD-2).
        unsafe { &mut *self.allocated.get() }.take();
    }

    /// Records the stack that frees the block.
    ///
    /// # Safety
    /// The caller made the slot DYING (GUARD-2).
    pub(super) unsafe fn record_free(&self) {
        // SAFETY: only the caller writes the record of this slot (GUARD-2).
        unsafe { &mut *self.freed.get() }.take();
    }

    /// The stack that allocated the block.
    ///
    /// # Safety
    /// The slot is pinned, or the caller's (GUARD-2, GUARD-3).
    pub(super) unsafe fn allocated(&self) -> &Trace {
        // SAFETY: no thread writes the record of a pinned slot (GUARD-2, GUARD-3).
        unsafe { &*self.allocated.get() }
    }

    /// The stack that freed the block.
    ///
    /// # Safety
    /// The slot is pinned, or the caller's (GUARD-2, GUARD-3), and it was FREED when it was pinned.
    pub(super) unsafe fn freed(&self) -> &Trace {
        // SAFETY: no thread writes the record of a pinned slot (GUARD-2, GUARD-3).
        unsafe { &*self.freed.get() }
    }

    /// Keeps the record unchanged until the slot is unpinned. Under the lock.
    pub(super) fn pin(&self) {
        self.pinned.store(true, Relaxed);
    }

    /// Allows the slot to be used again.
    pub(super) fn unpin(&self) {
        // Release: the report has read the record; pairs with the Acquire in `take_resting`, after
        // which the record is written again.
        self.pinned.store(false, Release);
    }
}

/// All slots, under the lock.
pub(super) struct Slots {
    region: Cell<Region>,
    records: Cell<*const Slot>,
    /// Whether the kernel has refused: no second try.
    refused: Cell<bool>,
    /// The slots before this one were used at some time.
    used: Cell<u32>,
    /// The free slots that were used: their number, and the first and the last, plus one.
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
    /// A copy of the region, which does not change once there are slots.
    pub(super) fn region(&self) -> Region {
        self.region.get()
    }

    /// Whether there are slots, or can be.
    pub(super) fn exist_or_can(&self) -> bool {
        !self.records.get().is_null() || !self.refused.get()
    }

    /// Makes the slots, if there are none. Returns whether it did.
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
        // SAFETY: `i` is below the number of slots, which are mapped for good; zero is a valid slot.
        unsafe { &*self.records.get().add(i) }
    }

    /// Takes a free slot, if enough are free. Returns its number.
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
        if slot.pinned.load(Acquire) {
            return None;
        }
        self.first.set(slot.next.get());
        self.resting.set(self.resting.get() - 1);
        Some(i)
    }

    /// Makes the slot LIVE.
    pub(super) fn is_live(&self, i: usize) {
        self.slot(i).state.set(State::Live);
    }

    /// Makes the slot DYING: the caller frees its block.
    pub(super) fn set_freeing(&self, i: usize) {
        self.slot(i).state.set(State::Dying);
    }

    /// Returns a slot to the free ones, as the last to be used again.
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

    /// The slot whose block is nearest to the address, among those that ever had a block.
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

/// The number of slots: a quarter of the mappings that the kernel allows the process, because three
/// quarters of the slots can be live, with two mappings each. With the kernel's default that is the
/// maximum.
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
            // SAFETY: zero is a valid slot.
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
