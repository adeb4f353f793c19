//! A magazine: a thread's free blocks of one class. What is here is all that the hit
//! path touches of them: two words, and the slot that is on top.
//!
//! How it is filled and emptied, and what holds of its fields (MAGAZINE-1 to MAGAZINE-4), is in
//! `tcache/magazines.rs`.

use crate::arena::page_map::ENTRY_STEP;
use crate::sync::{
    AtomicPtr, Cell,
    Ordering::{Relaxed, Release},
};

/// A place for a free block.
pub(crate) type Slot = *mut u8;

/// What the hit path needs of a class.
#[repr(C)]
pub(crate) struct Magazine {
    /// The slot on top. Read by others, too, for statistics.
    pub top: AtomicPtr<Slot>,
    /// The last slot there is.
    pub limit: Cell<*mut Slot>,
}

impl Magazine {
    /// Takes the block on top; null if there is none.
    #[inline(always)]
    pub(crate) fn pop(&self) -> *mut u8 {
        let top = self.top.load(Relaxed);
        // SAFETY: MAGAZINE-1.
        let block = unsafe { top.read() };
        if !block.is_null() {
            // SAFETY: MAGAZINE-2: only the bottom is null, so there is a slot below.
            self.top.store(unsafe { top.sub(1) }, Relaxed);
        }
        block
    }

    /// Puts a block on top. False if there is no slot for it.
    #[inline(always)]
    pub(crate) fn push(&self, block: Slot) -> bool {
        let above = self.top.load(Relaxed).wrapping_add(1);
        if above > self.limit.get() {
            return false;
        }
        // SAFETY: MAGAZINE-1, MAGAZINE-3: above a slot and not above the last is a slot. What
        // is written there is an address, not followed.
        unsafe { *above = block };
        // Release: the compiler must keep the order, for MAGAZINE-4.
        self.top.store(above, Release);
        true
    }
}

const _: () = assert!(size_of::<Magazine>() == ENTRY_STEP);
