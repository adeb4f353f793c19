//! Whether we serve the process we are in, decided once, and said in one line
//! when `OBMALLOC_VERBOSE=1` asks for it.
//!
//! "active" is said at the first block that is asked of us, not when we are
//! installed: so it is true by construction. A host that replaces us before
//! that is noticed at exit.

use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering::Relaxed};

use super::choice::{self, Choice, Settings};
use super::exports::Exports;
use super::reason::Reason;
use super::symbols::{self, Host};
use super::version::{Version, WayIn};
use super::{hooks, own, python2, table, theirs, tracing};
use crate::domains::era;
use crate::domains::names::{self, Name};
use crate::os::environment;
use crate::os::once::Once;
use crate::os::sandbox;
use crate::os::text::{pid, printable, say};
use crate::{arena_source, config, first_use, lane, live, packing, stats_table, watch};

/// How we are in the process.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Not decided: no host at start, and nothing called so far.
    Undecided,
    /// Out, as said already.
    Aside,
    /// In the host's tables.
    Table,
    /// Before a 2.7's symbols.
    Symbols,
    /// In place of the host's `obmalloc.o`.
    InPlace,
    /// A process without CPython calls us.
    NoHost,
}

static STATE: AtomicU8 = AtomicU8::new(State::Undecided as u8);
/// The host's version, as text.
static VERSION: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static VERSION_LEN: AtomicUsize = AtomicUsize::new(0);

fn set(state: State) {
    if let State::Table | State::Symbols | State::InPlace = state {
        lane::take_turns(); // its GIL sees to it
    }
    STATE.store(state as u8, Relaxed);
}

fn is(state: State) -> bool {
    STATE.load(Relaxed) == state as u8
}

/// The host's version, if there is a host.
pub fn host_version() -> Option<&'static str> {
    let (start, len) = (VERSION.load(Relaxed), VERSION_LEN.load(Relaxed));
    if start.is_null() {
        return None;
    }
    // SAFETY: both were set from one text, which the host keeps.
    core::str::from_utf8(unsafe { core::slice::from_raw_parts(start, len) }).ok()
}

fn read_settings_once(at_start: bool) {
    static READ: Once = Once::new();
    READ.call(|| config::read(at_start));
}

/// When we are loaded: serves the host, if the process has one that does not
/// run yet. Without a host nothing happens.
pub fn at_start() {
    let Some(host) = Host::at_start() else {
        return;
    };
    read_settings_once(true);
    if symbols::is_in_place(&host) {
        take_place(&host);
    } else if tracing::is_initialized(&host) {
        keep_version(&host);
        conclude(Err(Reason::LoadedLate));
    } else {
        attach(&host);
    }
}

/// At the first call of an exported name: what they do from now on. Decides,
/// if that was not done at start: in a C program, or for a host that was loaded
/// since. In a static host, where nobody calls them, this never happens.
pub fn when_called() -> &'static Exports {
    read_settings_once(false);
    let Some(host) = Host::anywhere() else {
        set(State::NoHost);
        first_use::then(say_active);
        if config::debug() || packing::any() || watch::is_wanted() {
            fill_own_tables();
        }
        return own::current();
    };
    if symbols::is_in_place(&host) {
        return take_place(&host);
    }
    if is(State::Undecided) {
        keep_version(&host);
        if host.version.has_tables() {
            conclude(Err(Reason::LoadedLate));
        } else {
            attach(&host);
        }
    }
    theirs::in_host(&host, is(State::Table) || is(State::Symbols))
}

/// Serves a host that runs already, under its GIL.
pub fn late() -> Result<&'static Exports, Reason> {
    read_settings_once(false);
    let Some(host) = Host::anywhere() else {
        // A C program that uses us is served without being installed in.
        return if is(State::NoHost) {
            Err(Reason::NoHost)
        } else {
            refused(Reason::NoHost)
        };
    };
    if symbols::is_in_place(&host) {
        return Ok(take_place(&host));
    }
    keep_version(&host);
    if is(State::Symbols) {
        return Ok(theirs::in_host(&host, true));
    }
    if let Err(reason) = serve_late(&host) {
        return refused(reason);
    }
    if !is(State::Table) {
        conclude(Ok(State::Table));
    }
    Ok(theirs::in_host(&host, true))
}

fn refused<T>(reason: Reason) -> Result<T, Reason> {
    say_aside(reason);
    Err(reason)
}

fn serve_late(host: &Host) -> Result<(), Reason> {
    if way_in(host)? == WayIn::Symbols {
        return Err(Reason::TooLate);
    }
    if tracing::is_initialized(host) {
        if !tracing::holds_gil(host) {
            return Err(Reason::NoGil);
        }
        if tracing::is_on(host) {
            return Err(Reason::Tracing);
        }
    }
    table::install(host)
}

/// The host is linked with us in place of its `obmalloc.o`: its calls land here
/// whatever we do. Only its version is to be known.
fn take_place(host: &Host) -> &'static Exports {
    if !is(State::InPlace) {
        keep_version(host);
        if statistics_wanted() {
            arena_source::then(stats_table::to_stderr);
        }
        fill_own_tables();
        set(State::InPlace);
        first_use::then(say_active);
    }
    own::current()
}

/// Puts into tables of our own what the settings ask for.
fn fill_own_tables() {
    let name = if config::debug() {
        Name::PymallocDebug
    } else {
        Name::Default
    };
    name.install();
}

