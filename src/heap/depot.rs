//! The depot of a size class: free blocks on their way from one thread's magazines
//! to the next refill, without going through the pools.
//!
//! ```text
//!    a ring of rows, with room for a run each
//!
//!        +-----+-----+-----+-----+-----+-----+- ... -+-----+
//!        |     | run | run | run | part|     |       |     |
//!        +-----+-----+-----+-----+-----+-----+- ... -+-----+
//!                 ^                 ^
//!              oldest            newest: a flush fills it up, then begins the next;
//!       goes to the pools        a refill takes from it
//!       when a run comes and
//!       all rows are taken
//! ```
//!
//! What one thread makes another may drop, and many programs build and drop a few
//! hundred objects again and again: a run that is handed on as it is costs a copy of
//! its addresses, where the pools would note each block twice. And what was freed last
//! is what a processor's caches still have.
//!
//! The rows are metadata that a depot takes when it begins to keep runs. If there is no memory for
//! them, every run goes on to the pools.
//!
//! The bound is a pool's worth of blocks, so that a depot never decides where a
//! program's objects lie: blocks come from it in the order in which they were freed,
//! not in that of their addresses. (Without a bound the collector had to go all over
//! the place: async_tree took a third longer.)
//!
//! # Invariants
//!
//! DEPOT-1  The rows from the oldest to the newest hold as many blocks as `lens` says, at least
//!     one each, that nobody else has; their pools count them as taken. The others
//!     hold none, and 0 is their length.
//!     The rows are there from the first block on, and stay.
//! DEPOT-2  `least` is the smallest number of rows in use since it was asked for.
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

/// Rows of each depot. A run has some 4 KiB of blocks, so they hold a pool's worth.
const ROWS: usize = 16;

/// Runs that come before a depot begins to keep them: a program that does little needs no slots.
const BEGINS: u8 = 64;

/// A place for a block.
type Slot = Cell<*mut u8>;

/// What there is in a class's depot.
pub(crate) struct Depot {
    /// Runs that came, up to [`BEGINS`].
    came: Cell<u8>,
    /// The row in which blocks came last.
    newest: Cell<u8>,
    /// Rows in use.
    rows: Cell<u8>,
    least: Cell<u8>,
    lens: [Cell<u8>; ROWS],
    /// The rows, one behind the other, each as long as its class has room for. They lie apart, so
    /// that who only counts does not touch them.
    slots: Cell<Option<NonNull<Slot>>>,
}

// SAFETY: `slots` is what keeps the compiler from seeing this: slots are used under the class's lock,
// as the rest is.
unsafe impl Send for Depot {}

/// What leaves a depot when a run comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// There was room.
    Nothing,
    /// The run itself: the depot has not begun, or has no room at all.
    Run,
    /// So many blocks, those that have been there for longest.
    Oldest(usize),
}

/// How many blocks of `class` a row has room for. Of medium ones, for none: what a
/// depot keeps keeps pages, and a lock costs little beside filling such a block.
fn room(class: SizeClass) -> usize {
    match class.info() {
        info if info.size as usize <= SMALL_MAX => info.run as usize,
        _ => 0,
    }
}

impl Depot {
    /// An empty one.
    pub(crate) const fn new() -> Depot {
        Depot {
            came: Cell::new(0),
            newest: Cell::new(0),
            rows: Cell::new(0),
            least: Cell::new(0),
            lens: [const { Cell::new(0) }; ROWS],
            slots: Cell::new(None),
        }
    }

    /// Blocks in it.
    pub(crate) fn held(&self) -> usize {
        self.lens.iter().map(|len| usize::from(len.get())).sum()
    }

    /// Rows in use.
    pub(crate) fn rows(&self) -> usize {
        self.rows.get().into()
    }

    /// The index of the newest row.
    fn newest(&self) -> usize {
        usize::from(self.newest.get()) % ROWS
    }

    fn len(&self, row: usize) -> usize {
        usize::from(self.lens[row].get()).min(BLOCKS_PER_WORD)
    }

    fn set_len(&self, row: usize, len: usize) {
        self.lens[row].set(len as u8);
    }

