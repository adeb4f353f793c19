//! What cannot be given back to a pool: it is told from what can, and left out.
//!
//! ```text
//!    blocks given back      0x..c0   0x..f0   0x..c0   0x..d8
//!    the bits say           taken    taken    free by  no block
//!                                             now      begins there
//! ```
//!
//! `Pool::give` looks at whole words and only counts, so it knows that something is
//! wrong and undoes what it began. Here it is found out what it was.
//!
//! # Threads
//!
//! As for the pool itself (`pool.rs`).

use core::ptr;
use core::slice;

use crate::geometry::pool_base;
use crate::misuse::{self, Misuse};
use crate::pool::Pool;
use crate::size_class::{BLOCKS_PER_WORD, Shape, SizeClass};

impl Pool {
    /// Whether a block of the pool's class begins at this address in it.
    pub fn begins_block(&self, address: usize) -> bool {
        let Some(class) = self.class() else {
            return false;
        };
        let number = class.shape().number(address - self.base());
        number.is_some_and(|n| n < class.shape().blocks as usize)
    }

    /// Marks blocks as taken that were until `give` began with them.
    #[cold]
    pub(crate) fn take_again(&self, shape: &Shape, blocks: &[*mut u8]) {
        for block in blocks {
            let behind = block.addr() - self.base() - shape.first as usize;
            let number = ((behind as u64 * u64::from(shape.reciprocal)) >> 32) as usize;
            let word = &self.words[number / BLOCKS_PER_WORD];
            word.set(word.get() | 1 << (number % BLOCKS_PER_WORD));
        }
    }

    /// Of blocks of which not all are taken, the first that is not, or that stands
    /// among them a second time.
    #[cold]
    pub(crate) fn not_taken(&self, shape: &Shape, blocks: &[*mut u8]) -> *mut u8 {
        let is_taken = |block: *mut u8| {
            let number = shape.number(block.addr() - self.base());
            number.is_some_and(|n| self.words[n / BLOCKS_PER_WORD].get() >> (n % 64) & 1 == 1)
        };
        let mut with_before = blocks.iter().enumerate();
        let wrong =
            with_before.find(|(n, block)| !is_taken(**block) || blocks[..*n].contains(block));
        wrong.map_or(ptr::null_mut(), |(_, block)| *block)
    }

    /// Gives the leading blocks of `blocks` that lie in this pool, which is of `class`, one
    /// by one, and reports those that cannot have been freed rightly. Returns how many these
    /// are, and how many of them were left out.
    #[cold]
    #[inline(never)]
    pub fn give_singly(&self, class: SizeClass, blocks: &[*mut u8]) -> (usize, usize) {
        let here = |block: &&*mut u8| pool_base(block.addr()) == self.base();
        let (mut seen, mut wrong) = (0, 0);
        for block in blocks.iter().take_while(here) {
            seen += 1;
            if self.give(class, slice::from_ref(block)).is_err() {
                let misuse = if self.begins_block(block.addr()) {
                    Misuse::AlreadyFree
                } else {
                    Misuse::NotABlock
                };
                misuse::report(Some(class), *block, misuse);
                wrong += 1;
            }
        }
        (seen, wrong)
    }
}
