//! The live samples, by address.
//!
//! ```text
//!    a sampled small or medium block          the program's: of the C library
//!                                             its twin: a block of a pool, which nobody else uses
//!    a sampled large block, or one of RAW     the program's: of the allocator that served it
//! ```
//!
//! The twin is what the program would have got without the profiler. It is kept while the sample
//! lives, so that the pools are as full, page by page, as they would be; it also says which page the
//! sample would pin.
//!
//! # When the tables are full
//!
//! The interval is doubled, and each sample stays with the probability that it is one at the new
//! interval. Others are dropped: they count no more. The record of a dropped small block stays, for its
//! twin, until the block is freed.
//!
//! # Invariants
//!
//! PROFILE-1  A record's block is live, and each live block with a twin has a record. (A program that
//!     frees a block without the library, by another domain's functions, breaks the first half; then
//!     the record goes when another sample has its address.)
//! PROFILE-2  `HEADS` is null or the heads of the records' chains, which stay mapped.

use core::cell::UnsafeCell;
use core::ptr;

use format::options;

use super::sampler::{self, stays_if_doubled, unit};
use super::stacks::Stacks;
use super::table::{Entry, Table, place};
use crate::base::size_class::SizeClass;
use crate::os::lock::{Lock, Word};
use crate::os::process::name_mapping;
use crate::os::{clock, memory};
use crate::sync::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// The domain of a sample, by CPython's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Domain {
    Raw = 0,
    Mem = 1,
    Obj = 2,
    /// `Mem` or `Obj`.
    Either = 3,
}

impl Domain {
    /// Its name in a profile; `None` for `Either`.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Domain::Raw => Some("raw"),
            Domain::Mem => Some("mem"),
            Domain::Obj => Some("obj"),
            Domain::Either => None,
        }
    }
}

/// A block of a pool that is kept for a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Twin {
    pub block: *mut u8,
    pub class: SizeClass,
}

/// A live sample.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Record {
    pub address: usize,
    /// The address of the twin, or 0.
    twin: usize,
    /// Bytes: of the class, or of the request if it has no twin.
    pub size: usize,
    /// Milliseconds of the clock.
    pub time: u64,
    next: u32,
    /// Its innermost node.
    pub node: u32,
    /// The number of the thread's name.
    pub thread: u32,
    pub tid: i32,
    /// The number of forks that led to the process.
    pub generation: u32,
    /// Of the twin's class.
    class: u8,
    domain: u8,
    /// Whether it counts no more.
    pub dropped: bool,
    spare: u8,
}

// SAFETY: numbers and a bool, for which zero is valid.
unsafe impl Entry for Record {
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }

    fn hash(&self) -> u64 {
        hash_of(self.address)
    }
}

