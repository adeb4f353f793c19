//! Magazines: for each size class, the free blocks that one thread has cached. This is the hit
//! path: no lock, no atomic read-modify-write, no test whether the thread is known.
//!
//! ```text
//!    +------+-------+-------+- ... -+-------+- ... -+-------+
//!    | null | block | block |       |       |       |       |   slots for two batches
//!    +------+-------+-------+- ... -+-------+- ... -+-------+
//!    bottom   pop <-- top --> push                    limit
//! ```
//!
//! The addresses of free blocks are in an array, not in a list through the blocks: allocating a
//! block does not read it, freeing it does not write it, and what a program writes into a free
//! block is never followed.
//!
//! The bottom slot holds null, so an empty magazine needs no count: pop reads the top and finds
//! null. Class 0, "in no pool", has no slots in any thread, so a foreign pointer and a request
//! for zero bytes take the slow path, too.
//!
//! An empty magazine is refilled with a batch from the heap. Of a full one the older batch is
//! flushed and the newer one moves down. Either way one batch is left, so at least as many calls
//! pass before the next slow path. (Flushing the newer batch would be less work. But then the
//! oldest blocks would stay for ever: the pages that they are on could not be purged, and a block
//! among them that is freed twice would not be found.)
//!
//! # Samples
//!
//! ```text
//!    +------+-------+-------+------+-------+- ...        the block under the null is due for a
//!    | null | block | block | null | block |             sample
//!    +------+-------+-------+------+-------+- ...
//! ```
//!
//! While the heap profiler is on, a refill puts a mark, null, above each block that is to be sampled.
//! The pop that is due for the block finds null and takes the slow path, which finds a mark. The block
//! becomes the twin of a sample; when that is freed, twin and mark return to the top.
//!
//! # The thread word
//!
//! ```text
//!    UNUSED ------------> the thread's record ------------> ENDED
//!            first miss                        thread exit
//! ```
//!
//! The word always points to magazines, so the hit path does not test it. Before its first miss
//! and after its end a thread has magazines without slots: every pop finds null, every push is at
//! the limit, and the slow path distinguishes the two by their address.
//!
//! # Invariants
//!
//! MAGAZINE-1  `top` points to the bottom slot, or to a slot that holds a free block.
//! MAGAZINE-2  The bottom slot holds null, the slots above it up to the top hold free blocks or marks:
//!     `marks` of them. No mark is above another.
//! MAGAZINE-3  `limit` is the last slot, or null if the class has no slots.
//! MAGAZINE-4  At each instruction the slots up to `top` hold blocks that are in no other place:
//!     fork may copy the thread's memory at any of them.
//!
//! # Threads
//!
//! Written by their own thread only. Other threads read `top` for statistics, so it is an atomic,
//! used with plain loads and stores.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;

use crate::arena::page_map::{ENTRY_STEP, Entry};
use crate::base::layout::PACKED_ALIGNMENT;
use crate::base::size_class::{BLOCKS_PER_WORD, CLASS_INFO, SMALL_MAX, SizeClass, TABLE_LEN};
use crate::heap::Heap;
use crate::os::thread_word;
use crate::pool::Shard;
use crate::profile;
use crate::profile::sampler::Countdown;
use crate::sync::{
    AtomicPtr, AtomicU8, Cell,
    Ordering::{Relaxed, Release, SeqCst},
    compiler_fence,
};
use crate::tcache::counters::Counters;

/// The address of a free block, or null.
pub(crate) type Slot = *mut u8;

/// The words that the hit path reads and writes of a class, besides the top slot.
#[repr(C)]
pub(crate) struct Magazine {
    pub top: AtomicPtr<Slot>,
    /// The last slot.
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
        // SAFETY: MAGAZINE-1, MAGAZINE-3: above a slot and not above the last one is a slot. The
        // address that is written there is not followed.
        unsafe { *above = block };
        // The compiler must keep the order, for MAGAZINE-4. Not by a store with Release: no other
        // thread reads a slot by the top, and on aarch64 the next lookup's Acquire waits for it.
        compiler_fence(Release);
        self.top.store(above, Relaxed);
        true
    }
}

