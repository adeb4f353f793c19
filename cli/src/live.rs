//! The reader of a process's stats page (`format::layout` has the protocol).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, SeqCst},
    fence,
};
use std::time::{Duration, Instant};

use format::options::STATS_PAGE;

use crate::failure::Failure;
use crate::library::reason;
use crate::settings;
use format::layout::{self, Control, Statistics};

/// The limit of an answer's duration. A snapshot of a large heap takes about a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// The limit of the duration of statistics: where a thread answers, and where only calls of the
/// program do.
const SOON: Duration = Duration::from_secs(2);
const AT_ONCE: Duration = Duration::from_millis(300);

/// The most bytes of a profile that are read.
const LONGEST_PROFILE: u64 = 300 << 20;

/// The page of a process, mapped.
pub struct Live {
    pid: u32,
    file: File,
    page: NonNull<u8>,
    /// Bytes of the page.
    bytes: u32,
}

impl Live {
    /// Opens the page of a process that runs with `OBMALLOC_STATS_PAGE=1`.
    pub fn open(pid: u32) -> Result<Live, Failure> {
        let folder = format!("/proc/{pid}/fd");
        let cannot = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => gone(pid),
            _ => Failure::new(
                format!("process {pid} is not yours: {}", reason(&error)),
                "run this command as the user that it runs as",
            ),
        };
        let entries = fs::read_dir(folder).map_err(cannot)?;
        let maps = mapped(pid).map_err(cannot)?;
        let is_page =
            |path: &Path| fs::read_link(path).is_ok_and(|to| to.as_os_str() == layout::LINK);
        let pages = entries.flatten().map(|entry| entry.path());
        // Where the descriptor is closed, root can open the mapping.
        let pages: Vec<_> = pages
            .filter(|path| is_page(path))
            .chain(maps.clone())
            .collect();
        let mut other = None;
        for path in &pages {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            let Ok(file) = opened else { continue };
            let live = Live::map(pid, file)?;
            let owner = live.word(offset_of!(Control, pid)).load(SeqCst);
            if number_inside(pid).is_none_or(|inside| inside == owner) {
                return Ok(live);
            }
            other = Some(owner);
        }
        Err(match other {
            Some(owner) => Failure::new(
                format!("process {pid} has only the page of its parent, {owner}"),
                "look at the parent, or wait until the child has one of its own",
            ),
            None if !maps.is_empty() => Failure::new(
                format!(
                    "process {pid} has closed the descriptor of its page, as daemons close all, \
                     and has freed no memory since"
                ),
                "wait until it makes another page, which it does then, or look as root",
            ),
            None => publishes_nothing(pid),
        })
    }

    fn map(pid: u32, file: File) -> Result<Live, Failure> {
        let bytes = page_bytes(&file).map_err(|what| {
            Failure::new(
                format!("cannot use the page of process {pid}: {what}"),
                "use the command that belongs to its library",
            )
        })?;
        // SAFETY: a new mapping of a file with at least `bytes`; only references to its atomic words
        // are created.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(page.cast::<u8>()) {
            Some(page) if page.as_ptr().cast() != libc::MAP_FAILED => Ok(Live {
                pid,
                file,
                page,
                bytes,
            }),
            _ => Err(Failure::new(
                format!("cannot map the page of process {pid}"),
                "try again",
            )),
        }
    }

    /// Whether a thread of the process answers.
    pub fn has_thread(&self) -> bool {
        self.word(offset_of!(Control, thread)).load(SeqCst) == 1
    }

    /// A word of [`Control`].
    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `at` is the offset of an aligned word of `Control`, inside the page; shared words
        // are accessed only as atomics.
        unsafe { self.page.add(at).cast().as_ref() }
    }

    fn wide(&self, at: usize) -> u64 {
        // SAFETY: `at` is the offset of an aligned u64 of `Control`, inside the page.
        let wide: &AtomicU64 = unsafe { self.page.add(at).cast().as_ref() };
        wide.load(SeqCst)
    }

    /// Sends a request with the bits `wanted`; returns after the answer.
    fn ask(&self, wanted: u32) -> Result<(), Failure> {
        if self.is_answered(wanted, PATIENCE)? {
            return Ok(());
        }
        let what = format!("process {} does not answer", self.pid);
        Err(Failure::new(
            what,
            "see whether it is stopped, or just forked",
        ))
    }

    /// Sends a request; returns whether the process has answered within `patience`.
    fn is_answered(&self, wanted: u32, patience: Duration) -> Result<bool, Failure> {
        let (request, answered) = (
            self.word(offset_of!(Control, request)),
            self.word(offset_of!(Control, answered)),
        );
        self.word(offset_of!(Control, wanted))
            .fetch_or(wanted, SeqCst);
        let ticket = request.fetch_add(1, SeqCst).wrapping_add(1);
        futex(request, libc::FUTEX_WAKE, i32::MAX.cast_unsigned());
        let begin = Instant::now();
        loop {
            let now = answered.load(SeqCst);
            if now.wrapping_sub(ticket).cast_signed() >= 0 {
                return Ok(true);
            }
            if !Path::new(&format!("/proc/{}/fd", self.pid)).exists() {
                return Err(gone(self.pid));
            }
            if begin.elapsed() > patience {
                return Ok(false);
            }
            futex(answered, libc::FUTEX_WAIT, now);
        }
    }

    /// The statistics of now; or, without an answer, the last ones. With their age in
    /// milliseconds.
    pub fn statistics(&self) -> Result<(Statistics, u64), Failure> {
        let patience = if self.has_thread() { SOON } else { AT_ONCE };
        self.is_answered(0, patience)?;
        let sequence = self.word(offset_of!(Control, sequence));
        let begin = Instant::now();
        while begin.elapsed() < SOON {
            // Acquire: an even number is stored with Release, after the statistics.
            let before = sequence.load(Acquire);
            // SAFETY: inside the page; the struct has only integers, and is used only if it was
            // consistent.
            let mut said: Statistics =
                unsafe { ptr::read_volatile(self.page.add(size_of::<Control>()).cast().as_ptr()) };
            // Pairs with the writer's fence after it has stored an odd number. (An Acquire of the
            // second load would not do: aarch64 could load it before the copy.)
            fence(Acquire);
            if before.is_multiple_of(2) && sequence.load(Relaxed) == before {
                let bytes = self
                    .word(offset_of!(Control, statistics_bytes))
                    .load(SeqCst);
                said.forget_beyond(bytes as usize);
                return Ok((said, now_ms().saturating_sub(said.made_ms)));
            }
            std::thread::yield_now();
        }
        Err(gone(self.pid))
    }

    /// The bytes of a snapshot of the heap; with the types of objects, if the library can read them.
    pub fn snapshot(&self, with_types: bool) -> Result<Vec<u8>, Failure> {
        let types = if with_types { layout::WANT_TYPES } else { 0 };
        self.attachment(layout::WANT_SNAPSHOT | types, "snapshot", u64::MAX)
    }

    /// The bytes of a heap profile.
    pub fn profile(&self) -> Result<Vec<u8>, Failure> {
        self.attachment(layout::WANT_PROFILE, "profile", LONGEST_PROFILE)
    }

    /// Switches the profiler on, with a sample each `interval` bytes; 0 is the library's default.
    pub fn start_profile(&self, interval: u32) -> Result<(), Failure> {
        self.word(offset_of!(Control, profile_interval))
            .store(interval, SeqCst);
        self.ask(layout::START_PROFILE)?;
        // Whether it has started.
        self.profile().map(drop)
    }

    /// Switches the profiler off.
    pub fn stop_profile(&self) -> Result<(), Failure> {
        self.ask(layout::STOP_PROFILE)
    }

    /// The bytes after the page, after a request for a snapshot or a profile.
    fn attachment(&self, wanted: u32, what: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let mut is_there = false;
        for _ in 0..5 {
            self.ask(wanted)?;
            is_there |= self.wide(offset_of!(Control, snapshot_bytes)) != 0;
            if let Some(bytes) = self.read_attachment(what, most)? {
                // Best effort: the process drops it after ten seconds.
                self.ask(layout::DROP_SNAPSHOT)?;
                return Ok(bytes);
            }
        }
        let pid = self.pid;
        if !is_there && wanted == layout::WANT_PROFILE {
            return Err(Failure::new(
                format!(
                    "process {pid} has made no profile: its library may be of an earlier version"
                ),
                "start it with the library that belongs to this command",
            ));
        }
        let what = format!("the {what} of process {pid} changed while it was read");
        Err(Failure::new(what, "see which other reader there is"))
    }

    /// The bytes after the page; `None` if they changed meanwhile.
    fn read_attachment(&self, what: &str, most: u64) -> Result<Option<Vec<u8>>, Failure> {
        let sequence = self.word(offset_of!(Control, snapshot_sequence));
        let before = sequence.load(Acquire);
        let error = self.word(offset_of!(Control, snapshot_error)).load(SeqCst);
        let pid = self.pid;
        if error == libc::ENODATA.cast_unsigned() {
            return Err(Failure::new(
                format!("the profiler of process {pid} is off"),
                format!("switch it on with `obmalloc profile {pid} --start`"),
            ));
        }
        if error != 0 {
            let error = std::io::Error::from_raw_os_error(error.cast_signed());
            let what = format!("process {pid} could not make a {what}: {error}");
            return Err(Failure::new(what, "see its memory limit"));
        }
        let len = self.wide(offset_of!(Control, snapshot_bytes));
        let there = self.file.metadata().map_or(0, |file| file.len());
        let inside = there.saturating_sub(self.bytes.into());
        if len == 0 || len > inside || before % 2 == 1 {
            return Ok(None);
        }
        if len > most {
            let what = format!("the {what} of process {pid} has {len} bytes, more than {most}");
            return Err(Failure::new(what, "lower OBMALLOC_PROFILE_MEMORY there"));
        }
        let mut bytes = vec![0; len as usize];
        let read = self.file.read_exact_at(&mut bytes, self.bytes.into());
        fence(Acquire); // as in `statistics`
        let same = sequence.load(Relaxed) == before;
        Ok((read.is_ok() && same).then_some(bytes))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // SAFETY: `map` mapped it with this size, and no reference is left.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.bytes as usize) };
    }
}