#[inline]
fn hash_of(address: usize) -> u64 {
    (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Record {
    pub(super) fn twin(&self) -> Option<Twin> {
        let class = SizeClass::from_index(self.class.into())?;
        (self.twin != 0).then_some(Twin {
            block: ptr::with_exposed_provenance_mut(self.twin),
            class,
        })
    }

    pub(super) fn domain(&self) -> Domain {
        match self.domain {
            0 => Domain::Raw,
            1 => Domain::Mem,
            2 => Domain::Obj,
            _ => Domain::Either,
        }
    }
}

/// A block to be recorded, without its stack.
pub(crate) struct Sample {
    pub address: usize,
    pub size: usize,
    pub twin: Option<Twin>,
    pub domain: Domain,
}

/// The record of a block that is freed or moved.
#[derive(Clone, Copy)]
pub(crate) struct Freed {
    pub twin: Option<Twin>,
    record: Record,
}

/// All samples.
pub(crate) struct Live {
    pub(super) records: Table<Record>,
    pub(super) stacks: Stacks,
    /// Samples that count, and how many of them there may be.
    counted: usize,
    pub counted_max: usize,
    /// Bytes of the tables, 0 before there are any.
    pub bytes: usize,
    /// Bytes that the next tables may have.
    pub memory: usize,
    random: u64,
    pub generation: u32,
    /// Milliseconds of the clock when the profiler was started.
    pub started: u64,
    pub doubled: u64,
    pub without_frames: u64,
}

/// Records to each sample that counts. The others are for samples that were dropped: at each doubling
/// about half. Their memory is touched as it is used.
const RECORDS: usize = 16;
/// Records to each sample that count as memory of the tables: as many as there are after six doublings.
const RECORDS_RESIDENT: usize = 4;
/// Heads to each record.
const CHAINS: usize = 1;

struct Shared(UnsafeCell<Live>);

static LIVE: Lock<Shared> = Lock::new(Shared(UnsafeCell::new(Live {
    records: Table::empty(),
    stacks: Stacks::empty(),
    counted: 0,
    counted_max: 0,
    bytes: 0,
    memory: options::PROFILE_MEMORY.default.number() as usize,
    random: 1,
    generation: 0,
    started: 0,
    doubled: 0,
    without_frames: 0,
})));

/// The heads of the records' chains (PROFILE-2), and a number of them less 1. Release publishes them;
/// pairs with the Acquire of each load.
static HEADS: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static LAST_HEAD: AtomicUsize = AtomicUsize::new(0);

/// Runs `look` with the samples, under their lock.
pub(crate) fn with<T>(look: impl FnOnce(&mut Live) -> T) -> T {
    let live = LIVE.lock();
    // SAFETY: the lock is held, and a signal handler that comes here waits for it or does not get it.
    look(unsafe { &mut *live.0.get() })
}

/// The lock, for forks.
pub(super) fn word() -> &'static Word {
    LIVE.word()
}

/// In a forked child, whose thread holds the lock by the fork.
pub(super) fn forked() {
    if let Some(live) = LIVE.of_fork() {
        // SAFETY: the fork holds the lock, and the child has no other thread.
        unsafe { (*live.0.get()).generation += 1 };
    }
}

/// Whether the block at an address, any value, may have a record.
#[inline]
pub(super) fn may_have(address: usize) -> bool {
    let heads = HEADS.load(Acquire);
    if heads.is_null() {
        return false;
    }
    let len = LAST_HEAD.load(Relaxed) + 1;
    // SAFETY: PROFILE-2: `len` heads, of which the place is one.
    let head = unsafe { &*heads.add(place(hash_of(address), len)) };
    head.load(Relaxed) != 0
}

impl Live {
    /// Maps the tables, unless they are there. False if there is no memory for them.
    pub(super) fn prepare(&mut self) -> bool {
        if self.bytes > 0 {
            return true;
        }
        let mut samples = MIN_SAMPLES;
        while resident_bytes(2 * samples) <= self.memory {
            samples *= 2;
        }
        let bytes = Table::<Record>::bytes(RECORDS * samples, CHAINS) + Stacks::bytes(samples);
        let bytes = bytes.next_multiple_of(memory::page_size());
        let Some(memory) = memory::map_sparse(bytes) else {
            return false;
        };
        name_mapping(memory.cast(), bytes, c"obmalloc: profile");
        let capacity = RECORDS * samples;
        // SAFETY: mapped zeroed for this table and the stacks, never unmapped; whole pages.
        unsafe {
            self.records = Table::new(memory, capacity, CHAINS);
            let rest = memory.add(Table::<Record>::bytes(capacity, CHAINS));
            self.stacks = Stacks::new(rest, samples);
        }
        (self.counted_max, self.bytes) = (samples, bytes);
        let heads = self.records.heads();
        LAST_HEAD.store(heads.len() - 1, Relaxed);
        HEADS.store(heads.as_ptr().cast_mut(), Release);
        true
    }

    /// Begins a new profile: earlier samples count no more.
    pub(super) fn restart(&mut self, now: u64) {
        for number in self.records.numbers() {
            self.drop_sample(number);
        }
        self.stacks.forget_counts();
        (self.started, self.doubled, self.without_frames) = (now, 0, 0);
        self.random ^= clock::nanoseconds();
    }

    /// Adds the record of a sample with this innermost node, if there is room.
    pub(super) fn add(
        &mut self,
        sample: &Sample,
        node: u32,
        thread: u32,
        tid: i32,
        time: u64,
    ) -> bool {
        let weight = 1.0 / sampler::probability_now(sample.size);
        self.stacks.count(node, weight, weight * sample.size as f64);
        let record = Record {
            address: sample.address,
            twin: sample.twin.map_or(0, |twin| twin.block.expose_provenance()),
            size: sample.size,
            time,
            next: 0,
            node,
            thread,
            tid,
            generation: self.generation,
            class: sample.twin.map_or(0, |twin| twin.class.index() as u8),
            domain: sample.domain as u8,
            dropped: false,
            spare: 0,
        };
        self.stacks.hold(node);
        if self.counted >= self.counted_max && !self.thin(sample.size)
            || self.records.insert(record).is_none()
        {
            self.stacks.release(node);
            return false;
        }
        self.counted += 1;
        true
    }

    /// Puts the record of a block back whose realloc failed.
    pub(super) fn restore(&mut self, freed: Freed) {
        let mut record = freed.record;
        self.stacks.hold(record.node);
        record.dropped |= self.records.insert(record).is_none();
        if record.dropped {
            self.stacks.release(record.node);
        } else {
            self.counted += 1;
        }
    }

    /// Doubles the interval until there is room for more samples. Returns whether a sample of `size`
    /// bytes stays one.
    #[cold]
    fn thin(&mut self, size: usize) -> bool {
        let mut stays = true;
        while self.counted > self.counted_max / 4 * 3 {
            let interval = sampler::interval();
            if interval == 0 || interval > usize::MAX / 4 {
                return false;
            }
            for number in self.records.numbers() {
                let Record { address, size, .. } = *self.records.get(number);
                if address != 0 && self.uniform() > stays_if_doubled(size, interval) {
                    self.drop_sample(number);
                }
            }
            stays &= self.uniform() <= stays_if_doubled(size, interval);
            sampler::set_interval(2 * interval);
            self.doubled += 1;
        }
        stays
    }

    /// A number in (0, 1].
    fn uniform(&mut self) -> f64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.random;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        unit(n ^ (n >> 31))
    }

    /// Counts a sample no more.
    fn drop_sample(&mut self, number: u32) {
        let record = self.records.get_mut(number);
        if record.address == 0 || record.dropped {
            return;
        }
        record.dropped = true;
        let (node, has_twin) = (record.node, record.twin != 0);
        self.counted -= 1;
        self.stacks.release(node);
        if !has_twin {
            self.records.remove(number);
        }
    }

    /// The record of the block at an address.
    pub(super) fn find(&mut self, address: usize) -> Option<u32> {
        self.records
            .find(hash_of(address), |record| record.address == address)
    }

    /// Removes the record of the block at an address. Returns what it was.
    pub(super) fn remove(&mut self, address: usize) -> Option<Freed> {
        let number = self.find(address)?;
        let record = self.records.remove(number);
        if !record.dropped {
            self.counted -= 1;
            self.stacks.release(record.node);
        }
        Some(Freed {
            twin: record.twin(),
            record,
        })
    }

    /// The samples that count.
    pub(crate) fn samples(&self) -> impl Iterator<Item = &Record> {
        let all = self
            .records
            .numbers()
            .map(|number| self.records.get(number));
        all.filter(|record| record.address != 0 && !record.dropped)
    }

    /// Bytes of the stacks' tables: more than their functions, frames and strings take in a profile.
    pub(super) fn stacks_bytes(&self) -> usize {
        2 * Stacks::bytes(self.counted_max)
    }

    /// Number of samples that count.
    pub(crate) fn counted(&self) -> usize {
        self.counted
    }
}

/// Samples that count, at least, however little memory the tables may have.
const MIN_SAMPLES: usize = 64;

/// Bytes of the tables that become resident, for a number of samples that count.
const fn resident_bytes(samples: usize) -> usize {
    let heads = RECORDS * CHAINS * samples * size_of::<AtomicU32>();
    RECORDS_RESIDENT * samples * size_of::<Record>() + heads + Stacks::bytes(samples)
}

const _: () = assert!(size_of::<Record>() == 56 && resident_bytes(4096) <= 2 << 20);
