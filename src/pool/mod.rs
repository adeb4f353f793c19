//! A pool: 64 KiB cut into blocks of one size class. Its descriptor, with a bit for each
//! block, is stored out of line, in the record of its arena.
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
//! One multiplication gives the number of the block that an address is in, and whether the
//! address is the block's first byte (`base/size_class.rs`). `words_free` has a bit for each
//! word with a free block, so a search skips full words.
//!
//! Nothing is ever written into a free block: it carries no link. So an OS page of free
//! blocks holds nothing and may be returned to the kernel at any moment, and a write after
//! free hits no pointer. Blocks on resident pages are allocated before others.
//!
//! # States
//!
//! used  == some blocks are free and some are taken. The pool is in a bucket of its class's
//!          bin (`heap/bin.rs`).
//! full  == no block is free. The pool is on no list; the page map finds it when one of its
//!          blocks is freed.
//! empty == the pool has no class. It is a bit in its arena's mask of free pools; only
//!          `base` and the sets of pages mean anything.
//!
//! A block in a thread's magazine or in a depot counts as taken.
//!
//! # Owner
//!
//! A pool with a class is owned by that class in one shard. A shard is a set of used pools of all
//! classes; which thread takes blocks from which shard is decided in `tcache/registry.rs`.
//!
//! # Blocks in batches
//!
//! Blocks are taken and given back in batches, mostly of neighbours, so each word of bits is
//! read and written once for all of the batch's blocks in it. `give` checks whole words and
//! only counts the taken bits; when the count is wrong it restores the word and fails, and
//! `give_singly` then finds which blocks are invalid.
//!
//! # Pages
//!
//! ```text
//!    never touched  -- prefault, or a block is taken -->  resident
//!          ^                                               |   ^
//!          |                              free at a purge  |   | a block
//!          |                                     round     v   | is taken
//!          +-------- still free at the next round ------- idle
//! ```
//!
//! # Invariants
//!
//! POOL-1  A bit is set exactly where a block is taken, and for positions of the class's last
//!         word that have no block. In an empty pool no bit is set.
//! POOL-2  `free` is the number of the class's blocks that are not taken.
//! POOL-3  Bit n of `words_free` is set exactly while word n has a clear bit, for words of the
//!         class.
//! POOL-4  A pool is in a bucket of a bin exactly while it is used.
//! POOL-5  No taken block is on a page outside of `resident`.
//! POOL-6  A page in `idle` was free at the last purge round, and no block on it was taken
//!         since.
//! POOL-7  `owner` changes under both the lock of the class that it names (before or after)
//!         and the arenas' lock. A thread that holds a class's lock and reads that class in
//!         `owner` may rely on it until it unlocks; a read without a lock only says which
//!         lock to take. (One word, so that shard and class are of the same moment.)
//!
//! # Threads
//!
//! A pool with a class is accessed under that class's lock in its shard, an empty pool under
//! the arenas' lock. It changes between the two under both.
//!
//! # Uses
//!
//! `base`, `os::memory` for purging and prefaulting, and `policy::fork_cow` for the generation.
//! Arenas and the page map are above: a pool does not access them.

pub(crate) mod bitmap;

pub(crate) mod invalid_free;

use core::hint::assert_unchecked;
use core::ptr;

use crate::base::layout::MIN_PAGE;
use crate::base::layout::POOL_SIZE;
use crate::base::layout::pool_base;
use crate::base::list::Linked;
use crate::base::list::Links;
use crate::base::size_class::BLOCKS_PER_WORD;
use crate::base::size_class::ClassInfo;
use crate::base::size_class::INSIDE;
use crate::base::size_class::SizeClass;
use crate::base::size_class::TABLE_LEN;
use crate::base::size_class::WORDS;
use crate::os::memory;
use crate::policy::fork_cow;
use crate::pool::bitmap::Pages;
use crate::pool::invalid_free::InvalidFree;
use crate::sync::AtomicBool;
use crate::sync::AtomicU16;
use crate::sync::AtomicUsize;
use crate::sync::Cell;
use crate::sync::Ordering::Acquire;
use crate::sync::Ordering::Relaxed;
use crate::sync::Ordering::Release;

