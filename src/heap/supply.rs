//! Blocks leave the pools, and come back to them, in runs.
//!
//! # Threads
//!
//! Any thread, with no lock held but the one that a function is given.

use core::iter;
use core::ptr;

use crate::arena::page_map::MAP;
use crate::base::layout::pool_base;
use crate::base::size_class::SizeClass;
use crate::heap::bin::UsedPools;
use crate::heap::{self, Heap};
use crate::os::lock::Held;
use crate::os::process;
use crate::policy::fork_cow;
use crate::pool::Pool;
use crate::pool::blocks::NotAllTaken;
use crate::pool::invalid_free::{self, InvalidFree};
use crate::pool::shard::Shard;

/// Pools that one refill visits at the most: scattered blocks are gathered
/// under one lock, but not for ever.
const VISITS: usize = 8;

impl Heap {
    /// Takes free blocks of `class`, those of the fullest pools and in each the
    /// lowest first. They fill `out` from its end: the first is the last.
    /// `request` is the program's, in bytes, for the statistics. Returns how many:
    /// fewer than asked when that spares a new pool, none only if there is no
    /// memory.
    pub fn take(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        self.take_holding(self.used(shard, class), shard, class, request, out)
    }

    /// The same for who holds the class's lock, which is open afterwards.
    pub fn take_holding<'a>(
        &'a self,
        mut used: Held<'a, UsedPools>,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        loop {
            let taken = self.take_from_pools(&used, shard, class, request, out, false);
            drop(used);
            if taken > 0 {
                return taken;
            }
            if !self.add_arena() {
                return self.take_what_is_left(shard, class, request, out);
            }
            used = self.used(shard, class);
        }
    }

    /// As `take`, from wherever there is a block, claimed arenas and other shards: there
    /// is no memory for another arena.
    #[cold]
    fn take_what_is_left(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let mut shards = iter::once(shard).chain(self.shards());
        let taken = |shard| {
            let used = self.used(shard, class);
            let taken = self.take_from_pools(&used, shard, class, request, out, true);
            (taken > 0).then_some(taken)
        };
        shards.find_map(taken).unwrap_or(0)
    }

    /// As `take`, as far as there are pools; if memory is `scarce`, those of arenas that
    /// others have claimed, too. `used` are the class's.
    fn take_from_pools(
        &self,
        used: &UsedPools,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
        scarce: bool,
    ) -> usize {
        let info = class.info();
        let mut taken = 0;
        for _ in 0..VISITS {
            let (pool, before) = match used.fullest() {
                Some(pool) => (pool, pool.free()),
                None if taken > 0 => break,
                None if used.has_frozen() && fork_cow::may_be_used(process::parent) => {
                    used.unfreeze();
                    continue;
                }
                None => match self.begin_pool(used, shard, class, scarce) {
                    Some(pool) => (pool, 0),
                    None => break,
                },
            };
            let (room, resident) = (out.len() - taken, pool.resident());
            taken += pool.take(class, &mut out[..room]);
            used.resident_changed(resident, pool.resident());
            used.moved(pool, info, before, pool.free());
            if taken == out.len() {
                break;
            }
        }
        used.record_take(taken, request);
        taken
    }

    /// Takes one free block of `class`; null if there is no memory.
    pub fn take_one(&self, shard: Shard, class: SizeClass, request: usize) -> *mut u8 {
        let mut block = [ptr::null_mut()];
        self.take(shard, class, request, &mut block);
        block[0]
    }

    /// Takes `blocks`, of `class` and in nobody's hands any more, back.
    ///
    /// A block that cannot be what it was freed as is reported: it was freed twice or
    /// never allocated, and the next owner of that memory would be damaged. Where the
    /// program goes on after that, such a block is left out.
    pub fn give(&self, class: SizeClass, blocks: &[*mut u8]) {
        if let Some(first) = blocks.first() {
            let shard = shard_of(*first);
            self.give_holding(self.used(shard, class), shard, class, blocks);
        }
    }

    /// The same for who holds the class's lock in `shard`, which is open afterwards.
    #[inline(never)]
    pub fn give_holding(
        &self,
        used: Held<'_, UsedPools>,
        shard: Shard,
        class: SizeClass,
        blocks: &[*mut u8],
    ) {
        let (given, mut pools_ended) = self.take_back_in(&used, shard, class, blocks);
        drop(used);
        if given < blocks.len() {
            pools_ended |= self.take_back(class, &blocks[given..]);
        }
        if pools_ended {
            self.give_surplus();
        }
    }

    /// Takes `blocks` back as `give` does, but no arena goes back, whose chunk may be a
    /// program's and go by the program's own calls only. Returns whether a pool has
    /// become empty.
    #[inline(never)]
    pub fn take_back(&self, class: SizeClass, blocks: &[*mut u8]) -> bool {
        let (mut rest, mut pools_ended) = (blocks, false);
        while let Some(first) = rest.first() {
            let shard = shard_of(*first);
            let (given, ended) = self.take_back_in(&self.used(shard, class), shard, class, rest);
            rest = &rest[given..];
            pools_ended |= ended;
        }
        pools_ended
    }

    /// Takes the leading blocks of `blocks` back that are of `shard`, whose pools of the
    /// class are `used`. Returns how many, and whether a pool has become empty.
    #[inline(never)]
    fn take_back_in(
        &self,
        used: &UsedPools,
        shard: Shard,
        class: SizeClass,
        blocks: &[*mut u8],
    ) -> (usize, bool) {
        let (info, at_once) = (class.info(), heap::at_once());
        let (mut given, mut wrong, mut pools_ended) = (0, 0, false);
        while let Some(first) = blocks.get(given) {
            let arena = MAP.arena(first.addr());
            let pool = arena.map(|arena| arena.pool(first.addr()));
            let (Some(arena), Some(pool)) = (arena, pool.filter(|pool| pool.is_at(shard, class)))
            else {
                if pool.is_some_and(|pool| pool.is_of(class)) {
                    break; // another shard's
                }
                invalid_free::report(Some(class), *first, InvalidFree::NoSuchPool);
                (given, wrong) = (given + 1, wrong + 1);
                continue;
            };
            let before = pool.free();
            let rest = &blocks[given..];
            // Programs that drop what they have sorted or hashed drop it all over the place.
            let is_alone = rest
                .get(1)
                .is_none_or(|next| pool_base(next.addr()) != pool.base());
            let gave = if is_alone {
                pool.give_one(info, *first).map(|()| 1)
            } else {
                pool.give(class, rest)
            };
            given += match gave {
                Ok(len) => len,
                Err(NotAllTaken) => {
                    let (len, mistakes) = give_with_mistakes(pool, class, rest);
                    wrong += mistakes;
                    len
                }
            };
            if at_once && !arena.is_programs() {
                used.purge(arena, pool, true);
            }
            if pool.free() < info.blocks {
                used.moved(pool, info, before, pool.free());
            } else {
                used.moved(pool, info, before, 0);
                self.end_pool(used, pool);
                pools_ended = true;
            }
        }
        used.record_give(given - wrong);
        (given, pools_ended)
    }
}

/// As [`Pool::give`] where something is wrong, which is reported. Returns how many blocks lie
/// in the pool, and how many of them were left out.
#[cold]
fn give_with_mistakes(pool: &Pool, class: SizeClass, blocks: &[*mut u8]) -> (usize, usize) {
    let mut mistakes = 0;
    let len = pool.give_singly(class, blocks, |block, invalid_free| {
        invalid_free::report(Some(class), block, invalid_free);
        mistakes += 1;
    });
    (len, mistakes)
}

/// The shard that a block belongs to, as far as a look without a lock can tell.
#[inline]
pub(crate) fn shard_of(block: *mut u8) -> Shard {
    if Shard::is_one() {
        Shard::FIRST
    } else {
        shard_of_several(block)
    }
}

#[inline(never)]
fn shard_of_several(block: *mut u8) -> Shard {
    let arena = MAP.arena(block.addr());
    arena.map_or(Shard::FIRST, |arena| arena.pool(block.addr()).shard())
}
