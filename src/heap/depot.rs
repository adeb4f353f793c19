//! The depot of a size class: batches of free blocks between one thread's flush and another's
//! refill, which bypass the pools.
//!
//! ```text
//!    a ring of 16 batches
//!
//!        +-----+-----+-----+-----+-----+-----+- ... -+-----+
//!        |     |batch|batch|batch|part |     |       |     |
//!        +-----+-----+-----+-----+-----+-----+- ... -+-----+
//!                 ^                 ^
//!              oldest            newest: a flush fills it up, then starts the next;
//!       goes to the pools        a refill takes from it
//!       when a flush finds
//!       the ring full
//! ```
//!
//! What one thread allocates another may free, and many programs build and drop a few hundred
//! objects again and again: passing on a batch costs a copy of its addresses, where the pools would
//! touch a bit of each block twice. And the blocks that were freed last are those that a processor's
//! caches still have.
//!
//! The ring's slots are metadata that a depot takes when it starts to keep batches. If there is no
//! memory for them, every batch goes on to the pools.
//!
//! The bound is a pool's worth of blocks, so that a depot never determines where a program's objects
//! are: blocks come from it in the order of their frees, not in that of their addresses.
//! (Without a bound the collector's accesses were scattered: async_tree took a third longer.)
//!
//! # Invariants
//!
//! DEPOT-1  The batches from the oldest to the newest hold the numbers of blocks in `lens`, at least
//!     one each, which are in no other place; their pools count them as taken. All other batches
//!     have length 0. The slots are there from the first block on, and stay.
//! DEPOT-2  `least` is the smallest number of batches in use since `take_unused` was called.
//!
//! # Threads
//!
//! Under the class's lock.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;

use crate::arena::metadata;
use crate::base::size_class::{BLOCKS_PER_WORD, SMALL_MAX, SizeClass};
use crate::sync::Cell;

/// Batches in each depot. A batch has about 4 KiB of blocks, so they hold a pool's worth.
const BATCHES: usize = 16;

/// Flushes before a depot starts to keep batches: a program that does little needs no slots. (Fewer
/// under Miri, which is slow.)
const FLUSHES_BEFORE_START: u8 = if cfg!(miri) { 2 } else { 64 };

type Slot = Cell<*mut u8>;

/// The depot of a class.
pub(crate) struct Depot {
    /// Flushes so far, up to [`FLUSHES_BEFORE_START`].
    flushes: Cell<u8>,
    /// The index of the newest batch.
    newest: Cell<u8>,
    /// Batches in use.
    batches: Cell<u8>,
    least: Cell<u8>,
    lens: [Cell<u8>; BATCHES],
    /// The slots of all batches, one behind the other. Kept out of `Depot`, so that reading counters
    /// does not fault these pages in.
    slots: Cell<Option<NonNull<Slot>>>,
}

// SAFETY: slots are accessed under the class's lock, as all other fields are.
unsafe impl Send for Depot {}

/// The blocks that a flush pushes out of the depot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Evicted {
    /// There was room.
    Nothing,
    /// The flushed batch itself: the depot has not started, or keeps none of the class.
    Batch,
    /// This number of blocks, the oldest batch.
    Oldest(usize),
}

/// Blocks of `class` in a batch of the depot. None of medium classes: what a depot keeps pins pages,
/// and a lock costs little compared to filling a block of that size.
fn capacity(class: SizeClass) -> usize {
    match class.info() {
        info if info.size as usize <= SMALL_MAX => info.batch as usize,
        _ => 0,
    }
}

impl Depot {
    pub(crate) const fn new() -> Depot {
        Depot {
            flushes: Cell::new(0),
            newest: Cell::new(0),
            batches: Cell::new(0),
            least: Cell::new(0),
            lens: [const { Cell::new(0) }; BATCHES],
            slots: Cell::new(None),
        }
    }

    /// Blocks in all batches.
    pub(crate) fn blocks(&self) -> usize {
        self.lens.iter().map(|len| usize::from(len.get())).sum()
    }

    /// Batches in use.
    pub(crate) fn batches(&self) -> usize {
        self.batches.get().into()
    }

    fn newest(&self) -> usize {
        usize::from(self.newest.get()) % BATCHES
    }

    fn len(&self, batch: usize) -> usize {
        usize::from(self.lens[batch].get()).min(BLOCKS_PER_WORD)
    }

    fn set_len(&self, batch: usize, len: usize) {
        self.lens[batch].set(len as u8);
    }

