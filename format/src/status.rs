//! The status line: whether the library serves a process, and why not.
//!
//! The library writes it, `obmalloc doctor` reads it, and both take its words from here. A
//! reason has a code for programs and a text for people.

use core::fmt::{self, Display, Formatter};

/// The beginning of each line of the library on stderr.
pub const PREFIX: &str = "obmalloc: ";

const ACTIVE: &str = "active in pid ";
const ASIDE: &str = "standing aside in pid ";
const DOMAINS: &str = ", domains ";
const UNDER_HOOKS: &str = ", under the debug hooks";

/// Makes the enum, and what is known of each reason.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal:
       $before:literal $(, detail, $after:literal)?;)*) => {
        /// Why the library does not serve a process.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// Its code: never changes, and no other reason has it.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)*
                }
            }

            /// Whether its text has a part that differs between processes.
            pub const fn has_detail(self) -> bool {
                match self {
                    $(Reason::$name => false $(|| !$after.is_empty())?,)*
                }
            }

            /// Its text in the status line, before and after the detail.
            const fn text(self) -> (&'static str, &'static str) {
                match self {
                    $(Reason::$name => ($before, concat!("" $(, $after)?)),)*
                }
            }
        }
    };
}

reasons! {
    /// The process has no CPython.
    NoHost = "no_host": "no CPython in this process";
    /// Its version is not one of those that are served; the detail is the version.
    Unsupported = "unsupported": "CPython ", detail, " is not one of those served (2.7, 3.6 and later)";
    /// It is built without a GIL: its collector walks its own allocator's pages. The detail is
    /// the version.
    FreeThreaded = "free_threaded": "CPython ", detail, " is free-threaded, its collector needs its own allocator";
    /// `PYTHONMALLOC` names an allocator; the detail is its value.
    PythonMalloc = "pythonmalloc": "PYTHONMALLOC=", detail, " chooses the allocator";
    /// `-X dev` is on the command line.
    DevOption = "dev_option": "-X dev chooses the allocator";
    /// `PYTHONDEVMODE` is set.
    DevVariable = "dev_variable": "PYTHONDEVMODE chooses the allocator";
    /// The host's tables have another allocator's functions.
    OtherAllocator = "other_allocator": "another allocator is installed already";
    /// It has no tables of allocators, or none of a known form.
    NoTables = "no_tables": "this CPython has no tables to install in";
    /// Its functions do not reach the tables that are set.
    SelfCheck = "self_check": "the calls of this CPython do not reach the tables that it was given";
    /// A 2.7 whose calls cannot be proved to reach the library.
    NotInterposable = "not_interposable": "this CPython's own calls cannot be proved to go by name";
    /// The library or CPython was loaded late, without a call of `obmalloc_install`.
    LoadedLate = "loaded_late": "not there from the start; obmalloc_install(), under the GIL, switches the library on";
    /// The host is linked with the library.
    LinkedIn = "linked_in": "the library is linked into this CPython";
    /// A 2.7 that runs already.
    TooLate = "too_late": "CPython 2.7 can be served from the start only, by preloading";
    /// tracemalloc is tracing.
    Tracing = "tracing": "tracemalloc is tracing; stop it first";
    /// `obmalloc_install` was called without the GIL.
    NoGil = "no_gil": "obmalloc_install() was called without the GIL";
    /// The host's debug hooks are in its tables, and cannot be put over the library.
    DebugHooks = "debug_hooks": "its debug hooks cannot be put over the library";
    /// Another CPython of the process is served.
    ServesAnother = "serves_another": "another CPython of this process is served";
    /// The host has set other tables since the library was installed.
    Replaced = "replaced": "the host replaced the allocator before its first allocation";
}

impl Reason {
    /// The reason whose text this is, with any detail.
    pub fn of_text(text: &str) -> Option<Reason> {
        let is_its = |reason: &&Reason| {
            let (before, after) = reason.text();
            let rest = text.strip_prefix(before);
            rest.is_some_and(|rest| match reason.has_detail() {
                true => rest.ends_with(after),
                false => rest.is_empty(),
            })
        };
        Reason::ALL.iter().find(is_its).copied()
    }
}

/// The line of a library that does not serve its process, after [`PREFIX`].
pub struct Aside<'a> {
    /// The process.
    pub pid: i32,
    /// Why it does not.
    pub reason: Reason,
    /// The part that differs between processes, if the reason has one.
    pub detail: &'a str,
}

impl Display for Aside<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let pid = self.pid;
        let (before, after) = self.reason.text();
        let detail = if self.reason.has_detail() {
            self.detail
        } else {
            ""
        };
        write!(out, "standing aside in pid {pid}: {before}{detail}{after}")
    }
}

/// The line of a library that serves its process, after [`PREFIX`].
pub struct Active<'a> {
    /// The process.
    pub pid: i32,
    /// The host's version; `None` if the process has no CPython.
    pub host: Option<&'a str>,
    /// The domains that are served.
    pub domains: &'a str,
    /// Whether blocks of MEM and of OBJ are packed (`OBMALLOC_ALIGN`).
    pub packed: (bool, bool),
    /// The host is linked with the library.
    pub linked_in: bool,
    /// Debug hooks call the library.
    pub under_hooks: bool,
    /// The library makes no system calls that CPython's own allocator does not make.
    pub restricted: bool,
}

