//! Magazines: for each size class the free blocks that one thread has at hand.
//! This is the hit path: no lock, no atomic read-modify-write, no test for
//! "is the thread known?".
//!
//! ```text
//!    +------+-------+-------+- ... -+-------+- ... -+-------+
//!    | null | block | block |       |       |       |       |   room for two runs
//!    +------+-------+-------+- ... -+-------+- ... -+-------+
//!    bottom   pop <-- top --> push                    limit
//! ```
//!
//! Blocks stand in an array beside, not in a list through them: handing one out does not
//! read it, taking it back does not write it, what is written into it is never followed.
//!
//! The bottom slot holds null, so an empty magazine needs no count: pop reads the top and
//! finds null. A thread that has no magazines yet has some without slots (`tcache/current.rs`):
//! every pop finds null, every push finds itself at the limit, and both go the slow way,
//! where the thread gets magazines of its own. So does what has class 0, "in no pool",
//! for which no thread has slots: a pointer that is not ours, a request for nothing.
//!
//! At either end blocks travel: an empty magazine gets a run of them from the heap, of a
//! full one the older run goes back and the newer one moves down. Either way one run is
//! left, so at least as many calls again go by before the next journey. (It would be less
//! work to let the run on top go. But then the oldest blocks stay for ever, and keep the
//! pages on which they lie from going back, and a block freed twice from being found.)
//!
//! # Invariants
//!
//! MAGAZINE-1  `top` points to the bottom, or to a slot that holds a free block.
//! MAGAZINE-2  The bottom slot holds null, the slots above up to the top hold free blocks.
//! MAGAZINE-3  `limit` is the last slot, or null if the class has no slots.
//! MAGAZINE-4  At each instruction the slots up to `top` hold blocks that nobody else
//!     has: fork may copy the thread's memory at any of them.
//!
//! # Threads
//!
//! Written by their own thread only; `top` may be read by others (statistics), so it is
//! an atomic, used with plain loads and stores.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;

use crate::arena::page_map::Entry;
use crate::base::layout::PACKED_ALIGNMENT;
use crate::base::size_class::{BLOCKS_PER_WORD, CLASS_INFO, SMALL_MAX, SizeClass, TABLE_LEN};
use crate::heap::Heap;
use crate::pool::shard::Shard;
use crate::sync::{
    AtomicPtr, AtomicU8, Cell,
    Ordering::{Relaxed, Release, SeqCst},
    compiler_fence,
};
use crate::tcache::counters::Counters;
use crate::tcache::magazine::{Magazine, Slot};

/// The tables of a thread's magazines; the slots they point to lie behind
/// them, in the thread's record.
#[repr(C, align(64))]
pub(crate) struct Magazines {
    /// By class index; the address map knows the offsets in it.
    table: [Magazine; TABLE_LEN],
    /// The bottom of each; null if the class has no slots. Written before another thread
    /// can see it.
    bottoms: [Cell<*mut Slot>; TABLE_LEN],
    /// Whose pools the thread's blocks come from: the index of its shard.
    shard: AtomicU8,
    /// By how many bits runs are shorter than the longest there are.
    shorter: Cell<u32>,
    /// What the thread has asked of what is below.
    pub counters: Counters,
}

// SAFETY: what others read are atomics, or does not change once it is shared.
unsafe impl Sync for Magazines {}

/// The bottom of magazines that have no slots.
#[repr(transparent)]
struct Bottom(Slot);
// SAFETY: never written.
unsafe impl Sync for Bottom {}
static BOTTOM: Bottom = Bottom(ptr::null_mut());
const NO_SLOTS: *mut Slot = (&raw const BOTTOM).cast::<Slot>().cast_mut();

/// Blocks of the shortest runs, where a class has such.
const FEW: usize = 4;

/// Slots for two runs and their bottom; none if there are no runs.
const fn room(run: usize) -> usize {
    if run > 0 { 2 * run + 1 } else { 0 }
}

/// Slots of all classes, with their bottoms.
pub(crate) const SLOTS: usize = {
    let (mut sum, mut index) = (0, 1);
    while index < TABLE_LEN {
        sum += room(CLASS_INFO[index].run as usize);
        index += 1;
    }
    sum
};

impl Magazines {
    /// Magazines that are all zero, which nobody may use yet.
    pub(crate) const fn zero() -> Magazines {
        Magazines {
            table: [const {
                Magazine {
                    top: AtomicPtr::new(ptr::null_mut()),
                    limit: Cell::new(ptr::null_mut()),
                }
            }; TABLE_LEN],
            bottoms: [const { Cell::new(ptr::null_mut()) }; TABLE_LEN],
            shard: AtomicU8::new(0),
            shorter: Cell::new(0),
            counters: Counters::new(),
        }
    }