/// Bound on shards; further threads share them.
pub(crate) const SHARDS: usize = 16;

/// How many shards are open (SHARD-1).
static OPEN_SHARDS: AtomicUsize = AtomicUsize::new(1);

/// The index of a shard, below [`SHARDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shard(u8);

impl Shard {
    /// The one that is always open.
    pub(crate) const FIRST: Shard = Shard(0);

    pub(crate) fn from_index(index: u8) -> Shard {
        debug_assert!(usize::from(index) < SHARDS);
        Shard(index)
    }

    #[inline(always)]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0) % SHARDS
    }

    /// Opens this shard and those before it. Caller holds the registry's lock and has made their
    /// classes (SHARD-1).
    pub(crate) fn set_open(self) {
        OPEN_SHARDS.fetch_max(self.index() + 1, Relaxed);
    }

    /// All that are open.
    pub(crate) fn open() -> impl DoubleEndedIterator<Item = Shard> {
        (0..OPEN_SHARDS.load(Relaxed)).map(|index| Shard(index as u8))
    }

    /// Whether only the first is open.
    #[inline]
    pub(crate) fn is_one() -> bool {
        OPEN_SHARDS.load(Relaxed) == 1
    }
}

/// Resident bytes that were purged so far.
static PURGED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Whether the kernel kept pages at the last purge.
static PURGE_REFUSED: AtomicBool = AtomicBool::new(false);

/// Resident bytes that were purged so far.
pub(crate) fn purged_bytes() -> usize {
    PURGED_BYTES.load(Relaxed)
}

/// Whether the kernel kept pages at the last purge, as it does with locked memory.
pub(crate) fn purge_was_refused() -> bool {
    PURGE_REFUSED.load(Relaxed)
}

/// Adds to the resident bytes that were purged, and records whether the kernel `refused` some.
pub(crate) fn count_purged(bytes: usize, refused: bool) {
    PURGED_BYTES.fetch_add(bytes, Relaxed);
    if purge_was_refused() != refused {
        PURGE_REFUSED.store(refused, Relaxed);
    }
}

/// The descriptor of a pool. All zero is an empty pool without an address.
#[repr(C, align(64))]
pub(crate) struct Pool {
    links: Links<Pool>,
    /// Address of the pool; written when its arena gets its chunk. Any thread may read it: Relaxed,
    /// because a thread that has a block of the pool has it from the thread that wrote this before,
    /// and for any other address the descriptor is only compared (MAP-3).
    base: AtomicUsize,
    /// Indices of the owning shard and size class; 0 while empty (POOL-7). Release in `assign`
    /// pairs with the Acquire of the reads without a lock: a thread that reads a shard here finds
    /// that shard's locks (`Heap::others`).
    owner: AtomicU16,
    /// Number of free blocks (POOL-2).
    pub(crate) free: Cell<u32>,
    /// The generation of the process when the pool was assigned.
    generation: Cell<u32>,
    /// Pages that may be resident (POOL-5).
    pub(crate) resident: Cell<Pages>,
    /// Pages that were free at the last purge round (POOL-6).
    pub(crate) idle: Cell<Pages>,
    /// Pages that were purged at some time; those of them that are not resident are purged now.
    pub(crate) purged: Cell<Pages>,
    /// The words with free blocks (POOL-3).
    pub(crate) words_free: Cell<u32>,
    /// A bit for each block (POOL-1).
    pub(crate) words: [Cell<u64>; WORDS],
}

// SAFETY: POOL-7: the fields that are no atomics are accessed under the lock of the owner, or the
// arenas' lock while the pool is empty.
unsafe impl Sync for Pool {}

impl Linked for Pool {
    fn links(&self) -> &Links<Pool> {
        &self.links
    }
}

/// The value of `owner` for a class in a shard.
fn owner_word(shard: Shard, class: SizeClass) -> u16 {
    (shard.index() << 8 | class.index()) as u16
}

const _: () = assert!(TABLE_LEN <= 1 << 8 && SHARDS <= 1 << 8);

