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
//!    used pools by shard and class, each under its lock      empty -> used -> full
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
//!     holds two classes' locks, but for fork, which takes them in order, shard
//!     by shard.
//! H3  No lock is held while an arena's chunk comes or goes: that may take
//!     time, and may call a program's own functions.

pub mod supply;

pub mod exchange;

pub mod counts;

pub mod bin;

pub mod depot;

pub mod purge;

use core::ptr;

use crate::arena::Arena;
use crate::arena::affinity::Affinity;
use crate::arena::chunk::{self, Chunk};
use crate::arena::metadata;
use crate::arena::page_map::MAP;
use crate::arena::set::Arenas;
use crate::base::layout::{ARENA_SIZE, POOLS_PER_ARENA};
use crate::base::size_class::{LAST, SizeClass, TABLE_LEN};
use crate::heap::bin::UsedPools;
use crate::os::lock::{Held, Lock, Word};
use crate::os::process;
use crate::os::sandbox;
use crate::policy::fork_cow;
use crate::policy::limits;
use crate::policy::size_policy;
use crate::pool::Pool;
use crate::pool::shard::{SHARDS, Shard};
use crate::sync::{
    AtomicBool, AtomicPtr,
    Ordering::{Acquire, Relaxed, Release},
};

/// A class that has so many pools, two arenas' worth, is large: it claims an arena for
/// the next, and gets each with all of its pages at once. By then it is likely to use
/// them, and fetching them one by one takes longer.
const LARGE: usize = 2 * POOLS_PER_ARENA;

/// What a class has in a shard. On cache lines of its own: other classes' are other
/// processors' business.
#[repr(align(64))]
struct Class {
    used: Lock<UsedPools>,
    /// Whether it was ever asked for. What was not is all zero, and has no memory.
    touched: AtomicBool,
}

impl Class {
    const fn new() -> Class {
        Class {
            used: Lock::new(UsedPools::new()),
            touched: AtomicBool::new(false),
        }
    }
}

/// Where each class stands in a shard, by its index: those for packed domains last, so that
/// nobody touches their memory where nothing is packed.
static PLACES: [u8; TABLE_LEN] = {
    let (mut places, mut index) = ([0; TABLE_LEN], 1);
    let (mut plain, mut packed) = (0, LAST - SizeClass::PACKED);
    while index < TABLE_LEN {
        let next = match SizeClass::from_index(index) {
            Some(class) if class.is_packed() => &mut packed,
            _ => &mut plain,
        };
        places[index] = *next as u8;
        *next += 1;
        index += 1;
    }
    assert!(plain == LAST - SizeClass::PACKED && packed == LAST);
    places
};

/// The classes of a shard, in the order of [`PLACES`]. All zero is a shard in which nobody ever asked
/// for anything.
struct Classes([Class; LAST]);

// SAFETY: each class is reached under its lock; `touched` is an atomic.
unsafe impl Sync for Classes {}

/// The arenas and the used pools of every class. All zero is a heap without memory.
pub struct Heap {
    /// Those of the first shard.
    first: Classes,
    /// Those of the others, by shard from 1 on; null until the shard is opened (E1). Release publishes
    /// them; pairs with the Acquire of each load.
    others: [AtomicPtr<Classes>; SHARDS - 1],
    pub(crate) arenas: Lock<Arenas>,
}

/// The process's heap.
#[unsafe(link_section = ".bss.tables")]
pub static HEAP: Heap = Heap::new();

/// Whether free pages go back as soon as they are free, wherever the limits are.
static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Has free pages go back as soon as they are free, or not.
pub fn purge_at_once(at_once: bool) {
    AT_ONCE.store(at_once, Relaxed);
}