    /// The slots of a row, where blocks of `class` are kept; none before the depot has begun.
    #[inline]
    fn row(&self, row: usize, class: SizeClass) -> &'static [Slot] {
        let Some(slots) = self.slots.get() else {
            return &[];
        };
        let room = room(class);
        // SAFETY: `begin` made `ROWS` times as many slots, which are there for good.
        unsafe { slice::from_raw_parts(slots.as_ptr().add(row % ROWS * room), room) }
    }

    /// Counts a run that came before the depot keeps any. Whether it keeps them from now on.
    #[cold]
    #[inline(never)]
    fn begin(&self, class: SizeClass) -> bool {
        if self.came.get() < BEGINS {
            self.came.set(self.came.get() + 1);
            return false;
        }
        self.came.set(0); // and again later, if there is no memory
        // All zero, which is null for each slot, and aligned to more than a slot.
        let made = metadata::take(ROWS * room(class) * size_of::<Slot>());
        self.slots.set(made.map(NonNull::cast));
        made.is_some()
    }

    /// Puts a run of blocks of `class` in. What has no room leaves: see [`Left`]; the
    /// oldest blocks stand at the start of `out` then.
    #[inline]
    pub(crate) fn put(
        &self,
        class: SizeClass,
        run: &[*mut u8],
        out: &mut [MaybeUninit<*mut u8>; BLOCKS_PER_WORD],
    ) -> Left {
        if run.len() > room(class) || self.slots.get().is_none() && !self.begin(class) {
            return Left::Run;
        }
        let (mut row, mut left) = (self.newest(), Left::Nothing);
        let mut len = self.len(row);
        if len + run.len() > room(class) {
            row = (row + 1) % ROWS;
            // DEPOT-1: none, if the row is not in use.
            len = self.len(row);
            if len > 0 {
                for (to, slot) in out.iter_mut().zip(&self.row(row, class)[..len]) {
                    to.write(slot.get());
                }
                left = Left::Oldest(len);
                self.rows.set(self.rows.get() - 1);
                len = 0;
            }
            self.newest.set(row as u8);
        }
        if len == 0 {
            self.rows.set(self.rows.get() + 1);
        }
        for (slot, block) in self.row(row, class)[len..].iter().zip(run) {
            slot.set(*block);
        }
        self.set_len(row, len + run.len());
        left
    }

    /// Takes the blocks that came last, in the order in which they came, as many as
    /// the newest row has and `out` has room for. They fill the end of `out`. Returns how
    /// many.
    #[inline]
    pub(crate) fn take(&self, class: SizeClass, out: &mut [*mut u8]) -> usize {
        let row = self.newest();
        let len = self.len(row);
        let n = out.len().min(len);
        if n == 0 {
            return 0;
        }
        let (rest, room) = (len - n, out.len() - n);
        for (to, slot) in out[room..].iter_mut().zip(&self.row(row, class)[rest..len]) {
            *to = slot.get();
        }
        self.set_len(row, rest);
        if rest == 0 {
            self.newest.set(((row + ROWS - 1) % ROWS) as u8);
            self.drop_row();
        }
        n
    }

    /// Takes the blocks that have been there for longest, a row of them. They stand at the
    /// start of `out`. Returns how many.
    pub(crate) fn take_oldest(
        &self,
        class: SizeClass,
        out: &mut [*mut u8; BLOCKS_PER_WORD],
    ) -> usize {
        let row = (self.newest() + ROWS + 1 - self.rows()) % ROWS;
        let len = self.len(row);
        if len == 0 {
            return 0; // DEPOT-1: it is not in use, so none is
        }
        for (to, slot) in out.iter_mut().zip(&self.row(row, class)[..len]) {
            *to = slot.get();
        }
        self.set_len(row, 0);
        self.drop_row();
        len
    }

    fn drop_row(&self) {
        let rows = self.rows.get() - 1;
        self.rows.set(rows);
        self.least.set(self.least.get().min(rows));
    }

    /// How many rows nobody has taken from since this was asked the last time.
    pub(crate) fn unused(&self) -> usize {
        self.least.replace(self.rows.get()).into()
    }

    /// Asserts the invariants, for tests, and says which blocks it has.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(&self, class: SizeClass) -> std::vec::Vec<*mut u8> {
        assert!(self.least.get() <= self.rows.get(), "DEPOT-2");
        let in_use = |row: usize| (self.newest() + ROWS - row) % ROWS < self.rows();
        let all = (0..ROWS).flat_map(|row| {
            let len = self.len(row);
            assert!(len <= room(class) && (len > 0) == in_use(row), "DEPOT-1");
            &self.row(row, class)[..len]
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

    struct Begun {
        depot: Depot,
        class: SizeClass,
    }

    /// A depot that has begun.
    fn begun(size: usize) -> Begun {
        let depot = Depot::new();
        depot.came.set(BEGINS);
        Begun {
            depot,
            class: SizeClass::of(size).unwrap(),
        }
    }

    impl Begun {
        /// What leaves when these come.
        fn put(&self, run: &[*mut u8]) -> Vec<*mut u8> {
            let mut oldest = [MaybeUninit::uninit(); BLOCKS_PER_WORD];
            let left = match self.depot.put(self.class, run, &mut oldest) {
                Left::Nothing => Vec::new(),
                Left::Run => run.to_vec(),
                // SAFETY: so many were written.
                Left::Oldest(n) => oldest[..n]
                    .iter()
                    .map(|block| unsafe { block.assume_init() })
                    .collect(),
            };
            self.depot.check(self.class);
            left
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
    fn it_begins_when_runs_keep_coming() {
        let new = begun(64);
        new.depot.came.set(0);
        for _ in 0..BEGINS {
            assert_eq!(new.put(&blocks(1..5)), blocks(1..5));
        }
        assert!(new.put(&blocks(1..5)).is_empty());
        assert_eq!(new.depot.held(), 4);
    }

    #[test]
    fn the_run_that_came_last_goes_first() {
        let it = begun(64);
        for run in [0..60, 60..120] {
            assert!(it.put(&blocks(run)).is_empty());
        }
        assert_eq!(it.take(30), blocks(90..120));
        assert_eq!((it.depot.held(), it.depot.rows()), (90, 2));
        assert_eq!(
            it.take(100),
            blocks(60..90),
            "no more than the newest row has"
        );
        assert_eq!(it.take(100), blocks(0..60));
        assert_eq!((it.take(100), it.depot.rows()), (vec![], 0));
    }

    #[test]
    fn short_runs_share_a_row() {
        let it = begun(64);
        it.put(&blocks(0..32));
        it.put(&blocks(32..64));
        assert_eq!(it.depot.rows(), 1);
        it.put(&blocks(64..96));
        assert_eq!((it.depot.rows(), it.depot.held()), (2, 96));
        assert_eq!(it.take(64), blocks(64..96));
        assert_eq!(it.take(64), blocks(0..64));
    }

    #[test]
    fn the_oldest_leave_a_full_one() {
        let it = begun(512);
        let run = room(it.class);
        for turn in 0..ROWS {
            assert!(it.put(&blocks(turn * run..(turn + 1) * run)).is_empty());
        }
        for turn in ROWS..3 * ROWS {
            let left = it.put(&blocks(turn * run..(turn + 1) * run));
            assert_eq!(left, blocks((turn - ROWS) * run..(turn - ROWS + 1) * run));
        }
        assert_eq!(
            it.take_oldest(),
            blocks(2 * ROWS * run..(2 * ROWS + 1) * run)
        );
        assert_eq!(it.take(run), blocks((3 * ROWS - 1) * run..3 * ROWS * run));
        assert_eq!(it.depot.rows(), ROWS - 2);
    }

    #[test]
    fn it_loses_no_block_whatever_comes_and_goes() {
        for size in [16, 48, 80, 512, 576] {
            let (it, mut left, mut next) = (begun(size), Vec::new(), 0);
            for turn in 0..300 {
                let run = blocks(next..next + 1 + turn % room(it.class).max(1));
                next += run.len();
                left.extend(it.put(&run));
                match turn % 5 {
                    1 => left.extend(it.take(7)),
                    2 if turn > 150 => left.extend(it.take(64)),
                    3 if turn > 250 => left.extend(it.take_oldest()),
                    _ => {}
                }
                assert_eq!(left.len() + it.depot.held(), next);
            }
            while it.depot.rows() > 0 {
                left.extend(it.take_oldest());
            }
            left.sort();
            assert_eq!(left, blocks(0..next));
        }
    }

    #[test]
    fn what_nobody_takes_is_known() {
        let it = begun(64);
        it.put(&blocks(0..64));
        it.put(&blocks(64..128));
        assert_eq!(it.depot.unused(), 0);
        assert_eq!(it.depot.unused(), 2);
        it.take(64);
        it.put(&blocks(64..128));
        assert_eq!((it.depot.unused(), it.depot.rows()), (1, 2));
        assert_eq!(it.depot.unused(), 2);
    }
}
