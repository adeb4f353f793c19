//! Whether the library serves the process, decided once, and the status line about it
//! (`format/src/status.rs`), which `OBMALLOC_VERBOSE=1` enables.
//!
//! "active" is written at the first block that is requested, not when the library is
//! installed: so it is true by construction. A host that replaces the library's functions
//! before that is noticed at exit.

use core::ffi::c_int;

use format::status::{Active, Aside, Reason};

use super::exports::Exports;
use super::gil::{self, Gil};
use super::state::{State, host_version, is, is_served, keep_version, serve, set};
use super::symbols::{self, Host};
use super::user_choice::{self, Settings};
use super::version::WayIn;
use super::{builtin, company, forward, hooks, install, python2, several, state, tracing};
use crate::arena::chunk;
use crate::background::init;
use crate::config;
use crate::domains::names::{self, Name};
use crate::heap::HEAP;
use crate::inspect::debug_offsets::DebugOffsets;
use crate::os::environment;
use crate::os::once::Once;
use crate::os::sandbox;
use crate::os::text::{log, pid, printable};
use crate::policy::alignment;
use crate::profile;
use crate::stats::debug_stats;
use crate::tcache::registry;
use crate::tools;

fn read_settings_once(at_start: bool) {
    static READ: Once = Once::new();
    READ.call(|| config::read(at_start));
}

/// When the library is loaded: serves the host, if the process has one that does not run yet.
/// Without a host nothing happens.
pub(crate) fn at_start() {
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

/// At the first call of an exported name: the functions behind the exported names from now on,
/// or `None` if they depend on the caller. Decides whether the process is served, if that was
/// not done at start: in a C program, or for a host that was loaded later. A static host never
/// calls an exported name.
pub(crate) fn when_called() -> Option<&'static Exports> {
    read_settings_once(false);
    let mut hosts = Host::all();
    let Some(host) = hosts.next() else {
        if !is(State::NoHost) {
            set(State::NoHost);
            init::on_first_use(say_active);
            if config::debug() || alignment::any() || tools::is_wanted() {
                fill_own_tables();
            }
        }
        return Some(builtin::current());
    };
    if symbols::is_in_place(&host) {
        return Some(take_place(&host));
    }
    let several = hosts.next().is_some();
    if is(State::Undecided) {
        keep_version(&host);
        if host.version.has_tables() {
            conclude(Err(Reason::LoadedLate));
        } else if several {
            conclude(Err(Reason::TooLate));
        } else {
            attach(&host);
        }
    }
    if several || is(State::NoHost) {
        company::by_caller();
        return None;
    }
    Some(company::exports_of_first(&host))
}

/// Serves a host that runs already, under its GIL. `None` if the functions behind the exported
/// names depend on the caller.
pub(crate) fn late() -> Result<Option<&'static Exports>, Reason> {
    read_settings_once(false);
    let mut hosts = Host::all();
    let (first, second) = (hosts.next(), hosts.next());
    let several = several::is_on() || second.is_some();
    let found = if second.is_some() {
        let all = Host::all().map(|host| (host, Gil::of(&host)));
        gil::only_holder(all).ok_or(Reason::NoGil)
    } else {
        first.ok_or(Reason::NoHost)
    };
    let host = match found {
        Ok(host) => host,
        // A C program that calls the library is served without an installation.
        Err(Reason::NoHost) if is(State::NoHost) => return Err(Reason::NoHost),
        Err(reason) => return refused(reason),
    };
    if symbols::is_in_place(&host) {
        return Ok(Some(take_place(&host)));
    }
    if !is_served(&host) {
        if is(State::Table) || is(State::Symbols) {
            return refused(Reason::ServesAnother);
        }
        keep_version(&host);
        if let Err(reason) = serve_late(&host) {
            return refused(reason);
        }
        obey_huge_pages(&host);
        serve(&host);
        conclude(Ok(State::Table));
    } else if is(State::Table) {
        // The host may have set its tables again.
        serve_late(&host).or_else(refused)?;
    }
    let exports = forward::in_host(&host, true);
    if several {
        company::by_caller();
        return Ok(None);
    }
    Ok(Some(exports))
}

fn refused<T>(reason: Reason) -> Result<T, Reason> {
    say_aside(reason);
    Err(reason)
}

fn serve_late(host: &Host) -> Result<(), Reason> {
    match way_in(host)? {
        WayIn::Symbols => return Err(Reason::TooLate),
        // Other threads read the table while it would be written.
        WayIn::MemTable => return Err(Reason::FreeThreaded),
        WayIn::Table => {}
    }
    if tracing::is_initialized(host) {
        if !tracing::holds_gil(host) {
            return Err(Reason::NoGil);
        }
        if tracing::is_on(host) {
            return Err(Reason::Tracing);
        }
    }
    install::install(host)
}

/// The host is linked with the library in place of its `obmalloc.o`: its calls arrive here
/// in any case. Only its version has to be read.
fn take_place(host: &Host) -> &'static Exports {
    if !is(State::InPlace) {
        keep_version(host);
        obey_huge_pages(host);
        if statistics_wanted() {
            chunk::on_arena_added(debug_stats::to_stderr);
        }
        fill_own_tables();
        set(State::InPlace);
        init::on_first_use(say_active);
    }
    builtin::current()
}

