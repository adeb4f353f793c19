//! A pool: 64 KiB cut into blocks of one size class. Its descriptor, with a
//! bit for each granule of 32 bytes, lies elsewhere (in its arena's record).
//!
//! ```text
//!    POOL_SIZE bytes at a multiple of POOL_SIZE; addresses grow to the right
//!    +-----------+-----------+-----------+-----------+-- ... --+---------+
//!    |  48 bytes |   block   |   block   |   block   |         |   too   |
//!    |  not used |  (taken)  |  (free)   |  (taken)  |         |  short  |
//!    +-----------+-----------+-----------+-----------+-- ... --+---------+
//!         0     1     0     0     1     0     0   ...         0     0
//!               ^                 ^
//!               the granules in which a taken block begins
//! ```
//!
//! A block is known by the granule it begins in, which is no larger than a block,
//! so no address is divided by a block's size: bits 11 to 15 of an address are its
//! word, bits 5 to 10 its bit, and a table says whether the block begins at the
//! granule's start or middle. (With blocks of 16 bytes, granules are of 16, too.)
//! One more word says in which words to look for free blocks.
//!
//! Nothing is ever written into a free block: it carries no link, so an OS
//! page of free blocks holds nothing and may go back to the kernel at any
//! moment; and a write after free hits no pointer. Blocks on pages that are
//! with us are handed out before blocks on pages that are not.
//!
//! A pool is in one of three states:
//!
//! used  == some block is free and some block is not. It is on a shelf of its
//!          class (`used_pools.rs`).
//! full  == no block is free. It is on no list; it is found again through the
//!          address map when one of its blocks comes back.
//! empty == it has no class. It is a bit in its arena's mask of free pools;
//!          nothing in the descriptor but `base` means anything.
//!
//! A block in some thread's magazine counts as taken here.
//!
//! # Invariants
//!
//! P1  A bit is set exactly where a taken block begins. In an empty pool no
//!     bit is set, so a pool begins and ends without a bit being written.
//! P2  `free` is the number of the class's blocks less the bits set.
//! P3  Bit n of `words_free` is set exactly while a free block begins in what
//!     word n covers.
//! P4  A pool is on a shelf exactly while it is used.
//! P5  A page outside of `resident` holds nothing that anyone wants: no taken
//!     block lies on it.
//! P6  A page in `idle` was free when it was looked at, and no block on it was
//!     taken since.
//!
//! # Threads
//!
//! A pool with a class is touched under that class's lock, an empty one under
//! the arenas' lock. It passes from the one to the other under both.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::geometry::{ALIGNMENT, pool_base};
use crate::inherited;
use crate::list::{Linked, Links};
use crate::os::memory;
use crate::pages::{self, Pages};
use crate::size_class::{GRANULE_BITS, GRANULE_WORDS, SMALL_GRANULE_BITS, SizeClass, Starts};

/// The bit of an offset that tells the middle of a granule from its start.
const MIDDLE_BIT: u32 = ALIGNMENT.ilog2();
/// log2 of the granules in a word.
const WORD_BITS: u32 = u64::BITS.ilog2();

/// The descriptor of a pool. All zero is an empty pool without a place.
#[repr(C, align(64))]
pub struct Pool {
    links: Links<Pool>,
    /// Address of the pool; written when its arena gets land. Anyone may read
    /// it.
    base: AtomicUsize,
    /// Index of the size class, 0 while empty.
    class: Cell<u8>,
    /// Blocks that are free (P2).
    free: Cell<u32>,
    /// The generation of the process when it began.
    generation: Cell<u32>,
    /// Pages on which a block was taken since they came from the kernel (P5).
    resident: Cell<Pages>,
    /// Pages that have been free for a while (P6).
    idle: Cell<Pages>,
    /// Which words have free blocks (P3).
    words_free: Cell<u32>,
    /// A bit for each granule (P1).
    words: [Cell<u64>; GRANULE_WORDS],
}

// SAFETY: reached by several threads, but only under the lock that the module
// page names, which orders them.
unsafe impl Sync for Pool {}

