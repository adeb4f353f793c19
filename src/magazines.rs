//! Magazines: for each size class the free blocks that one thread has at hand.
//! This is the hit path: no lock, no atomic read-modify-write, no test for
//! "is the thread known?".
//!
//! ```text
//!         the half in use                              the spare half
//!    +------+-------+-------+- ... -+-------+     +------+-------+- ... -+-------+
//!    | null | block | block |       |       |     | null | block |       | block |
//!    +------+-------+-------+- ... -+-------+     +------+-------+- ... -+-------+
//!    bottom   pop <-- top --> push    limit              full, or empty
//! ```
//!
//! Blocks stand in an array beside, not in a list through them: handing one out does not
//! read it, taking it back does not write it, what is written into it is never followed.
//!
//! The bottom slot holds null, so an empty half needs no count: pop reads the top and
//! finds null. A thread that has no magazines yet has some without slots (`mine.rs`):
//! every pop finds null, every push finds itself at the limit, and both go the slow way,
//! where the thread gets magazines of its own. So does what has class 0, "in no pool",
//! for which no thread has slots: a pointer that is not ours, a request for nothing.
//!
//! At either end of the half in use the halves change places. Only when the spare
//! half is of no use, blocks travel: a run of them, as many as a half holds, comes
//! from the heap, or the spare half, which is the older one, goes back to it. So
//! alternating at either boundary never goes there.
//!
//! # Invariants
//!
//! M1  `top` points to a slot of the half in use: the bottom, or one that holds a
//!     free block.
//! M2  Bottom slots hold null, the slots above up to the top hold free blocks.
//! M3  `limit` is the last slot of the half in use, or null if the class has no slots.
//! M4  At each instruction the slots up to `top` hold blocks that nobody else
//!     has: fork may copy the thread's memory at any of them. Whoever takes the copy
//!     over sets the rest right ([`Magazines::settle`]).
//! M5  The spare half holds `spare` blocks in its lowest slots: none, or a run.
//!
//! # Threads
//!
//! Written by their own thread only; `top` and `spare` may be read by others
//! (statistics), so they are atomics, used with plain loads and stores.

use core::ptr::{self, NonNull};
use core::slice;

use crate::address_map::Found;
use crate::geometry::PACKED_ALIGNMENT;
use crate::heap::Heap;
use crate::lane::Lane;
use crate::magazine::{Magazine, Slot};
use crate::size_class::{SHAPES, SMALL_MAX, SizeClass, TABLE_LEN};
use crate::sync::{
    AtomicPtr, AtomicU8, AtomicUsize, Cell,
    Ordering::{Relaxed, Release, SeqCst},
    compiler_fence,
};
use crate::tally::Tally;

/// The rest of what there is about a class.
struct Halves {
    /// The bottom of the lower half; null if the class has no slots. Written before
    /// another thread can see it.
    start: Cell<*mut Slot>,
    /// Blocks in the half that is not in use (M5).
    spare: AtomicUsize,
}

/// The tables of a thread's magazines; the slots they point to lie behind
/// them, in the thread's record.
#[repr(C, align(64))]
pub struct Magazines {
    /// By class index; the address map knows the offsets in it.
    in_use: [Magazine; TABLE_LEN],
    halves: [Halves; TABLE_LEN],
    /// Whose pools the thread's blocks come from: the index of its lane.
    lane: AtomicU8,
    /// By how many bits runs are shorter than the longest there are.
    shorter: Cell<u32>,
    /// What the thread has asked of what is below.
    pub tally: Tally,
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

/// Slots of all classes, with their bottoms.
pub const SLOTS: usize = {
    let (mut sum, mut index) = (0, 1);
    while index < TABLE_LEN {
        sum += 2 * (SHAPES[index].run as usize + 1);
        index += 1;
    }
    sum
};

impl Magazines {
    /// Magazines that are all zero, which nobody may use yet.
    pub const fn zero() -> Magazines {
        Magazines {
            in_use: [const {
                Magazine {
                    top: AtomicPtr::new(ptr::null_mut()),
                    limit: Cell::new(ptr::null_mut()),
                }
            }; TABLE_LEN],
            halves: [const {
                Halves {
                    start: Cell::new(ptr::null_mut()),
                    spare: AtomicUsize::new(0),
                }
            }; TABLE_LEN],
            lane: AtomicU8::new(0),
            shorter: Cell::new(0),
            tally: Tally::new(),
        }
    }

    /// Magazines without slots: every pop finds null, every push the limit (M3).
    pub const fn without_slots() -> Magazines {
        let mut magazines = Magazines::zero();
        let mut index = 0;
        while index < TABLE_LEN {
            magazines.in_use[index].top = AtomicPtr::new(NO_SLOTS);
            index += 1;
        }
        magazines
    }

    /// Makes such of what is all zero, or is such already.
    pub fn be_without_slots(&self) {
        for magazine in &self.in_use {
            magazine.top.store(NO_SLOTS, Relaxed);
        }
    }

    /// Whose pools the thread's blocks come from.
    pub fn lane(&self) -> Lane {
        Lane::from_index(self.lane.load(Relaxed))
    }