const _: () = assert!(size_of::<Magazine>() == ENTRY_STEP);

/// The magazines of a thread. Their slots follow in the thread's record.
#[repr(C, align(64))]
pub(crate) struct Magazines {
    /// An entry of the page map is an offset in this array.
    by_class: [Magazine; TABLE_LEN],
    /// The bottom slot of each magazine; null if the class has no slots. Written before another
    /// thread can see it.
    bottoms: [Cell<*mut Slot>; TABLE_LEN],
    /// The index of the shard that the thread refills from.
    shard: AtomicU8,
    /// By how many bits batches are shorter than the longest.
    batch_shift: Cell<u32>,
    /// The marks in each magazine.
    marks: [AtomicU8; TABLE_LEN],
    /// Marks that returned since the last refill.
    marks_returned: Cell<u32>,
    pub countdown: Countdown,
    pub counters: Counters,
}

// SAFETY: the fields that other threads read are atomics, or do not change once they are shared.
unsafe impl Sync for Magazines {}

/// The bottom slot of magazines without slots.
#[repr(transparent)]
struct Bottom(Slot);
// SAFETY: never written.
unsafe impl Sync for Bottom {}
static BOTTOM: Bottom = Bottom(ptr::null_mut());
const NO_SLOTS: *mut Slot = (&raw const BOTTOM).cast::<Slot>().cast_mut();

/// A thread's magazines before its first miss. Never written (MAGAZINE-3).
static UNUSED: Magazines = Magazines::slotless();

/// The magazines of a thread that is ending or could not get a record. All zero, so without
/// memory, until [`ended`] is called.
#[unsafe(link_section = ".bss.tables")]
static ENDED: Magazines = Magazines::zero();

thread_word::start_at!(UNUSED);

/// The calling thread's magazines.
#[inline(always)]
pub(crate) fn current() -> &'static Magazines {
    // SAFETY: the word starts as the address of UNUSED and changes in `set_current` only.
    unsafe { thread_word::get().cast::<Magazines>().as_ref() }
}

/// Sets the calling thread's magazines, which must belong to no other thread.
pub(crate) fn set_current(magazines: &'static Magazines) {
    thread_word::set(NonNull::from(magazines).cast());
}

/// The shared empty magazines for threads that are ending or got no record. Idempotent: each call
/// writes the same values.
#[cold]
pub(crate) fn ended() -> &'static Magazines {
    ENDED.make_slotless();
    &ENDED
}

/// The result of a refill.
#[derive(Clone, Copy)]
pub(crate) struct Refilled {
    /// Null if there is no memory.
    pub block: *mut u8,
    /// Whether the block is to be the twin of a sample.
    pub is_due: bool,
}

impl Refilled {
    const NONE: Refilled = Refilled::plain(ptr::null_mut());

    pub(crate) const fn plain(block: *mut u8) -> Refilled {
        Refilled {
            block,
            is_due: false,
        }
    }
}

/// Whether these are the magazines of a thread before its first miss.
#[inline]
pub(crate) fn is_unused(magazines: &Magazines) -> bool {
    ptr::eq(magazines, &raw const UNUSED)
}

/// Whether these are the magazines that [`ended`] returns.
#[inline]
pub(crate) fn is_ended(magazines: &Magazines) -> bool {
    ptr::eq(magazines, &raw const ENDED)
}

/// Bound on the marks that return to their magazines between two refills: a loop that allocates and
/// frees one block takes the slow path at a mark each time.
const MARKS_RETURNED_MAX: u32 = 20_000;

/// Blocks in the shortest batch of a class, unless its longest batch is shorter.
const BATCH_MIN: usize = 4;

/// Slots for two batches and their bottom; none if the class has no batches.
const fn slots_for(batch: usize) -> usize {
    if batch > 0 { 2 * batch + 1 } else { 0 }
}

