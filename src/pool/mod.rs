//! A pool: 64 KiB cut into blocks of one size class. Its descriptor, with a bit for
//! each block, lies elsewhere (in its arena's record).
//!
//! ```text
//!    POOL_SIZE bytes at a multiple of POOL_SIZE; addresses grow to the right
//!    +-----------+---------+---------+---------+---------+-- ... --+---------+
//!    |  48 bytes | block 0 | block 1 | block 2 | block 3 |         |   too   |
//!    |  not used | (taken) | (free)  | (taken) | (free)  |         |  short  |
//!    +-----------+---------+---------+---------+---------+-- ... --+---------+
//!                     1         0         1         0       ...
//!                  +-------------------------------------+
//!                  | words[0]: blocks 0 to 63            |  words[1] ...
//! ```
//!
//! A multiplication tells the number of the block that an address lies in, and
//! whether the address is its first byte (`size_class.rs`). One more word says in which
//! words to look for free blocks. How blocks come and go is in `pool_blocks.rs`.
//!
//! Nothing is ever written into a free block: it carries no link, so an OS
//! page of free blocks holds nothing and may go back to the kernel at any
//! moment; and a write after free hits no pointer. Blocks on pages that are
//! with us are handed out before blocks on pages that are not.
//!
//! A pool is in one of three states:
//!
//! used  == some block is free and some block is not. It is on a bucket of its
//!          class (`used_pools.rs`).
//! full  == no block is free. It is on no list; it is found again through the
//!          address map when one of its blocks comes back.
//! empty == it has no class. It is a bit in its arena's mask of free pools;
//!          nothing in the descriptor but `base` and the pages means anything.
//!
//! A block in some thread's magazine counts as taken here. What becomes of a pool's
//! pages is in `pool_pages.rs`.
//!
//! # Invariants
//!
//! P1  A bit is set exactly where a block is taken; and in the last word of the
//!     class, where there is no block. In an empty pool no bit is set.
//! P2  `free` is the number of the class's blocks that are not taken.
//! P3  Bit n of `words_free` is set exactly while word n has a bit that is not set,
//!     for words of the class.
//! P4  A pool is on a bucket exactly while it is used.
//! P5  A page outside of `resident` holds nothing that anyone wants: no taken
//!     block lies on it.
//! P6  A page in `idle` was free when it was looked at, and no block on it was
//!     taken since.
//! P7  `home` changes under the lock of the class that it names before or after, and
//!     the arenas' lock. So who holds a class's lock and reads that it names this class
//!     knows that it does until the lock is opened; whoever reads it without a lock
//!     learns no more than which lock to take. (Were it two words, for the shard and for
//!     the class, they might be of two moments.)
//!
//! # Threads
//!
//! A pool with a class is touched under that class's lock in its shard, an empty one under
//! the arenas' lock. It passes from the one to the other under both.

pub mod pages;

pub mod shard;

pub mod bitmap;

pub mod blocks;

pub mod purgeable;

pub mod mistakes;

pub mod invalid_free;

use crate::base::layout::pool_base;
use crate::base::list::{Linked, Links};
use crate::base::size_class::{SizeClass, TABLE_LEN, WORDS};
use crate::policy::fork_cow;
use crate::pool::pages::Pages;
use crate::pool::shard::{SHARDS, Shard};
use crate::sync::{AtomicU16, AtomicUsize, Cell, Ordering::Relaxed};

/// The descriptor of a pool. All zero is an empty pool without a place.
#[repr(C, align(64))]
pub struct Pool {
    links: Links<Pool>,
    /// Address of the pool; written when its arena gets chunk. Anyone may read
    /// it.
    base: AtomicUsize,
    /// Whose it is: indices of the shard and of the size class; 0 while empty (P7).
    home: AtomicU16,
    /// Blocks that are free (P2).
    pub(crate) free: Cell<u32>,
    /// The generation of the process when it began.
    generation: Cell<u32>,
    /// Pages that may be in memory (P5).
    pub(crate) resident: Cell<Pages>,
    /// Pages that have been free for a while (P6).
    pub(crate) idle: Cell<Pages>,
    /// Pages that went back to the kernel at some time; those of them that are not
    /// resident are still there.
    pub(crate) returned: Cell<Pages>,
    /// Which words have free blocks (P3).
    pub(crate) words_free: Cell<u32>,
    /// A bit for each block (P1).
    pub(crate) words: [Cell<u64>; WORDS],
}

// SAFETY: reached by several threads, but only under the lock that the module
// page names, which orders them.
unsafe impl Sync for Pool {}

impl Linked for Pool {
    fn links(&self) -> &Links<Pool> {
        &self.links
    }
}

/// A class in a shard, as `home` names it.
fn number(shard: Shard, class: SizeClass) -> u16 {
    (shard.index() << 8 | class.index()) as u16
}

const _: () = assert!(TABLE_LEN <= 1 << 8 && SHARDS <= 1 << 8);

impl Pool {
    /// Where the pool lies.
    #[inline]
    pub fn base(&self) -> usize {
        self.base.load(Relaxed)
    }