/// Whether they do so now: that is asked for, or memory is short.
pub fn at_once() -> bool {
    (AT_ONCE.load(Relaxed) || limits::is_near()) && !sandbox::is_restricted()
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
            first: Classes([const { Class::new() }; LAST]),
            others: [const { AtomicPtr::new(ptr::null_mut()) }; SHARDS - 1],
            arenas: Lock::new(Arenas::new()),
        }
    }

    /// Makes the classes of a shard, if they are not there. False if there is no memory for them.
    /// Under the threads' lock (E1).
    #[cold]
    pub fn open(&self, shard: Shard) -> bool {
        let Some(place) = shard
            .index()
            .checked_sub(1)
            .map(|other| &self.others[other])
        else {
            return true;
        };
        if place.load(Acquire).is_null()
            && let Some(made) = metadata::take(size_of::<Classes>())
        {
            place.store(made.cast().as_ptr(), Release);
        }
        !place.load(Acquire).is_null()
    }

    /// The shards that are open, and have classes in this heap. (In the process's heap each has; the
    /// tests have other heaps beside.)
    pub(crate) fn shards(&self) -> impl DoubleEndedIterator<Item = Shard> {
        let is_made = |other: usize| !self.others[other].load(Acquire).is_null();
        Shard::open().filter(move |shard| shard.index().checked_sub(1).is_none_or(is_made))
    }

    /// The classes of a shard.
    #[inline]
    fn classes(&self, shard: Shard) -> &Classes {
        let Some(other) = shard.index().checked_sub(1) else {
            return &self.first;
        };
        // SAFETY: `open` made them, for good.
        let classes = unsafe { self.others[other].load(Acquire).as_ref() };
        // Nobody asks for one that is not open (E1).
        classes.unwrap_or(&self.first)
    }

    #[inline]
    fn class(&self, shard: Shard, class: SizeClass) -> &Class {
        &self.classes(shard).0[usize::from(PLACES[class.index()])]
    }

    /// The used pools of a class, under its lock.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn used(&self, shard: Shard, class: SizeClass) -> Held<'_, UsedPools> {
        let class = self.class(shard, class);
        class.touched.store(true, Relaxed);
        class.used.lock()
    }

    /// The same, if the class was ever asked for in the shard. For walks over all of them,
    /// which else would bring memory for each: 28 KiB in a shard.
    pub(crate) fn touched(&self, shard: Shard, class: SizeClass) -> Option<Held<'_, UsedPools>> {
        let was_touched = self.class(shard, class).touched.load(Relaxed);
        was_touched.then(|| self.used(shard, class))
    }

    /// The used pools of every class that was touched, in every shard that is open, one after
    /// the other.
    pub(crate) fn all_used(&self) -> impl Iterator<Item = (Shard, SizeClass, Held<'_, UsedPools>)> {
        let all = self
            .shards()
            .flat_map(|shard| SizeClass::all().map(move |class| (shard, class)));
        all.filter_map(|(shard, class)| Some((shard, class, self.touched(shard, class)?)))
    }

    /// A pool for the class, taken from the arenas. Empty -> used.
    pub(crate) fn begin_pool(
        &self,
        used: &UsedPools,
        shard: Shard,
        class: SizeClass,
        scarce: bool,
    ) -> Option<&'static Pool> {
        let is_large = used.pools() >= LARGE;
        let affinity = if is_large && !scarce {
            Affinity::of(shard, class)
        } else {
            None
        };
        let arenas = self.arenas.lock();
        let pool = arenas.take_pool(affinity, &used.affine)?;
        pool.begin(shard, class);
        let is_programs = || MAP.arena(pool.base()).is_some_and(Arena::is_programs);
        if is_large && pool.resident().is_empty() && !is_programs() {
            pool.bring(class);
        }
        MAP.set_class(pool.base(), Some(class));
        used.on_added(pool);
        Some(pool)
    }

    /// Hands a pool whose blocks are all free back. Used -> empty.
    pub(crate) fn end_pool(&self, used: &UsedPools, pool: &'static Pool) {
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
    pub(crate) fn add_arena(&self) -> bool {
        if !limits::allow(ARENA_SIZE) {
            return false;
        }
        let Some(chunk) = Chunk::take() else {
            return false;
        };
        let arenas = self.arenas.lock();
        let (added, size) = (arenas.add(chunk), arenas.counts().bytes);
        drop(arenas);
        if let Err(chunk) = added {
            chunk.give_back();
            return false;
        }
        size_policy::heap_has(size);
        GREW.store(true, Relaxed);
        chunk::tell();
        true
    }

    /// Gives wholly empty arenas back that are not kept for the next peak.
    #[inline(never)]
    pub(crate) fn give_surplus(&self) {
        loop {
            let chunk = self.arenas.lock().surplus();
            match chunk {
                Some(chunk) => chunk.give_back(),
                None => return,
            }
        }
    }

    /// Gives every wholly empty arena back. Returns whether there was one.
    #[cold]
    pub fn release_empty(&self) -> bool {
        let mut released = false;
        loop {
            let chunk = self.arenas.lock().any_empty();
            match chunk {
                Some(chunk) => chunk.give_back(),
                None => return released,
            }
            released = true;
        }
    }

    /// In a forked child whose thread holds all locks by the fork: leaves the pools alone
    /// that it was born with, if that is the rule.
    pub fn forked(&self) {
        if let Some(first_own) = fork_cow::forked(process::parent) {
            for (_, _, used) in self.all_used() {
                used.freeze(first_own);
            }
            self.empty_depots(true);
        }
    }

    /// All locks, in their order (H2): those of all classes in the shards that are open
    /// (E1), and the arenas'.
    pub fn each_lock<'a>(&'a self, see: &mut dyn FnMut(&'a Word)) {
        let classes = |shard: Shard| self.classes(shard).0.iter();
        self.shards()
            .flat_map(classes)
            .for_each(|class| see(class.used.word()));
        see(self.arenas.word());
    }
}

const _: () = assert!(size_of::<Class>() <= 256, "four cache lines");
const _: () = assert!(align_of::<Classes>() <= metadata::ALIGNMENT);