    /// Has them come from these pools from now on. Under the threads' lock (E1).
    pub fn set_lane(&self, lane: Lane) {
        self.lane.store(lane.index() as u8, Relaxed);
    }

    /// How many blocks of a class travel at once: what a half has room for.
    fn run(&self, class: SizeClass) -> usize {
        let most = class.shape().run as usize;
        (most >> self.shorter.get()).max(most.min(1))
    }

    /// Lays the magazines of all classes out over `slots`, all of them empty, to be
    /// filled from `lane`, and their runs `shorter` by so many bits than the longest
    /// there are.
    ///
    /// # Safety
    /// [`SLOTS`] null slots that live as long as the process and are nobody
    /// else's.
    pub unsafe fn lay_out(&self, slots: NonNull<Slot>, lane: Lane, shorter: u32) {
        self.set_lane(lane);
        self.shorter.set(shorter);
        let mut start = slots.as_ptr();
        // Those of packed classes last: where nothing is packed, nobody touches them.
        let those = |packed| SizeClass::all().filter(move |class| class.is_packed() == packed);
        for class in those(false).chain(those(true)) {
            let run = self.run(class);
            if run > 0 {
                self.halves[class.index()].start.set(start);
                // SAFETY: SLOTS is the sum of these steps, at their longest.
                start = unsafe { start.add(2 * (run + 1)) };
            }
        }
        self.settle();
    }

    /// Makes what is not said by `top` and by `spare` follow from them: at the start,
    /// and when a thread takes magazines over whose thread a fork has ended,
    /// perhaps in the midst of changing them.
    pub fn settle(&self) {
        self.in_use[0].top.store(NO_SLOTS, Relaxed);
        for class in SizeClass::all() {
            let (Magazine { top, limit }, run) = (&self.in_use[class.index()], self.run(class));
            let Some(start) = NonNull::new(self.halves[class.index()].start.get()) else {
                top.store(NO_SLOTS, Relaxed);
                continue;
            };
            if top.load(Relaxed).is_null() {
                top.store(start.as_ptr(), Relaxed);
            }
            // SAFETY: a half of the class has so many slots above its bottom.
            limit.set(unsafe { self.half(class, start).0.add(run) }.as_ptr());
        }
    }

    /// The bottom of the half in use of `class`, whose lower half begins at `start`,
    /// and that of the other.
    #[inline]
    fn half(&self, class: SizeClass, start: NonNull<Slot>) -> (NonNull<Slot>, NonNull<Slot>) {
        self.half_of(class, start, self.in_use[class.index()].top.load(Relaxed))
    }

    /// The same while `top` is the top.
    #[inline]
    fn half_of(
        &self,
        class: SizeClass,
        start: NonNull<Slot>,
        top: *mut Slot,
    ) -> (NonNull<Slot>, NonNull<Slot>) {
        // SAFETY: the lower half has a run of slots above its bottom.
        let upper = unsafe { start.add(self.run(class) + 1) };
        if top < upper.as_ptr() {
            (start, upper)
        } else {
            (upper, start)
        }
    }

    /// Takes the block of `class` that was freed last; null if there is none.
    #[inline(always)]
    pub fn pop(&self, class: SizeClass) -> *mut u8 {
        self.in_use[class.index()].pop()
    }

    /// The same for a request of `n` bytes, [`SMALL_MAX`] at the most, rounded up to
    /// a multiple of `ALIGN`, for the hit path. A request for nothing finds class 0,
    /// so null.
    #[inline(always)]
    pub fn pop_small<const ALIGN: usize>(&self, n: usize) -> *mut u8 {
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
        let table = (&raw const self.in_use).cast::<Magazine>();
        // SAFETY: the caller's promise.
        unsafe { &*table.byte_add(offset) }
    }

    /// Puts `block`, free and of the class that was found, on top. False, and
    /// nothing done, if the half in use is full or `found` is no class.
    #[inline(always)]
    pub fn push(&self, found: Found, block: Slot) -> bool {
        // SAFETY: what an address map finds is such an offset.
        unsafe { self.at(found.offset()) }.push(block)
    }

    /// Blocks in the magazines of `class`. Anyone may ask.
    pub fn held(&self, class: SizeClass) -> usize {
        let Some(start) = NonNull::new(self.halves[class.index()].start.get()) else {
            return 0;
        };
        // One look: the thread may have its halves change places at any moment.
        let top = self.in_use[class.index()].top.load(Relaxed);
        let (bottom, _) = self.half_of(class, start, top);
        let in_use = top.addr().saturating_sub(bottom.addr().get()) / size_of::<Slot>();
        in_use + self.halves[class.index()].spare.load(Relaxed)
    }

    /// Has the halves of `class` change places. The half in use holds `leaving`
    /// blocks, none or a run; the other `coming`, none or a run.
    fn change_places(&self, class: SizeClass, start: NonNull<Slot>, leaving: usize, coming: usize) {
        let (Magazine { top, limit }, run) = (&self.in_use[class.index()], self.run(class));
        let (_, other) = self.half(class, start);
        let spare = &self.halves[class.index()].spare;
        // M4: in a copy that a fork makes in between, blocks may be missing; none
        // is there twice.
        spare.store(0, Relaxed);
        compiler_fence(SeqCst);
        // SAFETY: slots of the other half.
        top.store(unsafe { other.add(coming) }.as_ptr(), Release);
        compiler_fence(SeqCst);
        // SAFETY: as above: its last.
        limit.set(unsafe { other.add(run) }.as_ptr());
        spare.store(leaving, Release);
    }

