//! The heap: all arenas and the bins of every class, shared by all threads. Blocks leave it and
//! return in batches, half a magazine at a time.
//!
//! ```text
//!    magazines of each thread          (tcache/magazine.rs)
//!        | refill            ^ flush
//!        v                   |
//!    depot of each class               (heap/depot.rs)
//!        | take, if empty    ^ give, if full
//!        v                   |
//!    used pools by shard and class, each under its lock      empty -> used -> full
//!        | no used pool      ^ all blocks free
//!        v                   |
//!    arenas, under one lock
//!        |                   ^
//!    the kernel
//! ```
//!
//! # Invariants
//!
//! HEAP-1  A block is in exactly one of four places: free in its pool's bits, in its class's depot,
//!     in some thread's magazine, or with the program.
//! HEAP-2  Locks are taken in this order: a class's, then the arenas'. No thread holds two classes'
//!     locks, except for fork, which takes them in order, shard by shard.
//! HEAP-3  No lock is held while an arena's chunk is taken or released: that may take time, and may
//!     call a program's own functions.
//!
//! # Uses
//!
//! `pool`, `arena`, `os::lock` and `policy`. The thread caches are above: the heap does not access
//! magazines.

pub(crate) mod bin;

pub(crate) mod depot;

use core::iter;
use core::mem::MaybeUninit;
use core::ptr;
use core::slice;

use crate::arena::Affinity;
use crate::arena::Arena;
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
use crate::heap::bin::Bin;
use crate::heap::depot::Evicted;
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
use crate::pool::SHARDS;
use crate::pool::Shard;
use crate::pool::invalid_free;
use crate::pool::invalid_free::InvalidFree;
use crate::sync::AtomicBool;
use crate::sync::AtomicPtr;
use crate::sync::AtomicUsize;
use crate::sync::Ordering::AcqRel;
use crate::sync::Ordering::Acquire;
use crate::sync::Ordering::Relaxed;
use crate::sync::Ordering::Release;

/// A class with this number of pools, two arenas' worth, is large: it gets an affinity to an arena
/// for the next ones, and each with all of its pages prefaulted. By then it is likely to use them,
/// and faulting them in one by one takes longer.
const LARGE_CLASS_POOLS: usize = 2 * POOLS_PER_ARENA;

/// A class in a shard. On cache lines of its own, because other processors use other classes.
#[repr(align(64))]
struct Class {
    bin: Lock<Bin>,
    /// Whether the bin was ever locked. If not, it is all zero and its pages are not resident.
    touched: AtomicBool,
}

impl Class {
    const fn new() -> Class {
        Class {
            bin: Lock::new(Bin::new()),
            touched: AtomicBool::new(false),
        }
    }
}

/// The position of each class in a shard, by its index: those of packed domains last, so that their
/// memory is not touched where nothing is packed.
static POSITIONS: [u8; TABLE_LEN] = {
    let (mut positions, mut index) = ([0; TABLE_LEN], 1);
    let (mut plain, mut packed) = (0, LAST - SizeClass::PACKED);
    while index < TABLE_LEN {
        let next = match SizeClass::from_index(index) {
            Some(class) if class.is_packed() => &mut packed,
            _ => &mut plain,
        };
        positions[index] = *next as u8;
        *next += 1;
        index += 1;
    }
    assert!(plain == LAST - SizeClass::PACKED && packed == LAST);
    positions
};

/// The classes of a shard, in the order of [`POSITIONS`]. All zero is an unused shard.
struct Classes([Class; LAST]);

// SAFETY: a bin is accessed under its lock; `touched` is an atomic.
unsafe impl Sync for Classes {}

/// All zero is a heap without memory.
pub(crate) struct Heap {
    /// The classes of the first shard.
    first: Classes,
    /// The classes of the other shards, from 1 on; null until the shard is opened (SHARD-1). Release
    /// publishes them; pairs with the Acquire of each load.
    others: [AtomicPtr<Classes>; SHARDS - 1],
    pub(crate) arenas: Lock<Arenas>,
    /// How often blocks have left a depot for pools of another shard, and how often they have
    /// arrived. In between they are under no lock, and the classes count them as taken.
    moves_begun: AtomicUsize,
    moves_ended: AtomicUsize,
}

