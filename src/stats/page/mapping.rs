//! The page: its file and mapping, the statistics on it, and requests.
//!
//! ```text
//!    PAGE, under its lock           the page, shared with readers
//!      file, process      +-->  Control: request, answered, wanted, sequence ...
//!      page --------------+     Statistics
//!    WORDS ---------------+     after PAGE_BYTES: a snapshot or a profile, for a while
//! ```
//!
//! # Invariants
//!
//! PAGE-1  `WORDS` is null or the page, which stays mapped while the server runs, or the server's
//!     lock or `PAGE`'s is held: the page is replaced under both, after the server has stopped.
//! PAGE-2  The statistics change only within `sequence::write` of `sequence`, the bytes of a snapshot
//!     only within that of `snapshot_sequence`: under the lock.
//! PAGE-3  A process writes only to the page that it has created itself.

use core::mem::offset_of;
use core::ptr::{self, NonNull};

use super::encode::encode;
use super::snapshot::Plan;
use super::writer::Writer;
use crate::inspect::objects::Types;
use crate::os::lock::{Lock, Word};
use crate::os::process::{LibcMemory, libc_memory};
use crate::os::shared::{self, Shared};
use crate::os::{clock, text};
use crate::profile;
use crate::stats;
use crate::sync::{
    AtomicPtr, AtomicU32, AtomicU64, Cell,
    Ordering::{Acquire, Relaxed, Release},
    sequence,
};
use format::layout::{
    Control, DROP_SNAPSHOT, LIVE_MAGIC, PAGE_BYTES, PAGE_VERSION, START_PROFILE, STOP_PROFILE,
    Statistics, WANT_PROFILE, WANT_SNAPSHOT, WANT_TYPES,
};

#[repr(C)]
struct Page {
    control: Control,
    statistics: Statistics,
}

/// The file grows for a snapshot by multiples of this, and is emptied by them: whole OS pages.
const STEP: u64 = 64 << 10;
/// Milliseconds until the next attempt after the page could not be created.
const AGAIN: u64 = 5000;
/// Age in milliseconds up to which a fork does not write the page again.
const FRESH: u64 = 100;
/// The C library's counters are read again after at least `LIBC_AGAIN` milliseconds and
/// `LIBC_SHARE` times the duration of the last read: it counts its free blocks under its locks.
const LIBC_AGAIN: u64 = 900;
const LIBC_SHARE: u64 = 200;

/// The state of the page.
pub(crate) struct Published {
    page: Cell<Option<NonNull<Page>>>,
    file: Cell<Option<Shared>>,
    /// Bytes of the file, at least.
    length: Cell<u64>,
    /// The process that has created it (PAGE-3).
    process: Cell<i32>,
    /// The time of the statistics.
    made: Cell<u64>,
    /// Until then no page is created, because an attempt failed or was postponed.
    none_until: Cell<u64>,
    /// It was postponed because descriptors 0 to 2 were not open.
    put_off: Cell<bool>,
    /// The C library's counters, and the time of the next read.
    libc: Cell<Option<LibcMemory>>,
    libc_next: Cell<u64>,
}

static PAGE: Lock<Published> = Lock::new(Published {
    page: Cell::new(None),
    file: Cell::new(None),
    length: Cell::new(0),
    process: Cell::new(0),
    made: Cell::new(0),
    none_until: Cell::new(0),
    put_off: Cell::new(false),
    libc: Cell::new(None),
    libc_next: Cell::new(0),
});

/// The page, for threads without the lock (PAGE-1). Release publishes its content; pairs with the
/// Acquire in `Words::now`.
static WORDS: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

/// The words of the page that readers write or wait for.
#[derive(Clone, Copy)]
pub(crate) struct Words(NonNull<Page>);

impl Words {
    /// The page's, if there is one.
    pub(crate) fn now() -> Option<Words> {
        NonNull::new(WORDS.load(Acquire)).map(Words)
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: PAGE-1; `offset` is an aligned word of `Control`, which is accessed only as an
        // atomic.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().cast::<u8>().add(offset).cast()) }
    }