impl Pool {
    /// The pool's address.
    #[inline]
    pub(crate) fn base(&self) -> usize {
        self.base.load(Relaxed)
    }

    /// Initialises the descriptor for the empty pool at `base`, of which these pages are resident.
    pub(crate) fn init(&self, base: usize, resident: Pages) {
        debug_assert_eq!(base, pool_base(base));
        self.base.store(base, Relaxed);
        self.owner.store(0, Relaxed);
        self.resident.set(resident);
        self.idle.set(Pages::NONE);
        self.purged.set(Pages::NONE);
    }

    /// The class, unless the pool is empty.
    #[inline]
    pub(crate) fn class(&self) -> Option<SizeClass> {
        SizeClass::from_index(usize::from(self.owner.load(Relaxed) as u8))
    }

    #[inline]
    pub(crate) fn has_class(&self, class: SizeClass) -> bool {
        usize::from(self.owner.load(Relaxed) as u8) == class.index()
    }

    /// The owner, unless the pool is empty. Without a lock it is only used to choose the lock (POOL-7).
    pub(crate) fn owner(&self) -> Option<(Shard, SizeClass)> {
        let owner = self.owner.load(Acquire);
        let class = SizeClass::from_index(usize::from(owner as u8))?;
        Some((Shard::from_index((owner >> 8) as u8), class))
    }

    /// Whether the class in the shard, whose lock is held, owns the pool (POOL-7).
    pub(crate) fn is_owned_by(&self, shard: Shard, class: SizeClass) -> bool {
        self.owner.load(Relaxed) == owner_word(shard, class)
    }

    /// The owner's shard; the first if the pool is empty.
    #[inline]
    pub(crate) fn shard(&self) -> Shard {
        Shard::from_index((self.owner.load(Acquire) >> 8) as u8)
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Number of free blocks.
    #[inline]
    pub(crate) fn free(&self) -> u32 {
        self.free.get()
    }

    /// Assigns the empty pool to `class` in `shard`, with all blocks free. No byte of the pool
    /// itself is touched.
    pub(crate) fn assign(&self, shard: Shard, class: SizeClass) {
        let info = class.info();
        let words = info.words();
        self.owner.store(owner_word(shard, class), Release);
        self.generation.set(fork_cow::generation());
        self.free.set(info.blocks);
        self.words_free.set(u32::MAX >> (WORDS - words));
        self.words[words - 1].set(bitmap::bits_of_no_block(info, words - 1));
    }

    /// Makes the pool empty. All of its blocks are free.
    pub(crate) fn reset(&self) {
        if let Some(class) = self.class() {
            self.words[class.info().words() - 1].set(0);
        }
        self.owner.store(0, Relaxed);
    }

    /// The pages that may be resident.
    pub(crate) fn resident(&self) -> Pages {
        self.resident.get()
    }

    /// Whether a block of the pool begins at this address in it and is taken.
    #[cfg(feature = "model")]
    pub(crate) fn is_taken(&self, address: usize) -> bool {
        let class = self.class().filter(|_| self.is_block_start(address));
        let number = class.and_then(|class| class.info().number(address - self.base()));
        number.is_some_and(|n| self.words[n / 64].get() >> (n % 64) & 1 == 1)
    }

    /// Asserts the invariants of one pool, for tests.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check(&self) {
        let Some(class) = self.class() else {
            return self.check_empty();
        };
        let info = class.info();
        let (used, unused) = self.words.split_at(info.words());
        let set: u32 = used.iter().map(|word| word.get().count_ones()).sum();
        let bits = 64 * used.len() as u32;
        assert_eq!(bits - set, self.free.get(), "POOL-2");
        assert!(unused.iter().all(|word| word.get() == 0), "POOL-1");
        let none = bitmap::bits_of_no_block(info, used.len() - 1);
        assert_eq!(used[used.len() - 1].get() & none, none, "POOL-1");
        for n in 0..WORDS {
            let free = n < used.len() && used[n].get() != u64::MAX;
            assert_eq!(self.words_free.get() >> n & 1 == 1, free, "POOL-3");
        }
        assert!((!self.free_pages() & !self.resident()).is_empty(), "POOL-5");
        assert!((self.idle.get() & !self.free_pages()).is_empty(), "POOL-6");
    }

