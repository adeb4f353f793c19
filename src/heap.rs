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
//!    used pools by class, each under its lock      empty -> used -> full
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
//!     holds two classes' locks, but for fork, which takes them in order of
//!     index.
//! H3  No lock is held while an arena's land comes or goes: that may take
//!     time, and may call a program's own functions.

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::address_map::MAP;
use crate::arena::Arena;
use crate::arena_source::{self, Land};
use crate::arenas::{Arenas, Counts};
use crate::cutoff;
use crate::depot::Slots;
use crate::geometry::ARENA_SIZE;
use crate::inherited;
use crate::limits;
use crate::os::lock::{Held, Lock};
use crate::os::{process, text};
use crate::pool::Pool;
use crate::size_class::{SizeClass, TABLE_LEN};
use crate::used_pools::UsedPools;

/// A class that has so many pools gets the next one with all of its pages at once:
/// by then it is likely to use them, and fetching them one by one takes longer.
const BRINGS_FROM: usize = 64;
/// Pools that one refill visits at the most: scattered blocks are gathered
/// under one lock, but not for ever.
const VISITS: usize = 8;

/// The arenas and the used pools of every class.
pub struct Heap {
    /// By class index; entry 0 stays unused.
    classes: [Lock<UsedPools>; TABLE_LEN],
    pub(crate) arenas: Lock<Arenas>,
    /// By class index: used under the class's lock.
    slots: [Slots; TABLE_LEN],
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

/// Why a block cannot have been freed rightly.
#[derive(Clone, Copy)]
enum Misuse {
    /// No block begins at this address.
    NotABlock,
    /// The block is free already.
    AlreadyFree,
    /// The pool has gone back to its arena, or to another class: all of its
    /// blocks were free.
    NoSuchPool,
}

/// What a class holds at one moment.
#[derive(Clone, Copy, Default)]
pub struct ClassCounts {
    /// Its pools, used and full.
    pub pools: usize,
    /// Of these, how many are full.
    pub full: usize,
    /// Blocks that are live, in some thread's magazine or in the depot.
    pub taken: usize,
    /// Blocks in the depot.
    pub in_depot: usize,
    /// Bytes of resident pages in its pools.
    pub resident: usize,
    /// Requests that were looked at.
    pub looked_at: usize,
    /// The bytes of these.
    pub requested: usize,
}

impl Heap {
    /// A heap without memory.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> Heap {
        Heap {
            classes: [const { Lock::new(UsedPools::new()) }; TABLE_LEN],
            arenas: Lock::new(Arenas::new()),
            slots: [const { Slots::new() }; TABLE_LEN],
        }
    }

    /// The slots of a class's depot.
    pub(crate) fn slots(&self, class: SizeClass) -> &Slots {
        &self.slots[class.index()]
    }