    /// The number of requests. A reader adds with Release after it has set `wanted`; pairs with the
    /// Acquire of the loads here, and `wanted` is read after them.
    pub(crate) fn request(&self) -> &AtomicU32 {
        self.word(offset_of!(Control, request))
    }

    /// The number of the last answered request. Release: the answer is written; pairs with the
    /// Acquire of the reader's loads.
    pub(crate) fn answered(&self) -> &AtomicU32 {
        self.word(offset_of!(Control, answered))
    }

    /// Whether a request is pending.
    pub(crate) fn is_asked(&self) -> bool {
        self.request().load(Acquire) != self.answered().load(Relaxed)
    }

    /// Sets whether a thread answers requests.
    pub(crate) fn has_thread(&self, so: bool) {
        self.word(offset_of!(Control, thread))
            .store(so.into(), Relaxed);
    }

    /// Whether a snapshot follows the page.
    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot_bytes().load(Relaxed) > 0
    }

    fn wanted(&self) -> &AtomicU32 {
        self.word(offset_of!(Control, wanted))
    }

    fn profile_interval(&self) -> &AtomicU32 {
        self.word(offset_of!(Control, profile_interval))
    }

    fn sequence(&self) -> &AtomicU32 {
        self.word(offset_of!(Control, sequence))
    }

    fn snapshot_sequence(&self) -> &AtomicU32 {
        self.word(offset_of!(Control, snapshot_sequence))
    }

    fn snapshot_error(&self) -> &AtomicU32 {
        self.word(offset_of!(Control, snapshot_error))
    }

    fn snapshot_bytes(&self) -> &AtomicU64 {
        let at = self.0.as_ptr().cast::<u8>();
        // SAFETY: PAGE-1; `snapshot_bytes` is aligned to 8, and accessed only as an atomic.
        unsafe { AtomicU64::from_ptr(at.add(offset_of!(Control, snapshot_bytes)).cast()) }
    }
}

/// The state of the page for this process.
#[derive(PartialEq, Eq)]
pub(crate) enum Look {
    /// It exists and can be opened.
    Good,
    /// It does not exist, or cannot be opened any more.
    Missing,
    /// It is the parent's (this process is a child of `_Fork` or `vfork`), or creating it has
    /// failed or was postponed.
    Leave,
}

/// The state of the page.
#[cold]
pub(crate) fn look() -> Look {
    PAGE.lock().look()
}

/// Replaces a page that cannot be opened. The server is stopped.
#[cold]
pub(crate) fn renew() {
    let published = PAGE.lock();
    if published.look() == Look::Missing {
        published.leave();
        published.make();
    }
}

/// In a forked child whose thread holds all locks: replaces the parent's page.
#[cold]
pub(crate) fn forked() {
    let Some(published) = PAGE.of_fork() else {
        return;
    };
    if let Some(file) = published.file.get() {
        file.close();
    }
    published.leave();
    published.make();
}

/// Whether there is a page.
pub(crate) fn is_there() -> bool {
    !WORDS.load(Relaxed).is_null()
}

/// Answers a pending request where no thread does.
#[cold]
pub(crate) fn answer_pending() {
    let published = PAGE.lock();
    if let Some(words) = published.words().filter(Words::is_asked) {
        published.answer(words, words.request().load(Acquire), &|| true);
    }
}

/// Closes the descriptor, as a program may.
#[cfg(all(test, not(loom)))]
pub(crate) fn close_file() {
    if let Some(file) = PAGE.lock().file.get() {
        file.close();
    }
}

/// Answers the requests up to `request`. A snapshot is given up when `goes_on` is false: then no
/// request is answered, and the snapshot is still wanted.
#[cold]
pub(crate) fn answer(words: Words, request: u32, goes_on: &dyn Fn() -> bool) {
    PAGE.lock().answer(words, request, goes_on);
}

/// Returns the memory of a snapshot.
#[cold]
pub(crate) fn drop_snapshot() {
    PAGE.lock().drop_snapshot();
}

/// The lock, for forks.
pub(crate) fn word() -> &'static Word {
    PAGE.word()
}