/// Slots of all classes, with their bottoms.
pub(crate) const SLOTS: usize = {
    let (mut sum, mut index) = (0, 1);
    while index < TABLE_LEN {
        sum += slots_for(CLASS_INFO[index].batch as usize);
        index += 1;
    }
    sum
};

impl Magazines {
    /// Zeroed magazines, which no thread may use yet.
    pub(crate) const fn zero() -> Magazines {
        Magazines {
            by_class: [const {
                Magazine {
                    top: AtomicPtr::new(ptr::null_mut()),
                    limit: Cell::new(ptr::null_mut()),
                }
            }; TABLE_LEN],
            bottoms: [const { Cell::new(ptr::null_mut()) }; TABLE_LEN],
            shard: AtomicU8::new(0),
            batch_shift: Cell::new(0),
            marks: [const { AtomicU8::new(0) }; TABLE_LEN],
            marks_returned: Cell::new(0),
            countdown: Countdown::new(),
            counters: Counters::new(),
        }
    }

    /// Magazines without slots: every pop finds null, every push the limit (MAGAZINE-3).
    pub(crate) const fn slotless() -> Magazines {
        let mut magazines = Magazines::zero();
        let mut index = 0;
        while index < TABLE_LEN {
            magazines.by_class[index].top = AtomicPtr::new(NO_SLOTS);
            index += 1;
        }
        magazines
    }

    /// Makes zeroed magazines slotless. Idempotent.
    pub(crate) fn make_slotless(&self) {
        for magazine in &self.by_class {
            magazine.top.store(NO_SLOTS, Relaxed);
        }
    }

    /// The shard that the thread refills from.
    pub(crate) fn shard(&self) -> Shard {
        Shard::from_index(self.shard.load(Relaxed))
    }

    /// Sets the shard to refill from. Caller holds the registry's lock (SHARD-1).
    pub(crate) fn set_shard(&self, shard: Shard) {
        self.shard.store(shard.index() as u8, Relaxed);
    }

    /// Batch size of a class, at least [`BATCH_MIN`] or the class's maximum, if that is less: a
    /// refill's fixed cost, a lock among it, dominates.
    fn batch(&self, class: SizeClass) -> usize {
        let most = class.info().batch as usize;
        (most >> self.batch_shift.get()).max(most.min(BATCH_MIN))
    }

    /// Divides `slots` among the magazines of all classes, which are empty then, refill from
    /// `shard`, and have batches `batch_shift` bits shorter than the longest.
    ///
    /// # Safety
    /// `slots` points to [`SLOTS`] null slots that live as long as the process and that nothing
    /// else uses.
    pub(crate) unsafe fn init(&self, slots: NonNull<Slot>, shard: Shard, batch_shift: u32) {
        self.set_shard(shard);
        self.batch_shift.set(batch_shift);
        self.make_slotless();
        let mut bottom = slots.as_ptr();
        // Packed classes last: where nothing is packed, their slots are never touched.
        let by_packed = |packed| SizeClass::all().filter(move |class| class.is_packed() == packed);
        for class in by_packed(false).chain(by_packed(true)) {
            let batch = self.batch(class);
            if batch > 0 {
                let Magazine { top, limit } = &self.by_class[class.index()];
                self.bottoms[class.index()].set(bottom);
                top.store(bottom, Relaxed);
                // SAFETY: SLOTS is the sum of the longest of these steps.
                let next = unsafe { bottom.add(slots_for(batch)) };
                limit.set(next.wrapping_sub(1));
                bottom = next;
            }
        }
    }

    /// The bottom slot of `class`, if it has slots.
    #[inline]
    fn bottom(&self, class: SizeClass) -> Option<NonNull<Slot>> {
        NonNull::new(self.bottoms[class.index()].get())
    }

    /// Takes the block of `class` that was freed last; null if there is none.
    #[inline(always)]
    pub(crate) fn pop(&self, class: SizeClass) -> *mut u8 {
        self.by_class[class.index()].pop()
    }

