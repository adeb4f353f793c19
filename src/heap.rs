//! The heap: all arenas and the used pools of every class, shared by all
//! threads. Blocks leave it and come back in runs, a magazine's part at a time.
//!
//! ```text
//!    magazines of each thread          (magazines.rs)
//!        | refill            ^ flush
//!        v                   |
//!    depot of each class               (depot.rs)
//!        | take, if empty    ^ give, if full
//!        v                   |
//!    used pools by lane and class, each under its lock      empty -> used -> full
//!        | no used pool      ^ all blocks back
//!        v                   |
//!    arenas, under one lock
//!        |                   ^
//!    the kernel
//! ```
//!
//! # Invariants
//!
//! H1  A block is in exactly one of four places: its pool's bits, its class's
//!     depot, some thread's magazine, or the program.
//! H2  Locks are taken in this order: a class's, then the arenas'. Nobody
//!     holds two classes' locks, but for fork, which takes them in order, lane
//!     by lane.
//! H3  No lock is held while an arena's land comes or goes: that may take
//!     time, and may call a program's own functions.

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::address_map::MAP;
use crate::arena::Arena;
use crate::arena_source::{self, Land};
use crate::arenas::Arenas;
use crate::cutoff;
use crate::depot::Slots;
use crate::geometry::ARENA_SIZE;
use crate::inherited;
use crate::lane::{LANES, Lane};
use crate::limits;
use crate::misuse::{Misuse, stop};
use crate::os::lock::{Held, Lock};
use crate::os::process;
use crate::pool::Pool;
use crate::size_class::{SizeClass, TABLE_LEN};
use crate::used_pools::UsedPools;

/// A class that has so many pools gets the next one with all of its pages at once:
/// by then it is likely to use them, and fetching them one by one takes longer.
const BRINGS_FROM: usize = 64;
/// Pools that one refill visits at the most: scattered blocks are gathered
/// under one lock, but not for ever.
const VISITS: usize = 8;

/// What a class has in a lane. On cache lines of its own: other classes' are other
/// processors' business.
#[repr(align(64))]
struct Class(Lock<UsedPools>);

/// The arenas and the used pools of every class.
pub struct Heap {
    /// By lane and class index; entry 0 stays unused.
    classes: [[Class; TABLE_LEN]; LANES],
    pub(crate) arenas: Lock<Arenas>,
    /// By lane and class index: used under the class's lock.
    slots: [[Slots; TABLE_LEN]; LANES],
}

/// The process's heap.
pub static HEAP: Heap = Heap::new();

/// Whether free pages go back as soon as they are free, wherever the limits are.
static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Has free pages go back as soon as they are free, or not.
pub fn purge_at_once(at_once: bool) {
    AT_ONCE.store(at_once, Relaxed);
}

/// Whether they do so now: that is asked for, or memory is short.
pub fn at_once() -> bool {
    AT_ONCE.load(Relaxed) || limits::is_near()
}

/// An arena was added since `grew` was asked.
static GREW: AtomicBool = AtomicBool::new(false);

/// Whether an arena was added since this was asked the last time.
#[inline]
pub fn grew() -> bool {
    GREW.load(Relaxed) && GREW.swap(false, Relaxed)
}