/// Before a fork that holds all locks: writes the page. Requests are answered, except for a
/// snapshot or a profile, which is written after the fork.
#[cold]
pub(crate) fn write_before_fork(was_asked: bool) {
    let Some(published) = PAGE.of_fork() else {
        return;
    };
    if was_asked || clock::now() >= published.made.get() + FRESH {
        published.write(false);
    }
    if let Some(words) = published.words() {
        let request = words.request().load(Acquire);
        let later = WANT_SNAPSHOT | WANT_PROFILE | START_PROFILE | STOP_PROFILE;
        if words.wanted().load(Relaxed) & later == 0 {
            published.answered(words, request);
        }
    }
}

impl Published {
    /// The words, if the page is this process's (PAGE-3).
    fn words(&self) -> Option<Words> {
        let is_mine = self.process.get() == text::pid();
        self.page.get().filter(|_| is_mine).map(Words)
    }

    fn look(&self) -> Look {
        let made = self.page.get().is_some();
        if made && self.process.get() != text::pid() {
            Look::Leave
        } else if made && self.file.get().is_some_and(|file| file.is_open()) {
            Look::Good
        } else if clock::now() < self.none_until.get() {
            Look::Leave
        } else if made && !shared::standard_are_open() && !self.put_off.replace(true) {
            // A program that has closed all descriptors may open its own 0 to 2 next.
            self.none_until.set(clock::now() + AGAIN);
            Look::Leave
        } else {
            Look::Missing
        }
    }

    /// Unmaps the page.
    fn leave(&self) {
        WORDS.store(ptr::null_mut(), Release);
        if let Some(page) = self.page.take() {
            // SAFETY: PAGE-1; the server is stopped, and the lock is held.
            unsafe { shared::unmap(page.cast(), PAGE_BYTES) };
        }
        self.file.set(None);
    }

    /// Creates a page and writes it.
    fn make(&self) {
        self.none_until.set(clock::now() + AGAIN);
        self.put_off.set(false);
        let Some(file) = Shared::create(c"obmalloc-live", PAGE_BYTES as u64) else {
            return;
        };
        let Some(page) = file.map(PAGE_BYTES).map(NonNull::cast::<Page>) else {
            file.close();
            return;
        };
        self.file.set(Some(file));
        self.length.set(PAGE_BYTES as u64);
        self.page.set(Some(page));
        self.process.set(text::pid());
        self.write(true);
        // SAFETY: mapped above; readers use it only after they have seen the magic.
        let control = unsafe { &raw mut (*page.as_ptr()).control };
        // SAFETY: PAGE-2, PAGE-3; the page is mapped and writable.
        unsafe {
            (*control).version = PAGE_VERSION;
            (*control).page_bytes = PAGE_BYTES as u32;
            (*control).pid = text::pid().cast_unsigned();
            (*control).statistics_bytes = size_of::<Statistics>() as u32;
        }
        // SAFETY: PAGE-3; the page is mapped and writable, and its first eight bytes are the magic.
        let magic = unsafe { AtomicU64::from_ptr((&raw mut (*control).magic).cast()) };
        // Release: a reader that sees the magic sees the rest. It reads the magic first (`Live::map`).
        magic.store(u64::from_ne_bytes(LIVE_MAGIC), Release);
        self.none_until.set(0);
        WORDS.store(page.as_ptr(), Release);
    }

    /// Writes the statistics; `may_ask`: with the C library's counters read again if due.
    fn write(&self, may_ask: bool) {
        let Some(words) = self.words() else {
            return;
        };
        // SAFETY: PAGE-2; others only read it.
        let statistics = unsafe { &mut (*words.0.as_ptr()).statistics };
        sequence::write(words.sequence(), || {
            encode(statistics, &|| self.libc(may_ask));
        });
        self.made.set(clock::now());
    }

    fn libc(&self, may_ask: bool) -> Option<LibcMemory> {
        let now = clock::now();
        if may_ask && now >= self.libc_next.get() {
            self.libc.set(libc_memory());
            let record_take = clock::now() - now;
            self.libc_next
                .set(now + LIBC_AGAIN.max(record_take * LIBC_SHARE));
        }
        self.libc.get()
    }