/// The process's heap.
#[unsafe(link_section = ".bss.tables")]
pub(crate) static HEAP: Heap = Heap::new();

/// Whether pages are purged as soon as they are free, independent of the limits.
static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Sets whether pages are purged as soon as they are free.
pub(crate) fn purge_at_once(at_once: bool) {
    AT_ONCE.store(at_once, Relaxed);
}

/// Whether pages are purged as soon as they are free: by the setting, or because memory is short.
pub(crate) fn at_once() -> bool {
    (AT_ONCE.load(Relaxed) || limits::is_near()) && !sandbox::is_restricted()
}

/// Whether an arena was added since the last call of `grew`.
static GREW: AtomicBool = AtomicBool::new(false);

/// Whether an arena was added since the last call.
#[inline]
pub(crate) fn grew() -> bool {
    GREW.load(Relaxed) && GREW.swap(false, Relaxed)
}

impl Heap {
    pub(crate) const fn new() -> Heap {
        Heap {
            first: Classes([const { Class::new() }; LAST]),
            others: [const { AtomicPtr::new(ptr::null_mut()) }; SHARDS - 1],
            arenas: Lock::new(Arenas::new()),
            moves_begun: AtomicUsize::new(0),
            moves_ended: AtomicUsize::new(0),
        }
    }

    /// Makes the classes of a shard, unless it has them. False if there is no memory for them.
    /// Caller holds the registry's lock (SHARD-1).
    #[cold]
    pub(crate) fn open(&self, shard: Shard) -> bool {
        let Some(classes) = shard
            .index()
            .checked_sub(1)
            .map(|other| &self.others[other])
        else {
            return true;
        };
        if classes.load(Acquire).is_null()
            && let Some(made) = metadata::take(size_of::<Classes>())
        {
            classes.store(made.cast().as_ptr(), Release);
        }
        !classes.load(Acquire).is_null()
    }

    /// The shards that are open and have classes in this heap. (In the process's heap each has them;
    /// tests have other heaps, too.)
    pub(crate) fn shards(&self) -> impl DoubleEndedIterator<Item = Shard> {
        let is_made = |other: usize| !self.others[other].load(Acquire).is_null();
        Shard::open().filter(move |shard| shard.index().checked_sub(1).is_none_or(is_made))
    }

    #[inline]
    fn classes(&self, shard: Shard) -> &Classes {
        let Some(other) = shard.index().checked_sub(1) else {
            return &self.first;
        };
        // SAFETY: `open` has made the classes in metadata, which is never unmapped.
        let classes = unsafe { self.others[other].load(Acquire).as_ref() };
        // Not reached for a shard that is not open (SHARD-1).
        classes.unwrap_or(&self.first)
    }

    #[inline]
    fn class(&self, shard: Shard, class: SizeClass) -> &Class {
        &self.classes(shard).0[usize::from(POSITIONS[class.index()])]
    }

