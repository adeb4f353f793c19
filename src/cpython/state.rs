//! How we are in the process: which host we serve, if any, and its version.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use super::symbols::Host;
use super::version::Version;
use crate::background::decay;
use crate::domains::compat;
use crate::stats::page;
use crate::tcache::registry;

/// How we are in the process.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Not decided: no host at start, and nothing called so far.
    Undecided,
    /// Out, as said already.
    Aside,
    /// In the host's tables.
    Table,
    /// In the host's table of MEM only: it has no GIL.
    MemTable,
    /// Before a 2.7's symbols.
    Symbols,
    /// In place of the host's `obmalloc.o`.
    InPlace,
    /// A process without CPython calls us.
    NoHost,
}

static STATE: AtomicU8 = AtomicU8::new(State::Undecided as u8);
/// The text of the host's `Py_GetVersion`; null without a host.
static VERSION: AtomicPtr<c_char> = AtomicPtr::new(core::ptr::null_mut());
/// Where the host lies that we serve.
static SERVED_AT: AtomicUsize = AtomicUsize::new(0);

/// Sets the library's state in the process.
pub(crate) fn set(state: State) {
    if let State::Table | State::Symbols | State::InPlace = state {
        registry::assume_gil(); // its GIL sees to it
    }
    STATE.store(state as u8, Relaxed);
}

/// Sets [`State::Aside`], unless another thread has decided already. Returns whether it did.
pub(crate) fn set_aside() -> bool {
    let (before, after) = (State::Undecided as u8, State::Aside as u8);
    STATE
        .compare_exchange(before, after, Relaxed, Relaxed)
        .is_ok()
}

/// Whether we are in the process in this way.
pub(crate) fn is(state: State) -> bool {
    STATE.load(Relaxed) == state as u8
}

/// The host's version, if there is a host.
pub(crate) fn host_version() -> Option<&'static str> {
    let text = VERSION.load(Acquire);
    if text.is_null() {
        return None;
    }
    // SAFETY: the host's C string, which lives as long as the process.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let len = text.iter().position(|&byte| byte == b' ');
    core::str::from_utf8(&text[..len.unwrap_or(text.len())]).ok()
}

/// Whether this is the host that we serve.
pub(crate) fn is_served(host: &Host) -> bool {
    let served = is(State::Table) || is(State::MemTable) || is(State::Symbols);
    served && SERVED_AT.load(Relaxed) == host.range().0
}

/// The host is served from now on, and stays loaded.
pub(crate) fn serve(host: &Host) {
    host.keep();
    SERVED_AT.store(host.range().0, Relaxed);
}

/// Keeps the version of the host that the status line is about.
pub(crate) fn keep_version(host: &Host) {
    let Version { minor, patch, .. } = host.version;
    if host.version.has_tables() {
        compat::set(minor, patch);
    }
    page::ask_for_host(host_version);
    decay::host_counts_threads(host.version.has_tables() && minor >= 12);
    // The text is the beginning of a C string (`Host::with`).
    VERSION.store(host.version.text.as_ptr().cast_mut().cast(), Release);
}
