//! The pages of a pool: which are free, which go back to the kernel, which come.
//!
//! ```text
//!    never touched  -- bring, or a block is taken -->  resident
//!          ^                                            |   ^
//!          |                                  free when |   | a block
//!          |                                  looked at v   | is taken
//!          +-------- free at the next look, too ------- idle
//! ```
//!
//! # Threads
//!
//! As for the pool itself (`pool.rs`).

use crate::base::layout::POOL_SIZE;
use crate::base::size_class::SizeClass;
use crate::os::memory;
use crate::pool::Pool;
use crate::pool::bitmap;
use crate::pool::pages::{self, Pages};

impl Pool {
    /// The pages on which no taken block lies.
    pub fn free_pages(&self) -> Pages {
        let Some(class) = self.class() else {
            return Pages::ALL;
        };
        let info = class.info();
        Pages::where_all(|page| {
            let blocks = bitmap::of_page(info, page);
            let mut words = bitmap::words(&blocks);
            words.all(|n| self.words[n].get() & bitmap::in_word(&blocks, n) == 0)
        })
    }

    /// Takes the pages that are to go back to the kernel out of the resident
    /// ones: those that are free and, unless `at_once`, were so already when
    /// this was called the last time. `page` is the OS page in bytes.
    pub fn take_purgeable(&self, page: usize, at_once: bool) -> Pages {
        let free = (self.free_pages() & self.resident.get()).whole(page);
        let due = if at_once {
            free
        } else {
            free & self.idle.get()
        };
        self.idle.set(free & !due);
        self.resident.set(self.resident.get() & !due);
        self.returned.set(self.returned.get() | due);
        due
    }

    /// Gives `due` pages, which [`take_purgeable`](Pool::take_purgeable) has taken out of the resident
    /// ones and which lie in an arena of the kernel's, back to it. From the first one on that
    /// stays, as it is locked or a sandbox does not know the call, all are resident again.
    /// Returns how many bytes went back.
    pub fn give_back(&self, due: Pages) -> usize {
        let mut stay = Pages::NONE;
        for (offset, len) in due.runs() {
            // SAFETY: P5; the lock under which pages become resident is held.
            if !unsafe { memory::purge(self.base() + offset, len) } {
                stay = due & Pages::spanning(offset, POOL_SIZE - 1);
                break;
            }
        }
        self.resident.set(self.resident.get() | stay);
        self.returned.set(self.returned.get() & !stay);
        let gone = (due & !stay).bytes();
        pages::count_returned(gone, !stay.is_empty());
        gone
    }

    /// Has the kernel bring all pages with blocks of the pool, which has just begun
    /// and lies in an arena of the kernel's, into memory at once: cheaper than one by
    /// one.
    pub fn bring(&self, class: SizeClass) {
        let info = class.info();
        let len = info.offset(info.blocks as usize);
        let len = len.next_multiple_of(memory::page_size()).min(POOL_SIZE);
        if memory::populate(self.base(), len) {
            self.resident.set(Pages::spanning(0, len - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::MIN_PAGE;
    use crate::pool::tests::{pool, take};

    #[test]
    fn free_pages_go_back_when_they_stayed_free() {
        for class in SizeClass::all() {
            let pool = pool(class);
            let blocks = take(&pool, class, class.info().blocks as usize);
            assert_eq!(pool.take_purgeable(MIN_PAGE, true), Pages::NONE);
            // One block stays: the pages it lies on stay, all others go.
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
    fn pages_that_the_kernel_keeps_stay_resident() {
        let class = SizeClass::of(64).unwrap();
        let pool = pool(class); // nothing is mapped there, so the kernel refuses
        let blocks = take(&pool, class, class.info().blocks as usize);
        let all = pool.resident();
        assert_eq!(pool.give(class, &blocks[..300]), Ok(300));
        let due = pool.take_purgeable(MIN_PAGE, true);
        assert_eq!(pool.resident(), all & !due);
        assert_eq!((due.bytes() / MIN_PAGE, pool.give_back(due)), (4, 0));
        assert_eq!(pool.resident(), all);
        assert_eq!(pool.returned.get(), Pages::NONE);
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
        // All but the last page go back.
        take(&pool, class, blocks.len());
        assert_eq!(
            pool.give(class, &blocks[..blocks.len() - 3]),
            Ok(blocks.len() - 3)
        );
        let gone = pool.take_purgeable(MIN_PAGE, true);
        assert!(gone.bytes() >= 14 * MIN_PAGE);
        assert_eq!(pool.give(class, &last), Ok(3));
        let first = take(&pool, class, 1)[0].addr() - pool.base();
        assert!((Pages::spanning(first, first) & gone).is_empty());
    }
}
