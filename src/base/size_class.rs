//! Size classes: which block size serves a request, and the layout of a pool of each class.
//!
//! ```text
//!   request in bytes     block size          class index
//!   ----------------     ----------------    -----------
//!        1 ..     8              8                1      packed only
//!        9 ..    16             16                2
//!       17 ..    24             24                3      packed only
//!            ...               ...              ...
//!      505 ..   512            512               64      small: each 8 bytes
//!      513 ..   576            576               65
//!            ...               ...              ...      medium: 8 steps from
//!    28673 .. 30720          30720              111      one power of two to
//!    30721 .. 32768          32768              112      the next
//!    more                    layer 0
//! ```
//!
//! As in CPython, blocks are a multiple of 16 bytes, so every other small class is used. A packed
//! domain (`OBMALLOC_ALIGN=8`) rounds to 8 bytes and uses all of them.
//!
//! Index 0 is no size class: in the page map, 0 stands for "in no pool".
//!
//! # Blocks by number
//!
//! Block `n` of a pool begins at `first + n * size`. A multiplication turns an offset from `first`
//! into the number: with `reciprocal == ceil(2^32 / size)` the upper half of `offset * reciprocal`
//! is the number of the block that the offset is in, and the lower half is below 2^16 exactly at the
//! block's first byte (a test tries all offsets).
//!
//! # Invariants
//!
//! CLASS-1  A `SizeClass` is in `1 ..= LAST`, so it may index every per-class table.
//! CLASS-2  `size(of(n)) >= n`, and the next smaller class is too small for `n`.
//! CLASS-3  A pool has at least two blocks, so it is never full and empty at once, and at most
//!     [`BLOCKS_MAX`].
//! CLASS-4  A batch is at most [`BLOCKS_PER_WORD`] blocks.
use crate::base::layout::{ALIGNMENT, FIRST_SMALL_BLOCK, MIN_PAGE, PACKED_ALIGNMENT, POOL_SIZE};

/// The largest request that small classes serve, in bytes.
pub(crate) const SMALL_MAX: usize = 512;
/// The largest request that medium classes serve, in bytes.
pub(crate) const MEDIUM_MAX: usize = 32 * 1024;

const SMALL_CLASSES: usize = SMALL_MAX / PACKED_ALIGNMENT;
const STEPS_PER_DOUBLING: usize = 8;
const MEDIUM_CLASSES: usize = STEPS_PER_DOUBLING * (MEDIUM_MAX / SMALL_MAX).ilog2() as usize;

/// The highest class index.
pub(crate) const LAST: usize = SMALL_CLASSES + MEDIUM_CLASSES;
/// Length of an array that is indexed by class; element 0 stands for "no class".
pub(crate) const TABLE_LEN: usize = LAST + 1;

/// Blocks per word of a pool's bits.
pub(crate) const BLOCKS_PER_WORD: usize = u64::BITS as usize;
/// Words of bits in a pool's descriptor.
pub(crate) const WORDS: usize = 32;
/// Bound on blocks in a pool. (Of 8 to 24 bytes more would fit; the part of a pool that is never
/// allocated is address space, not memory.)
pub(crate) const BLOCKS_MAX: usize = WORDS * BLOCKS_PER_WORD;

/// Buckets for the used pools of a class, by how full they are.
pub(crate) const BUCKETS: usize = 8;

/// The layout of the pools of a size class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassInfo {
    /// Block size in bytes.
    pub size: u32,
    /// ceil(2^32 / size)
    pub reciprocal: u32,
    /// Blocks in a pool.
    pub blocks: u32,
    /// Offset of the first block in the pool, in bytes.
    pub first: u32,
    /// log2 of the number of counts of free blocks that share one of the [`BUCKETS`].
    pub bucket_bits: u32,
    /// Blocks in a refill or a flush; a magazine has slots for two batches.
    pub batch: u32,
}

impl ClassInfo {
    const NONE: ClassInfo = ClassInfo {
        size: 0,
        reciprocal: 0,
        blocks: 0,
        first: 0,
        bucket_bits: 0,
        batch: 0,
    };

    const fn new(size: usize) -> ClassInfo {
        let first = if size <= SMALL_MAX {
            FIRST_SMALL_BLOCK
        } else {
            0
        };
        let mut blocks = (POOL_SIZE - first) / size;
        if blocks > BLOCKS_MAX {
            // The number of blocks that ends on a full page.
            let end = (first + BLOCKS_MAX * size) / MIN_PAGE * MIN_PAGE;
            blocks = (end - first) / size;
        }
        assert!(blocks >= 2, "CLASS-3");
        assert!(batch(size) as usize <= BLOCKS_PER_WORD, "CLASS-4");
        ClassInfo {
            size: size as u32,
            reciprocal: (1u64 << 32).div_ceil(size as u64) as u32,
            blocks: blocks as u32,
            first: first as u32,
            bucket_bits: (blocks as u32).ilog2().saturating_sub(BUCKETS.ilog2() - 1),
            batch: batch(size),
        }
    }

