//! The registry of threads: which have magazines, from a thread's first miss to its exit, and
//! which shard each refills from.
//!
//! ```text
//!    thread word:   UNUSED ---------> a record ---------> ENDED
//!                          first miss          thread exit
//!
//!    all  -> record -> record -> record      every record
//!    idle -> record                          those without a thread
//! ```
//!
//! A record holds a thread's magazines and their slots. When the thread exits, its blocks return
//! to the pools and the record waits for another thread. Destructors that run later in the same
//! thread may still allocate and free: with [`magazine::ended`] they are served block by block,
//! under the pools' locks.
//!
//! In a forked child the other threads are gone and their records are not idle. Their generation
//! is an earlier one, which marks them as orphans; a thread that takes such a record takes the
//! blocks in it, too (MAGAZINE-4).
//!
//! # Shards
//!
//! ```text
//!    one thread runs at a time (a GIL)         threads run at once
//!
//!       t0   t1   t2   t3                         t0    t1    t2    t3
//!        |    |    |    |                         |     |     |     |
//!        +----+-+--+----+                         |     |     |     |
//!             shard 0                            shard 0  1     2     3
//! ```
//!
//! A shard has used pools of its own in every size class, with locks of their own. Two processors
//! that write to neighbouring blocks take the cache line, and the lines that they prefetch, from
//! each other again and again: two threads that shared pools needed one and a half times the
//! processors' time for the same work. Where only one thread runs at a time there is nothing to
//! gain, and one set of pools is the densest: so a process that has a CPython with a GIL has one
//! shard. If its threads contend for locks all the same, they do run at once (its interpreters
//! have a GIL each), and the registry splits the shard after all.
//!
//! A block returns to the shard of its pool, whichever thread frees it.
//!
//! # Invariants
//!
//! REGISTRY-1  A record belongs to the living thread whose word points to it, or to no thread;
//!     then it is on `idle`, or of an earlier generation.
//! REGISTRY-2  Records are never unmapped.
//! SHARD-1  No thread takes blocks from a shard that is not open. Shards open under the registry's
//!     lock, so a fork, which holds it, sees all of them.
//!
//! # Threads
//!
//! All of it under the lock `REGISTRY`, which is taken before any of the heap's and never while
//! one of those is held.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use crate::arena::metadata;
use crate::base::callback::Callback;
use crate::base::list::{Linked, Links, List};
use crate::base::size_class::{SizeClass, TABLE_LEN};
use crate::heap::HEAP;
use crate::os::lock::{self, Lock, Word};
use crate::os::{clock, errno};
use crate::pool::{SHARDS, Shard};
use crate::sync::{AtomicBool, AtomicU64, Cell, Ordering::Relaxed};
use crate::tcache::counters::{CounterSums, Counters, Event};
use crate::tcache::magazine::{self, Magazines, SLOTS, Slot};

/// A thread's magazines with their slots. All zero is a record never used.
#[repr(C)]
struct ThreadRecord {
    magazines: Magazines,
    /// On `idle`.
    links: Links<ThreadRecord>,
    older: Cell<Option<&'static ThreadRecord>>,
    /// The generation of the thread that it belongs to, 0 if it is idle.
    generation: Cell<u32>,
    slots: UnsafeCell<[Slot; SLOTS]>,
}

// SAFETY: only their thread writes the magazines; the rest is accessed under the lock.
unsafe impl Sync for ThreadRecord {}

impl Linked for ThreadRecord {
    fn links(&self) -> &Links<ThreadRecord> {
        &self.links
    }
}

struct Registry {
    newest: Cell<Option<&'static ThreadRecord>>,
    idle: List<ThreadRecord>,
    /// Forks that lead to this process, counted from 1.
    generation: Cell<u32>,
    /// The key whose destructor runs at a thread's exit.
    key: Cell<Option<libc::pthread_key_t>>,
}