    /// Asserts that an empty pool has no bit set, for tests.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn check_empty(&self) {
        assert!(self.words.iter().all(|word| word.get() == 0), "POOL-1");
    }

    /// Takes free blocks of the pool, whose class is `class`, lowest addresses first, until
    /// `out` is full or the pool is. Fills `out` from its end, so the lowest block is last.
    /// Returns the number of blocks.
    #[inline]
    pub(crate) fn take(&self, class: SizeClass, out: &mut [*mut u8]) -> usize {
        let (info, wanted, resident) = (class.info(), out.len(), self.resident.get());
        let mut room = wanted;
        // If the resident pages are the pool's first, the lowest blocks are on them anyway.
        if !resident.are_the_first() {
            room = self.take_where(info, out, room, |n| {
                bitmap::bits_on_pages(info, resident, n)
            });
        }
        room = self.take_where(info, out, room, |_| u64::MAX);
        let taken = wanted - room;
        self.free.set(self.free.get() - taken as u32);
        taken
    }

    /// Takes free blocks whose bit is set in `may(word)`. Returns the part of `room` that is left.
    #[inline(always)]
    fn take_where(
        &self,
        info: &ClassInfo,
        out: &mut [*mut u8],
        mut room: usize,
        may: impl Fn(usize) -> u64,
    ) -> usize {
        let (base, size) = (self.base(), info.size as usize);
        let all_resident = self.resident.get() == Pages::ALL && self.idle.get().is_empty();
        let mut words = self.words_free.get();
        while words != 0 && room > 0 {
            let n = words.trailing_zeros() as usize;
            words &= words - 1;
            let (before, start) = (self.words[n].get(), n * BLOCKS_PER_WORD);
            let free = !before & may(n);
            let mut left = free;
            while left != 0 && room > 0 {
                // A run of neighbours at a time.
                let (low, mut len, others) = bitmap::lowest_run(left);
                if len <= room {
                    left = others;
                } else {
                    len = room;
                    left &= !bitmap::run(low, len);
                }
                let mut address = base + info.offset(start + low);
                for slot in out[room - len..room].iter_mut().rev() {
                    *slot = ptr::with_exposed_provenance_mut(address);
                    address += size;
                }
                room -= len;
            }
            let taken = free & !left;
            self.words[n].set(before | taken);
            if before | taken == u64::MAX {
                self.words_free.set(self.words_free.get() & !(1 << n));
            }
            if !all_resident {
                self.touch(info, start, taken);
            }
        }
        room
    }

    /// Marks the pages under some blocks as resident and not idle: `blocks` has a bit for each
    /// of the 64 blocks from number `start` on.
    #[inline]
    fn touch(&self, info: &ClassInfo, start: usize, blocks: u64) {
        let Some(last) = blocks.checked_ilog2() else {
            return;
        };
        let span = |low: usize, len: usize| {
            let (first, end) = (start + low, start + low + len);
            Pages::spanning(info.offset(first), info.offset(end) - 1)
        };
        let (resident, idle) = (self.resident.get(), self.idle.get());
        let low = blocks.trailing_zeros() as usize;
        let all = span(low, last as usize + 1 - low);
        if (all & (!resident | idle)).is_empty() {
            return;
        }
        let (mut touched, mut rest) = (Pages::NONE, blocks);
        while rest != 0 {
            let (low, len, others) = bitmap::lowest_run(rest);
            touched = touched | span(low, len);
            rest = others;
        }
        let touched = touched.in_os_pages(memory::page_size());
        self.resident.set(resident | touched);
        self.idle.set(idle & !touched);
    }

    /// Gives one block back: `give` for a batch of one, without its loops.
    #[inline(always)]
    pub(crate) fn give_one(&self, info: &ClassInfo, block: *mut u8) -> Result<(), NotAllTaken> {
        let number = info.number(block.addr() - self.base());
        let number = number.filter(|&n| n < info.blocks as usize);
        let number = number.ok_or(NotAllTaken)?;
        let (n, bit) = (number / BLOCKS_PER_WORD, 1 << (number % BLOCKS_PER_WORD));
        let word = self.words[n].get();
        if word & bit == 0 {
            return Err(NotAllTaken);
        }
        self.words[n].set(word & !bit);
        if word == u64::MAX {
            self.words_free.set(self.words_free.get() | 1 << n);
        }
        self.free.set(self.free.get() + 1);
        Ok(())
    }

    /// Gives the leading blocks of `blocks` back that are in this pool, whose class is
    /// `class`. Returns their number. Fails, and leaves the pool unchanged, if one of them is
    /// not the address of a taken block.
    #[inline(never)]
    pub(crate) fn give(&self, class: SizeClass, blocks: &[*mut u8]) -> Result<usize, NotAllTaken> {
        let info = class.info();
        let (size, reciprocal) = (info.size as usize, u64::from(info.reciprocal));
        let (span, span_of_word) = (info.blocks as usize * size, BLOCKS_PER_WORD * size);
        let first = self.base() + info.first as usize;
        let mut words_free = self.words_free.get();
        let (mut rest, mut products) = (blocks, 0);
        while let Some(block) = rest.first() {
            let behind = block.addr().wrapping_sub(first);
            if behind >= span {
                break;
            }
            let n = ((behind as u64 * reciprocal) >> 32) as usize / BLOCKS_PER_WORD;
            // SAFETY: CLASS-3: a block of the pool has a word.
            unsafe { assert_unchecked(n < WORDS) };
            let bytes = span_of_word.min(span - n * span_of_word);
            let start = first + n * span_of_word;
            let (mut word, mut taken, from) = (self.words[n].get(), 0, rest);
            while let Some((block, others)) = rest.split_first() {
                let offset = block.addr().wrapping_sub(start);
                if offset >= bytes {
                    break;
                }
                let product = offset as u64 * reciprocal;
                products |= product;
                let bit = (product >> 32) as u32;
                taken += word.wrapping_shr(bit) as usize & 1;
                word &= !1u64.wrapping_shl(bit);
                rest = others;
            }
            if taken != from.len() - rest.len() {
                self.undo_give(info, &blocks[..blocks.len() - from.len()]);
                return Err(NotAllTaken);
            }
            self.words[n].set(word);
            words_free |= 1 << n;
        }
        let given = blocks.len() - rest.len();
        // An address in the pool's 64 KiB, but outside of its blocks.
        let beside = rest.first();
        let beside = beside.is_some_and(|block| pool_base(block.addr()) == self.base());
        if beside || products as u32 >= INSIDE {
            self.undo_give(info, &blocks[..given]);
            return Err(NotAllTaken);
        }
        self.words_free.set(words_free);
        self.free.set(self.free.get() + given as u32);
        Ok(given)
    }

    /// Whether a block of the pool's class begins at `address`, which is in the pool.
    pub(crate) fn is_block_start(&self, address: usize) -> bool {
        let Some(class) = self.class() else {
            return false;
        };
        let number = class.info().number(address - self.base());
        number.is_some_and(|n| n < class.info().blocks as usize)
    }

    /// Sets the bits again that `give` has cleared for these blocks.
    #[cold]
    fn undo_give(&self, info: &ClassInfo, blocks: &[*mut u8]) {
        for block in blocks {
            let behind = block.addr() - self.base() - info.first as usize;
            let number = ((behind as u64 * u64::from(info.reciprocal)) >> 32) as usize;
            let word = &self.words[number / BLOCKS_PER_WORD];
            word.set(word.get() | 1 << (number % BLOCKS_PER_WORD));
        }
    }

    /// Gives the leading blocks of `blocks` back that are in this pool, whose class is
    /// `class`, one by one. Reports each invalid one to `report` and leaves it out. Returns the
    /// number of entries in the pool.
    #[cold]
    #[inline(never)]
    pub(crate) fn give_singly(
        &self,
        class: SizeClass,
        blocks: &[*mut u8],
        mut report: impl FnMut(*mut u8, InvalidFree),
    ) -> usize {
        let here = |block: &&*mut u8| pool_base(block.addr()) == self.base();
        let mut seen = 0;
        for block in blocks.iter().take_while(here) {
            seen += 1;
            if self.give_one(class.info(), *block).is_ok() {
                continue;
            }
            let invalid_free = if self.is_block_start(block.addr()) {
                InvalidFree::AlreadyFree
            } else {
                InvalidFree::NotABlock
            };
            report(*block, invalid_free);
        }
        seen
    }

    /// The pages without a taken block.
    pub(crate) fn free_pages(&self) -> Pages {
        let Some(class) = self.class() else {
            return Pages::ALL;
        };
        let info = class.info();
        Pages::filter(|page| {
            let blocks = bitmap::blocks_of_page(info, page);
            let mut words = bitmap::words_of(&blocks);
            words.all(|n| self.words[n].get() & bitmap::bits_in_word(&blocks, n) == 0)
        })
    }

    /// The taken blocks that are on a page, wholly or in part, and their bytes on it.
    pub(crate) fn taken_on_page(&self, info: &ClassInfo, page: usize) -> (usize, usize) {
        let blocks = bitmap::blocks_of_page(info, page);
        let on_page = |n: usize| self.words[n].get() & bitmap::bits_in_word(&blocks, n);
        let count: u32 = bitmap::words_of(&blocks)
            .map(|n| on_page(n).count_ones())
            .sum();
        let mut bytes = count as usize * info.size as usize;
        if count > 0 {
            // The first and the last block may extend to other pages.
            let is_taken =
                |n: usize| self.words[n / BLOCKS_PER_WORD].get() >> (n % BLOCKS_PER_WORD) & 1 == 1;
            let (first, last) = (blocks.start, blocks.end - 1);
            if is_taken(first) {
                bytes -= (page * MIN_PAGE).saturating_sub(info.offset(first));
            }
            if is_taken(last) {
                bytes -= info.offset(last + 1).saturating_sub((page + 1) * MIN_PAGE);
            }
        }
        (count as usize, bytes)
    }

    /// Takes the pages without a block out of the resident ones. The pool was just assigned to
    /// `class`, in an arena of huge pages: there every page is resident, and purging these few would
    /// split a huge page. [`count_unpurged`](Pool::count_unpurged) adds them again.
    pub(crate) fn spare_rest(&self, class: SizeClass) {
        let info = class.info();
        let with_blocks = Pages::spanning(0, info.offset(info.blocks as usize) - 1);
        self.resident.set(self.resident.get() & with_blocks);
    }

    /// Adds the pages that were never purged to the resident ones. The pool is in an arena that had
    /// huge pages from the first byte on.
    pub(crate) fn count_unpurged(&self) {
        self.resident.set(self.resident.get() | !self.purged.get());
    }

    /// Takes the pages that are due for purging out of the resident ones: those that are free
    /// and, unless `at_once`, were free at the last call too. `os_page` is the size of an OS page
    /// in bytes.
    pub(crate) fn take_purgeable(&self, os_page: usize, at_once: bool) -> Pages {
        let free = (self.free_pages() & self.resident.get()).whole(os_page);
        let due = if at_once {
            free
        } else {
            free & self.idle.get()
        };
        self.idle.set(free & !due);
        self.resident.set(self.resident.get() & !due);
        self.purged.set(self.purged.get() | due);
        due
    }

    /// Purges `due` pages, which [`take_purgeable`](Pool::take_purgeable) returned. The pool's arena
    /// is from the kernel. If the kernel keeps a page, because it is locked or a sandbox forbids
    /// the call, that page and all after it are resident again. Returns the number of bytes that
    /// were purged.
    pub(crate) fn purge(&self, due: Pages) -> usize {
        let mut kept = Pages::NONE;
        for (offset, len) in due.runs() {
            // SAFETY: no taken block is on a page outside of `resident` (POOL-5), and the lock
            // under which pages become resident is held.
            if !unsafe { memory::purge(self.base() + offset, len) } {
                kept = due & Pages::spanning(offset, POOL_SIZE - 1);
                break;
            }
        }
        self.resident.set(self.resident.get() | kept);
        self.purged.set(self.purged.get() & !kept);
        let purged = (due & !kept).bytes();
        count_purged(purged, !kept.is_empty());
        purged
    }

    /// Faults all pages with blocks in with one call, which is cheaper than one by one. The pool
    /// was just assigned to `class`, and its arena is from the kernel.
    pub(crate) fn prefault(&self, class: SizeClass) {
        let info = class.info();
        let len = info.offset(info.blocks as usize);
        let len = len.next_multiple_of(memory::page_size()).min(POOL_SIZE);
        if memory::populate(self.base(), len) {
            self.resident.set(Pages::spanning(0, len - 1));
        }
    }
}

