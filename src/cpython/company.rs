//! More than one CPython: which have been found, and when calls of the exported names begin to be
//! dispatched by their callers (`several.rs`).

use core::ptr;

use super::elf::Loaded;
use super::exports::Exports;
use super::state::{State, is, is_served};
use super::symbols::Host;
use super::{builtin, forward, lookup, several};
use crate::config;
use crate::os::text::{log, pid};

/// The exports for the host that was found first. It stays loaded from now on.
pub(crate) fn exports_of_first(host: &Host) -> &'static Exports {
    host.keep();
    forward::in_host(host, is_served(host))
}

/// Dispatches calls by their callers from now on. A caller that belongs to no host counts as the
/// first host's, or, if the process used the library before it had a host, as a C program's.
pub(crate) fn by_caller() {
    for (n, host) in Host::all().enumerate() {
        let exports = if n == 0 && !several::is_on() && !is(State::NoHost) {
            let first = exports_of_first(&host);
            several::set_others(first);
            Some(first)
        } else if is_served(&host) {
            Some(forward::in_host(&host, true))
        } else {
            None
        };
        if !several::is_on() {
            several::set_others(builtin::current());
        }
        host.keep();
        let is_new = several::enter(&host, exports);
        // The first host's line is that of the library standing aside, unless another one is served.
        let has_line = n == 0 && !is(State::NoHost) && !is(State::Table);
        if is_new && !is_served(&host) && !has_line {
            say_left_alone(&host);
        }
    }
    several::look_for_global();
}

/// Whether another host may be loaded. Not if the library is linked into one, whose libpython
/// exports the names itself.
pub(crate) fn may_come() -> bool {
    !is(State::InPlace)
}

/// Called when the object at this address was loaded, after the dispatch was decided. Returns whether
/// calls are dispatched by their callers from now on.
pub(crate) fn when_loaded(address: usize) -> bool {
    let Some(object) = Loaded::at(ptr::without_provenance(address)) else {
        return false;
    };
    let is_host = object.symbol(c"Py_GetVersion").is_some();
    let is_first = [&lookup::SERVED, &lookup::ASIDE]
        .iter()
        .any(|first| first.lies_at(object.range()));
    if is_host && (several::is_on() || is(State::NoHost) || !is_first) {
        by_caller();
        return true;
    }
    if several::is_on() {
        several::look_for_global();
    }
    false
}

fn say_left_alone(host: &Host) {
    if config::verbose() {
        let (pid, version) = (pid(), host.version.text);
        let why = if is(State::NoHost) {
            "the program used the library before"
        } else {
            "it is not the only CPython in this process"
        };
        log(format_args!(
            "CPython {version} in pid {pid} keeps its own allocator: {why}"
        ));
    }
}
