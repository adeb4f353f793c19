//! The depot of a size class: free blocks on their way from one thread's magazines
//! to the next refill, without going through the pools.
//!
//! ```text
//!    flush  -->  | run | run | run | run |      |  -->  refill: the run that came last
//!                   |
//!                   v  when it is full: by turns, to the pools; or the run itself,
//!                      while nobody takes any
//! ```
//!
//! What one thread makes another may drop, and many programs build and drop a few
//! hundred objects again and again: a run that is handed on as it is costs a copy of
//! its addresses, where the pools would note each block twice.
//!
//! The bound is a pool's worth of blocks, so that a depot never decides where a
//! program's objects lie: blocks come from it in the order in which they were freed,
//! not in that of their addresses. (Without a bound the collector had to go all over
//! the place: async_tree took a third longer.)
//!
//! # Invariants
//!
//! D1  The first `len` slots hold blocks of the class that nobody else has; their
//!     pools count them as taken.
//! D2  `least` is the smallest `len` since it was asked for.
//!
//! # Threads
//!
//! Under the class's lock.

use core::mem::MaybeUninit;
use core::ptr;

use crate::geometry::POOL_SIZE;
use crate::size_class::{SMALL_MAX, SizeClass};
use crate::sync::Cell;

/// Blocks that the depot of any class has room for at the most.
const ROOM: usize = 1024;

/// A number of blocks in a depot, kept short: what a class has lies on few cache lines.
struct Few(Cell<u16>);

impl Few {
    const fn new() -> Few {
        Few(Cell::new(0))
    }

    #[inline]
    fn get(&self) -> usize {
        self.0.get().into()
    }

    #[inline]
    fn set(&self, n: usize) {
        debug_assert!(n <= ROOM);
        self.0.set(n as u16);
    }
}

/// Runs that come before a depot begins to keep them: a program that does little
/// need not touch its slots.
const BEGINS: u8 = 64;

/// The slots of a class's depot. They lie apart, so that who only counts does not touch
/// them.
pub struct Slots([Cell<*mut u8>; ROOM]);

// SAFETY: used under the class's lock.
unsafe impl Sync for Slots {}

impl Slots {
    /// No block in any.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> Slots {
        Slots([const { Cell::new(ptr::null_mut()) }; ROOM])
    }
}

/// What there is in a class's depot.
pub struct Depot {
    /// Runs that came, up to [`BEGINS`].
    came: Cell<u8>,
    len: Few,
    least: Few,
    /// Where the next run that is to leave begins.
    turn: Few,
    /// Whether blocks were taken since older ones left.
    asked: Cell<bool>,
}

/// What leaves a depot when a run comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// There was room.
    Nothing,
    /// The run itself: the depot is full and nobody takes anything, or it has not begun,
    /// or has no room at all.
    Run,
    /// So many older blocks, by turns: the depot is full and in use.
    Older(usize),
}

/// How many blocks of `class` its depot has room for. Medium ones have none: what a
/// depot keeps keeps pages, and a lock costs little beside filling such a block.
fn room(class: SizeClass) -> usize {
    match class.size() {
        size @ ..=SMALL_MAX => (POOL_SIZE / size).min(ROOM),
        _ => 0,
    }
}

