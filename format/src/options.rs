//! The options of the library: each is a variable of the environment.
//!
//! A row has all that is known about an option. The library takes names, kinds and defaults
//! from it, `obmalloc settings` the values in force, and docs/settings.md is written from it.
//! The rows are constants: the texts for people are in no table that the library links.
//!
//! A deprecated name has the effect of the new one, unless the new one is set, too.

use core::fmt::{self, Display, Formatter};

use Kind::{Bytes, File, Limit, Milliseconds, Rate, Switch, Text, Words};

use crate::events::Events;

/// The beginning of each variable's name.
pub const PREFIX: &str = "OBMALLOC_";

/// The end of the line about a variable that is no option, or whose value is not of its kind.
pub const NOT_UNDERSTOOD: &str = ": not understood, ignored";

/// An option.
pub struct Opt {
    /// Its name and its kind.
    pub key: Key,
    /// Its value where the environment has none.
    pub default: Value<'static>,
    /// What it does.
    pub help: &'static str,
    /// The first release that has it, under this name or a deprecated one.
    pub since: &'static str,
    /// The first release that has its present name.
    pub renamed: Option<&'static str>,
}

/// The part of an option that reading the environment takes.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name after [`PREFIX`].
    pub name: &'static str,
    /// Its deprecated name.
    pub alias: Option<&'static str>,
    /// The values that it takes.
    pub kind: Kind,
    /// Whether it is without effect under `OBMALLOC_SYSCALLS=stock`.
    pub not_in_stock: bool,
}

/// The values that an option takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// 0 or 1.
    Switch,
    /// One of these words; those from this index on are deprecated, and not documented.
    Words(&'static [&'static str], u8),
    /// A file name, or 1; the maximum length in bytes.
    Text(usize),
    /// A file name; the maximum length in bytes.
    File(usize),
    /// Events, with commas between them ([`Events`]).
    Events,
    /// A number of bytes in this range.
    Bytes(u64, u64),
    /// A number of bytes except 0, or `auto`.
    Limit,
    /// Milliseconds, or -1 for never.
    Milliseconds,
    /// N, for one in N; 0 for none.
    Rate,
}

