//! Which threads have magazines, from a thread's first miss to its end.
//!
//! ```text
//!    thread word:   UNUSED ---------> a record ---------> ENDED
//!                          first miss            the thread ends
//!
//!    all  -> record -> record -> record      every record there is
//!    idle -> record                          those without a thread
//! ```
//!
//! A record holds a thread's magazines and their slots. When the thread ends,
//! its blocks go back to the pools and the record waits for another thread.
//! Destructors that run later in the same thread may still allocate and free:
//! with [`current::ended`] they are served block by block, under the pools' locks.
//!
//! In a forked child the other threads are gone and their records are not
//! idle. They are of an earlier generation, by which they are known; whoever
//! takes such a record takes the blocks in it, too (MAGAZINE-4).
//!
//! # Invariants
//!
//! REGISTRY-1  A record belongs to the living thread whose word points to it, or to
//!     nobody; then it is on `idle`, or of an earlier generation.
//! REGISTRY-2  Records are never given back to the kernel.
//!
//! # Threads
//!
//! All of it under the lock `THREADS`, which is taken before any of the heap's
//! and never while one of those is held.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use crate::arena::metadata;
use crate::base::callback::Callback;
use crate::base::list::{Linked, Links, List};
use crate::base::size_class::{SizeClass, TABLE_LEN};
use crate::heap::HEAP;
use crate::os::errno;
use crate::os::lock::{Lock, Word};
use crate::pool::shard::{self, Shard};
use crate::sync::Cell;
use crate::tcache::counters::{CounterSums, Counters, Event};
use crate::tcache::current;
use crate::tcache::magazine::Slot;
use crate::tcache::magazines::{Magazines, SLOTS};

/// A thread's magazines with their slots. All zero is a record never used.
#[repr(C)]
struct Record {
    magazines: Magazines,
    /// On `idle`.
    links: Links<Record>,
    /// The record that was made before this one.
    next: Cell<Option<&'static Record>>,
    /// The generation of the thread it belongs to, 0 if it is idle.
    generation: Cell<u32>,
    slots: UnsafeCell<[Slot; SLOTS]>,
}

// SAFETY: the magazines are their thread's, the rest is under the lock.
unsafe impl Sync for Record {}

impl Linked for Record {
    fn links(&self) -> &Links<Record> {
        &self.links
    }
}

struct Threads {
    all: Cell<Option<&'static Record>>,
    idle: List<Record>,
    /// Counts the forks that lead to this process, from 1.
    generation: Cell<u32>,
    /// The key whose destructor tells of a thread's end.
    key: Cell<Option<libc::pthread_key_t>>,
}

static THREADS: Lock<Threads> = Lock::new(Threads {
    all: Cell::new(None),
    idle: List::new(),
    generation: Cell::new(1),
    key: Cell::new(None),
});

/// The calling thread's magazines, if it has any. A thread at its first miss
/// gets some here; `None` if it is ending or there is no memory for them.
#[inline]
pub(crate) fn mine() -> Option<&'static Magazines> {
    let magazines = current::magazines();
    if current::is_unused(magazines) {
        begin()
    } else if current::is_ended(magazines) {
        None
    } else {
        Some(magazines)
    }
}

/// Whether the calling thread has not missed yet.
pub(crate) fn is_new() -> bool {
    current::is_unused(current::magazines())
}

#[cold]
fn begin() -> Option<&'static Magazines> {
    // Under the lock until the word is set: by that a fork knows whose the record is.
    let threads = THREADS.lock();
    let record = threads.begin();
    let magazines = match record {
        Ok(record) => &record.magazines,
        // The next miss asks again. Till then blocks are taken and given one by one.
        Err(Lacking::Memory) => return None,
        Err(Lacking::Key) => current::ended(),
    };
    current::set(magazines);
    record.ok().map(|record| &record.magazines)
}

/// Why a thread gets no record.
enum Lacking {
    /// There is no memory for one, for now.
    Memory,
    /// Its end would go unnoticed.
    Key,
}