impl Linked for Pool {
    fn links(&self) -> &Links<Pool> {
        &self.links
    }
}

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
        self.class.set(0);
        self.resident.set(resident);
        self.idle.set(Pages::NONE);
    }

    /// The class, unless the pool is empty.
    #[inline]
    pub fn class(&self) -> Option<SizeClass> {
        SizeClass::from_index(usize::from(self.class.get()))
    }

    /// Whether the pool belongs to `class`.
    #[inline]
    pub fn is_of(&self, class: SizeClass) -> bool {
        usize::from(self.class.get()) == class.index()
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

    /// Cuts the empty pool into blocks of `class`, all of them free. Not one
    /// byte of the pool itself is touched.
    pub fn begin(&self, class: SizeClass) {
        self.class.set(class.index() as u8);
        self.generation.set(inherited::generation());
        self.free.set(class.shape().blocks);
        self.words_free.set(class.shape().words);
    }

    /// Makes the pool empty; all its blocks are free.
    pub fn end(&self) {
        self.class.set(0);
    }

    /// Takes free blocks of the pool, which is of class `class`: those at the
    /// lowest addresses, as many as there are and `out` has room for. They
    /// fill `out` from its end: the lowest is the last. Returns how many.
    #[inline]
    pub fn take(&self, class: SizeClass, out: &mut [*mut u8]) -> usize {
        match class.granule_bits() {
            GRANULE_BITS => self.take_from::<GRANULE_BITS>(class, out),
            _ => self.take_from::<SMALL_GRANULE_BITS>(class, out),
        }
    }

    #[inline(always)]
    fn take_from<const BITS: u32>(&self, class: SizeClass, out: &mut [*mut u8]) -> usize {
        let (starts, shape, base) = (class.starts(), class.shape(), self.base());
        let (size, per_word) = (shape.size as usize, shape.per_word as usize);
        let mut words_free = self.words_free.get();
        let resident = self.resident.get().words(BITS);
        let (mut touched, mut room) = (Pages::NONE, out.len());
        while words_free != 0 && room > 0 {
            let n = match words_free & resident {
                0 => words_free.trailing_zeros(),
                words => words.trailing_zeros(),
            } as usize;
            let (start, middle) = (n << (BITS + WORD_BITS), starts.middle[n]);
            let address = |bit| base + start + offset_in_word(BITS, middle, bit);
            let (begin, taken) = (starts.begin[n], self.words[n].get());
            let mut free = begin & !taken;
            if taken == 0 && room >= per_word {
                // All blocks of the word: a size apart, and no bit is looked at.
                let last = address(free.ilog2());
                let mut address = address(free.trailing_zeros());
                while address <= last && room > 0 {
                    room -= 1;
                    out[room] = ptr::with_exposed_provenance_mut(address);
                    address += size;
                }
                free = 0;
            }
            while free != 0 && room > 0 {
                room -= 1;
                out[room] = ptr::with_exposed_provenance_mut(address(free.trailing_zeros()));
                free &= free - 1;
            }
            self.words[n].set(begin & !free);
            if free == 0 {
                words_free &= !(1 << n);
            }
            let last = out[room].addr() - base + size - 1;
            touched = touched | Pages::spanning(start, last);
        }
        self.words_free.set(words_free);
        let touched = touched.in_os_pages(memory::page_size());
        self.resident.set(self.resident.get() | touched);
        self.idle.set(self.idle.get() & !touched);
        let taken = out.len() - room;
        self.free.set(self.free.get() - taken as u32);
        taken
    }

    /// Gives back the leading blocks of `blocks`, which are of the pool's class
    /// `class`, that lie in this pool. Returns how many these are. `Err` names one
    /// that cannot be what its caller took it for: no taken block begins there.
    #[inline]
    pub fn give(&self, class: SizeClass, blocks: &[*mut u8]) -> Result<usize, *mut u8> {
        match class.granule_bits() {
            GRANULE_BITS => self.give_to::<GRANULE_BITS>(class, blocks),
            _ => self.give_to::<SMALL_GRANULE_BITS>(class, blocks),
        }
    }

    #[inline(always)]
    fn give_to<const BITS: u32>(
        &self,
        class: SizeClass,
        blocks: &[*mut u8],
    ) -> Result<usize, *mut u8> {
        let (starts, bits) = (class.starts(), BITS + WORD_BITS);
        let mut words_free = self.words_free.get();
        let (mut misplaced, mut given) = (0, 0);
        'words: while let Some(&first) = blocks.get(given) {
            let start = first.addr() & !((1 << bits) - 1);
            let n = (start ^ self.base()) >> bits;
            if n >= GRANULE_WORDS {
                if pool_base(start) == self.base() {
                    return Err(first); // where a pool of this class has no blocks
                }
                break;
            }
            let (middle, mut word) = (starts.middle[n], self.words[n].get());
            words_free |= 1u32.wrapping_shl(n as u32);
            for &block in &blocks[given..] {
                let offset = block.addr() ^ start;
                if offset >> bits != 0 {
                    self.words[n].set(word);
                    continue 'words;
                }
                let granule = (offset >> BITS) as u32;
                let cleared = word & !1u64.wrapping_shl(granule);
                if cleared == word {
                    return Err(block);
                }
                word = cleared;
                misplaced |= (middle.wrapping_shr(granule) as usize) << MIDDLE_BIT ^ offset;
                given += 1;
            }
            self.words[n].set(word);
        }
        if misplaced & ((1 << BITS) - 1) != 0 {
            let wrong = blocks[..given]
                .iter()
                .find(|block| !self.begins_block(block.addr()));
            return Err(wrong.copied().unwrap_or_default());
        }
        self.words_free.set(words_free);
        self.free.set(self.free.get() + given as u32);
        Ok(given)
    }

    /// The pages on which no taken block lies.
    pub fn free_pages(&self) -> Pages {
        let Some(class) = self.class() else {
            return Pages::ALL;
        };
        let granule_bits = class.granule_bits();
        let (mut taken, bits) = (Pages::NONE, granule_bits + WORD_BITS);
        let words = self.words.iter().map(Cell::get);
        for (n, (word, middle)) in words.zip(class.starts().middle).enumerate() {
            if let Some(last) = word.checked_ilog2() {
                let last = offset_in_word(granule_bits, middle, last) + class.size() - 1;
                taken = taken | Pages::spanning(n << bits, (n << bits) + last);
            }
        }
        !taken
    }

    /// Takes the pages that are to go back to the kernel out of the resident
    /// ones: those that are free and, unless `at_once`, were so already when
    /// this was called the last time. `page` is the OS page in bytes.
    pub fn due_pages(&self, page: usize, at_once: bool) -> Pages {
        let free = (self.free_pages() & self.resident.get()).whole(page);
        let due = if at_once {
            free
        } else {
            free & self.idle.get()
        };
        self.idle.set(free & !due);
        self.resident.set(self.resident.get() & !due);
        due
    }

    /// Gives `due` pages, which lie in an arena of the kernel's and are not
    /// resident any more, back to it. Returns how many bytes.
    pub fn give_back(&self, due: Pages) -> usize {
        for (offset, len) in due.runs() {
            // SAFETY: P5; the lock under which pages become resident is held.
            unsafe { memory::purge(self.base() + offset, len) };
        }
        pages::count_returned(due.bytes());
        due.bytes()
    }

    /// The pages on which a block was taken since they came from the kernel.
    pub fn resident(&self) -> Pages {
        self.resident.get()
    }

    /// Whether a block of the pool's class begins at this address in it.
    pub fn begins_block(&self, address: usize) -> bool {
        let Some(class) = self.class() else {
            return false;
        };
        let (offset, granule_bits) = (address - self.base(), class.granule_bits());
        let granule = offset >> granule_bits;
        let (n, bit) = (granule / 64, (granule % 64) as u32);
        let Starts { begin, middle } = class.starts();
        begin.get(n).is_some_and(|word| word >> bit & 1 == 1)
            && offset % (64 << granule_bits) == offset_in_word(granule_bits, middle[n], bit)
    }

    /// Asserts the invariants of one pool, for tests.
    #[cfg(test)]
    pub fn check(&self) {
        let Some(class) = self.class() else {
            return self.check_empty();
        };
        let set: u32 = self.words.iter().map(|word| word.get().count_ones()).sum();
        assert_eq!(class.shape().blocks - set, self.free.get(), "P2");
        for (n, (word, starts)) in self.words.iter().zip(class.starts().begin).enumerate() {
            assert_eq!(word.get() & !starts, 0, "P1");
            let free = starts & !word.get() != 0;
            assert_eq!(self.words_free.get() >> n & 1 == 1, free, "P3");
        }
        assert!((!self.free_pages() & !self.resident()).is_empty(), "P5");
        assert!((self.idle.get() & !self.free_pages()).is_empty(), "P6");
    }

    /// Asserts that an empty pool has no bit set, for tests.
    #[cfg(test)]
    pub fn check_empty(&self) {
        assert!(self.words.iter().all(|word| word.get() == 0), "P1");
    }
}