/// Whether `PYTHONMALLOCSTATS` wants a table at each new arena.
fn statistics_wanted() -> bool {
    let wanted = environment::variable(c"PYTHONMALLOCSTATS").is_some_and(|value| !value.is_empty());
    wanted && !choice::ignores_environment(environment::arguments())
}

fn attach(host: &Host) {
    keep_version(host);
    let served = way_in(host).and_then(|way| match way {
        WayIn::Symbols => python2::serve(host).map(|()| State::Symbols),
        WayIn::Table => table::install(host).map(|()| State::Table),
    });
    conclude(served);
    if is(State::Table) && config::debug() {
        table::put_hooks_over(host);
    }
}

/// How the host is taken over, if nothing is against it.
fn way_in(host: &Host) -> Result<WayIn, Reason> {
    if host.version.free_threaded || host.symbol(c"PyUnstable_Module_SetGIL").is_some() {
        return Err(Reason::FreeThreaded);
    }
    if host.symbol(c"obmalloc_version").is_some() {
        return Err(Reason::InPlace);
    }
    let way = host.version.way_in().ok_or(Reason::Unsupported)?;
    let settings = Settings {
        arguments: environment::arguments(),
        python_malloc: environment::variable(c"PYTHONMALLOC"),
        dev_mode: environment::variable(c"PYTHONDEVMODE"),
    };
    match choice::made(&host.version, settings) {
        Some(choice) => Err(Reason::Chosen(choice)),
        None => Ok(way),
    }
}

fn conclude(served: Result<State, Reason>) {
    match served {
        Ok(state) => {
            set(state);
            if first_use::has_happened() {
                say_active();
            } else {
                first_use::then(say_active);
            }
        }
        Err(reason) => {
            set(State::Aside);
            say_aside(reason);
        }
    }
}

fn keep_version(host: &Host) {
    let Version { minor, patch, .. } = host.version;
    if host.version.has_tables() {
        era::set(minor, patch);
    }
    live::ask_for_host(host_version);
    VERSION_LEN.store(host.version.text.len(), Relaxed);
    VERSION.store(host.version.text.as_ptr().cast_mut(), Relaxed);
}

fn say_active() {
    config::complain();
    if !config::verbose() {
        return;
    }
    let (pid, version) = (pid(), host_version().unwrap_or("unknown"));
    let packed = match (packing::mem(), packing::obj()) {
        (false, false) => "",
        (false, true) => ", packed obj",
        (true, false) => ", packed mem",
        (true, true) => ", packed",
    };
    let hooks = if hooks::stand() || names::are_hooked() {
        ", under the debug hooks"
    } else {
        ""
    };
    let calls = if sandbox::is_restricted() {
        ", no system calls but stock's"
    } else {
        ""
    };
    if is(State::NoHost) {
        say(format_args!(
            "active in pid {pid}: no CPython, domains mem+obj{packed}{hooks}{calls}"
        ));
    } else {
        let python2 = version.starts_with("2.");
        let domains = if python2 { "obj" } else { "mem+obj" };
        let how = if is(State::InPlace) {
            ", linked in"
        } else {
            ""
        };
        say(format_args!(
            "active in pid {pid}: CPython {version}, domains {domains}{packed}{how}{hooks}{calls}"
        ));
    }
}

fn say_aside(reason: Reason) {
    if !config::verbose() {
        return;
    }
    let (pid, version) = (pid(), host_version().unwrap_or("unknown"));
    let aside = |text: &str| say(format_args!("standing aside in pid {pid}: {text}"));
    match reason {
        Reason::Unsupported => say(format_args!(
            "standing aside in pid {pid}: CPython {version} is not one of those served (2.7, 3.6 to 3.14)"
        )),
        Reason::Chosen(Choice::PythonMalloc(value)) => say(format_args!(
            "standing aside in pid {pid}: PYTHONMALLOC={} chooses the allocator",
            printable(value)
        )),
        Reason::Chosen(Choice::DevOption) => aside("-X dev chooses the allocator"),
        Reason::Chosen(Choice::DevVariable) => aside("PYTHONDEVMODE chooses the allocator"),
        Reason::NoHost => aside("no CPython in this process"),
        Reason::FreeThreaded => say(format_args!(
            "standing aside in pid {pid}: CPython {version} is free-threaded, its collector needs its own allocator"
        )),
        Reason::OtherAllocator => aside("another allocator is installed already"),
        Reason::NoTables => aside("this CPython has no tables to install in"),
        Reason::NotInterposable => aside("this CPython's own calls cannot be proved to go by name"),
        Reason::LoadedLate => aside(
            "not there from the start; obmalloc_install(), under the GIL, switches the library on",
        ),
        Reason::InPlace => aside("the library is linked into this CPython"),
        Reason::TooLate => aside("CPython 2.7 can be served from the start only, by preloading"),
        Reason::Tracing => aside("tracemalloc is tracing; stop it first"),
        Reason::NoGil => aside("obmalloc_install() was called without the GIL"),
    }
}

/// At exit: says so if the host has replaced us before it allocated anything.
pub fn at_exit() {
    let installed = is(State::Table) || is(State::Symbols) || is(State::InPlace);
    if installed && !first_use::has_happened() && config::verbose() {
        let pid = pid();
        say(format_args!(
            "standing aside in pid {pid}: the host replaced the allocator before its first allocation"
        ));
    }
}
