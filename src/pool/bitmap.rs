//! The two bitmaps of a pool, of its blocks and of its pages, and which bits of one belong to a
//! bit of the other.
//!
//! ```text
//!    page       |      0      |      1      |      2      |
//!    block      | 0  | 1  | 2  | 3  | 4  | 5  | 6  | 7  | 8  |
//!    of page 1:             2  . .  .  .  5                        2 and 5 in part
//! ```
//!
//! Blocks have a bit each in up to 32 words. Pages are counted in units of 4 KiB ([`MIN_PAGE`]),
//! the smallest OS page there is, so a set of a pool's pages is 16 bits. On a kernel with larger
//! pages only whole ones are purged: see [`Pages::whole`].
//!
//! # Uses
//!
//! `base` alone: nothing here accesses memory of a pool.
#![forbid(unsafe_code)]

use core::ops::{BitAnd, BitOr, Not, Range};

use crate::base::layout::{MIN_PAGE, POOL_SIZE};
use crate::base::size_class::{BLOCKS_PER_WORD, ClassInfo};

const MIN_PAGE_BITS: u32 = MIN_PAGE.ilog2();

/// The blocks that are on a page of a pool, wholly or in part.
pub(crate) fn blocks_of_page(info: &ClassInfo, page: usize) -> Range<usize> {
    let number = |offset: usize| offset.saturating_sub(info.first as usize) / info.size as usize;
    let blocks = info.blocks as usize;
    let (start, end) = (page * MIN_PAGE, (page + 1) * MIN_PAGE);
    if end <= info.first as usize {
        return 0..0;
    }
    number(start).min(blocks)..(number(end - 1) + 1).min(blocks)
}

/// The words that have the bits of these blocks.
pub(crate) fn words_of(blocks: &Range<usize>) -> Range<usize> {
    blocks.start / BLOCKS_PER_WORD..blocks.end.div_ceil(BLOCKS_PER_WORD)
}

/// `len` bits from bit `low` on: at least one, at most those of a word.
#[inline(always)]
pub(crate) const fn run(low: usize, len: usize) -> u64 {
    u64::MAX >> (BLOCKS_PER_WORD - len) << low
}

/// The lowest run of set bits: its start, its length, and the bits without it. At least one bit is
/// set. (Adding a bit at its start carries to the bit above its end.)
#[inline(always)]
pub(crate) const fn lowest_run(bits: u64) -> (usize, usize, u64) {
    let low = bits.trailing_zeros();
    let carried = bits.wrapping_add(bits & bits.wrapping_neg());
    let len = carried.trailing_zeros() - low;
    (low as usize, len as usize, bits & carried)
}

/// The bits of word `n` that belong to these blocks.
pub(crate) fn bits_in_word(blocks: &Range<usize>, n: usize) -> u64 {
    let first = n * BLOCKS_PER_WORD;
    let start = blocks.start.max(first);
    let end = blocks.end.min(first + BLOCKS_PER_WORD);
    match end.checked_sub(start) {
        None | Some(0) => 0,
        Some(len) => run(start - first, len),
    }
}

/// The bits of word `n` that belong to no block.
pub(crate) fn bits_of_no_block(info: &ClassInfo, n: usize) -> u64 {
    !bits_in_word(&(0..info.blocks as usize), n)
}

/// The bits of word `n` whose blocks are on these pages only.
#[cold]
pub(crate) fn bits_on_pages(info: &ClassInfo, pages: Pages, n: usize) -> u64 {
    let others = (0..POOL_SIZE / MIN_PAGE).filter(|&page| !pages.has(page));
    others.fold(u64::MAX, |bits, page| {
        bits & !bits_in_word(&blocks_of_page(info, page), n)
    })
}

/// A set of pages of [`MIN_PAGE`] bytes; the lowest bit is the pool's first page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Pages(u16);

impl Pages {
    pub(crate) const NONE: Pages = Pages(0);
    pub(crate) const ALL: Pages = Pages(u16::MAX);

