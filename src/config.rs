//! Settings: what the environment says, read once, at start.
//!
//! Low files have plain settings with defaults that work; this one pushes
//! values down to them, so that nobody below reads the environment. A name
//! that is not in the table, or a value that is not of its kind, is reported
//! in one line where the library is active, and otherwise ignored: never
//! fatal, and never a line in somebody else's program.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::background::decay;
use crate::base::size_class::{MEDIUM_MAX, SMALL_MAX};
use crate::guard;
use crate::os::text::{log, printable};
use crate::os::{descriptor, environment, process, sandbox, thp};
use crate::policy::alignment;
use crate::policy::fork_cow::{self, Rule};
use crate::policy::huge_pages;
use crate::policy::limits::{self, Limit};
use crate::policy::size_policy;
use crate::pool::invalid_free;
use crate::stats_page;
use crate::tools::annotate;

const PREFIX: &[u8] = b"OBMALLOC_";

/// A setting.
pub(crate) struct Setting {
    /// Its name behind `OBMALLOC_`.
    pub name: &'static str,
    /// What values it takes, and the default.
    #[cfg(test)]
    pub values: &'static str,
    /// What it does.
    #[cfg(test)]
    pub meaning: &'static str,
    /// Takes a value; false if it is not one.
    apply: fn(&'static [u8]) -> bool,
}

/// The table, without what is said of each: that is for readers of the source, and would
/// take two pages in every process.
macro_rules! table {
    ($(Setting { name: $name:expr, values: $values:expr, meaning: $meaning:expr, apply: $apply:expr, },)*) => {
        &[$(Setting {
            name: $name,
            #[cfg(test)]
            values: $values,
            #[cfg(test)]
            meaning: $meaning,
            apply: $apply,
        },)*]
    };
}

/// All settings. docs/settings.py makes the table in docs/settings.md of these lines, and the
/// command its help text.
pub(crate) static SETTINGS: &[Setting] = table![
    Setting {
        name: "VERBOSE",
        values: "0 or 1; 0",
        meaning: "one line on stderr that says whether the library is active here, and why not",
        apply: |value| flag(value, &VERBOSE),
    },
    Setting {
        name: "STATS",
        values: "1 or a file name; none",
        meaning: "statistics at exit: 1 as text on stderr, else as JSON to that file, `%p` in its name being the pid",
        apply: |value| {
            descriptor::note_named(value);
            STATS.keep(value)
        },
    },
    Setting {
        name: "LIVE",
        values: "0 or 1; 0",
        meaning: "a page of statistics that `obmalloc stats`, `top` and `map` read while the program runs (see docs/metrics.md)",
        apply: |value| switch(value).map(stats_page::want).is_some(),
    },
    Setting {
        name: "DEBUG",
        values: "0 or 1; 0",
        meaning: "CPython's own debug hooks over the library from the start, without `PYTHONMALLOC` or another build: they find overflows, blocks freed in another domain, calls without the GIL (not in 2.7, which has none, nor after `obmalloc_install`)",
        apply: |value| flag(value, &DEBUG),
    },
    Setting {
        name: "ON_ERROR",
        values: "abort or report; abort",
        meaning: "what follows the line on stderr that a block was freed wrongly: the process ends, or the wrong call is left undone and the program goes on",
        apply: |value| {
            invalid_free::set_continue(value == b"report");
            matches!(value, b"abort" | b"report")
        },
    },
    Setting {
        name: "SMALL_MAX",
        values: "bytes from 512 to 32768, K allowed; by heap size",
        meaning: "the largest request that is served from pools; unset: 512, CPython's own rule, and 8192 once the heap, or the whole program in memory, has 64 MiB, or 100000 larger requests were made",
        apply: |value| match size(value) {
            Some(n @ SMALL_MAX..=MEDIUM_MAX) => {
                size_policy::set(n);
                true
            }
            _ => false,
        },
    },
    Setting {
        name: "ALIGN",
        values: "16, 8, obj:8 or mem:8; 16",
        meaning: "bytes to which blocks of up to 512 bytes are rounded and aligned: 16 as in CPython, or 8, in both domains or in one (see docs/settings.md)",
        apply: |value| {
            let (mem, obj) = match value {
                b"16" => (false, false),
                b"8" => (true, true),
                b"obj:8" => (false, true),
                b"mem:8" => (true, false),
                _ => return false,
            };
            alignment::set(mem, obj);
            true
        },
    },
    Setting {
        name: "DECAY_MS",
        values: "milliseconds, or -1; 1000",
        meaning: "how long a page stays free before it goes back to the kernel; 0: at once, -1: for ever",
        apply: |value| match number(value) {
            Some(milliseconds) => {
                decay::set_interval(milliseconds);
                true
            }
            None => false,
        },
    },
    Setting {
        name: "LIMIT",
        values: "bytes (K, M, G allowed) or auto; none",
        meaning: "soft limit to what the process has in memory: from seven eighths of it on, free pages go back at once; auto: the cgroup's memory.high, or a sixteenth below its memory.max, for all of the cgroup",
        apply: |value| {
            limit(value).is_some_and(|limit| {
                limits::set_soft(limit);
                true
            })
        },
    },
    Setting {
        name: "LIMIT_HARD",
        values: "bytes (K, M, G allowed) or auto; none",
        meaning: "hard limit: requests that would take the process beyond it get NULL, so MemoryError; auto: a thirty-second below the cgroup's memory.max",
        apply: |value| {
            limit(value).is_some_and(|limit| {
                limits::set_hard(limit);
                true
            })
        },
    },
    Setting {
        name: "THP",
        values: "auto, always or never; auto",
        meaning: "whether arenas ask for huge pages, where the system's setting is madvise or always; auto: no, and the kernel is told not to use them where it would unasked; never: it is told so in any case",
        apply: |value| {
            huge_pages::want(value == b"always");
            THP_NEVER.store(value == b"never", Relaxed);
            matches!(value, b"auto" | b"always" | b"never")
        },
    },
    Setting {
        name: "FORK",
        values: "auto, share or seal; auto",
        meaning: "whether a forked child uses holes in pools that it shares with its parent: when the parent is gone, always, or never",
        apply: |value| {
            let rule = match value {
                b"auto" => Rule::Auto,
                b"share" => Rule::Share,
                b"seal" => Rule::Freeze,
                _ => return false,
            };
            fork_cow::set_rule(rule);
            true
        },
    },
    Setting {
        name: "GUARD",
        values: "0 or a number N; 0",
        meaning: "one allocation in N, on average, gets a page of its own beside one that nobody can access: uses after free, overflows, underflows and double frees of it are reported (see docs/bugs.md)",
        apply: |value| {
            let plain = value.iter().all(u8::is_ascii_digit);
            size(value).filter(|_| plain).is_some_and(|n| {
                guard::set_rate(n);
                true
            })
        },
    },
    Setting {
        name: "TOOLS",
        values: "0 or 1; 1",
        meaning: "whether Valgrind's memcheck or AddressSanitizer, if the process runs with one, is told of each block (see docs/bugs.md)",
        apply: |value| flag(value, &TOOLS),
    },
    Setting {
        name: "SYSCALLS",
        values: "auto or stock; auto",
        meaning: "which system calls the library makes: all that it needs, until a thread finds itself under a seccomp filter that was not there at start; or, after start, none that CPython's own allocator does not make (see docs/syscalls.md)",
        apply: |value| {
            if value == b"stock" {
                sandbox::restrict();
            }
            matches!(value, b"auto" | b"stock")
        },
    },
    Setting {
        name: "THREAD",
        values: "0 or 1; 1",
        meaning: "whether a helper thread may return pages while the program does nothing; 0: the program's own calls do it",
        apply: |value| {
            let allow = |allowed| {
                decay::allow_thread(allowed);
                stats_page::allow_thread(allowed);
            };
            switch(value).map(allow).is_some()
        },
    },
];

/// What `OBMALLOC_SYSCALLS=stock` leaves nothing of.
const NOT_IN_STOCK: [&str; 4] = ["LIVE", "LIMIT", "LIMIT_HARD", "GUARD"];

static THP_NEVER: AtomicBool = AtomicBool::new(false);
static VERBOSE: AtomicBool = AtomicBool::new(false);
static TOOLS: AtomicBool = AtomicBool::new(true);
static DEBUG: AtomicBool = AtomicBool::new(false);
#[unsafe(link_section = ".bss.tables")]
static STATS: Text = Text::new();

/// A text that was in the environment, copied: programs that change their
/// title write over the original.
struct Text {
    bytes: UnsafeCell<[u8; TEXT_MAX]>,
    len: AtomicUsize,
}

const TEXT_MAX: usize = 1024;

// SAFETY: the bytes are written while settings are read, once, before any thread goes
// on; the same text again changes nothing.
unsafe impl Sync for Text {}

impl Text {
    const fn new() -> Text {
        Text {
            bytes: UnsafeCell::new([0; TEXT_MAX]),
            len: AtomicUsize::new(0),
        }
    }

