//! The last operations, and the command that repeats the run: written when the model fails or the
//! library ends the process.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const LEN: usize = 64;

/// The last operations, each with three numbers.
static RING: [[AtomicU64; 4]; LEN] = [const { [const { AtomicU64::new(0) }; 4] }; LEN];
static AT: AtomicUsize = AtomicUsize::new(0);
static REPLAY: OnceLock<String> = OnceLock::new();

/// An operation.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Did {
    Malloc,
    Calloc,
    Realloc,
    Free,
    Workload,
    Switch,
    Spawn,
    End,
    Drop,
    Trim,
    Fork,
    Pass,
    Foreign,
    Astray,
    Refuse,
    Hook,
    Arenas,
    Concurrent,
    Child,
    Finish,
}

const NAMES: [&str; 20] = [
    "malloc  size, block, domain",
    "calloc  size, block, domain",
    "realloc size, block, now at",
    "free    size, block, domain",
    "workload at most, bytes, order",
    "switch  to thread",
    "spawn   thread",
    "end     of thread, next is",
    "drop    blocks",
    "trim    keep",
    "fork    child",
    "pass    milliseconds",
    "foreign size, block",
    "astray  size, block",
    "refuse  kind, after, times",
    "hook    domain, is there",
    "arenas  are the program's",
    "concurrent   threads, operations",
    "(here the child begins)",
    "finish",
];

/// Notes an operation.
#[inline]
pub fn did(what: Did, a: usize, b: usize, c: usize) {
    let at = AT.load(Relaxed);
    AT.store(at + 1, Relaxed);
    let entry = &RING[at % LEN];
    entry[0].store(what as u64 + 1, Relaxed);
    entry[1].store(a as u64, Relaxed);
    entry[2].store(b as u64, Relaxed);
    entry[3].store(c as u64, Relaxed);
}

/// Stores the command that repeats this run.
pub fn keep_replay(command: String) {
    let _ = REPLAY.set(command);
}

struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        // SAFETY: a slice is readable over its length.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}

/// Writes all of it to stderr; allocates nothing.
pub fn tell() {
    let end = AT.load(Relaxed);
    let _ = writeln!(Stderr, "the last operations, of {end}:");
    for at in end.saturating_sub(LEN)..end {
        let [what, a, b, c] = [0, 1, 2, 3].map(|i| RING[at % LEN][i].load(Relaxed));
        let name = NAMES.get((what as usize).wrapping_sub(1)).unwrap_or(&"?");
        let _ = writeln!(Stderr, "  {at:>10} {name:<28} {a} {b:#x} {c:#x}");
    }
    if let Some(replay) = REPLAY.get() {
        let _ = writeln!(Stderr, "again: {replay}");
    }
}

thread_local! {
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn on_signal(signal: i32) {
    let _ = writeln!(Stderr, "signal {signal}");
    tell();
    // SAFETY: the default action ends the process, with this signal.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Makes every failure write the history and end the process.
pub fn watch() {
    for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
        // SAFETY: a handler that only writes.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        if !TELLING.replace(true) {
            std::process::abort();
        }
    }));
}