    /// The pages of the bytes from offset `first` to `last`, inclusive. Both are in the pool.
    #[inline]
    pub(crate) fn spanning(first: usize, last: usize) -> Pages {
        let (first, last) = (first >> MIN_PAGE_BITS, last >> MIN_PAGE_BITS);
        Pages(((2u32 << last) - (1u32 << first)) as u16)
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn bytes(self) -> usize {
        self.0.count_ones() as usize * MIN_PAGE
    }

    /// Those that make up whole OS pages of `os_page` bytes; none if an OS page is larger than a
    /// pool.
    pub(crate) fn whole(self, os_page: usize) -> Pages {
        let per_page = os_page / MIN_PAGE;
        if per_page <= 1 {
            return self;
        }
        let (mut whole, mut at) = (0u32, 0);
        while at + per_page <= POOL_SIZE / MIN_PAGE {
            let one = ((1u32 << per_page) - 1) << at;
            if u32::from(self.0) & one == one {
                whole |= one;
            }
            at += per_page;
        }
        Pages(whole as u16)
    }

    /// All pages of the OS pages of `os_page` bytes that contain one of these: they become resident
    /// together. All of the pool if an OS page is larger.
    #[inline]
    pub(crate) fn in_os_pages(self, os_page: usize) -> Pages {
        let per_page = (os_page / MIN_PAGE).min(POOL_SIZE / MIN_PAGE);
        if per_page <= 1 {
            return self;
        }
        let (mut all, mut at) = (0u32, 0);
        while at < POOL_SIZE / MIN_PAGE {
            let one = ((1u32 << per_page) - 1) << at;
            if u32::from(self.0) & one != 0 {
                all |= one;
            }
            at += per_page;
        }
        Pages(all as u16)
    }

    /// Whether the set is empty or a run from the pool's first page on.
    #[inline]
    pub(crate) fn are_the_first(self) -> bool {
        self.0 & self.0.wrapping_add(1) == 0
    }

    pub(crate) fn has(self, page: usize) -> bool {
        self.0 >> page & 1 == 1
    }

    /// The pages for which `holds` is true.
    pub(crate) fn filter(holds: impl Fn(usize) -> bool) -> Pages {
        let bits = (0..POOL_SIZE / MIN_PAGE).filter(|&page| holds(page));
        Pages(bits.fold(0, |all, page| all | 1 << page))
    }

    /// Runs of neighbours: offset and length of each, in bytes.
    pub(crate) fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        let mut rest = u32::from(self.0);
        core::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let first = rest.trailing_zeros();
            let len = (!(rest >> first)).trailing_zeros();
            rest &= !(((1 << len) - 1) << first);
            Some((first as usize * MIN_PAGE, len as usize * MIN_PAGE))
        })
    }
}

impl BitOr for Pages {
    type Output = Pages;
    #[inline]
    fn bitor(self, other: Pages) -> Pages {
        Pages(self.0 | other.0)
    }
}

impl BitAnd for Pages {
    type Output = Pages;
    #[inline]
    fn bitand(self, other: Pages) -> Pages {
        Pages(self.0 & other.0)
    }
}

impl Not for Pages {
    type Output = Pages;
    #[inline]
    fn not(self) -> Pages {
        Pages(!self.0)
    }
}

