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

use crate::base::layout::pool_base;
use crate::base::size_class::{BLOCKS_PER_WORD, ClassInfo, SizeClass};
use crate::pool::Pool;
use crate::pool::invalid_free::InvalidFree;

impl Pool {
    /// Whether a block of the pool's class begins at this address in it.
    pub fn begins_block(&self, address: usize) -> bool {
        let Some(class) = self.class() else {
            return false;
        };
        let number = class.info().number(address - self.base());
        number.is_some_and(|n| n < class.info().blocks as usize)
    }

    /// Marks blocks as taken that were until `give` began with them.
    #[cold]
    pub(crate) fn take_again(&self, info: &ClassInfo, blocks: &[*mut u8]) {
        for block in blocks {
            let behind = block.addr() - self.base() - info.first as usize;
            let number = ((behind as u64 * u64::from(info.reciprocal)) >> 32) as usize;
            let word = &self.words[number / BLOCKS_PER_WORD];
            word.set(word.get() | 1 << (number % BLOCKS_PER_WORD));
        }
    }

    /// Gives the leading blocks of `blocks` that lie in this pool, which is of `class`, one
    /// by one, and leaves out those that cannot have been freed rightly: they are told to
    /// `mistake`. Returns how many lie in it.
    #[cold]
    #[inline(never)]
    pub fn give_singly(
        &self,
        class: SizeClass,
        blocks: &[*mut u8],
        mut mistake: impl FnMut(*mut u8, InvalidFree),
    ) -> usize {
        let here = |block: &&*mut u8| pool_base(block.addr()) == self.base();
        let mut seen = 0;
        for block in blocks.iter().take_while(here) {
            seen += 1;
            if self.give_one(class.info(), *block).is_ok() {
                continue;
            }
            let invalid_free = if self.begins_block(block.addr()) {
                InvalidFree::AlreadyFree
            } else {
                InvalidFree::NotABlock
            };
            mistake(*block, invalid_free);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::blocks::NotAllTaken;
    use crate::pool::tests::{pool, take};
    use crate::tests::*;

    #[test]
    fn what_is_no_taken_block_is_named_and_the_others_go_back() {
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
            assert_eq!(pool.begins_block(wrong.addr()), invalid_free != no_block);
        }
    }
}
