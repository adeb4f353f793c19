//! The host's symbols: is there a CPython in this process, and where are its
//! functions?
//!
//! A shared libpython stands behind a preloaded library in the order in which
//! names are looked up, a static interpreter before it, and a libpython that
//! was opened late may stand in no order at all. So the object that defines
//! `Py_GetVersion` is found first, and its functions are looked up in it alone:
//! never in the process, which would answer with ours, or with those of another
//! CPython.

use core::ffi::{CStr, c_char, c_void};
use core::ptr::{self, NonNull};

use super::elf::Loaded;
use super::version::Version;
use crate::os::cancel::Uncancelled;
use crate::os::errno;
use crate::os::loader;
use crate::os::wait;
use crate::os::weak::{function, weak_symbol};

/// A CPython in this process.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    loaded: Loaded,
    /// Which one it is.
    pub version: Version,
}

/// How often a version's text is read anew that is not whole. Some are never: of fakes.
const TRIES: u32 = 10_000;

impl Host {
    /// The host that was there when the process started.
    pub(crate) fn at_start() -> Option<Host> {
        Host::with(weak_symbol!("Py_GetVersion")?)
    }

    /// Every host, also those that were loaded later and privately: the one that was there
    /// at the start first.
    pub(crate) fn all() -> impl Iterator<Item = Host> {
        let first = Host::at_start();
        let start = first.map_or(0, |host| host.range().0);
        let others = Loaded::all_with(c"Py_GetVersion").filter_map(Host::of);
        first
            .into_iter()
            .chain(others.filter(move |host| host.range().0 != start))
    }

    /// The host that this object is, if it is one.
    pub(crate) fn of(loaded: Loaded) -> Option<Host> {
        Host::with(loaded.symbol(c"Py_GetVersion")?)
    }

    fn with(py_get_version: NonNull<c_void>) -> Option<Host> {
        let loaded = Loaded::at(py_get_version.as_ptr())?;
        type GetVersion = unsafe extern "C" fn() -> *const c_char;
        // SAFETY: its type in every CPython; it may be called before the
        // interpreter is initialised.
        let py_get_version = unsafe { function::<GetVersion>(py_get_version) };
        let text = || {
            // SAFETY: its type was given above; it may be called at any time.
            let text = unsafe { py_get_version() };
            // SAFETY: a C string that CPython keeps.
            unsafe { CStr::from_ptr(text) }.to_str().ok()
        };
        // From 3.12 on the first call writes the text, and another thread's call returns it
        // meanwhile, half written. It is whole from the parenthesis on that ends the date.
        let mut tries = 0;
        while tries < TRIES && !text().is_some_and(|text| text.contains(')')) {
            tries += 1;
            wait::pause(50);
        }
        let text = text()?;
        Some(Host {
            loaded,
            version: Version::parse(text)?,
        })
    }

    /// Keeps the host's object from being unloaded, for it is called from now on.
    pub(crate) fn keep(&self) {
        let name = if self.loaded.is_program() {
            ptr::null()
        } else {
            self.loaded.name
        };
        // SAFETY: NULL or a C string. Nothing is loaded that is not already; the handle
        // is never closed.
        let open = || unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        let _guard = Uncancelled::begin(); // POSIX lets dlopen be a cancellation point
        errno::kept(|| {
            if loader::with(open).is_null() {
                // SAFETY: forgets the error, which is not the program's.
                unsafe { libc::dlerror() };
            }
        });
    }

    /// The object that the host's code is in.
    pub(crate) fn object(&self) -> &Loaded {
        &self.loaded
    }

    /// Where its object lies.
    pub(crate) fn range(&self) -> (usize, usize) {
        self.loaded.range()
    }

    /// The host's own symbol of this name.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        self.loaded.symbol(name)
    }

    /// Whether the host's own code is at this address.
    pub(crate) fn defines(&self, address: *const c_void) -> bool {
        self.loaded.contains(address)
    }
}

/// The symbol that the program's own use of this name is bound to.
pub(crate) fn first_in_scope(name: &CStr) -> Option<NonNull<c_void>> {
    let look_up = || {
        // SAFETY: a C string.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    NonNull::new(errno::kept(|| loader::with(look_up)))
}

/// Whether this library is linked into the host, in place of its `obmalloc.o`:
/// they are one object, and a name that both would define is ours.
pub(crate) fn is_in_place(host: &Host) -> bool {
    let is_one = host.defines(first_in_scope as *const c_void);
    // 2.7's obmalloc.o has other names only, and no tables to be wrong about.
    let ours = weak_symbol!("obmalloc_raw_strdup");
    is_one && (host.version.major == 2 || weak_symbol!("_PyMem_RawStrdup") == ours)
}

/// Whether this library's own code is at this address.
pub(crate) fn is_this_library(address: *const c_void) -> bool {
    let here = first_in_scope as *const c_void;
    Loaded::at(here).is_some_and(|loaded| loaded.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_cpython_has_no_host() {
        assert!(Host::at_start().is_none());
        assert!(Host::all().next().is_none());
    }
}