    /// The words of a pool's bits that have blocks.
    pub(crate) const fn words(&self) -> usize {
        (self.blocks as usize).div_ceil(BLOCKS_PER_WORD)
    }

    /// The offset of block `n` in its pool, in bytes.
    #[inline(always)]
    pub(crate) const fn offset(&self, n: usize) -> usize {
        self.first as usize + n * self.size as usize
    }

    /// The number of the block whose first byte is at this offset in a pool; it may be beyond the last
    /// block's.
    #[inline]
    pub(crate) const fn number(&self, offset: usize) -> Option<usize> {
        let Some(from_first) = offset.checked_sub(self.first as usize) else {
            return None;
        };
        let product = from_first as u64 * self.reciprocal as u64;
        if product as u32 >= INSIDE {
            return None;
        }
        Some((product >> 32) as usize)
    }
}

/// The lower half of `offset * reciprocal` is below this exactly at a block's first byte.
pub(crate) const INSIDE: u32 = 1 << 16;

/// Blocks of `size` bytes in a batch.
///
/// About 4 KiB of each small class, and at most 64 blocks. Half of that for medium classes, one
/// block up to 8 KiB, and none above: a block that a thread has cached keeps its pool from serving
/// another class, and a lock costs little compared to filling a block of that size.
const fn batch(size: usize) -> u32 {
    if size > 8192 {
        0
    } else if size > 2048 {
        1
    } else if size > SMALL_MAX {
        (2048 / size) as u32
    } else if size > 64 {
        (4096 / size) as u32
    } else {
        64
    }
}

const fn size_of_index(index: usize) -> usize {
    if index <= SMALL_CLASSES {
        return index * PACKED_ALIGNMENT;
    }
    let medium = index - SMALL_CLASSES - 1;
    let doubling = SMALL_MAX << (medium / STEPS_PER_DOUBLING);
    doubling + doubling / STEPS_PER_DOUBLING * (medium % STEPS_PER_DOUBLING + 1)
}

/// By class index; element 0 is all zero.
pub(crate) static CLASS_INFO: [ClassInfo; TABLE_LEN] = {
    let mut infos = [ClassInfo::NONE; TABLE_LEN];
    let mut index = 1;
    while index <= LAST {
        infos[index] = ClassInfo::new(size_of_index(index));
        index += 1;
    }
    infos
};

/// Block sizes by class index; element 0 is 0.
pub(crate) static SIZES: [u32; TABLE_LEN] = {
    let mut sizes = [0; TABLE_LEN];
    let mut index = 1;
    while index <= LAST {
        sizes[index] = CLASS_INFO[index].size;
        index += 1;
    }
    sizes
};

/// The index of a size class (CLASS-1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SizeClass(usize);

impl SizeClass {
    /// The class of a request of `n` bytes; `None` if it is large. A request for zero bytes gets a
    /// block as one for one byte does.
    #[inline]
    pub(crate) const fn of(n: usize) -> Option<SizeClass> {
        SizeClass::aligned::<ALIGNMENT>(n)
    }

    /// Number of classes that only packed domains use.
    pub(crate) const PACKED: usize = SMALL_CLASSES / 2;

    /// The class whose blocks are a multiple of `ALIGN` bytes, 8 or 16.
    #[inline]
    pub(crate) const fn aligned<const ALIGN: usize>(n: usize) -> Option<SizeClass> {
        let last = n.saturating_sub(1);
        if last < SMALL_MAX {
            let size = (last / ALIGN + 1) * ALIGN;
            Some(SizeClass(size / PACKED_ALIGNMENT))
        } else if last < MEDIUM_MAX {
            let log = last.ilog2();
            let doubling = (log - SMALL_MAX.ilog2()) as usize;
            let step = (last >> (log - STEPS_PER_DOUBLING.ilog2())) % STEPS_PER_DOUBLING;
            Some(SizeClass(
                SMALL_CLASSES + 1 + doubling * STEPS_PER_DOUBLING + step,
            ))
        } else {
            None
        }
    }

    #[inline(always)]
    pub(crate) const fn from_index(index: usize) -> Option<SizeClass> {
        if index >= 1 && index <= LAST {
            Some(SizeClass(index))
        } else {
            None
        }
    }

    /// All classes, the smallest first.
    pub(crate) fn all() -> impl Iterator<Item = SizeClass> {
        (1..=LAST).filter_map(SizeClass::from_index)
    }

