//! Sets of a pool's pages, in pieces of 4 KiB, the smallest OS page there is.
//! On a kernel with larger pages only whole ones go back: see [`Pages::whole`].
#![forbid(unsafe_code)]

use core::ops::{BitAnd, BitOr, Not};

use crate::base::layout::{MIN_PAGE, POOL_SIZE};
use crate::sync::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const MIN_PAGE_BITS: u32 = MIN_PAGE.ilog2();

/// Resident bytes that have gone back to the kernel so far.
static RETURNED: AtomicUsize = AtomicUsize::new(0);

/// Resident bytes that have gone back to the kernel so far.
pub(crate) fn returned() -> usize {
    RETURNED.load(Relaxed)
}

/// Whether the kernel has kept pages that were to go back, the last time.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether the kernel has kept pages that were to go back, the last time: those of locked
/// memory it does.
pub(crate) fn were_refused() -> bool {
    REFUSED.load(Relaxed)
}

/// Counts resident bytes that went back to the kernel, and notes whether some were `refused`.
pub(crate) fn count_returned(bytes: usize, refused: bool) {
    RETURNED.fetch_add(bytes, Relaxed);
    if were_refused() != refused {
        REFUSED.store(refused, Relaxed);
    }
}

/// A set of pieces, the lowest bit the first piece of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Pages(u16);

impl Pages {
    /// No piece.
    pub(crate) const NONE: Pages = Pages(0);
    /// All of the pool.
    pub(crate) const ALL: Pages = Pages(u16::MAX);

    /// The pieces in which the bytes from offset `first` to `last`, inclusive,
    /// lie. Both are in the pool.
    #[inline]
    pub(crate) fn spanning(first: usize, last: usize) -> Pages {
        let (first, last) = (first >> MIN_PAGE_BITS, last >> MIN_PAGE_BITS);
        Pages(((2u32 << last) - (1u32 << first)) as u16)
    }

    /// Whether there is none.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Bytes in the set.
    pub(crate) fn bytes(self) -> usize {
        self.0.count_ones() as usize * MIN_PAGE
    }

    /// What of it makes whole OS pages of `page` bytes. Of a page larger than
    /// a pool, nothing.
    pub(crate) fn whole(self, page: usize) -> Pages {
        let pieces = page / MIN_PAGE;
        if pieces <= 1 {
            return self;
        }
        let (mut whole, mut at) = (0u32, 0);
        while at + pieces <= POOL_SIZE / MIN_PAGE {
            let one = ((1u32 << pieces) - 1) << at;
            if u32::from(self.0) & one == one {
                whole |= one;
            }
            at += pieces;
        }
        Pages(whole as u16)
    }

    /// Its OS pages of `page` bytes, each with all of its pieces: what is in memory
    /// when something on these pieces was touched. Of a page larger than a
    /// pool, all of the pool.
    #[inline]
    pub(crate) fn in_os_pages(self, page: usize) -> Pages {
        let pieces = (page / MIN_PAGE).min(POOL_SIZE / MIN_PAGE);
        if pieces <= 1 {
            return self;
        }
        let (mut all, mut at) = (0u32, 0);
        while at < POOL_SIZE / MIN_PAGE {
            let one = ((1u32 << pieces) - 1) << at;
            if u32::from(self.0) & one != 0 {
                all |= one;
            }
            at += pieces;
        }
        Pages(all as u16)
    }

    /// Whether it is the first pieces of the pool, as many as there are, or none.
    #[inline]
    pub(crate) fn are_the_first(self) -> bool {
        self.0 & self.0.wrapping_add(1) == 0
    }

    /// Whether this piece is in it.
    pub(crate) fn has(self, piece: usize) -> bool {
        self.0 >> piece & 1 == 1
    }

    /// The pieces of which something is so.
    pub(crate) fn where_all(is_so: impl Fn(usize) -> bool) -> Pages {
        let bits = (0..POOL_SIZE / MIN_PAGE).filter(|&piece| is_so(piece));
        Pages(bits.fold(0, |all, piece| all | 1 << piece))
    }

    /// Its runs of neighbours: the offset and the length of each, in bytes.
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

const _: () = assert!(POOL_SIZE == MIN_PAGE * 16, "a bit of a u16 for each piece");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn spans_cover_every_piece_they_touch() {
        assert_eq!(Pages::spanning(0, 0), Pages(1));
        assert_eq!(Pages::spanning(0, MIN_PAGE - 1), Pages(1));
        assert_eq!(Pages::spanning(MIN_PAGE - 1, MIN_PAGE), Pages(3));
        assert_eq!(Pages::spanning(0, POOL_SIZE - 1), Pages::ALL);
        assert_eq!(Pages::spanning(15 * MIN_PAGE, POOL_SIZE - 1), Pages(0x8000));
    }

    #[test]
    fn the_first_pieces_are_known() {
        for n in 0..=16 {
            assert!(Pages(((1u32 << n) - 1) as u16).are_the_first());
        }
        assert!(!Pages(2).are_the_first() && !Pages(0xfffe).are_the_first());
        assert!(!Pages(0b1011).are_the_first());
        let odd = Pages::where_all(|piece| piece % 2 == 1);
        assert!(odd == Pages(0xaaaa) && odd.has(1) && !odd.has(14));
    }

    #[test]
    fn only_whole_os_pages_go_back() {
        let set = Pages(0b0111_1111_1110_1111);
        assert_eq!(set.whole(4096), set);
        assert_eq!(set.whole(16384), Pages(0b0000_1111_0000_1111));
        assert_eq!(set.whole(65536), Pages::NONE);
        assert_eq!(Pages::ALL.whole(65536), Pages::ALL);
        assert_eq!(Pages::ALL.whole(1 << 21), Pages::NONE);
    }

    #[test]
    fn a_touched_piece_brings_its_os_page() {
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
        let pieces = runs.iter().map(|(at, len)| (at / MIN_PAGE, len / MIN_PAGE));
        assert_eq!(pieces.collect::<Vec<_>>(), [(1, 2), (4, 2), (15, 1)]);
        assert_eq!(Pages::ALL.runs().collect::<Vec<_>>(), [(0, POOL_SIZE)]);
        assert_eq!(Pages::NONE.runs().count(), 0);
    }
}