/// Who is told how many bytes came back to pools by each end of a thread.
static TELL: Callback<fn(usize)> = Callback::unset();

/// Has `tell` called after each end of a thread that had magazines, on that thread, with
/// no lock held.
pub(crate) fn after_each_end(tell: fn(usize)) {
    TELL.set(tell);
}

/// The destructor of the key: the thread ends.
///
/// The key's value may be another one's: two C libraries in one process (`dlmopen`) give
/// out the same keys, for values at the same place in a thread. So the thread's word says
/// whose magazines these are.
unsafe extern "C" fn end(value: *mut c_void) {
    let magazines = current::magazines();
    if current::is_unused(magazines) || current::is_ended(magazines) {
        return;
    }
    let record = value.cast::<Record>().cast_const();
    // An address to compare, not to read at.
    let record = if ptr::eq(
        record
            .wrapping_byte_add(offset_of!(Record, magazines))
            .cast(),
        magazines,
    ) {
        // SAFETY: the thread's word points to this record's magazines, so it is the value
        // that `begin` gave the key; REGISTRY-2.
        unsafe { &*record }
    } else {
        let threads = THREADS.lock();
        let own = threads
            .records()
            .find(|record| ptr::eq(&raw const record.magazines, magazines));
        drop(threads);
        let Some(own) = own else {
            return;
        };
        own
    };
    current::set(current::ended());
    let bytes = record.magazines.empty(&HEAP);
    let threads = THREADS.lock();
    record.generation.set(0);
    threads.idle.push(record);
    drop(threads);
    if let Some(tell) = TELL.get() {
        tell(bytes);
    }
}

impl Threads {
    fn begin(&self) -> Result<&'static Record, Lacking> {
        let key = self.key().ok_or(Lacking::Key)?;
        let record = self
            .idle
            .pop()
            .or_else(|| self.orphan())
            .or_else(|| self.make())
            .ok_or(Lacking::Memory)?;
        // SAFETY: the key exists. (For keys from 32 on the C library takes
        // memory of its own here; it does not come from us.)
        let kept =
            errno::kept(|| unsafe { libc::pthread_setspecific(key, ptr::from_ref(record).cast()) });
        if kept != 0 {
            record.generation.set(0);
            self.idle.push(record);
            return Err(Lacking::Key);
        }
        record.generation.set(self.generation.get());
        Ok(record)
    }

    fn key(&self) -> Option<libc::pthread_key_t> {
        if self.key.get().is_none() {
            let mut key = 0;
            // SAFETY: a place for the key, and a destructor that stays loaded
            // (the library is linked with `-z nodelete`).
            let made = errno::kept(|| unsafe { libc::pthread_key_create(&raw mut key, Some(end)) });
            self.key.set((made == 0).then_some(key));
        }
        self.key.get()
    }

    fn records(&self) -> impl Iterator<Item = &'static Record> {
        from(self.all.get())
    }

    /// A record whose thread was lost in a fork.
    fn orphan(&self) -> Option<&'static Record> {
        let now = self.generation.get();
        if now == 1 {
            return None;
        }
        self.records()
            .find(|record| record.generation.get() != 0 && record.generation.get() != now)
    }

    fn make(&self) -> Option<&'static Record> {
        let memory = metadata::take(size_of::<Record>())?;
        // SAFETY: a piece of metadata is zero, which is a record never used, aligned to more than a
        // record, and never unmapped (REGISTRY-2).
        let record: &'static Record = unsafe { memory.cast().as_ref() };
        let number = self.records().count();
        let slots = ptr::NonNull::new(record.slots.get().cast::<Slot>())?;
        let (shard, shorter) = (
            Shard::of_thread(number, |shard| HEAP.open(shard)),
            shorter(number),
        );
        // SAFETY: the record's own null slots.
        unsafe { record.magazines.lay_out(slots, shard, shorter) };
        record.next.set(self.all.get());
        self.all.set(Some(record));
        Some(record)
    }
}