    /// The index, in `1 ..= LAST`.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        // SAFETY: CLASS-1: the index is at most LAST.
        unsafe { core::hint::assert_unchecked(self.0 < TABLE_LEN) };
        self.0
    }

    #[inline(always)]
    pub(crate) const fn info(self) -> &'static ClassInfo {
        &CLASS_INFO[self.index()]
    }

    /// The class's number in CPython's statistics, continued beyond CPython's classes; a packed class
    /// has that of the class that serves its requests in other domains.
    pub(crate) fn number(self) -> usize {
        let small = SMALL_CLASSES / 2;
        match self.index().checked_sub(SMALL_CLASSES + 1) {
            Some(medium) => small + medium,
            None => self.index().div_ceil(2) - 1,
        }
    }

    /// Block size in bytes.
    #[inline(always)]
    pub(crate) const fn size(self) -> usize {
        self.info().size as usize
    }

    /// Whether only packed domains use it, because its blocks are aligned to 8 bytes.
    pub(crate) const fn is_packed(self) -> bool {
        !self.size().is_multiple_of(ALIGNMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn every_request_gets_the_smallest_block_that_holds_it() {
        for n in 0..=MEDIUM_MAX {
            for class in [SizeClass::of(n), SizeClass::aligned::<8>(n)] {
                assert!(class.unwrap().size() >= n, "CLASS-2: {n}");
            }
            let (plain, packed) = (SizeClass::of(n), SizeClass::aligned::<8>(n));
            let smaller = CLASS_INFO[packed.unwrap().index() - 1].size;
            assert!(smaller < n.max(1) as u32, "CLASS-2: {n}");
            assert!(!plain.unwrap().is_packed());
            assert!(plain == packed || packed.unwrap().size() + 8 == plain.unwrap().size());
        }
        assert_eq!(SizeClass::of(MEDIUM_MAX + 1), None);
        assert_eq!(SizeClass::of(usize::MAX), None);
    }

    #[test]
    fn small_requests_follow_obmalloc_s_table() {
        for n in 1..=SMALL_MAX {
            assert_eq!(SizeClass::of(n).unwrap().size(), n.div_ceil(16) * 16);
            let packed = SizeClass::aligned::<8>(n).unwrap();
            assert_eq!(packed.size(), n.div_ceil(8) * 8);
            assert_eq!(packed.index(), n.div_ceil(8));
        }
        assert_eq!(SizeClass::of(0), SizeClass::of(1));
    }

    #[test]
    fn medium_requests_waste_at_most_an_eighth() {
        for n in SMALL_MAX + 1..=MEDIUM_MAX {
            let size = SizeClass::of(n).unwrap().size();
            assert!((size - n) * 8 < n, "{n} in {size}");
        }
    }

    #[test]
    fn an_offset_gives_its_block_and_whether_it_is_the_first_byte() {
        for class in SizeClass::all() {
            let info = class.info();
            assert_eq!(
                info.number(info.first.wrapping_sub(1) as usize % POOL_SIZE),
                None
            );
            for offset in info.first as usize..POOL_SIZE {
                let from_first = offset - info.first as usize;
                let (number, rest) = (from_first / class.size(), from_first % class.size());
                let expected = (rest == 0).then_some(number);
                assert_eq!(info.number(offset), expected, "{class:?} {offset}");
            }
        }
    }

    #[test]
    fn blocks_fit_their_pool_and_its_bits() {
        for class in SizeClass::all() {
            let info = class.info();
            let blocks = info.blocks as usize;
            assert!((2..=BLOCKS_MAX).contains(&blocks), "CLASS-3");
            assert!(info.offset(blocks) <= POOL_SIZE);
            let full = info.offset(blocks + 1) > POOL_SIZE;
            let pages = info.offset(blocks).next_multiple_of(MIN_PAGE);
            assert!(full || info.offset(blocks + 1) > pages, "no page is wasted");
            assert!(full || blocks > BLOCKS_MAX - MIN_PAGE / class.size());
            assert!((1..=WORDS).contains(&info.words()));
        }
    }

    #[test]
    fn every_index_is_a_class_and_no_other() {
        assert_eq!(SizeClass::all().count(), LAST);
        assert_eq!(SizeClass::from_index(0), None, "CLASS-1");
        assert_eq!(SizeClass::from_index(TABLE_LEN), None, "CLASS-1");
        assert_eq!(CLASS_INFO[LAST].size as usize, MEDIUM_MAX);
        let plain = SizeClass::all().filter(|class| !class.is_packed());
        assert!(plain.enumerate().all(|(n, class)| class.number() == n));
        let packed = SizeClass::all().filter(|class| class.is_packed());
        assert_eq!(packed.count(), SMALL_CLASSES / 2);
        let sizes: Vec<_> = SizeClass::all().map(SizeClass::size).collect();
        assert!(sizes.is_sorted());
    }
}