    /// Keeps a copy; false if it is too long.
    fn keep(&self, text: &[u8]) -> bool {
        if text.len() > TEXT_MAX {
            return false;
        }
        if self.get() != text {
            let to = self.bytes.get().cast::<u8>();
            // SAFETY: room for it, and nobody reads yet (see above).
            unsafe { to.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
            self.len.store(text.len(), Relaxed);
        }
        true
    }

    fn get(&self) -> &[u8] {
        // SAFETY: so many bytes were written; see above.
        unsafe {
            core::slice::from_raw_parts(self.bytes.get().cast::<u8>(), self.len.load(Relaxed))
        }
    }
}

/// Whether to say what the library does.
pub(crate) fn verbose() -> bool {
    VERBOSE.load(Relaxed)
}

/// Whether debug hooks are to stand over the library.
pub(crate) fn debug() -> bool {
    DEBUG.load(Relaxed)
}

/// The value of `OBMALLOC_STATS`, unless it is unset, empty or 0.
pub(crate) fn stats() -> Option<&'static [u8]> {
    let value = STATS.get();
    (!value.is_empty() && value != b"0").then_some(value)
}

/// Reads the environment. A program with more rights than its user keeps the
/// defaults. `at_start`: by the loader, so that files may be opened: no thread of the
/// program takes a descriptor at the same time.
pub(crate) fn read(at_start: bool) {
    // First, as it decides whether others may look at files.
    if !environment::privileged() && environment::variable(c"OBMALLOC_SYSCALLS") == Some(b"stock") {
        sandbox::restrict();
    } else {
        sandbox::begin(if at_start {
            process::is_filtered()
        } else {
            None
        });
    }
    visit(|_| {});
    if at_start && !THP_NEVER.load(Relaxed) && !sandbox::is_restricted() {
        huge_pages::come_unasked(thp::come_unasked());
    }
    annotate::look(TOOLS.load(Relaxed));
}

/// Says, a line each, what in the environment was not understood, or has no effect.
pub(crate) fn warn_unknown() {
    if sandbox::is_restricted() && has_any_value(&NOT_IN_STOCK) {
        log(format_args!(
            "OBMALLOC_SYSCALLS=stock: LIVE, LIMIT, LIMIT_HARD and GUARD are without effect"
        ));
    }
    visit(|entry| {
        log(format_args!(
            "{}: not understood, ignored",
            printable(entry)
        ));
    });
}

fn visit(mut not_understood: impl FnMut(&'static [u8])) {
    if environment::privileged() {
        return;
    }
    for entry in environment::variables() {
        let Some(rest) = entry.strip_prefix(PREFIX) else {
            continue;
        };
        let split = rest
            .iter()
            .position(|&byte| byte == b'=')
            .unwrap_or(rest.len());
        let (name, value) = (&rest[..split], rest.get(split + 1..).unwrap_or_default());
        let setting = SETTINGS
            .iter()
            .find(|setting| setting.name.as_bytes() == name);
        let understood = setting.is_some_and(|setting| value.is_empty() || (setting.apply)(value));
        if !understood {
            not_understood(entry);
        }
    }
    if sandbox::is_restricted() {
        stats_page::want(false);
        huge_pages::want(false);
        guard::set_rate(0);
    }
}

/// Whether a variable of one of these names has a value that asks for something.
fn has_any_value(names: &[&str]) -> bool {
    let asks = |entry: &[u8]| {
        let rest = entry.strip_prefix(PREFIX)?;
        let end = rest.iter().position(|&byte| byte == b'=')?;
        let is_one = names.iter().any(|name| name.as_bytes() == &rest[..end]);
        is_one.then(|| !matches!(&rest[end + 1..], b"" | b"0"))
    };
    environment::variables().any(|entry| asks(entry) == Some(true))
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"1" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

fn flag(value: &[u8], to: &AtomicBool) -> bool {
    switch(value).map(|on| to.store(on, Relaxed)).is_some()
}

/// A number of milliseconds, or -1.
fn number(value: &[u8]) -> Option<i64> {
    if value == b"-1" {
        return Some(-1);
    }
    let plain = value.iter().all(u8::is_ascii_digit);
    let milliseconds = size(value).filter(|_| plain)?;
    i64::try_from(milliseconds).ok()
}

/// A limit: a number of bytes that is not 0, or auto.
fn limit(value: &[u8]) -> Option<Limit> {
    match value {
        b"auto" => Some(Limit::Auto),
        _ => size(value).filter(|&bytes| bytes > 0).map(Limit::Bytes),
    }
}

/// A number of bytes: digits, then K, M or G at will.
fn size(value: &[u8]) -> Option<usize> {
    let (digits, unit) = match value.split_last()? {
        (b'K' | b'k', digits) => (digits, 1 << 10),
        (b'M' | b'm', digits) => (digits, 1 << 20),
        (b'G' | b'g', digits) => (digits, 1 << 30),
        _ => (value, 1),
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0usize, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use std::string::{String, ToString};

    #[test]
    fn sizes_are_digits_with_a_unit() {
        assert_eq!(size(b"512"), Some(512));
        assert_eq!(size(b"32K"), Some(32768));
        assert_eq!(size(b"1g"), Some(1 << 30));
        for bad in [
            &b""[..],
            b"K",
            b"12x",
            b"-1",
            b"1KK",
            b"99999999999999999999",
            b"99999999999999999G",
        ] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    /// The rows of settings in a page.
    fn rows(page: &str) -> Vec<String> {
        let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let rows = text.lines().filter(|line| line.starts_with("| `OBMALLOC_"));
        rows.map(str::to_string).collect()
    }

    fn row(setting: &Setting) -> String {
        let (name, values, meaning) = (setting.name, setting.values, setting.meaning);
        format!("| `OBMALLOC_{name}` | {values} | {meaning} |")
    }

    #[test]
    fn the_page_has_the_same_table() {
        let expected: Vec<_> = SETTINGS.iter().map(row).collect();
        assert_eq!(rows("docs/settings.md"), expected);
    }

    #[test]
    fn the_readme_has_some_of_it() {
        let (some, all) = (rows("README.md"), rows("docs/settings.md"));
        assert!(some.len() > 3);
        for row in some {
            assert!(all.contains(&row), "{row}");
        }
    }

    #[test]
    fn settings_refuse_what_is_not_of_their_kind() {
        let apply = |name: &str, value| {
            let setting = SETTINGS
                .iter()
                .find(|setting| setting.name == name)
                .unwrap();
            (setting.apply)(value)
        };
        assert!(!apply("VERBOSE", b"yes"));
        assert!(!apply("SMALL_MAX", b"511"));
        assert!(!apply("SMALL_MAX", b"32769"));
        assert!(!apply("SMALL_MAX", b"banana"));
        assert!(apply("SMALL_MAX", b"32K"));
        for bad in [&b"4"[..], b"32", b"raw:8", b"obj:16", b"obj:"] {
            assert!(!apply("ALIGN", bad));
        }
        assert!(apply("ALIGN", b"16"));
        for bad in [&b""[..], b"-1", b"1K", b"on"] {
            assert!(!apply("GUARD", bad));
        }
        assert!(apply("GUARD", b"0"));
        for bad in [&b""[..], b"0", b"all", b"STOCK"] {
            assert!(!apply("SYSCALLS", bad));
        }
        assert!(apply("SYSCALLS", b"auto"));
    }
}
