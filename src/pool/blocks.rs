//! Blocks leave a pool, and come back to it: in runs, and mostly as neighbours, so a word
//! of bits is read once for as many of them as lie together, and written once.
//!
//! ```text
//!    words[n]   1 1 1 0 0 0 0 1 1 0 1 1 ...      1: taken
//!                     |-----|     |
//!                      a run,     then another: out, lowest first
//!
//!    give       the blocks of one word after the other; or one alone, where the next
//!               lies in another pool
//! ```
//!
//! # Threads
//!
//! As for the pool itself (`pool.rs`).

use core::hint::assert_unchecked;
use core::ptr;

use crate::base::layout::pool_base;
use crate::base::size_class::{BLOCKS_PER_WORD, ClassInfo, INSIDE, SizeClass, WORDS};
use crate::os::memory;
use crate::pool::Pool;
use crate::pool::bitmap;
use crate::pool::pages::Pages;

/// Of blocks that were to go back to a pool, at least one is no taken block of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAllTaken;

impl Pool {
    /// Takes free blocks of the pool, which is of class `class`: those at the
    /// lowest addresses, as many as there are and `out` has room for. They
    /// fill `out` from its end: the lowest is the last. Returns how many.
    #[inline]
    pub fn take(&self, class: SizeClass, out: &mut [*mut u8]) -> usize {
        let (info, wanted, resident) = (class.info(), out.len(), self.resident.get());
        let mut room = wanted;
        // While the pages that are with us are the first ones, the lowest blocks
        // are on them.
        if !resident.are_the_first() {
            room = self.take_where(info, out, room, |n| bitmap::on_pages(info, resident, n));
        }
        room = self.take_where(info, out, room, |_| u64::MAX);
        let taken = wanted - room;
        self.free.set(self.free.get() - taken as u32);
        taken
    }

    /// Takes blocks that have a bit in what `may` says of their word. Returns how
    /// many slots of the `room` are left.
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

    /// Notes the pages on which the blocks with these bits lie, of those from number
    /// `start` on, as resident and not idle.
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

    /// Gives back one block of the pool, which is of this shape; as `give`, with less ado.
    #[inline(always)]
    pub fn give_one(&self, info: &ClassInfo, block: *mut u8) -> Result<(), NotAllTaken> {
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

    /// Gives back the leading blocks of `blocks`, which are of the pool's class
    /// `class`, that lie in this pool. Returns how many these are; or that one of them
    /// cannot be what its caller took it for, as no taken block begins there. Then the
    /// pool is as it was.
    #[inline(never)]
    pub fn give(&self, class: SizeClass, blocks: &[*mut u8]) -> Result<usize, NotAllTaken> {
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
            // SAFETY: S3: a block of the pool has a word.
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
                self.take_again(info, &blocks[..blocks.len() - from.len()]);
                return Err(NotAllTaken);
            }
            self.words[n].set(word);
            words_free |= 1 << n;
        }
        let given = blocks.len() - rest.len();
        // In the pool, but where it has no blocks of this class.
        let beside = rest.first();
        let beside = beside.is_some_and(|block| pool_base(block.addr()) == self.base());
        if beside || products as u32 >= INSIDE {
            self.take_again(info, &blocks[..given]);
            return Err(NotAllTaken);
        }
        self.words_free.set(words_free);
        self.free.set(self.free.get() + given as u32);
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::POOL_SIZE;
    use crate::pool::tests::{pool, take};
    use crate::tests::*;

    #[test]
    fn blocks_come_lowest_first_and_go_back_in_any_order() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let blocks = class.info().blocks as usize;
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
            pool.end();
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
}
