//! A pool's blocks by number, and the words of bits that stand for them.
//!
//! ```text
//!    page       |      0      |      1      |      2      |
//!    block      | 0  | 1  | 2  | 3  | 4  | 5  | 6  | 7  | 8  |
//!    of page 1:             2  . .  .  .  5                        2 and 5 in part
//! ```
#![forbid(unsafe_code)]

use core::ops::Range;

use crate::base::layout::{MIN_PAGE, POOL_SIZE};
use crate::base::size_class::{BLOCKS_PER_WORD, ClassInfo};
use crate::pool::pages::Pages;

/// The numbers of the blocks that lie on a page of a pool, wholly or in part.
pub(crate) fn of_page(info: &ClassInfo, page: usize) -> Range<usize> {
    let number = |offset: usize| offset.saturating_sub(info.first as usize) / info.size as usize;
    let blocks = info.blocks as usize;
    let (start, end) = (page * MIN_PAGE, (page + 1) * MIN_PAGE);
    if end <= info.first as usize {
        return 0..0;
    }
    number(start).min(blocks)..(number(end - 1) + 1).min(blocks)
}

/// The words in which these blocks have their bits.
pub(crate) fn words(blocks: &Range<usize>) -> Range<usize> {
    blocks.start / BLOCKS_PER_WORD..blocks.end.div_ceil(BLOCKS_PER_WORD)
}

/// `len` bits from bit `low` on: at least one, and no more than a word has.
#[inline(always)]
pub(crate) const fn run(low: usize, len: usize) -> u64 {
    u64::MAX >> (BLOCKS_PER_WORD - len) << low
}

/// The lowest run of these bits, of which one is set: where it begins, how long it is, and
/// the bits without it. (Added to at its start, a run carries to behind its end.)
#[inline(always)]
pub(crate) const fn lowest_run(bits: u64) -> (usize, usize, u64) {
    let low = bits.trailing_zeros();
    let beyond = bits.wrapping_add(bits & bits.wrapping_neg());
    let len = beyond.trailing_zeros() - low;
    (low as usize, len as usize, bits & beyond)
}

/// The bits of word `n` that stand for these blocks.
pub(crate) fn in_word(blocks: &Range<usize>, n: usize) -> u64 {
    let first = n * BLOCKS_PER_WORD;
    let start = blocks.start.max(first);
    let end = blocks.end.min(first + BLOCKS_PER_WORD);
    match end.checked_sub(start) {
        None | Some(0) => 0,
        Some(len) => run(start - first, len),
    }
}

/// The bits of word `n` that stand for no block.
pub(crate) fn of_no_block(info: &ClassInfo, n: usize) -> u64 {
    !in_word(&(0..info.blocks as usize), n)
}

/// The bits of word `n` that stand for blocks which lie on these pages only.
#[cold]
pub(crate) fn on_pages(info: &ClassInfo, pages: Pages, n: usize) -> u64 {
    let others = (0..POOL_SIZE / MIN_PAGE).filter(|&page| !pages.has(page));
    others.fold(u64::MAX, |bits, page| {
        bits & !in_word(&of_page(info, page), n)
    })
}

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
    fn a_page_knows_the_blocks_that_lie_on_it() {
        for class in SizeClass::all() {
            let info = class.info();
            for page in 0..POOL_SIZE / MIN_PAGE {
                let blocks = of_page(info, page);
                assert_eq!(blocks.clone().collect::<Vec<_>>(), on_page(info, page));
                let bits: u32 = words(&blocks)
                    .map(|n| in_word(&blocks, n).count_ones())
                    .sum();
                assert_eq!(bits as usize, blocks.len());
            }
        }
    }

    #[test]
    fn the_lowest_run_is_told_from_the_others() {
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
    fn bits_are_those_of_the_blocks_in_the_word() {
        assert_eq!(in_word(&(0..64), 0), u64::MAX);
        assert_eq!(in_word(&(60..70), 0), 0xf << 60);
        assert_eq!(in_word(&(60..70), 1), 0x3f);
        assert_eq!(in_word(&(60..70), 2), 0);
        assert_eq!(in_word(&(5..5), 0), 0);
    }

    #[test]
    fn blocks_on_some_pages_lie_on_no_others() {
        let info = SizeClass::of(48).unwrap().info();
        let pages = Pages::spanning(MIN_PAGE, 3 * MIN_PAGE - 1);
        for n in 0..info.words() {
            for bit in 0..BLOCKS_PER_WORD {
                let first = info.offset(n * BLOCKS_PER_WORD + bit);
                let inside = first >= MIN_PAGE && first + 48 <= 3 * MIN_PAGE;
                let is_there = on_pages(info, pages, n) >> bit & 1 == 1;
                if first + 48 <= POOL_SIZE {
                    assert_eq!(is_there, inside, "{n} {bit}");
                }
            }
        }
    }
}
