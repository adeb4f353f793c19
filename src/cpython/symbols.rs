//! The host's symbols: finds a CPython in this process, and its functions.
//!
//! In the lookup order a shared libpython comes after a preloaded library, a static interpreter
//! before it, and a libpython that was opened late may not be in it at all. So the object that
//! defines `Py_GetVersion` is found first, and functions are looked up in that object only: a lookup
//! in the process could find the library's own, or those of another CPython.

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
    pub version: Version,
}

/// Readings of a version string that is incomplete. Some, of fake hosts, never are complete.
const TRIES: u32 = 10_000;

impl Host {
    /// The host that existed when the process started.
    pub(crate) fn at_start() -> Option<Host> {
        Host::with(weak_symbol!("Py_GetVersion")?)
    }

    /// Every host, also those that were loaded later or with RTLD_LOCAL; first the one that existed
    /// at the start.
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
        // SAFETY: `Py_GetVersion` has this type in every CPython, and may be called before the
        // interpreter is initialised.
        let py_get_version = unsafe { function::<GetVersion>(py_get_version) };
        let text = || {
            // SAFETY: `Py_GetVersion` may be called at any time.
            let text = unsafe { py_get_version() };
            // SAFETY: a C string that lives as long as the host.
            unsafe { CStr::from_ptr(text) }.to_str().ok()
        };
        // From 3.12 on the first call writes the string, and another thread's call may return it half
        // written. It is complete once it has the parenthesis after the date.
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

    /// Keeps the host's object from being unloaded: its functions are called from now on.
    pub(crate) fn keep(&self) {
        let name = if self.loaded.is_program() {
            ptr::null()
        } else {
            self.loaded.name
        };
        // SAFETY: NULL or a C string. The object is loaded already; the handle is never closed.
        let open = || unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        let _guard = Uncancelled::begin(); // POSIX allows dlopen to be a cancellation point
        errno::kept(|| {
            if loader::with(open).is_null() {
                // SAFETY: clears the error, which is not the program's.
                unsafe { libc::dlerror() };
            }
        });
    }

    /// The object that the host's code is in.
    pub(crate) fn object(&self) -> &Loaded {
        &self.loaded
    }

    /// The address range of its object.
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
        // SAFETY: a `CStr` ends with NUL.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    NonNull::new(errno::kept(|| loader::with(look_up)))
}

/// Whether this library is linked into the host in place of its `obmalloc.o`: they are one object,
/// and a name that both would define is the library's.
pub(crate) fn is_in_place(host: &Host) -> bool {
    let is_one = host.defines(first_in_scope as *const c_void);
    // The obmalloc.o of 2.7 has other names, and no tables.
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