    /// Locks the bin of a class.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn bin(&self, shard: Shard, class: SizeClass) -> LockGuard<'_, Bin> {
        let class = self.class(shard, class);
        class.touched.store(true, Relaxed);
        class.bin.lock()
    }

    /// Locks the bin of a class, if it was ever locked. For walks over all classes, which would make
    /// the memory of each resident otherwise: 28 KiB in a shard.
    pub(crate) fn touched_bin(&self, shard: Shard, class: SizeClass) -> Option<LockGuard<'_, Bin>> {
        let was_touched = self.class(shard, class).touched.load(Relaxed);
        was_touched.then(|| self.bin(shard, class))
    }

    /// Locks the bins that were ever locked, in every shard that is open, one after the other.
    pub(crate) fn touched_bins(
        &self,
    ) -> impl Iterator<Item = (Shard, SizeClass, LockGuard<'_, Bin>)> {
        let all = self
            .shards()
            .flat_map(|shard| SizeClass::all().map(move |class| (shard, class)));
        all.filter_map(|(shard, class)| Some((shard, class, self.touched_bin(shard, class)?)))
    }

    /// Takes a pool for the class from the arenas; if memory is `scarce`, without regard to affinity.
    /// Empty -> used.
    pub(crate) fn assign_pool(
        &self,
        bin: &Bin,
        shard: Shard,
        class: SizeClass,
        scarce: bool,
    ) -> Option<&'static Pool> {
        let is_large = bin.pools() >= LARGE_CLASS_POOLS;
        let affinity = if is_large && !scarce {
            Affinity::of(shard, class)
        } else {
            None
        };
        let arenas = self.arenas.lock();
        let pool = arenas.take_pool(affinity, &bin.affine)?;
        pool.assign(shard, class);
        let arena = MAP.arena(pool.base());
        if arena.is_some_and(Arena::has_huge_pages) {
            pool.spare_rest(class);
        }
        let is_custom = || arena.is_some_and(Arena::is_custom);
        if is_large && pool.resident().is_empty() && !is_custom() {
            pool.prefault(class);
        }
        MAP.set_class(pool.base(), Some(class));
        bin.on_added(pool);
        Some(pool)
    }

    /// Returns a pool whose blocks are all free to its arena. Used -> empty.
    pub(crate) fn reset_pool(&self, bin: &Bin, pool: &'static Pool) {
        let arenas = self.arenas.lock();
        bin.on_removed(pool);
        MAP.set_class(pool.base(), None);
        pool.reset();
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
            chunk.release();
            return false;
        }
        size_policy::heap_has(size);
        GREW.store(true, Relaxed);
        chunk::notify_arena_added();
        true
    }

    /// Releases wholly empty arenas that are not kept for the next peak.
    #[inline(never)]
    fn release_surplus(&self) {
        loop {
            let chunk = self.arenas.lock().take_surplus();
            match chunk {
                Some(chunk) => chunk.release(),
                None => return,
            }
        }
    }

    /// Releases every wholly empty arena. Returns whether there was one.
    #[cold]
    pub(crate) fn release_empty(&self) -> bool {
        let mut released = false;
        loop {
            let chunk = self.arenas.lock().take_any_empty();
            match chunk {
                Some(chunk) => chunk.release(),
                None => return released,
            }
            released = true;
        }
    }

    /// In a forked child, whose thread holds all locks by the fork: freezes the inherited pools, if
    /// that is the rule.
    pub(crate) fn forked(&self) {
        // Blocks that another thread was moving are lost with that thread.
        self.moves_ended
            .store(self.moves_begun.load(Relaxed), Relaxed);
        if let Some(first_own) = fork_cow::forked(process::parent) {
            for (_, _, bin) in self.touched_bins() {
                bin.freeze(first_own);
            }
            self.empty_depots(true);
        }
    }

    /// Calls `see` with all locks, in their order (HEAP-2): those of all classes in the shards that
    /// are open (SHARD-1), and the arenas'.
    pub(crate) fn each_lock<'a>(&'a self, see: &mut dyn FnMut(&'a Word)) {
        let classes = |shard: Shard| self.classes(shard).0.iter();
        self.shards()
            .flat_map(classes)
            .for_each(|class| see(class.bin.word()));
        see(self.arenas.word());
    }

    /// Takes free blocks of `class`: the fullest pools first, and in each the lowest addresses. They
    /// fill `out` from its end, so the first block is last. `request` is the size of the program's
    /// request in bytes, for the statistics. Returns the number of blocks: fewer than `out` has room
    /// for if that avoids a new pool, 0 only if there is no memory.
    pub(crate) fn take(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        self.take_locked(self.bin(shard, class), shard, class, request, out)
    }

    /// [`take`](Heap::take) with the class's lock held. Unlocks it.
    pub(crate) fn take_locked<'a>(
        &'a self,
        mut bin: LockGuard<'a, Bin>,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        loop {
            let taken = self.take_from_pools(&bin, shard, class, request, out, false);
            drop(bin);
            if taken > 0 {
                return taken;
            }
            if !self.add_arena() {
                return self.take_anywhere(shard, class, request, out);
            }
            bin = self.bin(shard, class);
        }
    }

    /// [`take`](Heap::take) if there is no memory for another arena: from any arena, whatever its
    /// affinity, and from any shard.
    #[cold]
    fn take_anywhere(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let mut shards = iter::once(shard).chain(self.shards());
        let taken = |shard| {
            let bin = self.bin(shard, class);
            let taken = self.take_from_pools(&bin, shard, class, request, out, true);
            (taken > 0).then_some(taken)
        };
        shards.find_map(taken).unwrap_or(0)
    }

    /// [`take`](Heap::take) without adding an arena; if memory is `scarce`, from arenas with another
    /// affinity, too.
    fn take_from_pools(
        &self,
        bin: &Bin,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
        scarce: bool,
    ) -> usize {
        let info = class.info();
        let mut taken = 0;
        for _ in 0..VISITS {
            let (pool, before) = match bin.fullest() {
                Some(pool) => (pool, pool.free()),
                None if taken > 0 => break,
                None if bin.has_frozen() && fork_cow::may_be_used(process::parent) => {
                    bin.unfreeze();
                    continue;
                }
                None => match self.assign_pool(bin, shard, class, scarce) {
                    Some(pool) => (pool, 0),
                    None => break,
                },
            };
            let (room, resident) = (out.len() - taken, pool.resident());
            taken += pool.take(class, &mut out[..room]);
            bin.resident_changed(resident, pool.resident());
            bin.requeue(pool, info, before, pool.free());
            if taken == out.len() {
                break;
            }
        }
        bin.on_alloc(taken, request);
        taken
    }

    /// Takes one free block of `class`; null if there is no memory.
    pub(crate) fn take_one(&self, shard: Shard, class: SizeClass, request: usize) -> *mut u8 {
        let mut block = [ptr::null_mut()];
        self.take(shard, class, request, &mut block);
        block[0]
    }

    /// Gives `blocks`, of `class` and in no other place any more, to their pools.
    ///
    /// An invalid block is reported: it was freed twice or never allocated, and the next owner of
    /// that memory would be corrupted. If the program continues after that, the block is left out.
    pub(crate) fn give(&self, class: SizeClass, blocks: &[*mut u8]) {
        if let Some(first) = blocks.first() {
            let shard = shard_of(*first);
            self.give_locked(self.bin(shard, class), shard, class, blocks);
        }
    }

    /// [`give`](Heap::give) with the class's lock in `shard` held. Unlocks it.
    #[inline(never)]
    pub(crate) fn give_locked(
        &self,
        bin: LockGuard<'_, Bin>,
        shard: Shard,
        class: SizeClass,
        blocks: &[*mut u8],
    ) {
        let (given, mut pools_emptied) = self.give_in_shard(&bin, shard, class, blocks);
        drop(bin);
        if given < blocks.len() {
            pools_emptied |= self.give_keeping_arenas(class, &blocks[given..]);
        }
        if pools_emptied {
            self.release_surplus();
        }
    }

    /// [`give`](Heap::give) without releasing an arena: a custom chunk is released within the
    /// program's own calls only. Returns whether a pool has become empty.
    #[inline(never)]
    fn give_keeping_arenas(&self, class: SizeClass, blocks: &[*mut u8]) -> bool {
        let (mut rest, mut pools_emptied) = (blocks, false);
        while let Some(first) = rest.first() {
            let shard = shard_of(*first);
            let (given, ended) = self.give_in_shard(&self.bin(shard, class), shard, class, rest);
            rest = &rest[given..];
            pools_emptied |= ended;
        }
        pools_emptied
    }

    /// Gives the leading blocks of `blocks` that are of `shard` to their pools. `bin` is the class's
    /// in that shard. Returns their number, and whether a pool has become empty.
    #[inline(never)]
    fn give_in_shard(
        &self,
        bin: &Bin,
        shard: Shard,
        class: SizeClass,
        blocks: &[*mut u8],
    ) -> (usize, bool) {
        let (info, at_once) = (class.info(), at_once());
        let (mut given, mut invalid, mut pools_emptied) = (0, 0, false);
        while let Some(first) = blocks.get(given) {
            let arena = MAP.arena(first.addr());
            let pool = arena.map(|arena| arena.pool(first.addr()));
            let (Some(arena), Some(pool)) =
                (arena, pool.filter(|pool| pool.is_owned_by(shard, class)))
            else {
                if pool.is_some_and(|pool| pool.has_class(class)) {
                    break; // another shard's
                }
                invalid_free::report(Some(class), *first, InvalidFree::NoSuchPool);
                (given, invalid) = (given + 1, invalid + 1);
                continue;
            };
            let before = pool.free();
            let rest = &blocks[given..];
            // Programs that drop sorted or hashed objects free them in no order of addresses.
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
                    let (len, left_out) = give_reporting(pool, class, rest);
                    invalid += left_out;
                    len
                }
            };
            if at_once && !arena.is_custom() {
                bin.purge(arena, pool, true);
            }
            if pool.free() < info.blocks {
                bin.requeue(pool, info, before, pool.free());
            } else {
                bin.requeue(pool, info, before, 0);
                self.reset_pool(bin, pool);
                pools_emptied = true;
            }
        }
        bin.on_free(given - invalid);
        (given, pools_emptied)
    }

    /// Takes a batch of free blocks of `class` for a thread that has none: the one that was flushed
    /// last, else as [`take`](Heap::take).
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn refill(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let bin = self.bin(shard, class);
        let taken = bin.depot.take(class, out);
        if taken == 0 {
            return self.take_locked(bin, shard, class, request, out);
        }
        bin.on_alloc(0, request);
        taken
    }

    /// Takes a batch of blocks of `class` from a full magazine into the depot of the first block's
    /// shard. If that depot is full, its oldest batch goes to the pools.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub(crate) fn flush(&self, class: SizeClass, batch: &[*mut u8]) {
        if at_once() {
            return self.give(class, batch);
        }
        let Some(first) = batch.first() else {
            return;
        };
        let (shard, mut oldest) = (shard_of(*first), [MaybeUninit::uninit(); BLOCKS_PER_WORD]);
        let bin = self.bin(shard, class);
        let leaving = match bin.depot.put(class, batch, &mut oldest) {
            Evicted::Nothing => return,
            Evicted::Batch => batch,
            // SAFETY: `put` has initialised `n` elements.
            Evicted::Oldest(n) => unsafe { slice::from_raw_parts(oldest.as_ptr().cast(), n) },
        };
        self.give_locked(bin, shard, class, leaving);
    }

    /// Moves batches from the depots to the pools: those that stayed unused since the last call, or
    /// `all`. No arena is released.
    pub(crate) fn empty_depots(&self, all: bool) {
        let _maintenance = MaintenanceScope::begin();
        for (shard, class, bin) in self.touched_bins() {
            let (batches, unused) = (bin.depot.batches(), bin.depot.take_unused());
            drop(bin);
            let leaving = if all { batches } else { unused };
            let mut batch = [ptr::null_mut(); BLOCKS_PER_WORD];
            for _ in 0..leaving {
                let bin = self.bin(shard, class);
                let taken = bin.depot.take_oldest(class, &mut batch);
                // Under the same lock, so that statistics never count these blocks as live.
                let (given, _) = self.give_in_shard(&bin, shard, class, &batch[..taken]);
                if given == taken {
                    continue;
                }
                self.moves_begun.fetch_add(1, AcqRel);
                drop(bin);
                self.give_keeping_arenas(class, &batch[given..taken]);
                self.moves_ended.fetch_add(1, Release);
            }
        }
    }

    /// Calls `read`, which reads the classes' counters, and repeats it while blocks move from a
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

    /// The counters of a class, over all shards.
    pub(crate) fn class_counts(&self, class: SizeClass) -> ClassCounts {
        let mut sum = ClassCounts::default();
        for bin in self
            .shards()
            .filter_map(|shard| self.touched_bin(shard, class))
        {
            sum.pools += bin.pools();
            sum.full += bin.full();
            sum.taken += bin.taken();
            sum.in_depot += bin.depot.blocks();
            sum.resident += bin.resident();
            sum.sampled += bin.sampled();
            sum.requested = sum.requested.wrapping_add(bin.requested());
        }
        sum
    }

    pub(crate) fn arena_counts(&self) -> Counts {
        self.arenas.lock().counts()
    }

    /// Resident bytes without a block that is live or cached in a magazine. Not all of them make
    /// whole pages.
    pub(crate) fn free_bytes(&self) -> usize {
        let of_class = |(_, class, bin): (Shard, SizeClass, LockGuard<'_, Bin>)| {
            // A depot may hold some blocks of another shard.
            let taken = bin.taken().saturating_sub(bin.depot.blocks());
            bin.resident().saturating_sub(taken * class.size())
        };
        let used: usize = self.touched_bins().map(of_class).sum();
        used + self.arena_counts().resident_empty
    }

    /// Purges free pages of the next pool: those that were free at the last call for it too, or
    /// `at_once` all. Returns the number of bytes; `None` at the end of the walk.
    ///
    /// A lock is held for one pool's pages at a time.
    pub(crate) fn purge_next(&self, walk: &mut Walk, at_once: bool) -> Option<usize> {
        let (arena, pool) = walk.next()?;
        let _maintenance = MaintenanceScope::begin();
        Some(self.purge_pool(arena, pool, at_once))
    }

    /// Purges all pages of the next pool, if it is empty. Returns the number of bytes; `None` at the
    /// end of the walk.
    pub(crate) fn purge_next_empty(&self, walk: &mut Walk) -> Option<usize> {
        let (arena, pool) = walk.next()?;
        if pool.owner().is_some() {
            return Some(0);
        }
        let _maintenance = MaintenanceScope::begin();
        Some(self.purge_pool(arena, pool, true))
    }

    /// A walk over all pools.
    pub(crate) fn walk(&self) -> Walk {
        Walk::from(self.arenas.lock().newest())
    }

    fn purge_pool(&self, arena: &'static Arena, pool: &'static Pool, at_once: bool) -> usize {
        // POOL-7: without a lock, the pool's owner is only used to choose the lock.
        match pool.owner() {
            Some((shard, class)) => {
                let bin = self.bin(shard, class);
                if !pool.is_owned_by(shard, class) || arena.is_custom() {
                    return 0;
                }
                bin.purge(arena, pool, at_once)
            }
            None => {
                let arenas = self.arenas.lock();
                arenas.purge(arena, pool, memory::page_size(), at_once)
            }
        }
    }

    /// Releases wholly empty arenas: those that were empty at the last call and since, or `at_once`
    /// all.
    pub(crate) fn release(&self, at_once: bool) {
        loop {
            let chunk = self.arenas.lock().take_idle(at_once);
            match chunk {
                Some(chunk) => chunk.release(),
                None => return self.arenas.lock().mark_idle(),
            }
        }
    }
}