/// The offset of a block in what a word covers, if it has this bit there, and the
/// word has these bits in the middle of granules (S4).
#[inline(always)]
fn offset_in_word(granule_bits: u32, middle: u64, bit: u32) -> usize {
    let middle = middle.wrapping_shr(bit) as usize & 1;
    (bit as usize) << granule_bits | middle << MIDDLE_BIT
}

const _: () = assert!(GRANULE_WORDS == 32, "words_free has a bit for each word");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::POOL_SIZE;
    use crate::pages::PIECE;
    use crate::tests::*;

    /// A descriptor alone: its pool's memory is never touched.
    fn pool(class: SizeClass) -> Pool {
        // SAFETY: all zero is a valid descriptor.
        let pool: Pool = unsafe { core::mem::zeroed() };
        pool.place(0x7000_0000, Pages::NONE);
        pool.begin(class);
        pool.check();
        pool
    }

    fn take(pool: &Pool, class: SizeClass, n: usize) -> Vec<*mut u8> {
        let mut out = vec![ptr::null_mut(); n];
        let taken = pool.take(class, &mut out);
        pool.check();
        out.split_off(n - taken).into_iter().rev().collect()
    }

    #[test]
    fn blocks_come_lowest_first_and_go_back_in_any_order() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let blocks = class.shape().blocks as usize;
            let all = take(&pool, class, blocks + 10);
            assert_eq!(all.len(), blocks);
            assert_eq!(pool.free(), 0);
            assert!(all.is_sorted());
            assert!(all.iter().all(|block| pool.begins_block(block.addr())));
            let odd: Vec<_> = all.iter().copied().skip(1).step_by(2).rev().collect();
            assert_eq!(pool.give(class, &odd), Ok(odd.len()));
            pool.check();
            let mut again = take(&pool, class, odd.len());
            again.reverse();
            assert_eq!(again, odd);
            assert_eq!(pool.give(class, &all), Ok(blocks));
            assert_eq!(pool.free() as usize, blocks);
            pool.check();
            pool.check_empty();
        }
    }

    #[test]
    fn only_the_blocks_of_this_pool_are_taken_back() {
        let class = SizeClass::of(64).unwrap();
        let pool = pool(class);
        let blocks = take(&pool, class, 3);
        let elsewhere = ptr::without_provenance_mut(pool.base() + POOL_SIZE + 48);
        assert_eq!(pool.give(class, &[blocks[0], elsewhere, blocks[1]]), Ok(1));
        assert_eq!(pool.free(), class.shape().blocks - 2);
        pool.check();
    }

    #[test]
    fn what_is_no_taken_block_is_named() {
        let class = SizeClass::of(64).unwrap();
        let all = take(&pool(class), class, 4);
        let (inside, odd, before) = (
            all[1].wrapping_add(16),
            all[1].wrapping_add(1),
            all[0].wrapping_sub(16),
        );
        for wrong in [inside, odd, before, all[3]] {
            let pool = pool(class);
            let blocks = take(&pool, class, 3);
            assert_eq!(pool.give(class, &[blocks[0], wrong]), Err(wrong));
            assert_eq!(pool.begins_block(wrong.addr()), wrong == all[3]);
        }
        let pool = pool(class);
        let blocks = take(&pool, class, 3);
        assert_eq!(pool.give(class, &[blocks[2], blocks[2]]), Err(blocks[2]));
    }
    #[test]
    fn free_pages_go_back_when_they_stayed_free() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let blocks = take(&pool, class, class.shape().blocks as usize);
            assert_eq!(pool.due_pages(PIECE, true), Pages::NONE);
            // One block stays: the pages it lies on stay, all others go.
            let stays = blocks.len() / 2;
            let (low, high) = (&blocks[..stays], &blocks[stays + 1..]);
            assert_eq!(pool.give(class, low), Ok(low.len()));
            assert_eq!(pool.give(class, high), Ok(high.len()));
            let offset = blocks[stays].addr() - pool.base();
            let pinned = Pages::spanning(offset, offset + class.size() - 1);
            assert_eq!(pool.free_pages(), !pinned);
            assert_eq!(pool.due_pages(PIECE, false), Pages::NONE, "not yet");
            let idle = !pinned & pool.resident();
            // A block that is taken in between keeps its page.
            let again = take(&pool, class, 1);
            let offset = again[0].addr() - pool.base();
            let touched = Pages::spanning(offset, offset + class.size() - 1);
            assert_eq!(pool.due_pages(PIECE, false), idle & !touched);
            pool.check();
            assert_eq!(pool.resident(), pinned | touched);
            assert_eq!(pool.give(class, &again), Ok(1));
            assert_eq!(pool.due_pages(PIECE, true), touched & !pinned);
            assert_eq!(pool.give(class, &blocks[stays..=stays]), Ok(1));
            assert_eq!(pool.due_pages(PIECE, true), pinned);
            assert_eq!(pool.resident(), Pages::NONE);
        }
    }

    #[test]
    fn blocks_on_resident_pages_come_first() {
        let class = SizeClass::of(64).unwrap();
        let pool = pool(class);
        let blocks = take(&pool, class, class.shape().blocks as usize);
        let last = blocks[blocks.len() - 3..].to_vec();
        assert_eq!(pool.give(class, &blocks), Ok(blocks.len()));
        // All but the last page go back.
        take(&pool, class, blocks.len());
        assert_eq!(
            pool.give(class, &blocks[..blocks.len() - 3]),
            Ok(blocks.len() - 3)
        );
        let gone = pool.due_pages(PIECE, true);
        assert!(gone.bytes() >= 14 * PIECE);
        assert_eq!(pool.give(class, &last), Ok(3));
        let first = take(&pool, class, 1)[0].addr() - pool.base();
        assert!((Pages::spanning(first, first) & gone).is_empty());
    }
}