/// A value of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// None; what happens then, in words.
    Unset(&'static str),
    /// 0 or 1.
    Switch(bool),
    /// A word.
    Word(&'static str),
    /// A text.
    Text(&'a [u8]),
    /// Bytes, milliseconds, or N for one in N.
    Number(u64),
    /// `auto` in place of a number.
    Auto,
    /// -1 in place of milliseconds.
    Never,
}

const FIRST: &str = "0.1.0";
const NONE: Value<'static> = Value::Unset("none");

/// Makes a constant of each row, and a list of all.
macro_rules! options {
    ($($name:ident: $option:expr;)*) => {
        $(
            #[doc = concat!("`OBMALLOC_", stringify!($name), "`.")]
            pub const $name: Opt = $option.named(stringify!($name));
        )*
        /// All options, in the order of the documentation.
        pub const ALL: &[&Opt] = &[$(&$name),*];
    };
}

options! {
    VERBOSE: Opt::of(Switch, Value::Switch(false),
        "one line on stderr that says whether the library is active, and why not");
    STATS: Opt::of(Text(1024), NONE,
        "statistics at exit: 1 as text on stderr, else as JSON to that file; `%p` in its name is \
         replaced by the pid");
    STATS_PAGE: Opt::of(Switch, Value::Switch(false),
        "a page of statistics that `obmalloc stats`, `top` and `map` read while the program runs \
         (see docs/metrics.md)").renamed("LIVE", "0.2.0").not_in_stock();
    DEBUG: Opt::of(Switch, Value::Switch(false),
        "CPython's own debug hooks over the library from the start, without `PYTHONMALLOC` or \
         another build: they find overflows, blocks freed in another domain, calls without the \
         GIL (not in 2.7, which has none, nor after `obmalloc_install`)");
    ON_ERROR: Opt::of(Words(&["abort", "report"], 2), Value::Word("abort"),
        "what follows the line on stderr about an invalid free: the process ends, or the call \
         has no effect and the program continues");
    POOL_MAX: Opt::of(Bytes(512, 32 << 10), Value::Unset("by heap size"),
        "the largest request that is served from pools; unset: 512, CPython's own rule, and 8192 \
         once the heap, or the whole program in memory, has 64 MiB, or 100000 larger requests \
         were made").renamed("SMALL_MAX", "0.2.0");
    ALIGN: Opt::of(Words(&["16", "8", "obj:8", "mem:8"], 4), Value::Word("16"),
        "bytes to which blocks of up to 512 bytes are rounded and aligned: 16 as in CPython, or \
         8, in both domains or in one (see docs/settings.md)");
    DECAY_MS: Opt::of(Milliseconds, Value::Number(1000),
        "how long a page stays free before it is returned to the kernel; 0: at once, -1: for ever");
    SOFT_LIMIT: Opt::of(Limit, NONE,
        "soft limit to what the process has in memory: from seven eighths of it on, pages are \
         returned as soon as they are free; auto: the cgroup's memory.high, or a sixteenth below \
         its memory.max, for all of the cgroup").renamed("LIMIT", "0.2.0").not_in_stock();
    HARD_LIMIT: Opt::of(Limit, NONE,
        "hard limit: requests that would take the process beyond it get NULL, so MemoryError; \
         auto: a thirty-second below the cgroup's memory.max")
        .renamed("LIMIT_HARD", "0.2.0").not_in_stock();
    THP: Opt::of(Words(&["auto", "always", "never"], 3), Value::Word("auto"),
        "whether arenas request huge pages, where the system's setting is madvise or always; \
         auto: no, and madvise keeps the kernel from using them unrequested, but yes if \
         PYTHON_PYMALLOC_HUGEPAGES requests them of CPython 3.15 or later; never: madvise does \
         so in any case");
    FORK_COW: Opt::of(Words(&["auto", "share", "freeze", "seal"], 3),
        Value::Word("auto"),
        "whether a forked child allocates from pools that it shares with its parent: when the \
         parent has ended, always, or never").renamed("FORK", "0.2.0");
    GUARD_SAMPLE_RATE: Opt::of(Rate, Value::Number(0),
        "one allocation in N, on average, gets a page of its own beside an inaccessible one: \
         uses after free, overflows, underflows and double frees of it are reported (see \
         docs/bugs.md); 0: none").renamed("GUARD", "0.2.0").not_in_stock();
    PROFILE: Opt::of(Bytes(0, 1 << 30), Value::Number(0),
        "the heap profile: mean bytes between two sampled allocations, 512K for services, 1 for every \
         allocation; sets STATS_PAGE, too (see docs/profile.md); 0: none")
        .since("0.2.0").not_in_stock();
    PROFILE_MEMORY: Opt::of(Bytes(64 << 10, 1 << 30), Value::Number(2 << 20),
        "the most memory that the profiler's tables take; when they are full, the mean of PROFILE is \
         doubled").since("0.2.0");
    PROFILE_NATIVE: Opt::of(Switch, Value::Switch(false),
        "whether the profile has frames of C inside the innermost Python frame").since("0.2.0");
    PROFILE_ON: Opt::of(Kind::Events, NONE,
        "when a profile is written to PROFILE_FILE: at exit, when the soft limit is reached, at a \
         signal, at intervals of seconds (s), minutes (m) or hours (h)").since("0.2.0");
    PROFILE_FILE: Opt::of(File(1024), Value::Unset("obmalloc-%p-%n.pb.gz"),
        "where; `%p` is replaced by the pid, `%n` by the number of the profile").since("0.2.0");
    TOOL_ANNOTATIONS: Opt::of(Switch, Value::Switch(true),
        "whether each block is announced to Valgrind's memcheck or AddressSanitizer, if the \
         process runs with one (see docs/bugs.md)").renamed("TOOLS", "0.2.0");
    FREE_THREADED: Opt::of(Words(&["aside", "mem"], 2), Value::Word("aside"),
        "what the library does in a build without a GIL: nothing, or, as an experiment, it serves \
         the domain MEM, which has the tables of dicts and the items of lists (see \
         docs/free-threading.md)").since("0.2.0");
    SYSCALLS: Opt::of(Words(&["auto", "stock"], 2), Value::Word("auto"),
        "which system calls the library makes: all that it needs, until a thread runs under a \
         seccomp filter that was not there at start; or, after start, none that CPython's own \
         allocator does not make (see docs/syscalls.md)").since("0.2.0");
    BACKGROUND_THREAD: Opt::of(Switch, Value::Switch(true),
        "whether a helper thread may return pages while the program is idle; 0: only the \
         program's own calls do").renamed("THREAD", "0.2.0");
}

impl Opt {
    const fn of(kind: Kind, default: Value<'static>, help: &'static str) -> Opt {
        Opt {
            key: Key {
                name: "",
                alias: None,
                kind,
                not_in_stock: false,
            },
            default,
            help,
            since: FIRST,
            renamed: None,
        }
    }

    const fn named(mut self, name: &'static str) -> Opt {
        self.key.name = name;
        self
    }

    const fn since(mut self, release: &'static str) -> Opt {
        self.since = release;
        self
    }

    /// Adds its deprecated name, and the release of its present one.
    const fn renamed(mut self, alias: &'static str, release: &'static str) -> Opt {
        self.key.alias = Some(alias);
        self.renamed = Some(release);
        self
    }

    const fn not_in_stock(mut self) -> Opt {
        self.key.not_in_stock = true;
        self
    }

    /// The option of this name, present or deprecated.
    pub fn find(name: &[u8]) -> Option<&'static Opt> {
        ALL.iter().copied().find(|option| option.key.has_name(name))
    }
}

/// Its row in the tables of the documentation.
impl Display for Opt {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Key { name, kind, .. } = self.key;
        let (default, help) = (self.default, self.help);
        write!(out, "| `{PREFIX}{name}` | {kind}; {default} | {help}")?;
        if self.since != FIRST {
            write!(out, " (since {})", self.since)?;
        }
        out.write_str(" |")
    }
}