/// Bytes of the page in a file; the error is one phrase.
fn page_bytes(file: &File) -> Result<u32, String> {
    let (mut magic, mut head) = ([0; 8], [0; 8]);
    let is_written = file.read_exact_at(&mut magic, 0).is_ok() && magic == layout::LIVE_MAGIC;
    // The process stores the magic last, with Release. The load of it was the kernel's: so a fence,
    // before the rest is read.
    fence(Acquire);
    if !is_written || file.read_exact_at(&mut head, 8).is_err() {
        return Err("it is not written yet, or by another program".into());
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (version, bytes) = (word(0), word(4));
    if !layout::PAGE_VERSIONS.contains(&(version, bytes)) {
        let known: Vec<_> = layout::PAGE_VERSIONS
            .map(|known| known.0.to_string())
            .into();
        return Err(format!(
            "its form has version {version} with {bytes} bytes, this command reads versions {}",
            known.join(" and ")
        ));
    }
    let length = file.metadata().map_or(0, |file| file.len());
    if length < bytes.into() {
        return Err(format!("it has only {length} bytes"));
    }
    Ok(bytes)
}

/// CLOCK_MONOTONIC in milliseconds.
fn now_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec that the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1000 + time.tv_nsec.cast_unsigned() / 1_000_000
}

