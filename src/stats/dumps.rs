//! Profiles that are written when something happens: `OBMALLOC_PROFILE_ON`.
//!
//! ```text
//!    exit      the first tick after the interpreter has begun to end, so that its modules are in the
//!              profile; in a process without one, the library's destructor
//!    limit     the check of the soft limit, before free memory is returned
//!    a signal  its handler notes it; the thread of the stats page, or a tick, writes the profile
//!    a time    the same
//! ```
//!
//! For `limit` the memory of a profile is reserved and touched at start: near the limit there may be
//! none. A handler of the program's own for the signal is left as it is.
//!
//! # Threads
//!
//! Any thread, with no lock held. One profile is written at a time.

use core::cell::UnsafeCell;
use core::ffi::c_int;

use format::events::{Events, Signal};

use super::profile;
use crate::inspect::host;
use crate::os::kept_text::KeptText;
use crate::os::lock::{Lock, Word};
use crate::os::text::log;
use crate::os::{clock, errno, output};
use crate::profile::encode::Encoded;
use crate::sync::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// Milliseconds until a signal is noticed by an idle process.
const NOTICED: u64 = 1000;

/// The path of the files.
#[unsafe(link_section = ".bss.tables")]
static FILE: KeptText<FILE_MAX> = KeptText::new();
/// Maximum bytes of the path.
pub(crate) const FILE_MAX: usize = 1024;
const DEFAULT_FILE: &[u8] = b"obmalloc-%p-%n.pb.gz";

static AT_EXIT: AtomicBool = AtomicBool::new(false);
static AT_LIMIT: AtomicBool = AtomicBool::new(false);
/// The signal's number, 0 for none.
static SIGNAL: AtomicUsize = AtomicUsize::new(0);
/// Milliseconds between two profiles, 0 for no limit; and the time of the next.
static BETWEEN: AtomicU64 = AtomicU64::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Whether the signal has arrived.
static SIGNALLED: AtomicBool = AtomicBool::new(false);
/// Profiles so far.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Memory for the profile of `limit`.
struct Reserved(UnsafeCell<Option<Encoded>>);
static RESERVED: Lock<Reserved> = Lock::new(Reserved(UnsafeCell::new(None)));

/// Sets the path of the files.
pub(crate) fn set_file(path: &[u8]) {
    FILE.keep(path);
}

/// Sets the events.
pub(crate) fn set_events(events: &Events) {
    AT_EXIT.store(events.exit, Relaxed);
    AT_LIMIT.store(events.limit, Relaxed);
    let number = events.signal.map_or(0, |signal| match signal {
        Signal::User1 => libc::SIGUSR1,
        Signal::User2 => libc::SIGUSR2,
    });
    SIGNAL.store(number as usize, Relaxed);
    BETWEEN.store(events.seconds.unwrap_or(0) * 1000, Relaxed);
}

/// At the first block of the process, with no lock held, when the profiler has started.
#[cold]
pub(crate) fn begin() {
    NEXT.store(clock::now() + BETWEEN.load(Relaxed), Relaxed);
    if AT_LIMIT.load(Relaxed) {
        let reserved = RESERVED.lock();
        let encoded = Encoded::reserve_all();
        // SAFETY: the lock is held.
        unsafe { *reserved.0.get() = encoded };
    }
    let signal = SIGNAL.load(Relaxed) as c_int;
    if signal != 0 && !handle(signal) {
        SIGNAL.store(0, Relaxed);
    }
}

/// Installs the handler, unless the program has one. Returns whether it did.
fn handle(signal: c_int) -> bool {
    errno::kept(|| {
        // SAFETY: zero is a valid `sigaction`.
        let mut before: libc::sigaction = unsafe { core::mem::zeroed() };
        // SAFETY: reads the present action.
        let known = unsafe { libc::sigaction(signal, core::ptr::null(), &raw mut before) } == 0;
        if !known || before.sa_sigaction != libc::SIG_DFL {
            return false;
        }
        before.sa_sigaction = on_signal as *const () as usize;
        before.sa_flags = libc::SA_RESTART;
        // SAFETY: a handler that stays loaded, and stores one atomic.
        unsafe { libc::sigaction(signal, &raw const before, core::ptr::null_mut()) == 0 }
    })
}

extern "C" fn on_signal(_: c_int) {
    SIGNALLED.store(true, Release);
}

/// Called at some of the frees, and by the thread of the stats page, with no lock held.
#[inline]
pub(crate) fn tick() {
    if SIGNAL.load(Relaxed) != 0 || BETWEEN.load(Relaxed) != 0 || AT_EXIT.load(Relaxed) {
        tick_now();
    }
}

#[cold]
#[inline(never)]
fn tick_now() {
    let (now, between) = (clock::now(), BETWEEN.load(Relaxed));
    let is_due = between != 0 && now >= NEXT.load(Relaxed);
    let is_signalled = SIGNALLED.load(Relaxed) && SIGNALLED.swap(false, Acquire);
    if is_due || is_signalled {
        NEXT.store(now + between, Relaxed);
        write();
    }
    if AT_EXIT.load(Relaxed) && host::is_finalizing() {
        exit();
    }
}

/// Milliseconds until the thread of the stats page has to call [`tick`]; `None`: it has not.
pub(crate) fn patience() -> Option<u64> {
    let signal = (SIGNAL.load(Relaxed) != 0).then_some(NOTICED);
    let between = BETWEEN.load(Relaxed) != 0;
    let time = between.then(|| NEXT.load(Relaxed).saturating_sub(clock::now()).max(1));
    signal.into_iter().chain(time).min()
}

/// When the interpreter begins to end, or at the exit of the process.
#[cold]
pub(crate) fn exit() {
    if AT_EXIT.swap(false, Relaxed) {
        write();
    }
}

/// When the process has come near its soft limit.
#[cold]
pub(crate) fn limit() {
    if !AT_LIMIT.load(Relaxed) {
        return;
    }
    let Some(reserved) = RESERVED.try_lock() else {
        return;
    };
    // SAFETY: the lock is held.
    if let Some(encoded) = unsafe { &mut *reserved.0.get() } {
        note(profile::encode_into(encoded).and_then(|()| {
            let number = NUMBER.fetch_add(1, Relaxed) + 1;
            profile::write_encoded(encoded, |name| name.fill(path(), Some(number)))
        }));
    }
}

#[cold]
fn write() {
    // One at a time: a second one would have the same samples.
    let Some(_writing) = RESERVED.try_lock() else {
        return;
    };
    let number = NUMBER.load(Relaxed) + 1;
    let written = profile::write_to(|name| name.fill(path(), Some(number)));
    if written != Err(libc::ENODATA) {
        NUMBER.store(number, Relaxed);
        note(written);
    }
}

fn note(written: Result<(), c_int>) {
    if let Err(error) = written {
        log(format_args!(
            "no profile, {}: OBMALLOC_PROFILE_FILE={}",
            output::reason(error),
            crate::os::text::printable(path())
        ));
    }
}

fn path() -> &'static [u8] {
    match FILE.get() {
        [] => DEFAULT_FILE,
        path => path,
    }
}

/// The lock, for forks.
pub(crate) fn word() -> &'static Word {
    RESERVED.word()
}

/// In a forked child: the numbers of its files begin anew.
pub(crate) fn forked() {
    NUMBER.store(0, Relaxed);
}