    /// Takes a block for a request of `n` bytes, at most [`SMALL_MAX`], rounded up to a multiple of
    /// `ALIGN`: the hit path. A request for zero bytes finds class 0, so null.
    #[inline(always)]
    pub(crate) fn pop_small<const ALIGN: usize>(&self, n: usize) -> *mut u8 {
        debug_assert!(n <= SMALL_MAX);
        let rounded = (n + (ALIGN - 1)) & !(ALIGN - 1);
        let offset = rounded * (size_of::<Magazine>() / PACKED_ALIGNMENT);
        // SAFETY: the index of a small class is its block size in units of the packed alignment.
        unsafe { self.at(offset) }.pop()
    }

    /// The magazine at an offset in the array, in bytes.
    ///
    /// # Safety
    /// The offset of an entry.
    #[inline(always)]
    unsafe fn at(&self, offset: usize) -> &Magazine {
        let first = (&raw const self.by_class).cast::<Magazine>();
        // SAFETY: the offset is an entry's, so within the array.
        unsafe { &*first.byte_add(offset) }
    }

    /// Puts `block`, free and of the class of `entry`, on top. False, and unchanged, if the
    /// magazine is full or `entry` is no class.
    #[inline(always)]
    pub(crate) fn push(&self, entry: Entry, block: Slot) -> bool {
        // SAFETY: MAP-1: an entry of the page map is the offset of a class, or 0.
        unsafe { self.at(entry.offset()) }.push(block)
    }

    /// Blocks in the magazine of `class`. Any thread may call this.
    pub(crate) fn cached(&self, class: SizeClass) -> usize {
        let bottom = self.bottoms[class.index()].get();
        let top = self.by_class[class.index()].top.load(Relaxed);
        if bottom.is_null() {
            return 0;
        }
        let slots = top.addr().saturating_sub(bottom.addr()) / size_of::<Slot>();
        slots.saturating_sub(self.marks[class.index()].load(Relaxed).into())
    }

