//! The heap: all arenas and the used pools of every class, shared by all
//! threads. Blocks leave it and come back in runs, a magazine's part at a time.
//!
//! ```text
//!    magazines of each thread          (tcache/magazines.rs)
//!        | refill            ^ flush
//!        v                   |
//!    depot of each class               (heap/depot.rs)
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
//! HEAP-1  A block is in exactly one of four places: its pool's bits, its class's
//!     depot, some thread's magazine, or the program.
//! HEAP-2  Locks are taken in this order: a class's, then the arenas'. Nobody
//!     holds two classes' locks, but for fork, which takes them in order, shard
//!     by shard.
//! HEAP-3  No lock is held while an arena's chunk comes or goes: that may take
//!     time, and may call a program's own functions.

pub(crate) mod bin;

pub(crate) mod depot;

use core::iter;
use core::mem::MaybeUninit;
use core::ptr;
use core::slice;

use crate::arena::Arena;
use crate::arena::affinity::Affinity;
use crate::arena::chunk;
use crate::arena::chunk::Chunk;
use crate::arena::metadata;
use crate::arena::page_map::MAP;
use crate::arena::set::Arenas;
use crate::arena::set::Counts;
use crate::base::layout::ARENA_SIZE;
use crate::base::layout::POOLS_PER_ARENA;
use crate::base::layout::pool_base;
use crate::base::size_class::BLOCKS_PER_WORD;
use crate::base::size_class::LAST;
use crate::base::size_class::SizeClass;
use crate::base::size_class::TABLE_LEN;
use crate::heap::bin::UsedPools;
use crate::heap::depot::Left;
use crate::os::lock::Lock;
use crate::os::lock::LockGuard;
use crate::os::lock::MaintenanceScope;
use crate::os::lock::Word;
use crate::os::memory;
use crate::os::process;
use crate::os::sandbox;
use crate::os::wait;
use crate::policy::fork_cow;
use crate::policy::limits;
use crate::policy::size_policy;
use crate::pool::NotAllTaken;
use crate::pool::Pool;
use crate::pool::invalid_free;
use crate::pool::invalid_free::InvalidFree;
use crate::pool::shard::SHARDS;
use crate::pool::shard::Shard;
use crate::sync::AtomicBool;
use crate::sync::AtomicPtr;
use crate::sync::AtomicUsize;
use crate::sync::Ordering::AcqRel;
use crate::sync::Ordering::Acquire;
use crate::sync::Ordering::Relaxed;
use crate::sync::Ordering::Release;

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
pub(crate) struct Heap {
    /// Those of the first shard.
    first: Classes,
    /// Those of the others, by shard from 1 on; null until the shard is opened (SHARD-1). Release publishes
    /// them; pairs with the Acquire of each load.
    others: [AtomicPtr<Classes>; SHARDS - 1],
    pub(crate) arenas: Lock<Arenas>,
    /// How often blocks have left a depot for pools of another shard, and how often they have
    /// arrived. In between no lock covers them, and the classes count them as taken.
    moves_begun: AtomicUsize,
    moves_ended: AtomicUsize,
}

/// The process's heap.
#[unsafe(link_section = ".bss.tables")]
pub(crate) static HEAP: Heap = Heap::new();

/// Whether free pages go back as soon as they are free, wherever the limits are.
static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Has free pages go back as soon as they are free, or not.
pub(crate) fn purge_at_once(at_once: bool) {
    AT_ONCE.store(at_once, Relaxed);
}

/// Whether they do so now: that is asked for, or memory is short.
pub(crate) fn at_once() -> bool {
    (AT_ONCE.load(Relaxed) || limits::is_near()) && !sandbox::is_restricted()
}

/// An arena was added since `grew` was asked.
static GREW: AtomicBool = AtomicBool::new(false);

/// Whether an arena was added since this was asked the last time.
#[inline]
pub(crate) fn grew() -> bool {
    GREW.load(Relaxed) && GREW.swap(false, Relaxed)
}

impl Heap {
    /// A heap without memory.
    pub(crate) const fn new() -> Heap {
        Heap {
            first: Classes([const { Class::new() }; LAST]),
            others: [const { AtomicPtr::new(ptr::null_mut()) }; SHARDS - 1],
            arenas: Lock::new(Arenas::new()),
            moves_begun: AtomicUsize::new(0),
            moves_ended: AtomicUsize::new(0),
        }
    }

    /// Makes the classes of a shard, if they are not there. False if there is no memory for them.
    /// Under the threads' lock (SHARD-1).
    #[cold]
    pub(crate) fn open(&self, shard: Shard) -> bool {
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
        // Nobody asks for one that is not open (SHARD-1).
        classes.unwrap_or(&self.first)
    }

    #[inline]
    fn class(&self, shard: Shard, class: SizeClass) -> &Class {
        &self.classes(shard).0[usize::from(PLACES[class.index()])]
    }