    /// Magazines without slots: every pop finds null, every push the limit (MAGAZINE-3).
    pub(crate) const fn slotless() -> Magazines {
        let mut magazines = Magazines::zero();
        let mut index = 0;
        while index < TABLE_LEN {
            magazines.table[index].top = AtomicPtr::new(NO_SLOTS);
            index += 1;
        }
        magazines
    }

    /// Makes such of what is all zero, or is such already.
    pub(crate) fn make_slotless(&self) {
        for magazine in &self.table {
            magazine.top.store(NO_SLOTS, Relaxed);
        }
    }

    /// Whose pools the thread's blocks come from.
    pub(crate) fn shard(&self) -> Shard {
        Shard::from_index(self.shard.load(Relaxed))
    }

    /// Has them come from these pools from now on. Under the threads' lock (SHARD-1).
    pub(crate) fn set_shard(&self, shard: Shard) {
        self.shard.store(shard.index() as u8, Relaxed);
    }

    /// How many blocks of a class travel at once. Fewer than [`FEW`] only where there never
    /// are more: the way to the pools takes a lock and much else, however few they are.
    fn run(&self, class: SizeClass) -> usize {
        let most = class.info().run as usize;
        (most >> self.shorter.get()).max(most.min(FEW))
    }

    /// Lays the magazines of all classes out over `slots`, all of them empty, to be
    /// filled from `shard`, and their runs `shorter` by so many bits than the longest
    /// there are.
    ///
    /// # Safety
    /// [`SLOTS`] null slots that live as long as the process and are nobody
    /// else's.
    pub(crate) unsafe fn lay_out(&self, slots: NonNull<Slot>, shard: Shard, shorter: u32) {
        self.set_shard(shard);
        self.shorter.set(shorter);
        self.make_slotless();
        let mut bottom = slots.as_ptr();
        // Those of packed classes last: where nothing is packed, nobody touches them.
        let those = |packed| SizeClass::all().filter(move |class| class.is_packed() == packed);
        for class in those(false).chain(those(true)) {
            let run = self.run(class);
            if run > 0 {
                let Magazine { top, limit } = &self.table[class.index()];
                self.bottoms[class.index()].set(bottom);
                top.store(bottom, Relaxed);
                // SAFETY: SLOTS is the sum of these steps, at their longest.
                let next = unsafe { bottom.add(room(run)) };
                limit.set(next.wrapping_sub(1));
                bottom = next;
            }
        }
    }

    /// The bottom of `class`, if it has slots.
    #[inline]
    fn bottom(&self, class: SizeClass) -> Option<NonNull<Slot>> {
        NonNull::new(self.bottoms[class.index()].get())
    }

    /// Takes the block of `class` that was freed last; null if there is none.
    #[inline(always)]
    pub(crate) fn pop(&self, class: SizeClass) -> *mut u8 {
        self.table[class.index()].pop()
    }

    /// The same for a request of `n` bytes, [`SMALL_MAX`] at the most, rounded up to
    /// a multiple of `ALIGN`, for the hit path. A request for nothing finds class 0,
    /// so null.
    #[inline(always)]
    pub(crate) fn pop_small<const ALIGN: usize>(&self, n: usize) -> *mut u8 {
        debug_assert!(n <= SMALL_MAX);
        let rounded = (n + (ALIGN - 1)) & !(ALIGN - 1);
        let offset = rounded * (size_of::<Magazine>() / PACKED_ALIGNMENT);
        // SAFETY: the index of a small class is its blocks' size in units of the
        // packed alignment.
        unsafe { self.at(offset) }.pop()
    }

    /// The magazine at an offset in the table, in bytes.
    ///
    /// # Safety
    /// The offset of an entry.
    #[inline(always)]
    unsafe fn at(&self, offset: usize) -> &Magazine {
        let table = (&raw const self.table).cast::<Magazine>();
        // SAFETY: the caller's promise.
        unsafe { &*table.byte_add(offset) }
    }

    /// Puts `block`, free and of the class that was found, on top. False, and
    /// nothing done, if the magazine is full or `found` is no class.
    #[inline(always)]
    pub(crate) fn push(&self, found: Entry, block: Slot) -> bool {
        // SAFETY: what an address map finds is such an offset.
        unsafe { self.at(found.offset()) }.push(block)
    }

