//! The heap profile: which lines hold the memory. Some allocations are sampled; the record of a sample
//! has the Python frames of the call, and lives as long as the block.
//!
//! ```text
//!    sampler        which bytes are sampled: each thread counts down
//!    inspect/       the frames of the call
//!    stacks         frames, interned      live     the records, by address
//!    encode         all of it as pprof's profile.proto
//! ```
//!
//! Nothing is done on the hit path. A refill knows which blocks it brings: above a block that is to be
//! sampled it leaves an empty slot in the magazine, at which the call that is due for the block takes
//! the slow path (`tcache/magazine.rs`). A sampled block is the C library's, so the page map has no
//! class for it, and its free takes the slow path, too (`tcache/sampled.rs`).
//!
//! # What is unbiased
//!
//! Live memory: a block of `size` bytes is a sample with the same probability whoever allocates it, and
//! however often its place in the magazine was allocated and freed before. When a sampled block is
//! freed, the empty slot returns with its place. Allocations (`alloc_space`) are counted where they
//! reach the slow path: blocks that a thread frees and allocates again from its magazine count once.
//!
//! # Threads
//!
//! Any thread may call all functions, with no lock held. The lock of the samples comes before those of
//! the classes. Frames are read without it.

pub(crate) mod encode;

mod gzip;

pub(crate) mod live;

mod proto;

pub(crate) mod sampler;

mod stacks;

mod table;

use core::ffi::c_int;

use crate::guard::native;
use crate::inspect::frames::{self, FRAMES_MAX, Gil, Place};
use crate::os::lock::Word;
use crate::os::{clock, sandbox, thread};
use crate::sync::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use format::profile::TRUNCATED;

use live::{Freed, Live, Sample, Twin};

/// Whether native frames are recorded, too.
static NATIVE: AtomicBool = AtomicBool::new(false);

/// Mean bytes between two samples, unless a caller chooses: of a heap of 1 GiB 2000 samples.
pub(crate) const DEFAULT_INTERVAL: usize = 512 << 10;

/// Maximum native frames of a sample.
const NATIVE_MAX: usize = 48;

/// The interval with which the profiler starts at the first block; 0: it does not.
static WANTED: AtomicUsize = AtomicUsize::new(0);

/// Sets the interval with which the profiler starts at the first block; 0: it does not.
pub(crate) fn want(interval: usize) {
    WANTED.store(interval, Relaxed);
}

/// Whether the profiler starts at the first block.
pub(crate) fn is_wanted() -> bool {
    WANTED.load(Relaxed) != 0
}

/// At the first block of the process, with no lock held. Returns whether the profiler starts.
pub(crate) fn begin() -> bool {
    let interval = WANTED.load(Relaxed);
    interval != 0 && start(interval).is_ok()
}

/// Sets the bytes that the tables may have. No effect once there are tables.
pub(crate) fn set_memory(bytes: usize) {
    live::with(|live| live.memory = bytes);
}

/// Sets whether native frames are recorded: those between the innermost Python frame and the library,
/// or all of a call without Python frames.
pub(crate) fn set_native(native: bool) {
    NATIVE.store(native, Relaxed);
}

/// Starts the profiler with a mean of `interval` bytes between two samples, 0 for
/// [`DEFAULT_INTERVAL`]: a new profile.
/// `Err` with an error number if it runs, or has no memory.
#[cold]
pub(crate) fn start(interval: usize) -> Result<(), c_int> {
    if !sandbox::allows() {
        return Err(libc::EPERM);
    }
    if NATIVE.load(Relaxed) {
        native::prepare();
    }
    live::with(|live| {
        if is_on() {
            return Err(libc::EALREADY);
        }
        if !live.prepare() {
            return Err(libc::ENOMEM);
        }
        live.restart(clock::now());
        sampler::start(if interval == 0 {
            DEFAULT_INTERVAL
        } else {
            interval
        });
        Ok(())
    })
}

/// Stops the profiler. The samples so far stay until their blocks are freed.
#[cold]
pub(crate) fn stop() {
    live::with(|_| sampler::set_interval(0));
}

/// Whether allocations are sampled.
#[inline]
pub(crate) fn is_on() -> bool {
    sampler::interval() != 0
}

/// Mean bytes between two samples; 0 while the profiler is off.
pub(crate) fn interval() -> usize {
    sampler::interval()
}

/// Whether the block at an address, any value, may be a sample.
#[inline]
pub(crate) fn may_own(address: usize) -> bool {
    live::may_have(address)
}

/// What became of a sample.
pub(crate) struct Recorded {
    /// Whether it is recorded.
    pub is_kept: bool,
    /// The twin of an earlier sample at the address, which was freed without the library.
    pub stale: Option<Twin>,
}

/// Records a sample: a block that the calling thread has just allocated.
#[cold]
#[inline(never)]
pub(crate) fn record(sample: &Sample) -> Recorded {
    if !sandbox::allows() {
        stop(); // the calls for a sample are forbidden from now on
    }
    if !is_on() {
        return Recorded {
            is_kept: false,
            stale: None,
        };
    }
    let mut places = [Place::NONE; FRAMES_MAX];
    let is_ready = frames::is_ready();
    let frames = is_ready
        .then(|| frames::capture(Gil::Held, &mut places))
        .flatten();
    let mut addresses = [0; NATIVE_MAX];
    let natives = if NATIVE.load(Relaxed) && is_ready {
        native::below_python(&mut addresses, frames.is_some())
    } else {
        &[]
    };
    let (tid, now) = (thread::number(), clock::now());
    let mut name = [0; 16];
    let name = thread::name(&mut name);
    live::with(|live| {
        let stale = live.remove(sample.address).and_then(|freed| freed.twin);
        let mut node = stacks::ROOT;
        if let Some(frames) = &frames {
            if frames.more {
                node = live.stacks.plain(node, MORE_FRAMES, TRUNCATED);
            }
            node = live.stacks.stack(frames, &places[..frames.len], node);
        } else {
            live.without_frames += 1;
        }
        for &address in natives.iter().rev() {
            node = live.stacks.plain(node, address, "");
        }
        // Interning the name may remove nodes without uses.
        live.stacks.hold(node);
        let thread = live
            .stacks
            .intern(|then| name.iter().for_each(|&byte| then(shown(byte))));
        live.stacks.release(node);
        let is_kept = is_on() && live.add(sample, node, thread, tid, now);
        Recorded { is_kept, stale }
    })
}

/// In place of an address of C: the mark of a stack that was too deep.
const MORE_FRAMES: usize = 1;

fn shown(byte: u8) -> char {
    if byte.is_ascii() && !byte.is_ascii_control() {
        byte.into()
    } else {
        '?'
    }
}

/// Removes the record of a block that is freed or moved, if it has one.
#[cold]
#[inline(never)]
pub(crate) fn remove(address: usize) -> Option<Freed> {
    live::with(|live| live.remove(address))
}

/// Puts a record back whose block was not moved.
pub(crate) fn restore(freed: Freed) {
    live::with(|live| live.restore(freed));
}

/// The twin of the block at an address, if it is a sample with one.
#[cold]
#[inline(never)]
pub(crate) fn twin_of(address: usize) -> Option<Twin> {
    live::with(|live: &mut Live| {
        let number = live.find(address)?;
        live.records.get(number).twin()
    })
}

/// The lock, for forks.
pub(crate) fn word() -> &'static Word {
    live::word()
}

/// In a forked child, under the lock that the fork holds: the samples are the parent's.
pub(crate) fn forked() {
    live::forked();
}
