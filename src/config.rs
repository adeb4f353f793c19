//! Settings: the options (`format/src/options.rs`) that the environment sets, read once, at
//! start.
//!
//! Lower folders have statics whose initial values are the options' defaults, and this one sets
//! them, so that no lower folder reads the environment. A name that is no option, or a value
//! that is not of its kind, is reported in one line where the library is active, and has no
//! effect: it is never fatal, and never a line in somebody else's program.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use format::events::Events;
use format::options::{self, Key, Kind, NOT_UNDERSTOOD, Opt, Value};

use crate::background::decay;
use crate::base::size_class::{MEDIUM_MAX, SMALL_MAX};
use crate::guard;
use crate::os::environment::{self, variables};
use crate::os::kept_text::KeptText;
use crate::os::text::{log, printable};
use crate::os::{descriptor, process, sandbox, thp};
use crate::policy::alignment;
use crate::policy::fork_cow::{self, Rule};
use crate::policy::huge_pages;
use crate::policy::limits::{self, Limit};
use crate::policy::size_policy;
use crate::pool::invalid_free;
use crate::profile;
use crate::stats::{dumps, page};
use crate::tools::annotate;

/// An option, and the function that a value is given to.
struct Setting {
    key: Key,
    apply: fn(Value<'static>),
}

impl Setting {
    /// Copies the key only: the texts for people would take two pages in every process.
    const fn of(option: &Opt, apply: fn(Value<'static>)) -> Setting {
        let key = option.key;
        Setting { key, apply }
    }
}

/// All options, in the order of `options::ALL`.
static SETTINGS: [Setting; options::ALL.len()] = [
    Setting::of(&options::VERBOSE, |value| VERBOSE.set(value)),
    Setting::of(&options::STATS, |value| {
        if let Value::Text(text) = value {
            descriptor::note_named(text);
            STATS.keep(text);
        }
    }),
    Setting::of(&options::STATS_PAGE, |value| {
        page::want(value.is_on());
    }),
    Setting::of(&options::DEBUG, |value| DEBUG.set(value)),
    Setting::of(&options::ON_ERROR, |value| {
        invalid_free::set_continue(value == Value::Word("report"));
    }),
    Setting::of(&options::POOL_MAX, |value| {
        size_policy::set(value.number() as usize);
    }),
    Setting::of(&options::ALIGN, |value| {
        let is = |word| value == Value::Word(word);
        alignment::set(is("8") || is("mem:8"), is("8") || is("obj:8"));
    }),
    Setting::of(&options::DECAY_MS, |value| {
        decay::set_interval(value.milliseconds());
    }),
    Setting::of(&options::SOFT_LIMIT, |value| limits::set_soft(limit(value))),
    Setting::of(&options::HARD_LIMIT, |value| limits::set_hard(limit(value))),
    Setting::of(&options::THP, |value| {
        huge_pages::want(value == Value::Word("always"));
        THP_NEVER.0.store(value == Value::Word("never"), Relaxed);
    }),
    Setting::of(&options::FORK_COW, |value| {
        fork_cow::set_rule(match value {
            Value::Word("auto") => Rule::Auto,
            Value::Word("share") => Rule::Share,
            _ => Rule::Freeze,
        });
    }),
    Setting::of(&options::GUARD_SAMPLE_RATE, |value| {
        guard::set_rate(value.number() as usize);
    }),
    Setting::of(&options::PROFILE, |value| {
        profile::want(value.number() as usize);
        if value.number() > 0 {
            page::want(true);
        }
    }),
    Setting::of(&options::PROFILE_MEMORY, |value| {
        profile::set_memory(value.number() as usize);
    }),
    Setting::of(&options::PROFILE_NATIVE, |value| {
        profile::set_native(value.is_on());
    }),
    Setting::of(&options::PROFILE_ON, |value| {
        if let Value::Text(text) = value
            && let Some(events) = Events::parse(text)
        {
            dumps::set_events(&events);
        }
    }),
    Setting::of(&options::PROFILE_FILE, |value| {
        if let Value::Text(path) = value {
            dumps::set_file(path);
        }
    }),
    Setting::of(&options::TOOL_ANNOTATIONS, |value| TOOLS.set(value)),
    Setting::of(&options::FREE_THREADED, |value| {
        FREE_THREADED_MEM
            .0
            .store(value == Value::Word("mem"), Relaxed);
    }),
    Setting::of(&options::SYSCALLS, |value| {
        if value == Value::Word("stock") {
            sandbox::restrict();
        }
    }),
    Setting::of(&options::BACKGROUND_THREAD, |value| {
        decay::allow_thread(value.is_on());
        page::allow_thread(value.is_on());
    }),
];

const _: () = assert!(
    matches!(options::PROFILE_FILE.key.kind, Kind::File(max) if max == dumps::FILE_MAX),
    "the path of profiles has room"
);

const _: () = assert!(
    matches!(options::POOL_MAX.key.kind, Kind::Bytes(min, max)
        if min == SMALL_MAX as u64 && max == MEDIUM_MAX as u64),
    "the range of POOL_MAX is that of the classes"
);

fn limit(value: Value<'_>) -> Limit {
    match value {
        Value::Auto => Limit::Auto,
        value => Limit::Bytes(value.number() as usize),
    }
}

/// A switch that this file keeps.
struct Flag(AtomicBool);

impl Flag {
    const fn of(option: &Opt) -> Flag {
        Flag(AtomicBool::new(option.default.is_on()))
    }