impl Key {
    /// Whether this is its name, present or deprecated, after [`PREFIX`].
    pub fn has_name(&self, name: &[u8]) -> bool {
        self.rank(name) > 0
    }

    /// 2 for its present name, 1 for the deprecated one, 0 for another.
    fn rank(&self, name: &[u8]) -> u8 {
        if name == self.name.as_bytes() {
            2
        } else {
            u8::from(self.alias.is_some_and(|alias| alias.as_bytes() == name))
        }
    }

    /// The entry `NAME=VALUE` that sets it, among those of an environment, as name and value.
    /// The present name's counts, else the deprecated one's; of several the last.
    pub fn entry<'a>(
        &self,
        entries: impl Iterator<Item = &'a [u8]>,
    ) -> Option<(&'a [u8], &'a [u8])> {
        let (mut found, mut highest) = (None, 1);
        for entry in entries {
            let Some((name, value)) = split(entry) else {
                continue;
            };
            let rank = self.rank(name);
            if rank >= highest {
                (found, highest) = (Some((name, value)), rank);
            }
        }
        found
    }

    /// Its value in an environment. `None` if the environment has none, or an empty one, or one
    /// that is not of its kind: then the default is in force.
    pub fn value<'a>(&self, entries: impl Iterator<Item = &'a [u8]>) -> Option<Value<'a>> {
        let (_, value) = self.entry(entries)?;
        self.kind.parse(value)
    }
}

/// The name after [`PREFIX`] and the value of an entry of the environment; `None` if it is
/// another program's.
pub fn split(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = entry.strip_prefix(PREFIX.as_bytes())?;
    let end = rest.iter().position(|&byte| byte == b'=');
    let (name, value) = rest.split_at(end.unwrap_or(rest.len()));
    Some((name, value.get(1..).unwrap_or_default()))
}

impl Kind {
    /// The value that a text stands for; `None` if it is not of this kind. An empty one never
    /// is.
    pub fn parse<'a>(&self, text: &'a [u8]) -> Option<Value<'a>> {
        match *self {
            Switch => match text {
                b"1" => Some(Value::Switch(true)),
                b"0" => Some(Value::Switch(false)),
                _ => None,
            },
            Words(words, _) => {
                let word = words.iter().find(|word| word.as_bytes() == text)?;
                Some(Value::Word(word))
            }
            Kind::Events => Events::parse(text).map(|_| Value::Text(text)),
            Text(max) | File(max) => {
                let fits = !text.is_empty() && text.len() <= max;
                fits.then_some(Value::Text(text))
            }
            Bytes(min, max) => {
                let bytes = bytes(text)?;
                (min <= bytes && bytes <= max).then_some(Value::Number(bytes))
            }
            Limit => match text {
                b"auto" => Some(Value::Auto),
                _ => bytes(text).filter(|&bytes| bytes > 0).map(Value::Number),
            },
            Milliseconds => match text {
                b"-1" => Some(Value::Never),
                _ => {
                    let milliseconds = digits(text)?;
                    let fits = i64::try_from(milliseconds).is_ok();
                    fits.then_some(Value::Number(milliseconds))
                }
            },
            Rate => digits(text).map(Value::Number),
        }
    }
}

impl Display for Kind {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Switch => out.write_str("0 or 1"),
            Words(words, documented) => {
                let last = usize::from(*documented) - 1;
                for (i, word) in words.iter().take(last + 1).enumerate() {
                    let before = match i {
                        0 => "",
                        _ if i == last => " or ",
                        _ => ", ",
                    };
                    write!(out, "{before}{word}")?;
                }
                Ok(())
            }
            Text(_) => out.write_str("1 or a file name"),
            File(_) => out.write_str("a file name"),
            Kind::Events => out.write_str("exit, limit, USR1, USR2, or a time such as 10m"),
            Bytes(min, max) => write!(out, "bytes from {min} to {max}, K allowed"),
            Limit => out.write_str("bytes (K, M, G allowed) or auto"),
            Milliseconds => out.write_str("milliseconds, or -1"),
            Rate => out.write_str("0 or a number N"),
        }
    }
}