/// Wakes all waiters of the word, or waits up to 100 ms for it to change.
fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    // SAFETY: the word and the time outlive the call. (FUTEX_WAKE ignores the time.)
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation,
            value,
            &raw const timeout,
        )
    };
}

/// Paths of the page's mappings in `/proc/PID/map_files`, which root can open without a
/// descriptor of the process.
fn mapped(pid: u32) -> io::Result<Vec<PathBuf>> {
    // Names of files may have any bytes.
    let maps = fs::read(format!("/proc/{pid}/maps"))?;
    let maps = String::from_utf8_lossy(&maps);
    let pages = maps.lines().filter(|line| line.ends_with(layout::LINK));
    let range = |line: &str| line.split_whitespace().next().map(str::to_string);
    let name = |range: String| PathBuf::from(format!("/proc/{pid}/map_files/{range}"));
    Ok(pages.filter_map(range).map(name).collect())
}

/// The process's number in its own pid namespace.
fn number_inside(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Why a process has no page, by /proc.
fn publishes_nothing(pid: u32) -> Failure {
    let what = format!("process {pid} publishes nothing");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if status.lines().any(|line| line.starts_with("State:\tZ")) {
        return Failure::new(
            format!("process {pid} has ended, and its parent has not waited for it"),
            "look at another process",
        );
    }
    let environment = settings::environment_of(pid).unwrap_or_default();
    if settings::value(&STATS_PAGE, &environment).is_on() {
        return Failure::new(
            format!(
                "{what}, though it was started with OBMALLOC_STATS_PAGE=1: the library is not active \
                 in it, or could make no page"
            ),
            "set OBMALLOC_VERBOSE=1 for a line that shows whether it is active",
        );
    }
    Failure::new(
        what,
        "start it with OBMALLOC_STATS_PAGE=1 (obmalloc run --stats-page, or --profile)",
    )
}

fn gone(pid: u32) -> Failure {
    Failure::new(
        format!("there is no process {pid}"),
        "see whether it has ended",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    use crate::fixtures::Heap;

    /// A page of a version, with a snapshot after it.
    fn page(version: u32, bytes: u32, snapshot: &[u8]) -> File {
        // SAFETY: a C string.
        let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: the descriptor was made here, for this file.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(u64::from(bytes) + snapshot.len() as u64)
            .unwrap();
        let put = |at: usize, what: &[u8]| file.write_all_at(what, at as u64).unwrap();
        put(0, &layout::LIVE_MAGIC);
        put(offset_of!(Control, version), &version.to_le_bytes());
        put(offset_of!(Control, page_bytes), &bytes.to_le_bytes());
        let statistics = size_of::<Control>();
        put(
            statistics + offset_of!(Statistics, made_ms),
            &now_ms().to_le_bytes(),
        );
        put(statistics + offset_of!(Statistics, version), b"0.1.0");
        put(bytes as usize, snapshot);
        file
    }

    /// Answers the requests for statistics, for a snapshot, and to drop it.
    fn answer(file: File, snapshot: u64) {
        let process = Live::map(std::process::id(), file).unwrap();
        let word = |at| process.word(at);
        for number in 1..=3 {
            while word(offset_of!(Control, request)).load(SeqCst) != number {
                std::thread::yield_now();
            }
            let wanted = word(offset_of!(Control, wanted)).swap(0, SeqCst);
            assert_eq!(wanted, number - 1);
            let at = offset_of!(Control, snapshot_bytes);
            // SAFETY: `at` is the offset of an aligned u64 of `Control`, inside the page.
            let bytes: &AtomicU64 = unsafe { process.page.add(at).cast().as_ref() };
            bytes.store(if number == 2 { snapshot } else { 0 }, SeqCst);
            word(offset_of!(Control, answered)).store(number, SeqCst);
        }
    }

    #[test]
    fn pages_of_all_known_versions_are_read() {
        let snapshot = Heap::example().bytes();
        for (version, bytes) in layout::PAGE_VERSIONS {
            let pid = std::process::id();
            let file = page(version, bytes, &snapshot);
            let its_own = file.try_clone().unwrap();
            let reader = Live::map(pid, file).unwrap();
            std::thread::scope(|threads| {
                threads.spawn(|| answer(its_own, snapshot.len() as u64));
                let (statistics, age) = reader.statistics().unwrap();
                assert!(statistics.version.starts_with(b"0.1.0") && age < 60_000);
                assert_eq!(reader.snapshot(false).unwrap(), snapshot);
            });
        }
    }

    #[test]
    fn a_page_of_an_unknown_version_is_told() {
        let said = |file| Live::map(7, file).err().expect("refused").to_string();
        let newer = said(page(3, 1 << 16, b""));
        assert!(newer.contains("version 3") && newer.contains("versions 1 and 2"));
        assert!(said(page(2, 8192, b"")).contains("8192 bytes"));
        let cut = page(2, 1 << 16, b"");
        cut.set_len(1 << 15).unwrap();
        assert!(said(cut).contains("only 32768 bytes"));
        let other = page(2, 1 << 16, b"");
        other.write_all_at(b"other", 0).unwrap();
        assert!(said(other).contains("another program"));
    }

    #[test]
    fn processes_that_publish_nothing_are_told() {
        let said = |pid| Live::open(pid).err().expect("no page").to_string();
        assert!(said(u32::MAX).contains("there is no process"));
        assert!(said(std::process::id()).contains("OBMALLOC_STATS_PAGE=1"));
        assert_eq!(number_inside(std::process::id()), Some(std::process::id()));
    }
}