/// Obeys `PYTHON_PYMALLOC_HUGEPAGES`, which requests huge pages from 3.15 on: a number that is not 0.
fn obey_huge_pages(host: &Host) {
    let is_wanted = |value: &[u8]| {
        value.iter().all(u8::is_ascii_digit) && value.iter().any(|&digit| digit != b'0')
    };
    if host.version.has_huge_pages()
        && environment::variable(c"PYTHON_PYMALLOC_HUGEPAGES").is_some_and(is_wanted)
        && !user_choice::ignores_environment(environment::arguments())
    {
        config::want_huge_pages_by_default();
    }
}

/// Fills the builtin tables with the allocator that the settings choose.
fn fill_own_tables() {
    let name = if config::debug() {
        Name::PymallocDebug
    } else {
        Name::Default
    };
    name.install();
}

/// Whether `PYTHONMALLOCSTATS` requests a table at each new arena.
fn statistics_wanted() -> bool {
    let wanted = environment::variable(c"PYTHONMALLOCSTATS").is_some_and(|value| !value.is_empty());
    wanted && !user_choice::ignores_environment(environment::arguments())
}

fn attach(host: &Host) {
    keep_version(host);
    let served = way_in(host).and_then(|way| match way {
        WayIn::Symbols => python2::serve(host).map(|()| State::Symbols),
        WayIn::Table => install::install(host).map(|()| State::Table),
        WayIn::MemTable => install::install_in_mem(host).map(|()| State::MemTable),
    });
    if served.is_ok() {
        obey_huge_pages(host);
        serve(host);
        if profile::is_wanted() && served == Ok(State::Table) {
            install::sample_raw(host);
        }
    }
    conclude(served);
    if is(State::Table) && config::debug() {
        install::put_hooks_over(host);
    }
}

/// Starts the heap profiler: see `obmalloc_profile_start`.
pub(crate) fn start_profile(interval: usize) -> Result<(), c_int> {
    profile::start(interval)?;
    // So that the thread's next blocks come by a refill, which counts them.
    if let Some(magazines) = registry::current() {
        magazines.flush_all(&HEAP);
    }
    if is(State::Table)
        && let Some(host) = Host::all().find(is_served)
        && (!tracing::is_initialized(&host) || tracing::holds_gil(&host) && !tracing::is_on(&host))
    {
        install::sample_raw(&host);
    }
    Ok(())
}

/// Whether the host is built without a GIL, by any of three signs.
fn is_free_threaded(host: &Host) -> bool {
    let in_runtime = || {
        let runtime = host.symbol(c"_PyRuntime")?;
        // SAFETY: this name is CPython's; a host that is being served stays loaded.
        Some(unsafe { DebugOffsets::at(runtime) }?.is_free_threaded())
    };
    host.version.free_threaded
        || host.symbol(c"PyUnstable_Module_SetGIL").is_some()
        || in_runtime() == Some(true)
}

/// The way in which the host can be served, or the reason why not.
fn way_in(host: &Host) -> Result<WayIn, Reason> {
    let free_threaded = is_free_threaded(host);
    if free_threaded && !config::serves_free_threaded() {
        return Err(Reason::FreeThreaded);
    }
    if host.symbol(c"obmalloc_version").is_some() {
        return Err(Reason::LinkedIn);
    }
    let way = host.version.way_in().ok_or(Reason::Unsupported)?;
    let settings = Settings {
        arguments: environment::arguments(),
        python_malloc: environment::variable(c"PYTHONMALLOC"),
        dev_mode: environment::variable(c"PYTHONDEVMODE"),
    };
    match user_choice::made(&host.version, settings) {
        Some(reason) => Err(reason),
        None if free_threaded => Ok(WayIn::MemTable),
        None => Ok(way),
    }
}

fn conclude(served: Result<State, Reason>) {
    match served {
        Ok(state) => {
            set(state);
            if init::has_happened() {
                say_active();
            } else {
                init::on_first_use(say_active);
            }
        }
        Err(reason) => {
            if state::set_aside() {
                say_aside(reason);
            }
        }
    }
}

fn say_active() {
    config::warn_unknown();
    if !config::verbose() {
        return;
    }
    let host = (!is(State::NoHost)).then(|| host_version().unwrap_or("unknown"));
    let is_python2 = host.is_some_and(|version| version.starts_with("2."));
    let line = Active {
        pid: pid(),
        host,
        domains: match () {
            () if is_python2 => "obj",
            () if is(State::MemTable) => "mem",
            () => "mem+obj",
        },
        packed: (alignment::mem(), alignment::obj()),
        linked_in: is(State::InPlace),
        under_hooks: hooks::stand() || names::are_hooked(),
        restricted: sandbox::is_restricted(),
    };
    log(format_args!("{line}"));
}

fn say_aside(reason: Reason) {
    if !config::verbose() {
        return;
    }
    let detail = match reason {
        Reason::PythonMalloc => {
            let value = environment::variable(c"PYTHONMALLOC");
            printable(value.unwrap_or_default())
        }
        _ => host_version().unwrap_or("unknown"),
    };
    let line = Aside {
        pid: pid(),
        reason,
        detail,
    };
    log(format_args!("{line}"));
}

/// At exit: reports a host that has replaced the library's functions before it allocated.
pub(crate) fn at_exit() {
    let served = [
        State::Table,
        State::MemTable,
        State::Symbols,
        State::InPlace,
    ];
    let installed = served.into_iter().any(is);
    if installed && !init::has_happened() {
        say_aside(Reason::Replaced);
    }
}