impl Value<'_> {
    /// Whether it is 1.
    pub const fn is_on(&self) -> bool {
        matches!(self, Value::Switch(true))
    }

    /// Its number; 0 if it is none.
    pub const fn number(&self) -> u64 {
        match self {
            Value::Number(number) => *number,
            _ => 0,
        }
    }

    /// Its number of milliseconds; -1 for never.
    pub const fn milliseconds(&self) -> i64 {
        match self {
            Value::Number(number) => number.cast_signed(),
            _ => -1,
        }
    }

    /// Whether something has to be done for it: it is neither unset nor 0.
    pub const fn is_asked_for(&self) -> bool {
        !matches!(
            self,
            Value::Unset(_) | Value::Switch(false) | Value::Number(0)
        )
    }
}

impl Display for Value<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Unset(text) => out.write_str(text),
            Value::Switch(on) => u8::from(on).fmt(out),
            Value::Word(word) => out.write_str(word),
            Value::Text(text) => {
                let mut parts = text.utf8_chunks();
                parts.try_for_each(|part| out.write_str(part.valid()))
            }
            Value::Number(number) => number.fmt(out),
            Value::Auto => out.write_str("auto"),
            Value::Never => out.write_str("-1"),
        }
    }
}

/// A decimal number.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A number of bytes: a decimal number, and K, M or G after it or nothing.
fn bytes(text: &[u8]) -> Option<u64> {
    let (number, unit) = match text.split_last()? {
        (b'K' | b'k', number) => (number, 1 << 10),
        (b'M' | b'm', number) => (number, 1 << 20),
        (b'G' | b'g', number) => (number, 1 << 30),
        _ => (text, 1),
    };
    digits(number)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeSet;
    use std::format;
    use std::string::ToString;
    use std::vec::Vec;

    fn entries(line: &str) -> impl Iterator<Item = &[u8]> {
        line.split(' ').map(str::as_bytes)
    }

    #[test]
    fn names_differ_and_defaults_are_of_their_kinds() {
        let names = ALL.iter().map(|option| option.key.name);
        let aliases = ALL.iter().filter_map(|option| option.key.alias);
        let all: Vec<_> = names.chain(aliases).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for Opt { key, default, .. } in ALL {
            if !matches!(default, Value::Unset(_)) {
                let text = default.to_string();
                assert_eq!(
                    key.kind.parse(text.as_bytes()),
                    Some(*default),
                    "{}",
                    key.name
                );
            }
        }
    }

    #[test]
    fn options_are_found_by_both_names() {
        for (name, found) in [
            ("SOFT_LIMIT", Some("SOFT_LIMIT")),
            ("LIMIT", Some("SOFT_LIMIT")),
            ("LIMIT_HARD", Some("HARD_LIMIT")),
            ("VERBOSE", Some("VERBOSE")),
            ("", None),
            ("LIMITS", None),
            ("soft_limit", None),
        ] {
            let option = Opt::find(name.as_bytes());
            assert_eq!(option.map(|option| option.key.name), found, "{name}");
        }
    }

    #[test]
    fn each_deprecated_name_has_the_effect_of_the_new_one() {
        let deprecated = [
            ("SMALL_MAX", "POOL_MAX", "8K", "32K"),
            ("THREAD", "BACKGROUND_THREAD", "0", "1"),
            ("LIMIT", "SOFT_LIMIT", "1G", "auto"),
            ("LIMIT_HARD", "HARD_LIMIT", "2G", "auto"),
            ("LIVE", "STATS_PAGE", "1", "0"),
            ("GUARD", "GUARD_SAMPLE_RATE", "10", "1000"),
            ("FORK", "FORK_COW", "share", "freeze"),
            ("TOOLS", "TOOL_ANNOTATIONS", "0", "1"),
        ];
        let aliases = ALL.iter().filter_map(|option| option.key.alias);
        assert_eq!(aliases.count(), deprecated.len());
        for (old, new, one, other) in deprecated {
            let key = Opt::find(new.as_bytes()).unwrap().key;
            assert_eq!(key.alias, Some(old));
            let value = |line: &str| key.value(entries(line)).map(|value| value.to_string());
            let bytes = key
                .kind
                .parse(one.as_bytes())
                .map(|value| value.to_string());
            let others = key
                .kind
                .parse(other.as_bytes())
                .map(|value| value.to_string());
            assert!(bytes.is_some() && others.is_some() && bytes != others);
            assert_eq!(value(&format!("A=1 OBMALLOC_{old}={one} B=2")), bytes);
            assert_eq!(value(&format!("A=1 OBMALLOC_{new}={one} B=2")), bytes);
            // The new name counts, before or after the old one, and also with a wrong value.
            for line in [
                format!("OBMALLOC_{old}={one} OBMALLOC_{new}={other}"),
                format!("OBMALLOC_{new}={other} OBMALLOC_{old}={one}"),
            ] {
                assert_eq!(value(&line), others, "{line}");
                let entry = key.entry(entries(&line));
                assert_eq!(entry, Some((new.as_bytes(), other.as_bytes())));
            }
            for wrong in ["", "banana"] {
                assert_eq!(
                    value(&format!("OBMALLOC_{new}={wrong} OBMALLOC_{old}={one}")),
                    None
                );
            }
        }
    }

    #[test]
    fn the_last_of_several_entries_counts() {
        let line = "OBMALLOC_DECAY_MS=1 OBMALLOC_DECAY_MS=2 OBMALLOC_DECAY=3 DECAY_MS=4";
        assert_eq!(DECAY_MS.key.value(entries(line)), Some(Value::Number(2)));
        assert_eq!(DECAY_MS.key.value(entries("")), None);
    }

    #[test]
    fn entries_are_split() {
        for (entry, parts) in [
            ("OBMALLOC_X=1=2", Some(("X", "1=2"))),
            ("OBMALLOC_X=", Some(("X", ""))),
            ("OBMALLOC_X", Some(("X", ""))),
            ("OBMALLOC_", Some(("", ""))),
            ("OBMALLOC=1", None),
            ("PATH=OBMALLOC_X", None),
        ] {
            let parts = parts.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(split(entry.as_bytes()), parts, "{entry}");
        }
    }

    #[test]
    fn bytes_are_digits_with_a_unit() {
        assert_eq!(bytes(b"512"), Some(512));
        assert_eq!(bytes(b"32K"), Some(32768));
        assert_eq!(bytes(b"1g"), Some(1 << 30));
        for bad in [
            &b""[..],
            b"K",
            b"12x",
            b"-1",
            b"1KK",
            b"99999999999999999999",
            b"99999999999999999G",
        ] {
            assert_eq!(bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn kinds_refuse_other_values() {
        for (option, good, bad) in [
            (VERBOSE, &["0", "1"][..], &["yes", "2", "01"][..]),
            (ON_ERROR, &["abort", "report"], &["aborts", "ABORT"]),
            (
                POOL_MAX,
                &["512", "32K", "32768"],
                &["511", "32769", "banana", "33K"],
            ),
            (
                ALIGN,
                &["8", "16", "obj:8", "mem:8"],
                &["4", "32", "raw:8", "obj:16", "obj:"],
            ),
            (
                DECAY_MS,
                &["0", "-1", "250"],
                &["-2", "1K", "1.5", "9223372036854775808"],
            ),
            (
                SOFT_LIMIT,
                &["1", "512M", "2g", "auto"],
                &["0", "M", "12x", "-1", "0K"],
            ),
            (GUARD_SAMPLE_RATE, &["0", "1", "1000"], &["-1", "1K", "on"]),
            (
                SYSCALLS,
                &["auto", "stock"],
                &["0", "all", "STOCK", "auto stock"],
            ),
            (
                FORK_COW,
                &["auto", "share", "freeze", "seal"],
                &["sealed", "1"],
            ),
        ] {
            let kind = option.key.kind;
            for text in good {
                assert!(
                    kind.parse(text.as_bytes()).is_some(),
                    "{} {text}",
                    option.key.name
                );
            }
            for text in bad.iter().chain(&["", " ", "\0"]) {
                assert!(
                    kind.parse(text.as_bytes()).is_none(),
                    "{} {text}",
                    option.key.name
                );
            }
        }
        let long = [b'x'; 1025];
        assert_eq!(STATS.key.kind.parse(&long), None);
        assert_eq!(
            STATS.key.kind.parse(&long[1..]),
            Some(Value::Text(&long[1..]))
        );
    }

    #[test]
    fn defaults_are_what_statics_begin_with() {
        assert_eq!(DECAY_MS.default.milliseconds(), 1000);
        assert_eq!(Value::Never.milliseconds(), -1);
        assert!(BACKGROUND_THREAD.default.is_on() && !VERBOSE.default.is_on());
    }
}