    fn answer(&self, words: Words, request: u32, goes_on: &dyn Fn() -> bool) {
        let wanted = words.wanted().swap(0, Acquire);
        self.write(true);
        if wanted & STOP_PROFILE != 0 {
            profile::stop();
        } else if wanted & START_PROFILE != 0 {
            let interval = words.profile_interval().load(Relaxed) as usize;
            // A reader sees by its next request whether the profiler runs.
            let _ = profile::start(interval);
        }
        if wanted & WANT_PROFILE != 0 {
            self.take(words, || self.profile(words));
        } else if wanted & WANT_SNAPSHOT != 0 {
            let of_snapshot = wanted & (WANT_SNAPSHOT | WANT_TYPES);
            let with_types = of_snapshot & WANT_TYPES != 0;
            if !self.take(words, || self.snapshot(words, with_types, goes_on)) {
                words.wanted().fetch_or(of_snapshot, Relaxed);
                return;
            }
        } else if wanted & DROP_SNAPSHOT != 0 {
            self.drop_snapshot();
        }
        self.answered(words, request);
    }

    fn answered(&self, words: Words, request: u32) {
        words.answered().store(request, Release);
        shared::wake(words.answered());
    }

    /// Puts what `write` writes after the page, a snapshot or a profile; false if it was given up.
    fn take(&self, words: Words, write: impl FnOnce() -> Result<u64, i32>) -> bool {
        sequence::write(words.snapshot_sequence(), || {
            let (bytes, error) = match write() {
                Ok(bytes) => (bytes, 0),
                Err(libc::EINTR) => (0, 0),
                Err(error) => (0, error),
            };
            words.snapshot_bytes().store(bytes, Relaxed);
            words.snapshot_error().store(error.cast_unsigned(), Relaxed);
            bytes > 0 || error != 0
        })
    }

    fn snapshot(
        &self,
        words: Words,
        with_types: bool,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<u64, i32> {
        let plan = Plan::make()?;
        let types = with_types.then(Types::new).flatten();
        self.with_room(words, plan.longest(types.is_some()), |writer| {
            plan.write(writer, types, goes_on)
        })
    }

    fn profile(&self, words: Words) -> Result<u64, i32> {
        let encoded = stats::profile::encoded()?;
        self.with_room(words, encoded.file_len() as u64, |writer| {
            stats::profile::write(&encoded, writer)
        })
    }

    /// Runs `write` with room for `longest` bytes after the page.
    fn with_room(
        &self,
        words: Words,
        longest: u64,
        write: impl FnOnce(&Writer<'_>) -> Result<u64, i32>,
    ) -> Result<u64, i32> {
        let all = PAGE_BYTES as u64 + longest;
        if all > self.length.get() {
            let length = all.next_multiple_of(STEP);
            self.file.get().ok_or(libc::EBADF)?.grow(length)?;
            self.length.set(length);
        }
        let all = usize::try_from(all).map_err(|_| libc::EFBIG)?;
        let window = shared::map_again(words.0.cast(), all).ok_or(libc::ENOMEM)?;
        // SAFETY: `all > PAGE_BYTES` bytes are mapped at `window`.
        let start = unsafe { window.add(PAGE_BYTES) };
        let written = write(&Writer::Memory(start, all - PAGE_BYTES));
        // SAFETY: mapped above with this size; no reference into it is left.
        unsafe { shared::unmap(window, all) };
        written
    }

    fn drop_snapshot(&self) {
        let Some(words) = self.words().filter(Words::has_snapshot) else {
            return;
        };
        sequence::write(words.snapshot_sequence(), || {
            let bytes = words.snapshot_bytes().swap(0, Relaxed);
            let bytes = bytes.min(self.length.get() - PAGE_BYTES as u64);
            let all = (PAGE_BYTES as u64 + bytes.next_multiple_of(STEP)) as usize;
            if let Some(window) = shared::map_again(words.0.cast(), all) {
                // SAFETY: `all >= PAGE_BYTES` bytes are mapped at `window`.
                let start = unsafe { window.add(PAGE_BYTES) };
                shared::empty(start, all - PAGE_BYTES);
                // SAFETY: mapped above with this size; no reference into it is left.
                unsafe { shared::unmap(window, all) };
            }
        });
    }
}

const _: () = assert!(size_of::<Page>() <= PAGE_BYTES);