    /// The used pools of a class, under its lock.
    pub(crate) fn used(&self, class: SizeClass) -> Held<'_, UsedPools> {
        self.classes[class.index()].lock()
    }

    /// Takes free blocks of `class`, those of the fullest pools and in each the
    /// lowest first. They fill `out` from its end: the first is the last.
    /// `request` is the program's, in bytes, for the statistics. Returns how many:
    /// fewer than asked when that spares a new pool, none only if there is no
    /// memory.
    pub fn take(&self, class: SizeClass, request: usize, out: &mut [*mut u8]) -> usize {
        loop {
            match self.take_from_pools(class, request, out) {
                0 if self.add_arena() => {}
                taken => return taken,
            }
        }
    }

    /// As `take`, as far as there are pools.
    fn take_from_pools(&self, class: SizeClass, request: usize, out: &mut [*mut u8]) -> usize {
        let shape = class.shape();
        let used = self.used(class);
        let mut taken = 0;
        for _ in 0..VISITS {
            let (pool, before) = match used.fullest() {
                Some(pool) => (pool, pool.free()),
                None if taken > 0 => break,
                None if used.has_sealed() && inherited::may_be_used(process::parent) => {
                    used.unseal();
                    continue;
                }
                None => match self.begin_pool(&used, class) {
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
    pub fn take_one(&self, class: SizeClass, request: usize) -> *mut u8 {
        let mut block = [ptr::null_mut()];
        self.take(class, request, &mut block);
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
        let shape = class.shape();
        let used = self.used(class);
        let (mut given, mut pools_ended) = (0, false);
        while given < blocks.len() {
            let first = blocks[given];
            let arena = MAP.arena(first.addr());
            let pool = arena.map(|arena| arena.pool(first.addr()));
            let (Some(arena), Some(pool)) = (arena, pool.filter(|pool| pool.is_of(class))) else {
                damaged(class, first, Misuse::NoSuchPool);
            };
            let before = pool.free();
            match pool.give(class, &blocks[given..]) {
                Ok(n) => given += n,
                Err(block) if pool.begins_block(block.addr()) => {
                    damaged(class, block, Misuse::AlreadyFree)
                }
                Err(block) => damaged(class, block, Misuse::NotABlock),
            }
            if at_once() && !arena.is_programs() {
                used.purge(arena, pool, true);
            }
            if pool.free() < shape.blocks {
                used.moved(pool, shape, before, pool.free());
            } else {
                used.moved(pool, shape, before, 0);
                self.end_pool(&used, pool);
                pools_ended = true;
            }
        }
        used.got_back(given);
        pools_ended
    }

    /// A pool for the class, taken from the arenas. Empty -> used.
    fn begin_pool(&self, used: &UsedPools, class: SizeClass) -> Option<&'static Pool> {
        let arenas = self.arenas.lock();
        let pool = arenas.take_pool()?;
        pool.begin(class);
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

    /// What a class holds now.
    pub fn class_counts(&self, class: SizeClass) -> ClassCounts {
        let used = self.used(class);
        ClassCounts {
            pools: used.pools(),
            full: used.full(),
            taken: used.taken(),
            in_depot: used.depot.held(),
            resident: used.resident(),
            looked_at: used.looked_at(),
            requested: used.requested(),
        }
    }

    /// What the arenas hold now.
    pub fn arena_counts(&self) -> Counts {
        self.arenas.lock().counts()
    }

    /// In a forked child, under the locks that the fork holds: leaves the pools
    /// alone that it was born with, if that is the rule.
    pub fn forked(&self) {
        if let Some(first_own) = inherited::forked(process::parent()) {
            for class in SizeClass::all() {
                self.used(class).seal(first_own);
            }
            self.empty_depots(true);
        }
    }

    /// Takes all locks for a fork (H2).
    pub fn hold_for_fork(&self) {
        for class in &self.classes[1..] {
            class.hold_for_fork();
        }
        self.arenas.hold_for_fork();
    }

    /// Opens all locks after a fork.
    pub fn open_after_fork(&self) {
        self.arenas.open_after_fork();
        for class in self.classes[1..].iter().rev() {
            class.open_after_fork();
        }
    }

    /// Asserts the invariants of everything, for tests. Holds all locks, in
    /// the order of H2, as fork does: other tests use the same heap.
    #[cfg(test)]
    pub fn check(&self) {
        let all = SizeClass::all().map(|class| (class, self.used(class)));
        let all: std::vec::Vec<_> = all.collect();
        for (class, used) in &all {
            used.check(*class);
        }
        self.arenas.lock().check();
    }
}

/// Reports a block that cannot have been freed rightly, and stops.
#[cold]
#[inline(never)]
fn damaged(class: SizeClass, block: *mut u8, misuse: Misuse) -> ! {
    let what = match misuse {
        Misuse::NotABlock => "freed, but no block begins there",
        Misuse::AlreadyFree => "freed twice",
        Misuse::NoSuchPool => "freed, but its pool holds no live block",
    };
    let (size, pid) = (class.size(), text::pid());
    text::fatal(format_args!(
        "{block:p}: {what} (size class {size}, pid {pid})"
    ))
}