    fn set(&self, value: Value<'_>) {
        self.0.store(value.is_on(), Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

static VERBOSE: Flag = Flag::of(&options::VERBOSE);
static DEBUG: Flag = Flag::of(&options::DEBUG);
static TOOLS: Flag = Flag::of(&options::TOOL_ANNOTATIONS);
/// Whether `OBMALLOC_FREE_THREADED` is `mem`.
static FREE_THREADED_MEM: Flag = Flag(AtomicBool::new(false));
/// Whether `OBMALLOC_THP` is `never`.
static THP_NEVER: Flag = Flag(AtomicBool::new(false));
#[unsafe(link_section = ".bss.tables")]
static STATS: KeptText<TEXT_MAX> = KeptText::new();

const TEXT_MAX: usize = match options::STATS.key.kind {
    Kind::Text(max) => max,
    _ => panic!("STATS is a text"),
};

/// Whether the status line is wanted.
pub(crate) fn verbose() -> bool {
    VERBOSE.get()
}

/// Whether CPython's debug hooks are wanted over the library.
pub(crate) fn debug() -> bool {
    DEBUG.get()
}

/// The value of `OBMALLOC_STATS`, unless it is unset, empty or 0.
pub(crate) fn stats() -> Option<&'static [u8]> {
    let value = STATS.get();
    (!value.is_empty() && value != b"0").then_some(value)
}

/// Reads the environment. A program with more rights than its user keeps the defaults.
/// `at_start`: called by the loader, when no thread of the program opens a descriptor at the
/// same time, so that files may be opened.
pub(crate) fn read(at_start: bool) {
    // SYSCALLS first: whether files may be opened depends on it.
    let is_trusted = !environment::privileged();
    let stock = Some(Value::Word("stock"));
    if is_trusted && options::SYSCALLS.key.value(variables()) == stock {
        sandbox::restrict();
    } else {
        sandbox::begin(if at_start {
            process::is_filtered()
        } else {
            None
        });
    }
    if is_trusted {
        for Setting { key, apply } in &SETTINGS {
            if let Some(value) = key.value(variables()) {
                apply(value);
            }
        }
    }
    drop_what_needs_calls();
    if at_start && !THP_NEVER.get() && !sandbox::is_restricted() {
        huge_pages::come_unasked(thp::come_unasked());
    }
    annotate::look(TOOLS.get());
}

/// Whether the domain MEM of a build without a GIL is served.
pub(crate) fn serves_free_threaded() -> bool {
    FREE_THREADED_MEM.get()
}

/// Requests huge pages, unless `OBMALLOC_THP` or a sandbox decides.
pub(crate) fn want_huge_pages_by_default() {
    let is_set = !environment::privileged() && options::THP.key.value(variables()).is_some();
    if !is_set && !sandbox::is_restricted() {
        huge_pages::want(true);
    }
}

fn drop_what_needs_calls() {
    if sandbox::is_restricted() {
        page::want(false);
        huge_pages::want(false);
        guard::set_rate(0);
        profile::want(0);
    }
}

/// Reports in a line each variable that is not understood, or has no effect in a sandbox.
pub(crate) fn warn_unknown() {
    drop_what_needs_calls();
    if environment::privileged() {
        return;
    }
    for entry in variables() {
        let why = match state_of(entry) {
            State::Understood => continue,
            State::NotUnderstood => NOT_UNDERSTOOD,
            State::NotInStock => ": without effect under OBMALLOC_SYSCALLS=stock",
        };
        log(format_args!("{}{why}", printable(entry)));
    }
}

/// What becomes of an entry of the environment.
#[derive(PartialEq, Eq, Debug)]
enum State {
    /// It has an effect; or it is another program's, or its name is deprecated and the present
    /// one is set, too.
    Understood,
    /// It is no option, or has no value of the option's kind.
    NotUnderstood,
    /// The system calls that it takes are not made.
    NotInStock,
}

fn state_of(entry: &'static [u8]) -> State {
    let Some((name, text)) = options::split(entry) else {
        return State::Understood;
    };
    let setting = SETTINGS.iter().find(|setting| setting.key.has_name(name));
    let Some(Setting { key, .. }) = setting else {
        return State::NotUnderstood;
    };
    let in_force = key
        .entry(variables())
        .is_none_or(|(other, _)| other == name);
    if text.is_empty() || !in_force {
        return State::Understood;
    }
    match key.kind.parse(text) {
        None => State::NotUnderstood,
        Some(value) if key.not_in_stock && sandbox::is_restricted() && value.is_asked_for() => {
            State::NotInStock
        }
        Some(_) => State::Understood,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn settings_are_the_options_in_their_order() {
        let names = SETTINGS.iter().map(|setting| setting.key.name);
        let options = options::ALL.iter().map(|option| option.key.name);
        assert!(names.eq(options));
    }

    #[test]
    fn help_has_the_numbers_of_the_size_policy() {
        let numbers = [
            format!("unset: {SMALL_MAX}, "),
            format!("and {} once", size_policy::DEFAULT),
            format!("has {} MiB", size_policy::LARGE_PROGRAM >> 20),
            format!("or {} larger requests", size_policy::MANY),
        ];
        for number in numbers {
            assert!(options::POOL_MAX.help.contains(&number), "{number}");
        }
    }

    /// The statics of the folders begin so.
    #[test]
    fn default_words_are_those_of_the_folders() {
        for (option, word) in [
            (&options::FORK_COW, "auto"),
            (&options::THP, "auto"),
            (&options::ALIGN, "16"),
            (&options::ON_ERROR, "abort"),
            (&options::SYSCALLS, "auto"),
        ] {
            assert_eq!(option.default, Value::Word(word), "{}", option.key.name);
        }
    }

    #[test]
    fn entries_that_are_not_understood_are_found() {
        for (entry, state) in [
            ("PATH=/bin", State::Understood),
            ("OBMALLOC_VERBOSE=1", State::Understood),
            ("OBMALLOC_VERBOSE=", State::Understood),
            ("OBMALLOC_VERBOSE", State::Understood),
            ("OBMALLOC_LIMIT=1G", State::Understood),
            ("OBMALLOC_SOFT_LIMIT=auto", State::Understood),
            ("OBMALLOC_VERBOSE=yes", State::NotUnderstood),
            ("OBMALLOC_LIMIT=0", State::NotUnderstood),
            ("OBMALLOC_SOFT_LIMIT=0", State::NotUnderstood),
            ("OBMALLOC_", State::NotUnderstood),
            ("OBMALLOC_LIMITS=1", State::NotUnderstood),
        ] {
            assert_eq!(state_of(entry.as_bytes()), state, "{entry}");
        }
    }
}