const _: () = assert!(size_of::<Class>() <= 256, "four cache lines");
const _: () = assert!(align_of::<Classes>() <= metadata::ALIGNMENT);

/// Bound on the pools that one refill visits: scattered blocks are gathered under one lock, but not
/// without end.
const VISITS: usize = 8;

/// Microseconds between two reads while blocks move.
const PAUSE: u64 = 20;

/// [`Pool::give`] of a batch with invalid blocks, which are reported. Returns the number of blocks in
/// the pool, and how many of them were left out.
#[cold]
fn give_reporting(pool: &Pool, class: SizeClass, blocks: &[*mut u8]) -> (usize, usize) {
    let mut invalid = 0;
    let len = pool.give_singly(class, blocks, |block, invalid_free| {
        invalid_free::report(Some(class), block, invalid_free);
        invalid += 1;
    });
    (len, invalid)
}

/// The shard of a block, read without a lock (POOL-7).
#[inline]
fn shard_of(block: *mut u8) -> Shard {
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

/// Counters of a class, over all shards.
#[derive(Clone, Copy, Default)]
pub(crate) struct ClassCounts {
    /// Pools, used and full.
    pub pools: usize,
    /// Of these, the full ones.
    pub full: usize,
    /// Blocks that are live, in a magazine or in the depot.
    pub taken: usize,
    /// Blocks in the depot.
    pub in_depot: usize,
    /// Bytes of resident pages in its pools.
    pub resident: usize,
    /// Requests that reached the bins: a sample of all.
    pub sampled: usize,
    /// The bytes of these requests.
    pub requested: usize,
}

/// A position in a walk over all pools: by arena, from the newest record on, and in each pool by
/// pool.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    arena: Option<&'static Arena>,
    pool: usize,
}

impl Walk {
    /// Before the first pool of `newest` and of all older arenas.
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
                *self = Walk::from(arena.older());
                self.next()
            }
        }
    }
}

#[cfg(all(test, loom))]
impl Walk {
    /// The next pool, for the loom models.
    pub(crate) fn next_pool(mut self) -> &'static Pool {
        self.next().unwrap().1
    }
}