const _: () = assert!(WORDS == 32, "words_free has a bit for each word");

/// At least one of the blocks given to a pool is no taken block of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotAllTaken;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::layout::MIN_PAGE;
    use crate::base::layout::POOL_SIZE;
    use crate::tests::*;
    use core::ptr;

    /// A descriptor of a pool that is not mapped.
    pub(crate) fn pool(class: SizeClass) -> Pool {
        // SAFETY: `Pool` documents that all zero is a valid descriptor.
        let pool: Pool = unsafe { core::mem::zeroed() };
        pool.init(0x7000_0000, Pages::NONE);
        pool.assign(Shard::FIRST, class);
        pool.check();
        pool
    }

    pub(crate) fn take(pool: &Pool, class: SizeClass, n: usize) -> Vec<*mut u8> {
        let mut out = vec![ptr::null_mut(); n];
        let taken = pool.take(class, &mut out);
        pool.check();
        out.split_off(n - taken).into_iter().rev().collect()
    }

    #[test]
    fn blocks_are_taken_lowest_first_and_given_back_in_any_order() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let blocks = class.info().blocks as usize;
            let all = take(&pool, class, blocks + 10);
            assert_eq!(all.len(), blocks);
            assert_eq!(pool.free(), 0);
            assert!(all.is_sorted());
            assert!(all.iter().all(|block| pool.is_block_start(block.addr())));
            let odd: Vec<_> = all.iter().copied().skip(1).step_by(2).rev().collect();
            assert_eq!(pool.give(class, &odd), Ok(odd.len()));
            pool.check();
            let mut again = take(&pool, class, odd.len());
            again.reverse();
            assert_eq!(again, odd);
            assert_eq!(pool.give(class, &all), Ok(blocks));
            assert_eq!(pool.free() as usize, blocks);
            pool.check();
            pool.reset();
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
        assert_eq!(pool.free(), class.info().blocks - 2);
        pool.check();
    }

    #[test]
    fn invalid_frees_are_named_and_the_other_blocks_given_back() {
        let class = SizeClass::of(64).unwrap();
        let all = take(&pool(class), class, 4);
        let (inside, odd, before) = (
            all[1].wrapping_add(16),
            all[1].wrapping_add(1),
            all[0].wrapping_sub(16),
        );
        let no_block = InvalidFree::NotABlock;
        for (wrong, invalid_free) in [
            (inside, no_block),
            (odd, no_block),
            (before, no_block),
            (all[3], InvalidFree::AlreadyFree),
            (all[0], InvalidFree::AlreadyFree), // a second time
        ] {
            let pool = pool(class);
            let blocks = take(&pool, class, 3);
            let given = [blocks[0], wrong, blocks[2]];
            let free = pool.free();
            assert_eq!(pool.give(class, &given), Err(NotAllTaken));
            assert_eq!(pool.free(), free);
            pool.check();
            let mut named = Vec::new();
            let seen = pool.give_singly(class, &given, |block, why| named.push((block, why)));
            assert_eq!((seen, named), (3, vec![(wrong, invalid_free)]));
            assert_eq!(pool.free(), free + 2);
            pool.check();
            assert_eq!(pool.is_block_start(wrong.addr()), invalid_free != no_block);
        }
    }

    #[test]
    fn pages_are_purgeable_when_they_stayed_free() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let blocks = take(&pool, class, class.info().blocks as usize);
            assert_eq!(pool.take_purgeable(MIN_PAGE, true), Pages::NONE);
            // One block stays, and with it the pages that it is on.
            let stays = blocks.len() / 2;
            let (low, high) = (&blocks[..stays], &blocks[stays + 1..]);
            assert_eq!(pool.give(class, low), Ok(low.len()));
            assert_eq!(pool.give(class, high), Ok(high.len()));
            let offset = blocks[stays].addr() - pool.base();
            let pinned = Pages::spanning(offset, offset + class.size() - 1);
            assert_eq!(pool.free_pages(), !pinned);
            assert_eq!(pool.take_purgeable(MIN_PAGE, false), Pages::NONE, "not yet");
            let idle = !pinned & pool.resident();
            // A block that is taken in between keeps its page.
            let again = take(&pool, class, 1);
            let offset = again[0].addr() - pool.base();
            let touched = Pages::spanning(offset, offset + class.size() - 1);
            assert_eq!(pool.take_purgeable(MIN_PAGE, false), idle & !touched);
            pool.check();
            assert_eq!(pool.resident(), pinned | touched);
            assert_eq!(pool.give(class, &again), Ok(1));
            assert_eq!(pool.take_purgeable(MIN_PAGE, true), touched & !pinned);
            assert_eq!(pool.give(class, &blocks[stays..=stays]), Ok(1));
            assert_eq!(pool.take_purgeable(MIN_PAGE, true), pinned);
            assert_eq!(pool.resident(), Pages::NONE);
        }
    }

    #[test]
    fn pages_without_blocks_are_spared_until_all_are_counted() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let info = class.info();
            pool.count_unpurged();
            assert_eq!(pool.resident(), Pages::ALL);
            pool.spare_rest(class);
            take(&pool, class, info.blocks as usize);
            let with_blocks = !pool.free_pages();
            assert_eq!(pool.resident(), with_blocks);
            assert_eq!(pool.take_purgeable(MIN_PAGE, true), Pages::NONE);
            pool.count_unpurged();
            assert_eq!(pool.take_purgeable(MIN_PAGE, true), !with_blocks);
            pool.count_unpurged();
            assert_eq!(pool.resident(), with_blocks, "the others were purged");
            pool.check();
        }
    }

    #[test]
    fn pages_that_the_kernel_keeps_stay_resident() {
        let class = SizeClass::of(64).unwrap();
        let pool = pool(class); // nothing is mapped there, so the kernel refuses
        let blocks = take(&pool, class, class.info().blocks as usize);
        let all = pool.resident();
        assert_eq!(pool.give(class, &blocks[..300]), Ok(300));
        let due = pool.take_purgeable(MIN_PAGE, true);
        assert_eq!(pool.resident(), all & !due);
        assert_eq!((due.bytes() / MIN_PAGE, pool.purge(due)), (4, 0));
        assert_eq!(pool.resident(), all);
        assert_eq!(pool.purged.get(), Pages::NONE);
        pool.check();
        assert_eq!(
            pool.take_purgeable(MIN_PAGE, true),
            due,
            "they are due again"
        );
    }

    #[test]
    fn blocks_on_resident_pages_come_first() {
        let class = SizeClass::of(64).unwrap();
        let pool = pool(class);
        let blocks = take(&pool, class, class.info().blocks as usize);
        let last = blocks[blocks.len() - 3..].to_vec();
        assert_eq!(pool.give(class, &blocks), Ok(blocks.len()));
        // All pages but the last become free.
        take(&pool, class, blocks.len());
        assert_eq!(
            pool.give(class, &blocks[..blocks.len() - 3]),
            Ok(blocks.len() - 3)
        );
        let purged = pool.take_purgeable(MIN_PAGE, true);
        assert!(purged.bytes() >= 14 * MIN_PAGE);
        assert_eq!(pool.give(class, &last), Ok(3));
        let first = take(&pool, class, 1)[0].addr() - pool.base();
        assert!((Pages::spanning(first, first) & purged).is_empty());
    }
}
