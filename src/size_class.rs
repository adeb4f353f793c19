//! Size classes: which block serves a request, and how a pool of it looks.
//!
//! ```text
//!   request in bytes     block size          class index
//!   ----------------     ----------------    -----------
//!        0 ..    16             16                1
//!       17 ..    32             32                2
//!            ...               ...              ...
//!      497 ..   512            512               32      small: each 16 bytes
//!      513 ..   576            576               33
//!            ...               ...              ...      medium: 8 steps from
//!    28673 .. 30720          30720               79      one power of two to
//!    30721 .. 32768          32768               80      the next
//!    more                    layer 0
//! ```
//!
//! Index 0 is no size class: the address map says 0 for "not in a pool".
//!
//! # Invariants
//!
//! S1  A `SizeClass` is in `1 ..= LAST`, so it may index every per-class table.
//! S2  `size(of(n)) >= n`, and the next smaller class is too small for `n`.
//! S3  A pool has room for two blocks at least, so it is never at once full
//!     and empty.
//! S4  The bits of `starts().begin` are the granules in which a block begins, at
//!     the granule's middle where `starts().middle` has a bit, too.
//! S5  In no granule two blocks begin: a granule is no larger than a block.
use crate::geometry::{ALIGNMENT, FIRST_SMALL_BLOCK, POOL_SIZE};

/// The largest request that small classes serve, in bytes.
pub const SMALL_MAX: usize = 512;
/// The largest request that medium classes serve, in bytes.
pub const MEDIUM_MAX: usize = 32 * 1024;

const SMALL_CLASSES: usize = SMALL_MAX / ALIGNMENT;
const STEPS_PER_DOUBLING: usize = 8;
const MEDIUM_CLASSES: usize = STEPS_PER_DOUBLING * (MEDIUM_MAX / SMALL_MAX).ilog2() as usize;

/// The highest class index.
pub const LAST: usize = SMALL_CLASSES + MEDIUM_CLASSES;
/// Length of a table that is indexed by class; entry 0 stands for "no class".
pub const TABLE_LEN: usize = LAST + 1;

/// What all pools of a size class have in common.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes in a block.
    pub size: u32,
    /// Blocks in a pool.
    pub blocks: u32,
    /// Offset of the first block in the pool, in bytes.
    pub first: u32,
    /// Free blocks that a thread's magazine holds at the most.
    pub magazine: u32,
    /// Which words of [`SizeClass::starts`] are not zero.
    pub words: u32,
    /// The most blocks that begin in what a word covers.
    pub per_word: u32,
}

impl Shape {
    const fn new(size: usize) -> Shape {
        let first = if size <= SMALL_MAX {
            FIRST_SMALL_BLOCK
        } else {
            0
        };
        let granule = 1 << granule_bits(size);
        Shape {
            size: size as u32,
            blocks: ((GRANULES * granule - first) / size) as u32,
            first: first as u32,
            magazine: magazine(size),
            words: 0,
            per_word: (granule * 64).div_ceil(size) as u32,
        }
    }
}

/// How many free blocks of `size` bytes a thread may keep.
///
/// About 8 KiB of each small class, that is two of the 4 KiB runs in which
/// blocks travel to and from the pools; never more than 128 blocks. Of medium
/// classes half of that, and of those above 2 KiB none: what a thread keeps
/// keeps its pool from serving another class, and a lock costs little beside
/// filling such a block.
const fn magazine(size: usize) -> u32 {
    if size > 2048 {
        0
    } else if size > SMALL_MAX {
        (4096 / size) as u32
    } else if size > 64 {
        (8192 / size) as u32
    } else {
        128
    }
}

const fn granule_bits(size: usize) -> u32 {
    if size < GRANULE {
        SMALL_GRANULE_BITS
    } else {
        GRANULE_BITS
    }
}

const fn size_of_index(index: usize) -> usize {
    if index <= SMALL_CLASSES {
        return index * ALIGNMENT;
    }
    let medium = index - SMALL_CLASSES - 1;
    let doubling = SMALL_MAX << (medium / STEPS_PER_DOUBLING);
    doubling + doubling / STEPS_PER_DOUBLING * (medium % STEPS_PER_DOUBLING + 1)
}

/// Bytes in a granule of a pool. With blocks of 16 bytes it is 16, and only half
/// of the pool is used: the bits of a pool are 1/256 of it, for every class.
pub const GRANULE: usize = 2 * ALIGNMENT;
/// log2 of that.
pub const GRANULE_BITS: u32 = GRANULE.ilog2();
/// log2 of a granule's bytes with blocks of 16 bytes.
pub const SMALL_GRANULE_BITS: u32 = ALIGNMENT.ilog2();
/// Granules of a pool.
const GRANULES: usize = POOL_SIZE / GRANULE;
/// Words of bits, one for each granule.
pub const GRANULE_WORDS: usize = GRANULES / 64;
/// A bit for each granule.
pub type Granules = [u64; GRANULE_WORDS];

/// Where in a pool blocks begin (S4).
pub struct Starts {
    /// The granules in which one does.
    pub begin: Granules,
    /// Of these, those in whose middle it does.
    pub middle: Granules,
}

/// The shapes by class index; entry 0 is all zero.
pub static SHAPES: [Shape; TABLE_LEN] = TABLES.0;

/// By class index: where in a pool blocks begin (S4).
static STARTS: [Starts; TABLE_LEN] = TABLES.1;