    /// Blocks in the magazine of `class`. Anyone may ask.
    pub(crate) fn held(&self, class: SizeClass) -> usize {
        let bottom = self.bottoms[class.index()].get();
        let top = self.table[class.index()].top.load(Relaxed);
        if bottom.is_null() {
            return 0;
        }
        top.addr().saturating_sub(bottom.addr()) / size_of::<Slot>()
    }

    /// Fills the magazine of `class`, which is empty, with a run, and takes one block of
    /// it; null if there is no memory. The lowest address is handed out first, so that
    /// neighbours in time are neighbours in space.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn refill(&self, heap: &Heap, class: SizeClass, request: usize) -> *mut u8 {
        let Some(bottom) = self.bottom(class) else {
            return heap.take_one(self.shard(), class, request);
        };
        let run = self.run(class);
        // SAFETY: MAGAZINE-3; MAGAZINE-4: what stands above the top is nobody's.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), run) };
        let taken = heap.refill(self.shard(), class, request, slots);
        if taken < run {
            slots.copy_within(run - taken.., 0);
        }
        let Some(rest) = taken.checked_sub(1) else {
            return ptr::null_mut();
        };
        // Release as in `push`.
        // SAFETY: `rest` slots above the bottom hold blocks.
        let top = unsafe { bottom.add(rest) };
        self.table[class.index()].top.store(top.as_ptr(), Release);
        slots[rest]
    }

    /// Makes room in the magazine of `class`, which is full: the older run goes back.
    /// Returns how many blocks that is; none if the class has no slots.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn flush(&self, heap: &Heap, class: SizeClass) -> usize {
        let Some(bottom) = self.bottom(class) else {
            return 0;
        };
        let (top, run) = (&self.table[class.index()].top, self.run(class));
        let mut away = [MaybeUninit::<Slot>::uninit(); BLOCKS_PER_WORD];
        // SAFETY: MAGAZINE-3.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), 2 * run) };
        let (older, newer) = slots.split_at_mut(run);
        // SAFETY: CLASS-4.
        unsafe { ptr::copy_nonoverlapping(older.as_ptr(), away.as_mut_ptr().cast(), run) };
        // SAFETY: so many were written just now.
        let away = unsafe { slice::from_raw_parts(away.as_ptr().cast::<Slot>(), run) };
        // MAGAZINE-4: in a copy that a fork makes in between, blocks are missing; none is there
        // twice.
        top.store(bottom.as_ptr(), Relaxed);
        compiler_fence(SeqCst);
        older.copy_from_slice(newer);
        compiler_fence(SeqCst);
        // SAFETY: so many slots hold blocks now.
        top.store(unsafe { bottom.add(run) }.as_ptr(), Release);
        heap.flush(class, away);
        run
    }

    /// Gives every block of every class back to its pool. Returns their bytes.
    pub(crate) fn empty(&self, heap: &Heap) -> usize {
        let mut bytes = 0;
        for class in SizeClass::all() {
            let (held, Some(bottom)) = (self.held(class), self.bottom(class)) else {
                continue;
            };
            let top = &self.table[class.index()].top;
            // MAGAZINE-4: they are off before anyone else gets them.
            top.store(bottom.as_ptr(), Relaxed);
            compiler_fence(SeqCst);
            if held > 0 {
                // SAFETY: MAGAZINE-2: these held blocks just now.
                let all = unsafe { slice::from_raw_parts(bottom.as_ptr().add(1), held) };
                heap.give(class, all);
            }
            bytes += held * class.size();
        }
        bytes
    }

    /// Asserts the invariants, for tests, and says which blocks there are.
    #[cfg(feature = "model")]
    pub(crate) fn check(&self, class: SizeClass) -> std::vec::Vec<Slot> {
        let Magazine { top, limit } = &self.table[class.index()];
        let Some(bottom) = self.bottom(class) else {
            assert!(
                limit.get().is_null() && top.load(Relaxed) == NO_SLOTS,
                "MAGAZINE-3"
            );
            return std::vec::Vec::new();
        };
        let room = 2 * self.run(class);
        // SAFETY: so many slots it has, with its bottom.
        let all = unsafe { slice::from_raw_parts(bottom.as_ptr(), room + 1) };
        assert!(self.held(class) <= room, "MAGAZINE-1");
        assert!(ptr::eq(limit.get(), &raw const all[room]), "MAGAZINE-3");
        assert!(all[0].is_null(), "MAGAZINE-2");
        all[1..=self.held(class)].to_vec()
    }
}