static REGISTRY: Lock<Registry> = Lock::new(Registry {
    newest: Cell::new(None),
    idle: List::new(),
    generation: Cell::new(1),
    key: Cell::new(None),
});

/// The calling thread's magazines. A thread at its first miss gets some here; `None` if it is
/// exiting or there is no memory for them.
#[inline]
pub(crate) fn current() -> Option<&'static Magazines> {
    let magazines = magazine::current();
    if magazine::is_unused(magazines) {
        register()
    } else if magazine::is_ended(magazines) {
        None
    } else {
        Some(magazines)
    }
}

/// Whether the calling thread has not missed yet.
pub(crate) fn is_new() -> bool {
    magazine::is_unused(magazine::current())
}

#[cold]
fn register() -> Option<&'static Magazines> {
    // Under the lock until the word is set: so a fork sees which thread the record belongs to.
    let registry = REGISTRY.lock();
    let record = registry.register();
    let magazines = match record {
        Ok(record) => &record.magazines,
        // The next miss tries again. Until then blocks are taken and given one by one.
        Err(NoRecord::Memory) => return None,
        Err(NoRecord::Key) => magazine::ended(),
    };
    magazine::set_current(magazines);
    record.ok().map(|record| &record.magazines)
}

/// Why a thread gets no record.
enum NoRecord {
    /// There is no memory for one at the moment.
    Memory,
    /// No destructor would run at the thread's exit.
    Key,
}

static ON_THREAD_EXIT: Callback<fn(usize)> = Callback::unset();

/// Sets the callback for the exit of a thread that had magazines. It gets the number of bytes that
/// returned to pools, and is called on that thread with no lock held.
pub(crate) fn on_thread_exit(callback: fn(usize)) {
    ON_THREAD_EXIT.set(callback);
}

/// The destructor of the key.
///
/// The key's value may be another library's: two C libraries in one process (`dlmopen`) give out
/// the same keys, for values at the same place in a thread. So the thread's word decides which
/// magazines these are.
unsafe extern "C" fn thread_exit(value: *mut c_void) {
    let magazines = magazine::current();
    if magazine::is_unused(magazines) || magazine::is_ended(magazines) {
        return;
    }
    let record = value.cast::<ThreadRecord>().cast_const();
    // The address is compared, not read at.
    let record = if ptr::eq(
        record
            .wrapping_byte_add(offset_of!(ThreadRecord, magazines))
            .cast(),
        magazines,
    ) {
        // SAFETY: the thread's word points to this record's magazines, so it is the value that
        // `register` gave the key; REGISTRY-2.
        unsafe { &*record }
    } else {
        let registry = REGISTRY.lock();
        let own = registry
            .records()
            .find(|record| ptr::eq(&raw const record.magazines, magazines));
        drop(registry);
        let Some(own) = own else {
            return;
        };
        own
    };
    magazine::set_current(magazine::ended());
    let bytes = record.magazines.flush_all(&HEAP);
    let registry = REGISTRY.lock();
    record.generation.set(0);
    registry.idle.push(record);
    drop(registry);
    if let Some(notify) = ON_THREAD_EXIT.get() {
        notify(bytes);
    }
}