    /// Puts the descriptor in charge of the empty pool at `base`, of which these
    /// pages are resident.
    pub fn place(&self, base: usize, resident: Pages) {
        debug_assert_eq!(base, pool_base(base));
        self.base.store(base, Relaxed);
        self.home.store(0, Relaxed);
        self.resident.set(resident);
        self.idle.set(Pages::NONE);
        self.returned.set(Pages::NONE);
    }

    /// The class, unless the pool is empty.
    #[inline]
    pub fn class(&self) -> Option<SizeClass> {
        SizeClass::from_index(usize::from(self.home.load(Relaxed) as u8))
    }

    /// Whether the pool belongs to `class`.
    #[inline]
    pub fn is_of(&self, class: SizeClass) -> bool {
        usize::from(self.home.load(Relaxed) as u8) == class.index()
    }

    /// Whose it is, unless it is empty. Anyone may ask, and learns which lock to take.
    pub fn home(&self) -> Option<(Shard, SizeClass)> {
        let home = self.home.load(Relaxed);
        let class = SizeClass::from_index(usize::from(home as u8))?;
        Some((Shard::from_index((home >> 8) as u8), class))
    }

    /// Whether the class, whose lock is held, has the pool (P7).
    pub fn is_at(&self, shard: Shard, class: SizeClass) -> bool {
        self.home.load(Relaxed) == number(shard, class)
    }

    /// The shard whose class it belongs to, unless it is empty.
    #[inline]
    pub fn shard(&self) -> Shard {
        Shard::from_index((self.home.load(Relaxed) >> 8) as u8)
    }

    /// The generation of the process when the pool began.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Blocks that are free.
    #[inline]
    pub fn free(&self) -> u32 {
        self.free.get()
    }

    /// Cuts the empty pool into blocks of `class`, all of them free, for `shard`. Not one
    /// byte of the pool itself is touched.
    pub fn begin(&self, shard: Shard, class: SizeClass) {
        let info = class.info();
        let words = info.words();
        self.home.store(number(shard, class), Relaxed);
        self.generation.set(fork_cow::generation());
        self.free.set(info.blocks);
        self.words_free.set(u32::MAX >> (WORDS - words));
        self.words[words - 1].set(bitmap::of_no_block(info, words - 1));
    }

    /// Makes the pool empty; all its blocks are free.
    pub fn end(&self) {
        if let Some(class) = self.class() {
            self.words[class.info().words() - 1].set(0);
        }
        self.home.store(0, Relaxed);
    }

    /// The pages that may be in memory.
    pub fn resident(&self) -> Pages {
        self.resident.get()
    }

    /// Whether a block of the pool begins at this address in it and is taken.
    #[cfg(any(test, feature = "model"))]
    pub fn is_taken(&self, address: usize) -> bool {
        let class = self.class().filter(|_| self.begins_block(address));
        let number = class.and_then(|class| class.info().number(address - self.base()));
        number.is_some_and(|n| self.words[n / 64].get() >> (n % 64) & 1 == 1)
    }

    /// Asserts the invariants of one pool, for tests.
    #[cfg(any(test, feature = "model"))]
    pub fn check(&self) {
        let Some(class) = self.class() else {
            return self.check_empty();
        };
        let info = class.info();
        let (used, unused) = self.words.split_at(info.words());
        let set: u32 = used.iter().map(|word| word.get().count_ones()).sum();
        let bits = 64 * used.len() as u32;
        assert_eq!(bits - set, self.free.get(), "P2");
        assert!(unused.iter().all(|word| word.get() == 0), "P1");
        let none = bitmap::of_no_block(info, used.len() - 1);
        assert_eq!(used[used.len() - 1].get() & none, none, "P1");
        for n in 0..WORDS {
            let free = n < used.len() && used[n].get() != u64::MAX;
            assert_eq!(self.words_free.get() >> n & 1 == 1, free, "P3");
        }
        assert!((!self.free_pages() & !self.resident()).is_empty(), "P5");
        assert!((self.idle.get() & !self.free_pages()).is_empty(), "P6");
    }

    /// Asserts that an empty pool has no bit set, for tests.
    #[cfg(any(test, feature = "model"))]
    pub fn check_empty(&self) {
        assert!(self.words.iter().all(|word| word.get() == 0), "P1");
    }
}

const _: () = assert!(WORDS == 32, "words_free has a bit for each word");

#[cfg(test)]
pub(crate) mod tests {
    use core::ptr;

    use super::*;
    use crate::tests::*;

    /// A descriptor alone: its pool's memory is never touched.
    pub(crate) fn pool(class: SizeClass) -> Pool {
        // SAFETY: all zero is a valid descriptor.
        let pool: Pool = unsafe { core::mem::zeroed() };
        pool.place(0x7000_0000, Pages::NONE);
        pool.begin(Shard::FIRST, class);
        pool.check();
        pool
    }

    pub(crate) fn take(pool: &Pool, class: SizeClass, n: usize) -> Vec<*mut u8> {
        let mut out = vec![ptr::null_mut(); n];
        let taken = pool.take(class, &mut out);
        pool.check();
        out.split_off(n - taken).into_iter().rev().collect()
    }
}