impl Heap {
    /// A heap without memory.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> Heap {
        Heap {
            classes: [const { [const { Class(Lock::new(UsedPools::new())) }; TABLE_LEN] }; LANES],
            arenas: Lock::new(Arenas::new()),
            slots: [const { [const { Slots::new() }; TABLE_LEN] }; LANES],
        }
    }

    /// The slots of a class's depot.
    pub(crate) fn slots(&self, lane: Lane, class: SizeClass) -> &Slots {
        &self.slots[lane.index()][class.index()]
    }

    /// The used pools of a class, under its lock.
    pub(crate) fn used(&self, lane: Lane, class: SizeClass) -> Held<'_, UsedPools> {
        self.classes[lane.index()][class.index()].0.lock()
    }

    /// The same of every class in every lane that is open, one after the other.
    pub(crate) fn all_used(&self) -> impl Iterator<Item = (Lane, SizeClass, Held<'_, UsedPools>)> {
        Lane::open().flat_map(move |lane| {
            SizeClass::all().map(move |class| (lane, class, self.used(lane, class)))
        })
    }

    /// Takes free blocks of `class`, those of the fullest pools and in each the
    /// lowest first. They fill `out` from its end: the first is the last.
    /// `request` is the program's, in bytes, for the statistics. Returns how many:
    /// fewer than asked when that spares a new pool, none only if there is no
    /// memory.
    pub fn take(&self, lane: Lane, class: SizeClass, request: usize, out: &mut [*mut u8]) -> usize {
        loop {
            match self.take_from_pools(lane, class, request, out) {
                0 if self.add_arena() => {}
                0 => return self.take_from_others(lane, class, request, out),
                taken => return taken,
            }
        }
    }

    /// As `take`, from pools of the other lanes: there is no memory for more pools.
    #[cold]
    fn take_from_others(
        &self,
        lane: Lane,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let others = Lane::open().filter(|other| *other != lane);
        others
            .map(|other| self.take_from_pools(other, class, request, out))
            .find(|taken| *taken > 0)
            .unwrap_or(0)
    }

    /// As `take`, as far as there are pools.
    fn take_from_pools(
        &self,
        lane: Lane,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
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
                None => match self.begin_pool(&used, lane, class) {
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
    /// A block that cannot be what it was freed as stops the process: it was
    /// freed twice or never allocated, and the next owner of that memory
    /// would be damaged.
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
        let mut given = 0;
        while let Some(first) = blocks.get(given) {
            let arena = MAP.arena(first.addr());
            let pool = arena.map(|arena| arena.pool(first.addr()));
            let (Some(arena), Some(pool)) = (arena, pool.filter(|pool| pool.is_of(class))) else {
                stop(class, *first, Misuse::NoSuchPool);
            };
            if pool.lane() != lane {
                break;
            }
            let before = pool.free();
            match pool.give(class, &blocks[given..]) {
                Ok(n) => given += n,
                Err(block) if pool.begins_block(block.addr()) => {
                    stop(class, block, Misuse::AlreadyFree)
                }
                Err(block) => stop(class, block, Misuse::NotABlock),
            }
            if at_once() && !arena.is_programs() {
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
        used.got_back(given);
        given
    }

    /// A pool for the class, taken from the arenas. Empty -> used.
    fn begin_pool(&self, used: &UsedPools, lane: Lane, class: SizeClass) -> Option<&'static Pool> {
        let arenas = self.arenas.lock();
        let pool = arenas.take_pool()?;
        pool.begin(lane, class);
        let is_programs = || MAP.arena(pool.base()).is_some_and(Arena::is_programs);
        if used.pools() >= BRINGS_FROM && pool.resident().is_empty() && !is_programs() {
            pool.bring(class);
        }
        MAP.set_class(pool.base(), Some(class));
        used.joined(pool);
        Some(pool)
    }

    /// Hands a pool whose blocks are all free back. Used -> empty.
    fn end_pool(&self, used: &UsedPools, pool: &'static Pool) {
        let arenas = self.arenas.lock();
        used.left(pool);
        MAP.set_class(pool.base(), None);
        pool.end();
        if let Some(arena) = MAP.arena(pool.base()) {
            arenas.give_pool(arena, pool);
        }
    }

    /// Adds an arena. False if there is no memory for one.
    #[cold]
    fn add_arena(&self) -> bool {
        if !limits::allow(ARENA_SIZE) {
            return false;
        }
        let Some(land) = Land::take() else {
            return false;
        };
        let arenas = self.arenas.lock();
        let (added, size) = (arenas.add(land), arenas.counts().bytes);
        drop(arenas);
        if let Err(land) = added {
            land.give_back();
            return false;
        }
        cutoff::heap_has(size);
        GREW.store(true, Relaxed);
        arena_source::tell();
        true
    }

    /// Gives wholly empty arenas back that are not kept for the next peak.
    #[inline(never)]
    fn give_surplus(&self) {
        loop {
            let land = self.arenas.lock().surplus();
            match land {
                Some(land) => land.give_back(),
                None => return,
            }
        }
    }

    /// Gives every wholly empty arena back. Returns whether there was one.
    #[cold]
    pub fn release_empty(&self) -> bool {
        let mut released = false;
        loop {
            let land = self.arenas.lock().any_empty();
            match land {
                Some(land) => land.give_back(),
                None => return released,
            }
            released = true;
        }
    }

    /// In a forked child, under the locks that the fork holds: leaves the pools
    /// alone that it was born with, if that is the rule.
    pub fn forked(&self) {
        if let Some(first_own) = inherited::forked(process::parent()) {
            for (_, _, used) in self.all_used() {
                used.seal(first_own);
            }
            self.empty_depots(true);
        }
    }

    /// The locks of all classes in the lanes that are open, in order (E1).
    fn locks(&self) -> impl DoubleEndedIterator<Item = &Lock<UsedPools>> {
        let classes = |lane: Lane| self.classes[lane.index()][1..].iter();
        Lane::open().flat_map(classes).map(|class| &class.0)
    }

    /// Takes all locks for a fork (H2). The threads' lock is held.
    pub fn hold_for_fork(&self) {
        self.locks().for_each(Lock::hold_for_fork);
        self.arenas.hold_for_fork();
    }

    /// Opens all locks after a fork.
    pub fn open_after_fork(&self) {
        self.arenas.open_after_fork();
        self.locks().rev().for_each(Lock::open_after_fork);
    }

    /// Asserts the invariants of everything, for tests. Holds all locks, in
    /// the order of H2, as fork does: other tests use the same heap.
    #[cfg(test)]
    pub fn check(&self) {
        let all: std::vec::Vec<_> = self.all_used().collect();
        for (lane, class, used) in &all {
            used.check(*lane, *class);
        }
        self.arenas.lock().check();
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