impl Registry {
    fn register(&self) -> Result<&'static ThreadRecord, NoRecord> {
        let key = self.key().ok_or(NoRecord::Key)?;
        let record = self
            .idle
            .pop()
            .or_else(|| self.orphan())
            .or_else(|| self.make())
            .ok_or(NoRecord::Memory)?;
        // SAFETY: the key exists. (For keys from 32 on the C library allocates memory of its own
        // here, with its own malloc.)
        let kept =
            errno::kept(|| unsafe { libc::pthread_setspecific(key, ptr::from_ref(record).cast()) });
        if kept != 0 {
            record.generation.set(0);
            self.idle.push(record);
            return Err(NoRecord::Key);
        }
        record.generation.set(self.generation.get());
        Ok(record)
    }

    fn key(&self) -> Option<libc::pthread_key_t> {
        if self.key.get().is_none() {
            let mut key = 0;
            // SAFETY: `key` is writable, and the destructor stays loaded (the library is linked
            // with `-z nodelete`).
            let made = errno::kept(|| unsafe {
                libc::pthread_key_create(&raw mut key, Some(thread_exit))
            });
            self.key.set((made == 0).then_some(key));
        }
        self.key.get()
    }

    fn records(&self) -> impl Iterator<Item = &'static ThreadRecord> {
        from(self.newest.get())
    }

    /// A record whose thread was lost in a fork.
    fn orphan(&self) -> Option<&'static ThreadRecord> {
        let now = self.generation.get();
        if now == 1 {
            return None;
        }
        self.records()
            .find(|record| record.generation.get() != 0 && record.generation.get() != now)
    }

    fn make(&self) -> Option<&'static ThreadRecord> {
        let memory = metadata::take(size_of::<ThreadRecord>())?;
        // SAFETY: a piece of metadata is zero, which is a record never used, aligned to more than a
        // record, and never unmapped (REGISTRY-2).
        let record: &'static ThreadRecord = unsafe { memory.cast().as_ref() };
        let number = self.records().count();
        let slots = ptr::NonNull::new(record.slots.get().cast::<Slot>())?;
        let (shard, batch_shift) = (
            shard_of_thread(number, |shard| HEAP.open(shard)),
            batch_shift(number),
        );
        // SAFETY: the record's own null slots.
        unsafe { record.magazines.init(slots, shard, batch_shift) };
        record.older.set(self.newest.get());
        self.newest.set(Some(record));
        Some(record)
    }
}

/// By how many bits the batches of the `number`th record are shorter than the longest: of many
/// threads most wait, and the blocks that they have cached pin pages.
fn batch_shift(number: usize) -> u32 {
    match number {
        0..8 => 0,
        8..16 => 2,
        _ => 3,
    }
}

