//! Magazines: for each size class the free blocks that one thread has at hand.
//! This is the hit path: no lock, no atomic read-modify-write, no test for
//! "is the thread known?".
//!
//! ```text
//!             tops[c]                          limits[c]
//!                |                                 |
//!                v                                 v
//!    +------+---------+---------+-- ... --+---------+
//!    | null | block   |         |         |         |     a class's slots
//!    +------+---------+---------+-- ... --+---------+
//!    bottom   pop <-- top --> push                last
//! ```
//!
//! Blocks stand in an array beside, not in a list through the blocks: handing
//! out a block does not read it, taking it back does not write it, and what a
//! program writes into a freed block is never followed.
//!
//! The bottom slot holds null, so an empty magazine needs no count: pop reads
//! the top and finds null. A thread that has no magazines yet has
//! [`NOTHING`]: every pop finds null, every push finds itself at the limit,
//! and both go the slow way, where the thread gets magazines of its own. The
//! same serves class 0, "in no pool": it has no slots in any thread's
//! magazines, so a pointer that is not ours, and a request for nothing, go the
//! slow way, too.
//!
//! An empty magazine is refilled, and of a full one the older half is flushed:
//! alternating at either boundary never touches the pools.
//!
//! # Invariants
//!
//! M1  `tops[c]` points to a slot of class c: the bottom, or one that holds a
//!     free block.
//! M2  Bottom slots hold null, the slots above up to the top hold free blocks.
//! M3  `limits[c]` is the last slot of class c, or null if there is none.
//! M4  At each instruction the slots up to `tops[c]` hold blocks that nobody
//!     else has: fork may copy the thread's memory at any of them.
//!
//! # Threads
//!
//! Written by the thread they belong to only; `tops` may be read by others
//! (statistics), so they are atomics, used with plain loads and stores.

use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{
    AtomicPtr,
    Ordering::{Relaxed, Release, SeqCst},
    compiler_fence,
};

use crate::address_map::Found;
use crate::geometry::ALIGNMENT;
use crate::heap::Heap;
use crate::os::thread_word;
use crate::size_class::{SHAPES, SMALL_MAX, SizeClass, TABLE_LEN};
use crate::tally::Tally;

/// A place for a free block.
pub type Slot = *mut u8;

/// The tables of a thread's magazines; the slots they point to lie behind
/// them, in the thread's record.
#[repr(C, align(64))]
pub struct Magazines {
    /// Read by others, too, for statistics.
    tops: [AtomicPtr<Slot>; TABLE_LEN],
    /// Written before another thread can see them.
    limits: [Cell<*mut Slot>; TABLE_LEN],
    /// By how many bits they are shorter than the longest there are.
    shorter: Cell<u32>,
    /// What the thread has asked of what is below.
    pub tally: Tally,
}

// SAFETY: `tops` are atomics, `limits` do not change once they are shared.
unsafe impl Sync for Magazines {}

/// The bottom of magazines that have no slots.
#[repr(transparent)]
struct Bottom(Slot);
// SAFETY: never written.
unsafe impl Sync for Bottom {}
static BOTTOM: Bottom = Bottom(ptr::null_mut());
const NO_SLOTS: *mut Slot = (&raw const BOTTOM).cast::<Slot>().cast_mut();

/// What a thread has before its first miss. Never written (M3).
pub static NOTHING: Magazines = Magazines::without_slots();

/// What a thread has that is to have no magazines, because it is ending or
/// because there was no memory for them. Never written (M3).
pub static ENDED: Magazines = Magazines::without_slots();

thread_word::start_at!(NOTHING);

/// Slots of all classes, with their bottoms.
pub const SLOTS: usize = {
    let (mut sum, mut index) = (0, 1);
    while index < TABLE_LEN {
        sum += SHAPES[index].magazine as usize + 1;
        index += 1;
    }
    sum
};

/// The calling thread's magazines.
#[inline(always)]
pub fn mine() -> &'static Magazines {
    // SAFETY: the word starts as NOTHING and is only set by `make_mine`.
    unsafe { thread_word::get().cast::<Magazines>().as_ref() }
}

/// Gives the calling thread these magazines. They must be no other thread's.
pub fn make_mine(magazines: &'static Magazines) {
    thread_word::set(NonNull::from(magazines).cast());
}

impl Magazines {
    const fn without_slots() -> Magazines {
        Magazines {
            tops: [const { AtomicPtr::new(NO_SLOTS) }; TABLE_LEN],
            limits: [const { Cell::new(ptr::null_mut()) }; TABLE_LEN],
            shorter: Cell::new(0),
            tally: Tally::new(),
        }
    }

    /// How many blocks of a class there is room for.
    fn room(&self, class: SizeClass) -> usize {
        let most = class.shape().magazine as usize;
        (most >> self.shorter.get()).max(most.min(1))
    }

    /// How many blocks of a class travel at once: half a magazine, rounded up.
    fn run(&self, class: SizeClass) -> usize {
        self.room(class).div_ceil(2)
    }

