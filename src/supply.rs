//! Blocks leave the pools, and come back to them, in runs.
//!
//! # Threads
//!
//! Any thread, with no lock held.

use core::iter;
use core::ptr;

use crate::address_map::MAP;
use crate::heap::{self, Heap};
use crate::inherited;
use crate::lane::Lane;
use crate::misuse::{self, Misuse};
use crate::os::process;
use crate::size_class::SizeClass;

/// Pools that one refill visits at the most: scattered blocks are gathered
/// under one lock, but not for ever.
const VISITS: usize = 8;

impl Heap {
    /// Takes free blocks of `class`, those of the fullest pools and in each the
    /// lowest first. They fill `out` from its end: the first is the last.
    /// `request` is the program's, in bytes, for the statistics. Returns how many:
    /// fewer than asked when that spares a new pool, none only if there is no
    /// memory.
    pub fn take(&self, lane: Lane, class: SizeClass, request: usize, out: &mut [*mut u8]) -> usize {
        loop {
            match self.take_from_pools(lane, class, request, out, false) {
                0 if self.add_arena() => {}
                0 => return self.take_what_is_left(lane, class, request, out),
                taken => return taken,
            }
        }
    }

    /// As `take`, from wherever there is a block, claimed arenas and other lanes: there
    /// is no memory for another arena.
    #[cold]
    fn take_what_is_left(
        &self,
        lane: Lane,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let mut lanes = iter::once(lane).chain(Lane::open());
        let taken = |lane| match self.take_from_pools(lane, class, request, out, true) {
            0 => None,
            taken => Some(taken),
        };
        lanes.find_map(taken).unwrap_or(0)
    }

    /// As `take`, as far as there are pools; if memory is `scarce`, those of arenas that
    /// others have claimed, too.
    fn take_from_pools(
        &self,
        lane: Lane,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
        scarce: bool,
    ) -> usize {
        let shape = class.shape();
        let used = self.used(lane, class);
        let mut taken = 0;
        for _ in 0..VISITS {
            let (pool, before) = match used.fullest() {
                Some(pool) => (pool, pool.free()),
                None if taken > 0 => break,
                None if used.has_sealed() && inherited::may_be_used(process::parent) => {
                    used.unseal();
                    continue;
                }
                None => match self.begin_pool(&used, lane, class, scarce) {
                    Some(pool) => (pool, 0),
                    None => break,
                },
            };
            let (room, resident) = (out.len() - taken, pool.resident());
            taken += pool.take(class, &mut out[..room]);
            used.became_resident(resident, pool.resident());
            used.moved(pool, shape, before, pool.free());
            if taken == out.len() {
                break;
            }
        }
        used.took(taken, request);
        taken
    }

    /// Takes one free block of `class`; null if there is no memory.
    pub fn take_one(&self, lane: Lane, class: SizeClass, request: usize) -> *mut u8 {
        let mut block = [ptr::null_mut()];
        self.take(lane, class, request, &mut block);
        block[0]
    }

    /// Takes `blocks`, of `class` and in nobody's hands any more, back.
    ///
    /// A block that cannot be what it was freed as is reported: it was freed twice or
    /// never allocated, and the next owner of that memory would be damaged. Where the
    /// program goes on after that, such a block is left out.
    #[inline(never)]
    pub fn give(&self, class: SizeClass, blocks: &[*mut u8]) {
        if self.take_back(class, blocks) {
            self.give_surplus();
        }
    }

    /// The same, but no arena goes back, whose land may be a program's and go by the
    /// program's own calls only. Returns whether a pool has become empty.
    #[inline(always)]
    pub fn take_back(&self, class: SizeClass, blocks: &[*mut u8]) -> bool {
        let (mut rest, mut pools_ended) = (blocks, false);
        while let Some(first) = rest.first() {
            let lane = lane_of(*first);
            rest = &rest[self.take_back_in(lane, class, rest, &mut pools_ended)..];
        }
        pools_ended
    }

    /// Takes the leading blocks of `blocks` back that are of `lane`. Returns how many,
    /// and notes whether a pool has become empty.
    #[inline(always)]
    fn take_back_in(
        &self,
        lane: Lane,
        class: SizeClass,
        blocks: &[*mut u8],
        pools_ended: &mut bool,
    ) -> usize {
        let shape = class.shape();
        let used = self.used(lane, class);
        let (mut given, mut wrong) = (0, 0);
        while let Some(first) = blocks.get(given) {
            let arena = MAP.arena(first.addr());
            let pool = arena.map(|arena| arena.pool(first.addr()));
            let (Some(arena), Some(pool)) = (arena, pool.filter(|pool| pool.is_of(class))) else {
                misuse::report(Some(class), *first, Misuse::NoSuchPool);
                (given, wrong) = (given + 1, wrong + 1);
                continue;
            };
            if pool.lane() != lane {
                break;
            }
            let before = pool.free();
            given += pool.give(class, &blocks[given..]).unwrap_or_else(|_| {
                pool.give_singly(class, &blocks[given..], |block, misuse| {
                    misuse::report(Some(class), block, misuse);
                    wrong += 1;
                })
            });
            if heap::at_once() && !arena.is_programs() {
                used.purge(arena, pool, true);
            }
            if pool.free() < shape.blocks {
                used.moved(pool, shape, before, pool.free());
            } else {
                used.moved(pool, shape, before, 0);
                self.end_pool(&used, pool);
                *pools_ended = true;
            }
        }
        used.got_back(given - wrong);
        given
    }
}

/// The lane that a block belongs to, as far as a look without a lock can tell.
#[inline]
pub(crate) fn lane_of(block: *mut u8) -> Lane {
    if Lane::is_one() {
        return Lane::FIRST;
    }
    let arena = MAP.arena(block.addr());
    arena.map_or(Lane::FIRST, |arena| arena.pool(block.addr()).lane())
}