/// A record and those that were made before it.
fn from(newest: Option<&'static ThreadRecord>) -> impl Iterator<Item = &'static ThreadRecord> {
    core::iter::successors(newest, |record| record.older.get())
}

const _: () = assert!(align_of::<ThreadRecord>() <= metadata::ALIGNMENT);

/// Sums over all threads.
pub(crate) struct ThreadTotals {
    /// Blocks in magazines, by class index.
    pub in_magazines: [usize; TABLE_LEN],
    pub records: usize,
    pub record_bytes: usize,
    /// Requests that the fallback allocator served.
    pub fallback: CounterSums,
}

/// Writes the sums over all threads to `total`, in place: the caller's stack may be nearly full.
pub(crate) fn total(total: &mut ThreadTotals) {
    total.in_magazines.fill(0);
    (total.records, total.record_bytes) = (0, 0);
    total.fallback = CounterSums::default();
    for record in REGISTRY.lock().records() {
        total.records += 1;
        total.record_bytes += size_of::<ThreadRecord>();
        for class in SizeClass::all() {
            total.in_magazines[class.index()] += record.magazines.cached(class);
        }
        record.magazines.counters.add_to(&mut total.fallback);
    }
    WITHOUT_MAGAZINES.add_to(&mut total.fallback);
}

/// The address and bytes of each record, from the newest. (Only reading the newest needs the lock:
/// a record is never unmapped, and its `older` does not change.)
#[cold]
pub(crate) fn mappings() -> impl Iterator<Item = (usize, usize)> {
    let newest = REGISTRY.lock().newest.get();
    from(newest).map(|record| (ptr::from_ref(record).addr(), size_of::<ThreadRecord>()))
}

/// Asserts the invariants, for tests. Calls `see` with each thread's magazines and whether they are
/// idle.
#[cfg(feature = "model")]
pub(crate) fn check(mut see: impl FnMut(&'static Magazines, bool)) {
    let registry = REGISTRY.lock();
    let is_idle = |record: &ThreadRecord| record.generation.get() == 0;
    assert!(registry.idle.iter().all(is_idle), "REGISTRY-1");
    let idle = registry.records().filter(|record| is_idle(record));
    assert_eq!(idle.count(), registry.idle.iter().count(), "REGISTRY-1");
    for record in registry.records() {
        assert!(
            Shard::open().any(|shard| shard == record.magazines.shard()),
            "SHARD-1"
        );
        see(&record.magazines, is_idle(record));
    }
}

/// Lock waits of requests within [`CONTENTION_WINDOW`] that show that threads run at once: two
/// interpreters that do nothing but allocate come to 2500.
const CONTENTION_WAITS: usize = 50;
/// Milliseconds.
const CONTENTION_WINDOW: u64 = 250;

/// Whether only one thread runs at a time.
static HAS_GIL: AtomicBool = AtomicBool::new(false);
/// Since when lock waits are counted.
static COUNTED_SINCE: AtomicU64 = AtomicU64::new(0);

/// Assumes that only one thread runs at a time: new threads share the first shard.
pub(crate) fn assume_gil() {
    HAS_GIL.store(true, Relaxed);
}

/// Whether threads contend although [`assume_gil`] was called.
#[inline]
pub(crate) fn is_contended() -> bool {
    lock::waits() >= CONTENTION_WAITS && HAS_GIL.load(Relaxed) && contended_recently()
}

/// Whether the lock waits were counted within [`CONTENTION_WINDOW`]; starts a new count.
#[cold]
fn contended_recently() -> bool {
    let now = clock::now();
    lock::forget_waits();
    now.saturating_sub(COUNTED_SINCE.swap(now, Relaxed)) <= CONTENTION_WINDOW
}

/// The shard of the `number`th thread, from 0. Opens it and those before it, if `open` makes their
/// classes; else the thread shares the first. Caller holds the registry's lock (SHARD-1).
pub(crate) fn shard_of_thread(number: usize, open: impl Fn(Shard) -> bool) -> Shard {
    if HAS_GIL.load(Relaxed) {
        return Shard::FIRST;
    }
    let index = number % SHARDS;
    if !(1..=index).all(|shard| open(Shard::from_index(shard as u8))) {
        return Shard::FIRST;
    }
    let shard = Shard::from_index(index as u8);
    shard.set_open();
    shard
}

/// Gives the threads shards of their own: they run at once.
#[cold]
pub(crate) fn split_shards() {
    let registry = REGISTRY.lock();
    HAS_GIL.store(false, Relaxed);
    let last = registry.records().count().saturating_sub(1);
    for (i, record) in registry.records().enumerate() {
        record
            .magazines
            .set_shard(shard_of_thread(last - i, |shard| HEAP.open(shard)));
    }
}

/// Counts an event of a thread that has no magazines.
#[cold]
pub(crate) fn count_without_magazines(event: Event) {
    WITHOUT_MAGAZINES.add_shared(event);
}

static WITHOUT_MAGAZINES: Counters = Counters::new();

/// The lock, for forks.
pub(crate) fn word() -> &'static Word {
    REGISTRY.word()
}

/// In a forked child, under the lock that the fork holds: starts a new generation, which only this
/// thread's record joins. (If a signal handler forked within `register` or `thread_exit`, the
/// record in question keeps its generation and stays unused until the next fork.)
pub(crate) fn forked() {
    let Some(registry) = REGISTRY.of_fork() else {
        return;
    };
    registry.generation.set(registry.generation.get() + 1);
    let current = magazine::current();
    let record = registry
        .records()
        .find(|record| ptr::eq(&raw const record.magazines, current));
    if let Some(record) = record {
        record.generation.set(registry.generation.get());
        record.magazines.countdown.forked();
    }
}