    /// Lays the magazines of all classes out over `slots`, all of them empty, and
    /// `shorter` by so many bits than the longest there are.
    ///
    /// # Safety
    /// [`SLOTS`] null slots that live as long as the process and are nobody
    /// else's.
    pub unsafe fn lay_out(&self, slots: NonNull<Slot>, shorter: u32) {
        self.shorter.set(shorter);
        let mut bottom = slots.as_ptr();
        self.tops[0].store(NO_SLOTS, Relaxed);
        for class in SizeClass::all() {
            // SAFETY: SLOTS is the sum of these steps, at their longest.
            let limit = unsafe { bottom.add(self.room(class)) };
            self.tops[class.index()].store(bottom, Relaxed);
            self.limits[class.index()].set(limit);
            // SAFETY: as above; at the end at most one past the last slot.
            bottom = unsafe { limit.add(1) };
        }
    }

    /// Takes the block of `class` that was freed last; null if there is none.
    #[inline(always)]
    pub fn pop(&self, class: SizeClass) -> *mut u8 {
        self.pop_at(class.index())
    }

    /// The same for a request of `n` bytes, [`SMALL_MAX`] at the most, for the
    /// hit path. A request for nothing finds class 0, so null.
    #[inline(always)]
    pub fn pop_small(&self, n: usize) -> *mut u8 {
        debug_assert!(n <= SMALL_MAX);
        self.pop_at(n.div_ceil(ALIGNMENT))
    }

    #[inline(always)]
    fn pop_at(&self, index: usize) -> *mut u8 {
        let top = self.tops[index].load(Relaxed);
        // SAFETY: M1.
        let block = unsafe { top.read() };
        if !block.is_null() {
            // SAFETY: M2: only the bottom is null, so there is a slot below.
            self.tops[index].store(unsafe { top.sub(1) }, Relaxed);
        }
        block
    }

    /// Puts `block`, free and of the class that was found, on top. False, and
    /// nothing done, if the magazine is full or `found` is no class.
    #[inline(always)]
    pub fn push(&self, found: Found, block: Slot) -> bool {
        let above = self.tops[found.index()].load(Relaxed).wrapping_add(1);
        if above > self.limits[found.index()].get() {
            return false;
        }
        // SAFETY: M1, M3: above a slot and not above the last is a slot. What
        // is written there is an address, not followed.
        unsafe { *above = block };
        // Release: the compiler must keep the order, for M4.
        self.tops[found.index()].store(above, Release);
        true
    }

    /// Blocks in the magazine of `class`. Anyone may ask.
    pub fn held(&self, class: SizeClass) -> usize {
        let top = self.tops[class.index()].load(Relaxed).addr();
        match self.bottom(class) {
            Some(bottom) => top.wrapping_sub(bottom.addr().get()) / size_of::<Slot>(),
            None => 0,
        }
    }

    fn bottom(&self, class: SizeClass) -> Option<NonNull<Slot>> {
        let limit = NonNull::new(self.limits[class.index()].get())?;
        // SAFETY: M3 and `lay_out`: the bottom lies so many slots below.
        Some(unsafe { limit.sub(self.room(class)) })
    }

    /// Fills the empty magazine of `class` from the heap's pools and takes
    /// one block of it; null if there is no memory. The lowest address is
    /// handed out first, so that neighbours in time are neighbours in space.
    #[inline(never)]
    pub fn refill(&self, heap: &Heap, class: SizeClass, request: usize) -> *mut u8 {
        let (Some(bottom), run @ 1..) = (self.bottom(class), self.run(class)) else {
            return heap.take_one(class, request);
        };
        // SAFETY: M3; M4: what stands above the top is nobody's.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), run) };
        let taken = heap.take(class, request, slots);
        slots.copy_within(run - taken.., 0);
        let Some(rest) = taken.checked_sub(1) else {
            return ptr::null_mut();
        };
        // SAFETY: `rest` slots above the bottom hold blocks. Release as in
        // `push`.
        self.tops[class.index()].store(unsafe { bottom.add(rest) }.as_ptr(), Release);
        slots[rest]
    }

    /// Gives the older half of the magazine of `class` back to its pools. Returns
    /// how many blocks that is.
    #[inline(never)]
    pub fn flush(&self, heap: &Heap, class: SizeClass) -> usize {
        let (Some(bottom), held @ 1..) = (self.bottom(class), self.held(class)) else {
            return 0;
        };
        let oldest = self.run(class).min(held);
        // M4: while its blocks are on their way, the magazine is empty.
        self.tops[class.index()].store(bottom.as_ptr(), Relaxed);
        compiler_fence(SeqCst);
        // SAFETY: M2: so many slots above the bottom held blocks just now.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), held) };
        heap.give(class, &slots[..oldest]);
        slots.copy_within(oldest.., 0);
        // SAFETY: the slots up to there hold the rest. Release as in `push`.
        let top = unsafe { bottom.add(held - oldest) };
        self.tops[class.index()].store(top.as_ptr(), Release);
        oldest
    }

    /// Gives every block of every class back to its pool.
    pub fn empty(&self, heap: &Heap) {
        for class in SizeClass::all() {
            while self.held(class) > 0 {
                self.flush(heap, class);
            }
        }
    }
}