    /// The slots of a batch, for blocks of `class`; none before the depot has started.
    #[inline]
    fn slots(&self, batch: usize, class: SizeClass) -> &'static [Slot] {
        let Some(slots) = self.slots.get() else {
            return &[];
        };
        let capacity = capacity(class);
        // SAFETY: DEPOT-1: `start` has made `BATCHES * capacity` slots, which are never unmapped.
        unsafe { slice::from_raw_parts(slots.as_ptr().add(batch % BATCHES * capacity), capacity) }
    }

    /// Counts a flush before the depot keeps any batch. Returns whether it keeps them from now on.
    #[cold]
    #[inline(never)]
    fn start(&self, class: SizeClass) -> bool {
        if self.flushes.get() < FLUSHES_BEFORE_START {
            self.flushes.set(self.flushes.get() + 1);
            return false;
        }
        self.flushes.set(0); // tries again later if there is no memory
        // All zero, which is null for each slot, and aligned to more than a slot.
        let made = metadata::take(BATCHES * capacity(class) * size_of::<Slot>());
        self.slots.set(made.map(NonNull::cast));
        made.is_some()
    }

    /// Puts a flushed batch of `class` in. If that evicts the oldest blocks, they are at the start of
    /// `out` then.
    #[inline]
    pub(crate) fn put(
        &self,
        class: SizeClass,
        flushed: &[*mut u8],
        out: &mut [MaybeUninit<*mut u8>; BLOCKS_PER_WORD],
    ) -> Evicted {
        if flushed.len() > capacity(class) || self.slots.get().is_none() && !self.start(class) {
            return Evicted::Batch;
        }
        let (mut batch, mut evicted) = (self.newest(), Evicted::Nothing);
        let mut len = self.len(batch);
        if len + flushed.len() > capacity(class) {
            batch = (batch + 1) % BATCHES;
            // DEPOT-1: 0, if the batch is not in use.
            len = self.len(batch);
            if len > 0 {
                for (to, slot) in out.iter_mut().zip(&self.slots(batch, class)[..len]) {
                    to.write(slot.get());
                }
                evicted = Evicted::Oldest(len);
                self.batches.set(self.batches.get() - 1);
                len = 0;
            }
            self.newest.set(batch as u8);
        }
        if len == 0 {
            self.batches.set(self.batches.get() + 1);
        }
        for (slot, block) in self.slots(batch, class)[len..].iter().zip(flushed) {
            slot.set(*block);
        }
        self.set_len(batch, len + flushed.len());
        evicted
    }

    /// Takes the blocks that were flushed last, in the order of the flush: as many as the newest batch
    /// has and `out` has room for. They fill the end of `out`. Returns their number.
    #[inline]
    pub(crate) fn take(&self, class: SizeClass, out: &mut [*mut u8]) -> usize {
        let batch = self.newest();
        let len = self.len(batch);
        let n = out.len().min(len);
        if n == 0 {
            return 0;
        }
        let (rest, room) = (len - n, out.len() - n);
        for (to, slot) in out[room..]
            .iter_mut()
            .zip(&self.slots(batch, class)[rest..len])
        {
            *to = slot.get();
        }
        self.set_len(batch, rest);
        if rest == 0 {
            self.newest.set(((batch + BATCHES - 1) % BATCHES) as u8);
            self.drop_batch();
        }
        n
    }

    /// Takes the oldest batch. Its blocks are at the start of `out` then. Returns their number.
    pub(crate) fn take_oldest(
        &self,
        class: SizeClass,
        out: &mut [*mut u8; BLOCKS_PER_WORD],
    ) -> usize {
        let batch = (self.newest() + BATCHES + 1 - self.batches()) % BATCHES;
        let len = self.len(batch);
        if len == 0 {
            return 0; // DEPOT-1: it is not in use, so none is
        }
        for (to, slot) in out.iter_mut().zip(&self.slots(batch, class)[..len]) {
            *to = slot.get();
        }
        self.set_len(batch, 0);
        self.drop_batch();
        len
    }

    fn drop_batch(&self) {
        let batches = self.batches.get() - 1;
        self.batches.set(batches);
        self.least.set(self.least.get().min(batches));
    }

    /// The number of batches that stayed unused since the last call.
    pub(crate) fn take_unused(&self) -> usize {
        self.least.replace(self.batches.get()).into()
    }

    /// Asserts the invariants, for tests. Returns the blocks.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(&self, class: SizeClass) -> std::vec::Vec<*mut u8> {
        assert!(self.least.get() <= self.batches.get(), "DEPOT-2");
        let in_use = |batch: usize| (self.newest() + BATCHES - batch) % BATCHES < self.batches();
        let all = (0..BATCHES).flat_map(|batch| {
            let len = self.len(batch);
            assert!(
                len <= capacity(class) && (len > 0) == in_use(batch),
                "DEPOT-1"
            );
            &self.slots(batch, class)[..len]
        });
        all.map(Cell::get).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    fn blocks(numbers: core::ops::Range<usize>) -> Vec<*mut u8> {
        numbers
            .map(|n| core::ptr::without_provenance_mut(n + 1))
            .collect()
    }

    struct Started {
        depot: Depot,
        class: SizeClass,
    }

    /// A depot that keeps batches.
    fn started(size: usize) -> Started {
        let depot = Depot::new();
        depot.flushes.set(FLUSHES_BEFORE_START);
        Started {
            depot,
            class: SizeClass::of(size).unwrap(),
        }
    }

    impl Started {
        /// Puts a batch in. Returns the blocks that are evicted.
        fn put(&self, batch: &[*mut u8]) -> Vec<*mut u8> {
            let mut oldest = [MaybeUninit::uninit(); BLOCKS_PER_WORD];
            let evicted = match self.depot.put(self.class, batch, &mut oldest) {
                Evicted::Nothing => Vec::new(),
                Evicted::Batch => batch.to_vec(),
                // SAFETY: `put` has written `n` blocks.
                Evicted::Oldest(n) => oldest[..n]
                    .iter()
                    .map(|block| unsafe { block.assume_init() })
                    .collect(),
            };
            self.depot.check(self.class);
            evicted
        }

        /// Up to `n` blocks, taken.
        fn take(&self, n: usize) -> Vec<*mut u8> {
            let mut out = vec![core::ptr::null_mut(); n];
            let taken = self.depot.take(self.class, &mut out);
            self.depot.check(self.class);
            out.split_off(n - taken)
        }

        fn take_oldest(&self) -> Vec<*mut u8> {
            let mut out = [core::ptr::null_mut(); BLOCKS_PER_WORD];
            let taken = self.depot.take_oldest(self.class, &mut out);
            self.depot.check(self.class);
            out[..taken].to_vec()
        }
    }

    #[test]
    fn it_starts_after_some_flushes() {
        let new = started(64);
        new.depot.flushes.set(0);
        for _ in 0..FLUSHES_BEFORE_START {
            assert_eq!(new.put(&blocks(1..5)), blocks(1..5));
        }
        assert!(new.put(&blocks(1..5)).is_empty());
        assert_eq!(new.depot.blocks(), 4);
    }

    #[test]
    fn the_newest_batch_is_taken_first() {
        let it = started(64);
        for batch in [0..60, 60..120] {
            assert!(it.put(&blocks(batch)).is_empty());
        }
        assert_eq!(it.take(30), blocks(90..120));
        assert_eq!((it.depot.blocks(), it.depot.batches()), (90, 2));
        assert_eq!(it.take(100), blocks(60..90), "at most the newest batch");
        assert_eq!(it.take(100), blocks(0..60));
        assert_eq!((it.take(100), it.depot.batches()), (vec![], 0));
    }

    #[test]
    fn short_flushes_share_a_batch() {
        let it = started(64);
        it.put(&blocks(0..32));
        it.put(&blocks(32..64));
        assert_eq!(it.depot.batches(), 1);
        it.put(&blocks(64..96));
        assert_eq!((it.depot.batches(), it.depot.blocks()), (2, 96));
        assert_eq!(it.take(64), blocks(64..96));
        assert_eq!(it.take(64), blocks(0..64));
    }

    #[test]
    fn a_full_depot_evicts_the_oldest() {
        let it = started(512);
        let batch = capacity(it.class);
        for turn in 0..BATCHES {
            assert!(it.put(&blocks(turn * batch..(turn + 1) * batch)).is_empty());
        }
        for turn in BATCHES..3 * BATCHES {
            let left = it.put(&blocks(turn * batch..(turn + 1) * batch));
            assert_eq!(
                left,
                blocks((turn - BATCHES) * batch..(turn - BATCHES + 1) * batch)
            );
        }
        assert_eq!(
            it.take_oldest(),
            blocks(2 * BATCHES * batch..(2 * BATCHES + 1) * batch)
        );
        assert_eq!(
            it.take(batch),
            blocks((3 * BATCHES - 1) * batch..3 * BATCHES * batch)
        );
        assert_eq!(it.depot.batches(), BATCHES - 2);
    }

    #[test]
    fn it_loses_no_block_whatever_comes_and_goes() {
        for size in [16, 48, 80, 512, 576] {
            let (it, mut left, mut next) = (started(size), Vec::new(), 0);
            for turn in 0..300 {
                let batch = blocks(next..next + 1 + turn % capacity(it.class).max(1));
                next += batch.len();
                left.extend(it.put(&batch));
                match turn % 5 {
                    1 => left.extend(it.take(7)),
                    2 if turn > 150 => left.extend(it.take(64)),
                    3 if turn > 250 => left.extend(it.take_oldest()),
                    _ => {}
                }
                assert_eq!(left.len() + it.depot.blocks(), next);
            }
            while it.depot.batches() > 0 {
                left.extend(it.take_oldest());
            }
            left.sort();
            assert_eq!(left, blocks(0..next));
        }
    }

    #[test]
    fn unused_batches_are_counted() {
        let it = started(64);
        it.put(&blocks(0..64));
        it.put(&blocks(64..128));
        assert_eq!(it.depot.take_unused(), 0);
        assert_eq!(it.depot.take_unused(), 2);
        it.take(64);
        it.put(&blocks(64..128));
        assert_eq!((it.depot.take_unused(), it.depot.batches()), (1, 2));
        assert_eq!(it.depot.take_unused(), 2);
    }
}