/// By how many bits the magazines of the `number`th record are shorter than the
/// longest: many threads mostly wait, and what they have at hand keeps pages busy.
fn shorter(number: usize) -> u32 {
    match number {
        0..8 => 0,
        8..16 => 2,
        _ => 3,
    }
}

/// A record, and those that were made before it.
fn from(newest: Option<&'static Record>) -> impl Iterator<Item = &'static Record> {
    core::iter::successors(newest, |record| record.next.get())
}

const _: () = assert!(align_of::<Record>() <= metadata::ALIGNMENT);

/// What all threads together hold and have done.
pub(crate) struct ThreadTotals {
    /// Blocks in magazines, by class index.
    pub in_magazines: [usize; TABLE_LEN],
    /// The records there are.
    pub records: usize,
    /// Bytes of the records.
    pub record_bytes: usize,
    /// What went below.
    pub below: CounterSums,
}

/// Writes what all threads together hold and have done to `total`: a caller may have little
/// of its stack left.
pub(crate) fn total(total: &mut ThreadTotals) {
    total.in_magazines.fill(0);
    (total.records, total.record_bytes) = (0, 0);
    total.below = CounterSums::default();
    for record in THREADS.lock().records() {
        total.records += 1;
        total.record_bytes += size_of::<Record>();
        for class in SizeClass::all() {
            total.in_magazines[class.index()] += record.magazines.held(class);
        }
        record.magazines.counters.sum(&mut total.below);
    }
    WITHOUT_MAGAZINES.sum(&mut total.below);
}

/// Where each record lies and its bytes, from the one that was made last. (The lock is
/// needed for that one only: a record is never unmapped, nor what it says of the one
/// before it changed.)
#[cold]
pub(crate) fn mappings() -> impl Iterator<Item = (usize, usize)> {
    let newest = THREADS.lock().all.get();
    from(newest).map(|record| (ptr::from_ref(record).addr(), size_of::<Record>()))
}

/// Asserts the invariants, for tests, and shows all magazines there are, with whether
/// they are idle.
#[cfg(feature = "model")]
pub(crate) fn check(mut see: impl FnMut(&'static Magazines, bool)) {
    let threads = THREADS.lock();
    let is_idle = |record: &Record| record.generation.get() == 0;
    assert!(threads.idle.iter().all(is_idle), "REGISTRY-1");
    let idle = threads.records().filter(|record| is_idle(record));
    assert_eq!(idle.count(), threads.idle.iter().count(), "REGISTRY-1");
    for record in threads.records() {
        assert!(
            Shard::open().any(|shard| shard == record.magazines.shard()),
            "SHARD-1"
        );
        see(&record.magazines, is_idle(record));
    }
}

/// Gives the threads shards of their own: it has shown that they do not take turns.
#[cold]
pub(crate) fn part() {
    let threads = THREADS.lock();
    shard::assume_parallel();
    let last = threads.records().count().saturating_sub(1);
    for (i, record) in threads.records().enumerate() {
        record
            .magazines
            .set_shard(Shard::of_thread(last - i, |shard| HEAP.open(shard)));
    }
}

/// Counts what a thread that has no magazines has asked of what is below.
#[cold]
pub(crate) fn count_without_magazines(event: Event) {
    WITHOUT_MAGAZINES.add_shared(event);
}

static WITHOUT_MAGAZINES: Counters = Counters::new();

/// The lock, for forks.
pub(crate) fn word() -> &'static Word {
    THREADS.word()
}

/// In a forked child, under the lock that the fork holds: all records but this thread's are
/// of an earlier generation now. (Where the fork came in the midst of `begin` or `end`, by a
/// signal handler, they stay of this one, and lie idle until the next fork.)
pub(crate) fn forked() {
    let Some(threads) = THREADS.of_fork() else {
        return;
    };
    threads.generation.set(threads.generation.get() + 1);
    let mine = current::magazines();
    let record = threads
        .records()
        .find(|record| ptr::eq(&raw const record.magazines, mine));
    if let Some(record) = record {
        record.generation.set(threads.generation.get());
    }
}