    /// The used pools of a class, under its lock.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn used(&self, shard: Shard, class: SizeClass) -> LockGuard<'_, UsedPools> {
        let class = self.class(shard, class);
        class.touched.store(true, Relaxed);
        class.used.lock()
    }

    /// The same, if the class was ever asked for in the shard. For walks over all of them,
    /// which else would bring memory for each: 28 KiB in a shard.
    pub(crate) fn touched(
        &self,
        shard: Shard,
        class: SizeClass,
    ) -> Option<LockGuard<'_, UsedPools>> {
        let was_touched = self.class(shard, class).touched.load(Relaxed);
        was_touched.then(|| self.used(shard, class))
    }

    /// The used pools of every class that was touched, in every shard that is open, one after
    /// the other.
    pub(crate) fn all_used(
        &self,
    ) -> impl Iterator<Item = (Shard, SizeClass, LockGuard<'_, UsedPools>)> {
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
    pub(crate) fn release_empty(&self) -> bool {
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
    pub(crate) fn forked(&self) {
        // Blocks that another thread was moving are lost with it.
        self.moves_ended
            .store(self.moves_begun.load(Relaxed), Relaxed);
        if let Some(first_own) = fork_cow::forked(process::parent) {
            for (_, _, used) in self.all_used() {
                used.freeze(first_own);
            }
            self.empty_depots(true);
        }
    }

    /// All locks, in their order (HEAP-2): those of all classes in the shards that are open
    /// (SHARD-1), and the arenas'.
    pub(crate) fn each_lock<'a>(&'a self, see: &mut dyn FnMut(&'a Word)) {
        let classes = |shard: Shard| self.classes(shard).0.iter();
        self.shards()
            .flat_map(classes)
            .for_each(|class| see(class.used.word()));
        see(self.arenas.word());
    }

    /// Takes free blocks of `class`, those of the fullest pools and in each the
    /// lowest first. They fill `out` from its end: the first is the last.
    /// `request` is the program's, in bytes, for the statistics. Returns how many:
    /// fewer than asked when that spares a new pool, none only if there is no
    /// memory.
    pub(crate) fn take(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        self.take_holding(self.used(shard, class), shard, class, request, out)
    }

    /// The same for who holds the class's lock, which is open afterwards.
    pub(crate) fn take_holding<'a>(
        &'a self,
        mut used: LockGuard<'a, UsedPools>,
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
    pub(crate) fn take_one(&self, shard: Shard, class: SizeClass, request: usize) -> *mut u8 {
        let mut block = [ptr::null_mut()];
        self.take(shard, class, request, &mut block);
        block[0]
    }

    /// Takes `blocks`, of `class` and in nobody's hands any more, back.
    ///
    /// A block that cannot be what it was freed as is reported: it was freed twice or
    /// never allocated, and the next owner of that memory would be damaged. Where the
    /// program goes on after that, such a block is left out.
    pub(crate) fn give(&self, class: SizeClass, blocks: &[*mut u8]) {
        if let Some(first) = blocks.first() {
            let shard = shard_of(*first);
            self.give_holding(self.used(shard, class), shard, class, blocks);
        }
    }

    /// The same for who holds the class's lock in `shard`, which is open afterwards.
    #[inline(never)]
    pub(crate) fn give_holding(
        &self,
        used: LockGuard<'_, UsedPools>,
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
    pub(crate) fn take_back(&self, class: SizeClass, blocks: &[*mut u8]) -> bool {
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
        let (info, at_once) = (class.info(), at_once());
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

    /// A run of free blocks of `class` for a thread that has none: what came to the
    /// depot last, else as `take`.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn refill(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let used = self.used(shard, class);
        let taken = used.depot.take(class, out);
        if taken == 0 {
            return self.take_holding(used, shard, class, request, out);
        }
        used.record_take(0, request);
        taken
    }

    /// Takes a run of blocks of `class` that a thread has too many of into the depot of
    /// the shard that the first one belongs to. What leaves that, the oldest run if it is
    /// full, goes to the pools.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn flush(&self, class: SizeClass, run: &[*mut u8]) {
        if at_once() {
            return self.give(class, run);
        }
        let Some(first) = run.first() else {
            return;
        };
        let (shard, mut oldest) = (shard_of(*first), [MaybeUninit::uninit(); BLOCKS_PER_WORD]);
        let used = self.used(shard, class);
        let leaving = match used.depot.put(class, run, &mut oldest) {
            Left::Nothing => return,
            Left::Run => run,
            // SAFETY: so many were put there.
            Left::Oldest(n) => unsafe { slice::from_raw_parts(oldest.as_ptr().cast(), n) },
        };
        self.give_holding(used, shard, class, leaving);
    }

    /// Gives what is in the depots to the pools: what nobody has taken since this was
    /// called the last time, or `all`. No arena goes back.
    pub(crate) fn empty_depots(&self, all: bool) {
        let _tending = MaintenanceScope::begin();
        for (shard, class, used) in self.all_used() {
            let (rows, unused) = (used.depot.rows(), used.depot.unused());
            drop(used);
            let leaving = if all { rows } else { unused };
            let mut run = [ptr::null_mut(); BLOCKS_PER_WORD];
            for _ in 0..leaving {
                let used = self.used(shard, class);
                let taken = used.depot.take_oldest(class, &mut run);
                // Under the same lock, so that statistics never see these blocks as live.
                let (given, _) = self.take_back_in(&used, shard, class, &run[..taken]);
                if given == taken {
                    continue;
                }
                self.moves_begun.fetch_add(1, AcqRel);
                drop(used);
                self.take_back(class, &run[given..taken]);
                self.moves_ended.fetch_add(1, Release);
            }
        }
    }

    /// Calls `read`, which reads the classes' counts, and repeats it while blocks move from a
    /// depot to pools of another shard: at most `TRIES` times.
    pub(crate) fn while_settled(&self, mut read: impl FnMut()) {
        const TRIES: usize = 50;
        for _ in 0..TRIES {
            let begun = self.moves_begun.load(Acquire);
            let is_settled = self.moves_ended.load(Acquire) == begun;
            read();
            // Every class's lock was taken since, so a move that took blocks before is seen.
            if is_settled && self.moves_begun.load(Acquire) == begun {
                return;
            }
            wait::pause(PAUSE);
        }
    }

    /// What a class holds now.
    pub(crate) fn class_counts(&self, class: SizeClass) -> ClassCounts {
        let mut sum = ClassCounts::default();
        for used in self.shards().filter_map(|shard| self.touched(shard, class)) {
            sum.pools += used.pools();
            sum.full += used.full();
            sum.taken += used.taken();
            sum.in_depot += used.depot.held();
            sum.resident += used.resident();
            sum.sampled += used.sampled();
            sum.requested = sum.requested.wrapping_add(used.requested());
        }
        sum
    }

    /// What the arenas hold now.
    pub(crate) fn arena_counts(&self) -> Counts {
        self.arenas.lock().counts()
    }

    /// Bytes that are with us and that no block lies in which is live or in a
    /// magazine. Not all of them make whole pages.
    pub(crate) fn free_bytes(&self) -> usize {
        let of_class = |(_, class, used): (Shard, SizeClass, LockGuard<'_, UsedPools>)| {
            // A depot may hold some blocks of another shard.
            let taken = used.taken().saturating_sub(used.depot.held());
            used.resident().saturating_sub(taken * class.size())
        };
        let used: usize = self.all_used().map(of_class).sum();
        used + self.arena_counts().resident_empty
    }

    /// Gives free pages of the next pool back to the kernel: those that have been
    /// free since this was called for it the last time, or `at_once` all. Returns
    /// how many bytes went back; `None` at the end of the way.
    ///
    /// A lock is held for one pool's pages at a time.
    pub(crate) fn purge_next(&self, walk: &mut Walk, at_once: bool) -> Option<usize> {
        let (arena, pool) = walk.next()?;
        let _tending = MaintenanceScope::begin();
        Some(self.purge_pool(arena, pool, at_once))
    }

    /// The same, at once, but of a pool that has no block in use, or nothing.
    pub(crate) fn purge_next_empty(&self, walk: &mut Walk) -> Option<usize> {
        let (arena, pool) = walk.next()?;
        if pool.home().is_some() {
            return Some(0);
        }
        let _tending = MaintenanceScope::begin();
        Some(self.purge_pool(arena, pool, true))
    }

    /// The way through all pools.
    pub(crate) fn walk(&self) -> Walk {
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
    pub(crate) fn release(&self, at_once: bool) {
        loop {
            let chunk = self.arenas.lock().idle(at_once);
            match chunk {
                Some(chunk) => chunk.give_back(),
                None => return self.arenas.lock().note_idle(),
            }
        }
    }
}

const _: () = assert!(size_of::<Class>() <= 256, "four cache lines");
const _: () = assert!(align_of::<Classes>() <= metadata::ALIGNMENT);

/// Pools that one refill visits at the most: scattered blocks are gathered
/// under one lock, but not for ever.
const VISITS: usize = 8;

/// Microseconds between two looks at whether blocks are on their way.
const PAUSE: u64 = 20;

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

/// What a class holds at one moment, in all shards.
#[derive(Clone, Copy, Default)]
pub(crate) struct ClassCounts {
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
    pub sampled: usize,
    /// The bytes of these.
    pub requested: usize,
}

/// A place on the way through all pools there are: every arena, from the one that
/// was added last, and in each pool by pool.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
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
    pub(crate) fn next_pool(mut self) -> &'static Pool {
        self.next().unwrap().1
    }
}