    /// Fills the half in use of `class`, which is empty, and takes one block of it;
    /// null if there is no memory. The lowest address is handed out first, so that
    /// neighbours in time are neighbours in space.
    #[inline(never)]
    pub fn refill(&self, heap: &Heap, class: SizeClass, request: usize) -> *mut u8 {
        let Some(start) = NonNull::new(self.halves[class.index()].start.get()) else {
            return heap.take_one(self.lane(), class, request);
        };
        let spare = self.halves[class.index()].spare.load(Relaxed);
        if spare > 0 {
            self.change_places(class, start, 0, spare);
            return self.pop(class);
        }
        let (run, (bottom, _)) = (self.run(class), self.half(class, start));
        // SAFETY: M3; M4: what stands above the top is nobody's.
        let slots = unsafe { slice::from_raw_parts_mut(bottom.as_ptr().add(1), run) };
        let taken = heap.refill(self.lane(), class, request, slots);
        if taken < run {
            slots.copy_within(run - taken.., 0);
        }
        let Some(rest) = taken.checked_sub(1) else {
            return ptr::null_mut();
        };
        // Release as in `push`.
        // SAFETY: `rest` slots above the bottom hold blocks.
        let top = unsafe { bottom.add(rest) };
        self.in_use[class.index()].top.store(top.as_ptr(), Release);
        slots[rest]
    }

    /// Makes room in the magazines of `class`, where the half in use is full: its
    /// spare half, if full too, goes back. Returns how many blocks that is.
    #[inline(never)]
    pub fn flush(&self, heap: &Heap, class: SizeClass) -> usize {
        let Some(start) = NonNull::new(self.halves[class.index()].start.get()) else {
            return 0;
        };
        let back = self.take_spare(class, start).map_or(0, |spare| {
            heap.flush(class, spare);
            spare.len()
        });
        self.change_places(class, start, self.run(class), 0);
        back
    }

    /// The blocks of the spare half, if it has some: they are the caller's from now on,
    /// and their slots while the halves stay where they are.
    fn take_spare(&self, class: SizeClass, start: NonNull<Slot>) -> Option<&[Slot]> {
        let held = self.halves[class.index()].spare.load(Relaxed);
        if held == 0 {
            return None;
        }
        // M4: while its blocks are on their way, the half is empty.
        self.halves[class.index()].spare.store(0, Relaxed);
        compiler_fence(SeqCst);
        let (_, other) = self.half(class, start);
        // SAFETY: M5: so many slots above the bottom held blocks just now.
        Some(unsafe { slice::from_raw_parts(other.as_ptr().add(1), held) })
    }

    /// Gives every block of every class back to its pool. Returns their bytes.
    pub fn empty(&self, heap: &Heap) -> usize {
        let mut bytes = 0;
        for class in SizeClass::all() {
            let Some(start) = NonNull::new(self.halves[class.index()].start.get()) else {
                continue;
            };
            if let Some(run) = self.take_spare(class, start) {
                heap.give(class, run);
                bytes += run.len() * class.size();
            }
            let held = self.held(class);
            bytes += held * class.size();
            let (bottom, _) = self.half(class, start);
            // As in `take_spare`.
            self.in_use[class.index()]
                .top
                .store(bottom.as_ptr(), Relaxed);
            compiler_fence(SeqCst);
            if held > 0 {
                // SAFETY: M2, as above.
                let slots = unsafe { slice::from_raw_parts(bottom.as_ptr().add(1), held) };
                heap.give(class, slots);
            }
        }
        bytes
    }

    /// Asserts the invariants, for tests, and says which blocks there are.
    #[cfg(any(test, feature = "model"))]
    pub fn check(&self, class: SizeClass) -> std::vec::Vec<Slot> {
        let (Magazine { top, limit }, run) = (&self.in_use[class.index()], self.run(class));
        let Some(start) = NonNull::new(self.halves[class.index()].start.get()) else {
            assert!(limit.get().is_null() && top.load(Relaxed) == NO_SLOTS, "M3");
            return std::vec::Vec::new();
        };
        let ((bottom, other), held) = (self.half(class, start), self.held(class));
        let spare = self.halves[class.index()].spare.load(Relaxed);
        assert!([0, run].contains(&spare) && held <= spare + run, "M1, M5");
        // SAFETY: a half has so many slots with its bottom.
        let all = |half: NonNull<_>| unsafe { slice::from_raw_parts(half.as_ptr(), run + 1) };
        assert!(ptr::eq(limit.get(), &raw const all(bottom)[run]), "M3");
        assert!(all(bottom)[0].is_null() && all(other)[0].is_null(), "M2");
        [&all(bottom)[1..=held - spare], &all(other)[1..=spare]].concat()
    }
}