impl Depot {
    /// An empty one.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> Depot {
        Depot {
            came: Cell::new(0),
            len: Few::new(),
            least: Few::new(),
            turn: Few::new(),
            asked: Cell::new(false),
        }
    }

    /// Blocks in it.
    pub fn held(&self) -> usize {
        self.len.get()
    }

    /// Puts a run of blocks of `class` in. What has no room leaves: see [`Left`]; older
    /// blocks stand at the start of `out` then.
    #[inline]
    pub fn put(
        &self,
        slots: &Slots,
        class: SizeClass,
        run: &[*mut u8],
        out: &mut [MaybeUninit<*mut u8>],
    ) -> Left {
        let (len, n) = (self.len.get(), run.len());
        if self.came.get() < BEGINS {
            self.came.set(self.came.get() + 1);
            return Left::Run;
        }
        if len + n <= room(class) {
            for (slot, block) in slots.0[len..len + n].iter().zip(run) {
                slot.set(*block);
            }
            self.len.set(len + n);
            return Left::Nothing;
        }
        if n > len || !self.asked.replace(false) {
            return Left::Run;
        }
        let turn = self.turn.get();
        let at = if turn + n <= len { turn } else { 0 };
        let leaving = slots.0[at..at + n].iter();
        for ((slot, block), older) in leaving.zip(run).zip(out) {
            older.write(slot.replace(*block));
        }
        self.turn.set(at + n);
        Left::Older(n)
    }

    /// Takes the blocks that came last, in the order in which they came, as many as
    /// there are and `out` has room for. They fill the end of `out`. Returns how many.
    #[inline]
    pub fn take(&self, slots: &Slots, out: &mut [*mut u8]) -> usize {
        let len = self.len.get();
        let n = out.len().min(len);
        let rest = len - n;
        let room = out.len() - n;
        for (to, slot) in out[room..].iter_mut().zip(&slots.0[rest..len]) {
            *to = slot.get();
        }
        self.len.set(rest);
        self.asked.set(true);
        self.least.set(self.least.get().min(rest));
        n
    }

    /// How many blocks nobody has taken since this was asked the last time.
    pub fn unused(&self) -> usize {
        let unused = self.least.get();
        self.least.set(self.len.get());
        unused
    }

    /// Asserts the invariants, for tests, and says which blocks it has.
    #[cfg(any(test, feature = "model"))]
    pub fn check(&self, slots: &Slots, class: SizeClass) -> std::vec::Vec<*mut u8> {
        let len = self.len.get();
        assert!(len <= room(class), "D1");
        assert!(self.least.get() <= len, "D2");
        slots.0[..len].iter().map(Cell::get).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    fn blocks(numbers: core::ops::Range<usize>) -> Vec<*mut u8> {
        numbers.map(ptr::without_provenance_mut).collect()
    }

    fn init(out: &[MaybeUninit<*mut u8>]) -> Vec<*mut u8> {
        // SAFETY: the caller names those that were written.
        out.iter()
            .map(|block| unsafe { block.assume_init() })
            .collect()
    }

    fn begun() -> Depot {
        let depot = Depot::new();
        depot.came.set(BEGINS);
        depot
    }

    #[test]
    fn it_begins_when_runs_keep_coming() {
        let (depot, slots, class) = (Depot::new(), Slots::new(), SizeClass::of(64).unwrap());
        let mut out = [MaybeUninit::uninit(); 64];
        for _ in 0..BEGINS {
            assert_eq!(depot.put(&slots, class, &blocks(1..5), &mut out), Left::Run);
        }
        assert_eq!(
            depot.put(&slots, class, &blocks(1..5), &mut out),
            Left::Nothing
        );
        assert_eq!(depot.held(), 4);
    }

    #[test]
    fn the_run_that_came_last_goes_first() {
        let (depot, slots, class) = (begun(), Slots::new(), SizeClass::of(512).unwrap());
        let mut older = [MaybeUninit::uninit(); 64];
        for run in [0..60, 60..120] {
            assert_eq!(
                depot.put(&slots, class, &blocks(run), &mut older),
                Left::Nothing
            );
        }
        let mut out = [ptr::null_mut(); 30];
        assert_eq!(depot.take(&slots, &mut out), 30);
        assert_eq!(out.to_vec(), blocks(90..120));
        let mut rest = [ptr::null_mut(); 100];
        assert_eq!((depot.held(), depot.take(&slots, &mut rest)), (90, 90));
        assert_eq!(rest[10..].to_vec(), blocks(0..90));
        assert_eq!(depot.take(&slots, &mut rest), 0);
    }

    #[test]
    fn a_full_one_lets_older_blocks_go_and_loses_none() {
        for size in [16, 48, 512, 576] {
            let (depot, slots, class) = (begun(), Slots::new(), SizeClass::of(size).unwrap());
            let (mut older, mut left) = ([MaybeUninit::uninit(); 64], Vec::new());
            for turn in 0..100 {
                let run = blocks(turn * 50..turn * 50 + 50);
                match depot.put(&slots, class, &run, &mut older) {
                    Left::Nothing => {}
                    Left::Run => left.extend(run),
                    Left::Older(n) => left.extend(init(&older[..n])),
                }
                assert!(depot.held() <= room(class));
                let mut taken = [ptr::null_mut(); 7];
                if turn % 3 == 0 && depot.held() >= taken.len() {
                    depot.take(&slots, &mut taken);
                    left.extend(taken);
                }
            }
            let mut rest = vec![ptr::null_mut(); ROOM];
            let n = depot.take(&slots, &mut rest);
            left.extend_from_slice(&rest[ROOM - n..]);
            left.sort();
            assert_eq!(left, blocks(0..5000));
        }
    }

    #[test]
    fn a_full_one_keeps_what_came_last_only_while_some_is_taken() {
        let (depot, slots, class) = (begun(), Slots::new(), SizeClass::of(512).unwrap());
        let mut out = [MaybeUninit::uninit(); 64];
        let mut put = |numbers| depot.put(&slots, class, &blocks(numbers), &mut out);
        assert_eq!(put(0..64), Left::Nothing);
        assert_eq!(put(64..room(class)), Left::Nothing);
        assert_eq!(put(200..250), Left::Run);
        depot.take(&slots, &mut [ptr::null_mut(); 10]);
        assert_eq!(put(200..250), Left::Older(50));
        assert_eq!(put(250..300), Left::Run);
    }

    #[test]
    fn what_nobody_takes_is_known() {
        let (depot, slots, class) = (begun(), Slots::new(), SizeClass::of(64).unwrap());
        depot.put(&slots, class, &blocks(0..50), &mut []);
        assert_eq!(depot.unused(), 0);
        assert_eq!(depot.unused(), 50);
        depot.take(&slots, &mut [ptr::null_mut(); 20]);
        depot.put(&slots, class, &blocks(50..90), &mut []);
        assert_eq!((depot.unused(), depot.held()), (30, 70));
    }
}