const TABLES: ([Shape; TABLE_LEN], [Starts; TABLE_LEN]) = {
    let none = Shape {
        size: 0,
        blocks: 0,
        first: 0,
        magazine: 0,
        words: 0,
        per_word: 0,
    };
    let mut shapes = [none; TABLE_LEN];
    let mut starts = [const {
        Starts {
            begin: [0; GRANULE_WORDS],
            middle: [0; GRANULE_WORDS],
        }
    }; TABLE_LEN];
    let mut index = 1;
    while index <= LAST {
        let mut shape = Shape::new(size_of_index(index));
        assert!(shape.blocks >= 2, "S3");
        let mut block = 0;
        while block < shape.blocks {
            let offset = shape.first + block * shape.size;
            let granule_bits = granule_bits(shape.size as usize);
            let granule = (offset >> granule_bits) as usize;
            let bit = 1 << (granule % 64);
            assert!(starts[index].begin[granule / 64] & bit == 0, "S5");
            starts[index].begin[granule / 64] |= bit;
            if !offset.is_multiple_of(1 << granule_bits) {
                starts[index].middle[granule / 64] |= bit;
            }
            shape.words |= 1 << (granule / 64);
            block += 1;
        }
        shapes[index] = shape;
        index += 1;
    }
    (shapes, starts)
};

/// The index of a size class (S1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SizeClass(usize);

impl SizeClass {
    /// The class of a request of `n` bytes; `None` if it belongs to layer 0.
    /// A request for nothing gets a block like a request for one byte.
    #[inline]
    pub const fn of(n: usize) -> Option<SizeClass> {
        let last = n.saturating_sub(1);
        if last < SMALL_MAX {
            Some(SizeClass(last / ALIGNMENT + 1))
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

    /// The class with this index, if there is one.
    #[inline(always)]
    pub const fn from_index(index: usize) -> Option<SizeClass> {
        if index >= 1 && index <= LAST {
            Some(SizeClass(index))
        } else {
            None
        }
    }

    /// All classes, the smallest first.
    pub fn all() -> impl Iterator<Item = SizeClass> {
        (1..=LAST).filter_map(SizeClass::from_index)
    }

    /// The index, in `1 ..= LAST`.
    #[inline(always)]
    pub const fn index(self) -> usize {
        // SAFETY: S1.
        unsafe { core::hint::assert_unchecked(self.0 < TABLE_LEN) };
        self.0
    }

    /// What its pools look like.
    #[inline(always)]
    pub fn shape(self) -> &'static Shape {
        &SHAPES[self.index()]
    }

    /// Where in a pool its blocks begin (S4).
    #[inline(always)]
    pub fn starts(self) -> &'static Starts {
        &STARTS[self.index()]
    }

    /// log2 of the bytes in a granule of its pools.
    #[inline(always)]
    pub fn granule_bits(self) -> u32 {
        granule_bits(self.size())
    }

    /// Bytes in a block.
    #[inline(always)]
    pub fn size(self) -> usize {
        self.shape().size as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn every_request_gets_the_smallest_block_that_holds_it() {
        for n in 0..=MEDIUM_MAX {
            let class = SizeClass::of(n).unwrap();
            assert!(class.size() >= n, "S2: {n}");
            if class.index() > 1 {
                assert!(SHAPES[class.index() - 1].size < n as u32, "S2: {n}");
            }
        }
        assert_eq!(SizeClass::of(MEDIUM_MAX + 1), None);
        assert_eq!(SizeClass::of(usize::MAX), None);
    }

    #[test]
    fn small_requests_follow_obmalloc_s_table() {
        for n in 1..=SMALL_MAX {
            let class = SizeClass::of(n).unwrap();
            assert_eq!(class.index(), n.div_ceil(16));
            assert_eq!(class.size(), n.div_ceil(16) * 16);
        }
        assert_eq!(SizeClass::of(0), SizeClass::of(1));
    }

    #[test]
    fn medium_requests_waste_an_eighth_at_the_most() {
        for n in SMALL_MAX + 1..=MEDIUM_MAX {
            let size = SizeClass::of(n).unwrap().size();
            assert!((size - n) * 8 < n, "{n} in {size}");
        }
    }

    #[test]
    fn blocks_begin_a_size_apart_and_fit_their_pool() {
        for class in SizeClass::all() {
            let shape = class.shape();
            let starts = class.starts();
            let has = |bits: &Granules, n: usize| bits[n / 64] >> (n % 64) & 1 == 1;
            let granules = (0..GRANULES).filter(|&n| has(&starts.begin, n));
            let middle = |n| ALIGNMENT * usize::from(has(&starts.middle, n));
            let offsets: Vec<_> = granules
                .map(|n| (n << class.granule_bits()) + middle(n))
                .collect();
            let expected = (0..shape.blocks).map(|n| (shape.first + n * shape.size) as usize);
            assert_eq!(offsets, expected.collect::<Vec<_>>(), "S4");
            assert!(shape.blocks >= 2, "S3");
            let end = offsets[offsets.len() - 1] + class.size();
            let room = GRANULES << class.granule_bits();
            assert!(end <= room && end + class.size() > room && room <= POOL_SIZE);
        }
    }

    #[test]
    fn every_index_is_a_class_and_no_other() {
        assert_eq!(SizeClass::all().count(), LAST);
        assert_eq!(SizeClass::from_index(0), None, "S1");
        assert_eq!(SizeClass::from_index(TABLE_LEN), None, "S1");
        assert_eq!(SHAPES[LAST].size as usize, MEDIUM_MAX);
    }
}