impl Display for Active<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Active { pid, domains, .. } = self;
        let (python, version) = match self.host {
            Some(version) => ("CPython ", version),
            None => ("no CPython", ""),
        };
        let packed = match self.packed {
            (false, false) => "",
            (false, true) => ", packed obj",
            (true, false) => ", packed mem",
            (true, true) => ", packed",
        };
        let part = |is_so, text| if is_so { text } else { "" };
        let linked_in = part(self.linked_in, ", linked in");
        let hooks = part(self.under_hooks, UNDER_HOOKS);
        let calls = part(self.restricted, ", no system calls but stock's");
        write!(
            out,
            "active in pid {pid}: {python}{version}, domains \
             {domains}{packed}{linked_in}{hooks}{calls}"
        )
    }
}

/// A status line that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// The process.
    pub pid: u32,
    /// What it says after the pid.
    pub text: &'a str,
    /// Whether the library serves the process.
    pub verdict: Verdict,
}

/// Whether the library serves a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does.
    Active,
    /// It does not; `None` for a reason of another version of the library.
    Aside(Option<Reason>),
}

impl<'a> Line<'a> {
    /// Reads a line with its [`PREFIX`]; `None` if it is another line than a status line.
    pub fn read(line: &'a str) -> Option<Line<'a>> {
        let line = line.strip_prefix(PREFIX)?;
        let (is_active, rest) = match line.strip_prefix(ACTIVE) {
            Some(rest) => (true, rest),
            None => (false, line.strip_prefix(ASIDE)?),
        };
        let (pid, text) = rest.split_once(": ")?;
        Some(Line {
            pid: pid.parse().ok()?,
            text,
            verdict: match is_active {
                true => Verdict::Active,
                false => Verdict::Aside(Reason::of_text(text)),
            },
        })
    }

    /// The domains that an active library serves.
    pub fn domains(&self) -> Option<&'a str> {
        self.text.split_once(DOMAINS)?.1.split(',').next()
    }

    /// Whether debug hooks call an active library.
    pub fn is_under_hooks(&self) -> bool {
        self.text.contains(UNDER_HOOKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeSet;
    use std::format;

    #[test]
    fn each_reason_is_read_as_it_was_written() {
        for &reason in Reason::ALL {
            let detail = if reason.has_detail() { "3.5.2" } else { "" };
            let aside = Aside {
                pid: 17,
                reason,
                detail,
            };
            let line = format!("{PREFIX}{aside}");
            let read = Line::read(&line).unwrap();
            assert_eq!(read.pid, 17);
            assert_eq!(read.verdict, Verdict::Aside(Some(reason)), "{line}");
            assert_eq!(read.text.contains("3.5.2"), !detail.is_empty(), "{line}");
        }
    }

    #[test]
    fn codes_are_words_and_differ() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for code in codes {
            let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(!code.is_empty() && code.chars().all(is_word), "{code}");
        }
    }

    #[test]
    fn another_text_is_no_reason() {
        for text in ["", "CPython 3.5", "tracemalloc is tracing", "-X dev"] {
            assert_eq!(Reason::of_text(text), None, "{text}");
        }
        let line = Line::read("obmalloc: standing aside in pid 3: of 2031").unwrap();
        assert_eq!(line.verdict, Verdict::Aside(None));
        for line in [
            "",
            "obmalloc: ",
            "obmalloc: active",
            "obmalloc: active in pid x: y",
        ] {
            assert_eq!(Line::read(line), None, "{line}");
        }
    }

    #[test]
    fn an_active_line_is_read_as_it_was_written() {
        let mut active = Active {
            pid: 20728,
            host: Some("3.11.2"),
            domains: "mem+obj",
            packed: (false, false),
            linked_in: false,
            under_hooks: false,
            restricted: false,
        };
        let line = format!("{PREFIX}{active}");
        assert_eq!(
            line,
            "obmalloc: active in pid 20728: CPython 3.11.2, domains mem+obj"
        );
        let read = Line::read(&line).unwrap();
        assert_eq!((read.pid, read.verdict), (20728, Verdict::Active));
        assert_eq!(read.domains(), Some("mem+obj"));
        assert!(!read.is_under_hooks());
        active = Active {
            packed: (false, true),
            linked_in: true,
            under_hooks: true,
            restricted: true,
            ..active
        };
        assert_eq!(
            format!("{active}"),
            "active in pid 20728: CPython 3.11.2, domains mem+obj, packed obj, linked in, \
             under the debug hooks, no system calls but stock's"
        );
        let line = format!("{PREFIX}{active}");
        let read = Line::read(&line).unwrap();
        assert_eq!(read.domains(), Some("mem+obj"));
        assert!(read.is_under_hooks());
        let plain = Active {
            host: None,
            packed: (true, true),
            linked_in: false,
            under_hooks: false,
            restricted: false,
            ..active
        };
        assert_eq!(
            format!("{plain}"),
            "active in pid 20728: no CPython, domains mem+obj, packed"
        );
    }
}