    /// Fills the magazine of `class`, on whose top is null, with a batch, and takes one block of it. The
    /// lowest address is allocated first, so that neighbours in time are neighbours in space.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn refill(&self, heap: &Heap, class: SizeClass, request: usize) -> Refilled {
        let Some(bottom) = self.bottom(class) else {
            let block = heap.take_one(self.shard(), class, request);
            let is_due =
                profile::is_on() && !block.is_null() && self.countdown.is_due(class.size());
            return Refilled { block, is_due };
        };
        if profile::is_on() && self.countdown.sees_start() {
            self.flush_all(heap);
        }
        if self.by_class[class.index()].top.load(Relaxed) != bottom.as_ptr() {
            let block = self.take_marked(class);
            if !block.is_null() {
                return Refilled {
                    block,
                    is_due: true,
                };
            }
        }
        let batch = self.batch(class);
        // SAFETY: MAGAZINE-3: two batches of slots follow the bottom; MAGAZINE-4: those above the
        // top hold no block.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), batch) };
        let taken = heap.refill(self.shard(), class, request, slots);
        if taken < batch {
            slots.copy_within(batch - taken.., 0);
        }
        self.marks_returned.set(0);
        if profile::is_on()
            && let Some(first) = self.countdown.next(class.size(), taken)
        {
            return self.mark(class, bottom, taken, first);
        }
        let Some(rest) = taken.checked_sub(1) else {
            return Refilled::NONE;
        };
        // Release: the compiler must keep the order, for MAGAZINE-4.
        // SAFETY: `rest` slots above the bottom hold blocks.
        let top = unsafe { bottom.add(rest) };
        self.by_class[class.index()]
            .top
            .store(top.as_ptr(), Release);
        Refilled::plain(slots[rest])
    }

    /// Puts marks above the blocks that are to be sampled, of the `taken` blocks above the bottom, and
    /// takes the one on top. `first` blocks from the top are before the first of them.
    #[cold]
    #[inline(never)]
    fn mark(
        &self,
        class: SizeClass,
        bottom: NonNull<Slot>,
        taken: usize,
        first: usize,
    ) -> Refilled {
        debug_assert!(first < taken && taken <= self.batch(class));
        // A bit for each block that is due, by its position from the top.
        let (mut due, mut next) = (1u64 << first, first + 1);
        while let Some(before) = self.countdown.next(class.size(), taken - next) {
            next += before + 1;
            due |= 1 << (next - 1);
        }
        let marks = due.count_ones() as usize;
        // SAFETY: MAGAZINE-3: two batches of slots follow the bottom, and there is at most a mark for
        // each block; MAGAZINE-4: those above the top hold no block.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), taken + marks) };
        // Upwards in place, from the top: a block's new slot is its own or one above it.
        let mut to = slots.len();
        for position in 0..taken {
            if due >> position & 1 == 1 {
                to -= 1;
                slots[to] = ptr::null_mut();
            }
            to -= 1;
            slots[to] = slots[taken - 1 - position];
        }
        let mut rest = slots.len() - 1;
        let is_due = slots[rest].is_null();
        rest -= usize::from(is_due);
        let block = slots[rest];
        self.marks[class.index()].store((marks - usize::from(is_due)) as u8, Relaxed);
        // Release: the compiler must keep the order, for MAGAZINE-4.
        // SAFETY: `rest` slots above the bottom hold blocks and marks.
        let top = unsafe { bottom.add(rest) };
        self.by_class[class.index()]
            .top
            .store(top.as_ptr(), Release);
        Refilled { block, is_due }
    }

    /// Takes the mark on top and the block under it. Null if there is none: the mark's block was
    /// flushed, and the magazine is empty.
    #[cold]
    #[inline(never)]
    fn take_marked(&self, class: SizeClass) -> *mut u8 {
        let (top, marks) = (
            &self.by_class[class.index()].top,
            &self.marks[class.index()],
        );
        let mark = top.load(Relaxed);
        marks.store(marks.load(Relaxed).saturating_sub(1), Relaxed);
        // SAFETY: MAGAZINE-1, MAGAZINE-2: a mark is above the bottom.
        let below = unsafe { mark.sub(1) };
        // SAFETY: a slot of the magazine.
        let block = unsafe { below.read() };
        if block.is_null() {
            top.store(below, Release); // the bottom
        } else {
            // SAFETY: a block is above the bottom.
            top.store(unsafe { below.sub(1) }, Release);
        }
        block
    }

    /// Puts the twin of a sample that was freed on top and, unless marks returned too often, a mark above
    /// it. Without slots for the class the twin is returned to its pool.
    #[cold]
    #[inline(never)]
    pub(crate) fn push_marked(&self, heap: &Heap, class: SizeClass, twin: Slot) {
        let magazine = &self.by_class[class.index()];
        if magazine.limit.get().is_null() {
            return heap.give(class, &[twin]);
        }
        let push = |slot: Slot| {
            if !magazine.push(slot) {
                self.flush(heap, class);
                magazine.push(slot);
            }
        };
        push(twin);
        let returned = self.marks_returned.get();
        if returned < MARKS_RETURNED_MAX {
            self.marks_returned.set(returned + 1);
            push(ptr::null_mut());
            let marks = &self.marks[class.index()];
            marks.store(marks.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Makes room in the magazine of `class`, which is full: flushes the older batch. Returns its
    /// number of blocks; 0 if the class has no slots.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn flush(&self, heap: &Heap, class: SizeClass) -> usize {
        let Some(bottom) = self.bottom(class) else {
            return 0;
        };
        let (top, batch) = (&self.by_class[class.index()].top, self.batch(class));
        let mut leaving = [MaybeUninit::<Slot>::uninit(); BLOCKS_PER_WORD];
        // SAFETY: MAGAZINE-3: two batches of slots follow the bottom.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), 2 * batch) };
        let (older, newer) = slots.split_at_mut(batch);
        // SAFETY: CLASS-4: a batch fits in `leaving`.
        unsafe { ptr::copy_nonoverlapping(older.as_ptr(), leaving.as_mut_ptr().cast(), batch) };
        // SAFETY: the copy has initialised `batch` elements.
        let leaving =
            unsafe { slice::from_raw_parts_mut(leaving.as_mut_ptr().cast::<Slot>(), batch) };
        let leaving = self.without_marks(class, leaving);
        // MAGAZINE-4: in a copy that a fork makes in between, blocks are missing; none is there
        // twice.
        top.store(bottom.as_ptr(), Relaxed);
        compiler_fence(SeqCst);
        older.copy_from_slice(newer);
        compiler_fence(SeqCst);
        // SAFETY: `batch` slots above the bottom hold blocks now.
        top.store(unsafe { bottom.add(batch) }.as_ptr(), Release);
        heap.flush(class, leaving);
        batch
    }

    /// The blocks in slots that leave the magazine of `class`: they are moved to the front. Marks that
    /// leave are gone.
    #[inline]
    fn without_marks<'a>(&self, class: SizeClass, slots: &'a mut [Slot]) -> &'a [Slot] {
        let marks = &self.marks[class.index()];
        if marks.load(Relaxed) == 0 {
            return slots;
        }
        let mut blocks = 0;
        for i in 0..slots.len() {
            if !slots[i].is_null() {
                slots[blocks] = slots[i];
                blocks += 1;
            }
        }
        let left = usize::from(marks.load(Relaxed)).saturating_sub(slots.len() - blocks);
        marks.store(left as u8, Relaxed);
        &slots[..blocks]
    }

    /// Returns every block of every class to its pool. Returns their bytes.
    pub(crate) fn flush_all(&self, heap: &Heap) -> usize {
        let mut bytes = 0;
        for class in SizeClass::all() {
            let Some(bottom) = self.bottom(class) else {
                continue;
            };
            let top = &self.by_class[class.index()].top;
            let slots = (top.load(Relaxed).addr() - bottom.addr().get()) / size_of::<Slot>();
            // MAGAZINE-4: the blocks leave the magazine before they are in the pool.
            top.store(bottom.as_ptr(), Relaxed);
            compiler_fence(SeqCst);
            // SAFETY: MAGAZINE-2: these slots held blocks and marks until `top` was stored, and only
            // this thread writes them.
            let all = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), slots) };
            let blocks = self.without_marks(class, all);
            heap.give(class, blocks);
            bytes += blocks.len() * class.size();
        }
        bytes
    }

    /// Asserts the invariants, for tests. Returns the blocks of `class`.
    #[cfg(feature = "model")]
    pub(crate) fn check(&self, class: SizeClass) -> std::vec::Vec<Slot> {
        let Magazine { top, limit } = &self.by_class[class.index()];
        let Some(bottom) = self.bottom(class) else {
            assert!(
                limit.get().is_null() && top.load(Relaxed) == NO_SLOTS,
                "MAGAZINE-3"
            );
            return std::vec::Vec::new();
        };
        let room = 2 * self.batch(class);
        // SAFETY: the magazine has `room` slots and its bottom.
        let all = unsafe { slice::from_raw_parts(bottom.as_ptr(), room + 1) };
        let marks = usize::from(self.marks[class.index()].load(Relaxed));
        let slots = self.cached(class) + marks;
        assert!(slots <= room, "MAGAZINE-1");
        assert!(ptr::eq(limit.get(), &raw const all[room]), "MAGAZINE-3");
        assert!(all[0].is_null(), "MAGAZINE-2");
        let held = &all[1..=slots];
        let is_mark = |slot: &&Slot| slot.is_null();
        assert_eq!(held.iter().filter(is_mark).count(), marks, "MAGAZINE-2");
        held.iter()
            .copied()
            .filter(|slot| !slot.is_null())
            .collect()
    }
}