const _: () = assert!(POOL_SIZE == MIN_PAGE * 16, "a bit of a u16 for each page");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::size_class::SizeClass;
    use crate::tests::*;

    /// By definition: the blocks with a byte on the page.
    fn on_page(info: &ClassInfo, page: usize) -> Vec<usize> {
        let touches = |n: &usize| {
            let (first, end) = (info.offset(*n), info.offset(*n + 1));
            first < (page + 1) * MIN_PAGE && end > page * MIN_PAGE
        };
        (0..info.blocks as usize).filter(touches).collect()
    }

    #[test]
    fn blocks_of_a_page_are_those_with_a_byte_on_it() {
        for class in SizeClass::all() {
            let info = class.info();
            for page in 0..POOL_SIZE / MIN_PAGE {
                let blocks = blocks_of_page(info, page);
                assert_eq!(blocks.clone().collect::<Vec<_>>(), on_page(info, page));
                let bits: u32 = words_of(&blocks)
                    .map(|n| bits_in_word(&blocks, n).count_ones())
                    .sum();
                assert_eq!(bits as usize, blocks.len());
            }
        }
    }

    #[test]
    fn the_lowest_run_is_split_from_the_others() {
        for (bits, found) in [
            (1, (0, 1, 0)),
            (0b1011_0110, (1, 2, 0b1011_0000)),
            (u64::MAX, (0, 64, 0)),
            (u64::MAX << 63, (63, 1, 0)),
            (u64::MAX << 60 | 1, (0, 1, u64::MAX << 60)),
        ] {
            assert_eq!(lowest_run(bits), found, "{bits:b}");
            assert_eq!(run(found.0, found.1) | found.2, bits);
        }
    }

    #[test]
    fn bits_in_a_word_are_those_of_its_blocks() {
        assert_eq!(bits_in_word(&(0..64), 0), u64::MAX);
        assert_eq!(bits_in_word(&(60..70), 0), 0xf << 60);
        assert_eq!(bits_in_word(&(60..70), 1), 0x3f);
        assert_eq!(bits_in_word(&(60..70), 2), 0);
        assert_eq!(bits_in_word(&(5..5), 0), 0);
    }

    #[test]
    fn blocks_on_some_pages_are_on_no_others() {
        let info = SizeClass::of(48).unwrap().info();
        let pages = Pages::spanning(MIN_PAGE, 3 * MIN_PAGE - 1);
        for n in 0..info.words() {
            for bit in 0..BLOCKS_PER_WORD {
                let first = info.offset(n * BLOCKS_PER_WORD + bit);
                let inside = first >= MIN_PAGE && first + 48 <= 3 * MIN_PAGE;
                let is_there = bits_on_pages(info, pages, n) >> bit & 1 == 1;
                if first + 48 <= POOL_SIZE {
                    assert_eq!(is_there, inside, "{n} {bit}");
                }
            }
        }
    }

    #[test]
    fn spans_cover_every_page_they_touch() {
        assert_eq!(Pages::spanning(0, 0), Pages(1));
        assert_eq!(Pages::spanning(0, MIN_PAGE - 1), Pages(1));
        assert_eq!(Pages::spanning(MIN_PAGE - 1, MIN_PAGE), Pages(3));
        assert_eq!(Pages::spanning(0, POOL_SIZE - 1), Pages::ALL);
        assert_eq!(Pages::spanning(15 * MIN_PAGE, POOL_SIZE - 1), Pages(0x8000));
    }

    #[test]
    fn a_run_from_the_first_page_is_recognised() {
        for n in 0..=16 {
            assert!(Pages(((1u32 << n) - 1) as u16).are_the_first());
        }
        assert!(!Pages(2).are_the_first() && !Pages(0xfffe).are_the_first());
        assert!(!Pages(0b1011).are_the_first());
        let odd = Pages::filter(|page| page % 2 == 1);
        assert!(odd == Pages(0xaaaa) && odd.has(1) && !odd.has(14));
    }

    #[test]
    fn only_whole_os_pages_are_purged() {
        let set = Pages(0b0111_1111_1110_1111);
        assert_eq!(set.whole(4096), set);
        assert_eq!(set.whole(16384), Pages(0b0000_1111_0000_1111));
        assert_eq!(set.whole(65536), Pages::NONE);
        assert_eq!(Pages::ALL.whole(65536), Pages::ALL);
        assert_eq!(Pages::ALL.whole(1 << 21), Pages::NONE);
    }

    #[test]
    fn a_touched_page_makes_its_os_page_resident() {
        let set = Pages(0b0100_0000_0001_0000);
        assert_eq!(set.in_os_pages(4096), set);
        assert_eq!(set.in_os_pages(16384), Pages(0xf0f0));
        assert_eq!(set.in_os_pages(65536), Pages::ALL);
        assert_eq!(set.in_os_pages(1 << 21), Pages::ALL);
        assert_eq!(Pages::NONE.in_os_pages(65536), Pages::NONE);
        for page in [4096, 8192, 16384, 32768, 65536] {
            assert_eq!(set.in_os_pages(page).whole(page), set.in_os_pages(page));
        }
    }

    #[test]
    fn runs_are_neighbours_together() {
        let runs: Vec<_> = Pages(0b1000_0000_0011_0110).runs().collect();
        let found = runs.iter().map(|(at, len)| (at / MIN_PAGE, len / MIN_PAGE));
        assert_eq!(found.collect::<Vec<_>>(), [(1, 2), (4, 2), (15, 1)]);
        assert_eq!(Pages::ALL.runs().collect::<Vec<_>>(), [(0, POOL_SIZE)]);
        assert_eq!(Pages::NONE.runs().count(), 0);
    }
}
