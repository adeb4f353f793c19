//! The return of free memory to the kernel: pages inside pools, and arenas that
//! stay wholly empty. When that happens is `decay.rs`'s matter.
//!
//! ```text
//!    a pool:   |xx..|.xx.|....|....|....|x...|....|xxxx|    x: a taken block
//!               page  page  |--- free ---|      |free|
//!
//!    free and resident  -->  noted (idle)  -->  MADV_DONTNEED, not resident
//!                            taken again: forgotten
//! ```
//!
//! A block in the bits carries no link, so a page whose blocks are all free may
//! go at any moment, and be taken into use again without any bookkeeping but
//! its bit (P5).
//!
//! # Threads
//!
//! Any thread, with no lock held. A lock is held for one pool's pages at a time.

use crate::arena::Arena;
use crate::heap::Heap;
use crate::os::lock::MaintenanceScope;
use crate::os::memory;
use crate::pool::Pool;

/// A place on the way through all pools there are: every arena, from the one that
/// was added last, and in each pool by pool.
#[derive(Clone, Copy)]
pub struct Walk {
    arena: Option<&'static Arena>,
    pool: usize,
}

impl Walk {
    /// Before the first pool of `newest` and of all arenas that are older.
    fn from(newest: Option<&'static Arena>) -> Walk {
        Walk {
            arena: newest,
            pool: 0,
        }
    }

    fn next(&mut self) -> Option<(&'static Arena, &'static Pool)> {
        let arena = self.arena?;
        let pool = arena.pools().nth(self.pool);
        self.pool += 1;
        match pool {
            Some(pool) => Some((arena, pool)),
            None => {
                *self = Walk::from(arena.made_before());
                self.next()
            }
        }
    }
}

#[cfg(all(test, loom))]
impl Walk {
    /// The next pool, for models.
    pub fn next_pool(mut self) -> &'static Pool {
        self.next().unwrap().1
    }
}

impl Heap {
    /// Gives free pages of the next pool back to the kernel: those that have been
    /// free since this was called for it the last time, or `at_once` all. Returns
    /// how many bytes went back; `None` at the end of the way.
    ///
    /// A lock is held for one pool's pages at a time.
    pub fn purge_next(&self, walk: &mut Walk, at_once: bool) -> Option<usize> {
        let (arena, pool) = walk.next()?;
        let _tending = MaintenanceScope::begin();
        Some(self.purge_pool(arena, pool, at_once))
    }

    /// The same, at once, but of a pool that has no block in use, or nothing.
    pub fn purge_next_empty(&self, walk: &mut Walk) -> Option<usize> {
        let (arena, pool) = walk.next()?;
        if pool.home().is_some() {
            return Some(0);
        }
        let _tending = MaintenanceScope::begin();
        Some(self.purge_pool(arena, pool, true))
    }

    /// The way through all pools.
    pub fn walk(&self) -> Walk {
        Walk::from(self.arenas.lock().newest())
    }

    fn purge_pool(&self, arena: &'static Arena, pool: &'static Pool, at_once: bool) -> usize {
        // Without a lock, the pool's home only says which lock to take.
        match pool.home() {
            Some((shard, class)) => {
                let used = self.used(shard, class);
                if !pool.is_at(shard, class) || arena.is_programs() {
                    return 0;
                }
                used.purge(arena, pool, at_once)
            }
            None => {
                let arenas = self.arenas.lock();
                arenas.purge(arena, pool, memory::page_size(), at_once)
            }
        }
    }

    /// Gives wholly empty arenas back: those that have been so since this was
    /// called the last time, or `at_once` all.
    pub fn release(&self, at_once: bool) {
        loop {
            let chunk = self.arenas.lock().idle(at_once);
            match chunk {
                Some(chunk) => chunk.give_back(),
                None => return self.arenas.lock().note_idle(),
            }
        }
    }
}
