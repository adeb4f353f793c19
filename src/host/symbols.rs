//! The host's symbols: is there a CPython in this process, and where are its
//! functions?
//!
//! A shared libpython stands behind a preloaded library in the order in which
//! names are looked up, a static interpreter before it, and a libpython that
//! was opened late may stand in no order at all. So the object that defines
//! `Py_GetVersion` is found first, and its functions are asked of it alone:
//! never of the process, which would answer with ours.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{self, NonNull};

use super::version::Version;
use crate::os::cancel::Uncancelled;
use crate::os::errno;
use crate::os::weak::{function, weak_symbol};

/// A CPython in this process.
#[derive(Clone, Copy)]
pub struct Host {
    object: Object,
    /// Which one it is.
    pub version: Version,
}

/// An object that is loaded: the program or a library. It stays open.
#[derive(Clone, Copy)]
pub struct Object {
    handle: NonNull<c_void>,
    loaded: Loaded,
}

/// Where an object was loaded, as its program headers say.
#[derive(Clone, Copy)]
struct Loaded {
    /// Its name; the program's is empty.
    name: *const c_char,
    slide: usize,
    headers: *const libc::Elf64_Phdr,
    count: usize,
}

impl Loaded {
    fn headers(&self) -> &[libc::Elf64_Phdr] {
        // SAFETY: the loader's description of an object that stays open.
        unsafe { core::slice::from_raw_parts(self.headers, self.count) }
    }

    fn contains(&self, address: *const c_void) -> bool {
        let mut segments = self
            .headers()
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD);
        segments.any(|segment| {
            let start = self.slide.wrapping_add(segment.p_vaddr as usize);
            address.addr().wrapping_sub(start) < segment.p_memsz as usize
        })
    }

    /// The first object, in the loader's order, that is wanted.
    fn find(mut wanted: impl FnMut(&Loaded) -> bool) -> Option<Loaded> {
        struct Search<'a> {
            wanted: &'a mut dyn FnMut(&Loaded) -> bool,
            found: Option<Loaded>,
        }
        unsafe extern "C" fn visit(
            info: *mut libc::dl_phdr_info,
            _: usize,
            search: *mut c_void,
        ) -> c_int {
            // SAFETY: the loader's answer, and what `find` handed it.
            let (info, search) = unsafe { (&*info, &mut *search.cast::<Search<'_>>()) };
            let loaded = Loaded {
                name: info.dlpi_name,
                slide: info.dlpi_addr as usize,
                headers: info.dlpi_phdr,
                count: info.dlpi_phnum.into(),
            };
            if (search.wanted)(&loaded) {
                search.found = Some(loaded);
            }
            search.found.is_some().into()
        }
        let mut search = Search {
            wanted: &mut wanted,
            found: None,
        };
        // SAFETY: `visit` gets `search` back, and only during the call.
        errno::kept(|| unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) });
        search.found
    }
}

impl Host {
    /// The host that was there when the process started.
    pub fn at_start() -> Option<Host> {
        Host::with(weak_symbol!("Py_GetVersion")?)
    }

    /// The host, also one that was loaded later and privately.
    pub fn anywhere() -> Option<Host> {
        Host::at_start().or_else(|| {
            Object::all().find_map(|object| Host::with(object.symbol(c"Py_GetVersion")?))
        })
    }

    fn with(py_get_version: NonNull<c_void>) -> Option<Host> {
        let object = Object::defining(py_get_version.as_ptr())?;
        type GetVersion = unsafe extern "C" fn() -> *const c_char;
        // SAFETY: its type in every CPython; it may be called before the
        // interpreter is initialised.
        let py_get_version = unsafe { function::<GetVersion>(py_get_version) };
        // SAFETY: as above.
        let text = unsafe { py_get_version() };
        // SAFETY: a C string that CPython keeps.
        let text = unsafe { CStr::from_ptr(text) }.to_str().ok()?;
        Some(Host {
            object,
            version: Version::parse(text)?,
        })
    }

    /// The object that the host's code is in.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The host's own symbol of this name: never one that a program without
    /// it would find in us.
    pub fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        let symbol = self.object.symbol(name)?;
        self.defines(symbol.as_ptr()).then_some(symbol)
    }

    /// Whether the host's own code is at this address.
    pub fn defines(&self, address: *const c_void) -> bool {
        self.object.loaded.contains(address)
    }
}

impl Object {
    /// The object at this address.
    fn defining(address: *const c_void) -> Option<Object> {
        Object::of(Loaded::find(|loaded| loaded.contains(address))?)
    }

    /// Every object that is loaded, the program first. (The loader's list is
    /// asked for one after the other, so that no object is opened while the
    /// loader walks its list.)
    fn all() -> impl Iterator<Item = Object> {
        let nth = |n| {
            let mut seen = 0;
            Loaded::find(|_| {
                seen += 1;
                seen > n
            })
        };
        (0..).map_while(nth).filter_map(Object::of)
    }

    fn of(loaded: Loaded) -> Option<Object> {
        // SAFETY: NULL or a C string.
        let is_program = loaded.name.is_null() || unsafe { *loaded.name } == 0;
        let name = if is_program { ptr::null() } else { loaded.name };
        let _guard = Uncancelled::begin(); // POSIX lets dlopen be a cancellation point
        // SAFETY: NULL or a C string. Nothing is loaded that is not already.
        let handle =
            errno::kept(|| unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) });
        NonNull::new(handle).map(|handle| Object { handle, loaded })
    }

    /// The symbol of this name: the object's own, if it has one.
    pub fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: a handle that stays open, and a C string.
        NonNull::new(errno::kept(|| unsafe {
            libc::dlsym(self.handle.as_ptr(), name.as_ptr())
        }))
    }

    /// Where the object was loaded, relative to its own addresses.
    pub fn slide(&self) -> usize {
        self.loaded.slide
    }

    /// Its dynamic section, if it has one.
    pub fn dynamic(&self) -> Option<*const c_void> {
        let headers = self.loaded.headers();
        let header = headers
            .iter()
            .find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let address = self.loaded.slide.wrapping_add(header.p_vaddr as usize);
        Some(ptr::with_exposed_provenance(address))
    }
}

/// The symbol that the program's own use of this name is bound to.
pub fn first_in_scope(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: a C string.
    NonNull::new(errno::kept(|| unsafe {
        libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr())
    }))
}

/// Whether this library is linked into the host, in place of its `obmalloc.o`:
/// they are one object, and a name that both would define is ours.
pub fn is_in_place(host: &Host) -> bool {
    let is_one = host.defines(first_in_scope as *const c_void);
    // 2.7's obmalloc.o has other names only, and no tables to be wrong about.
    let ours = weak_symbol!("obmalloc_raw_strdup");
    is_one && (host.version.major == 2 || weak_symbol!("_PyMem_RawStrdup") == ours)
}

/// Whether this library's own code is at this address.
pub fn is_this_library(address: *const c_void) -> bool {
    let here = first_in_scope as *const c_void;
    Loaded::find(|loaded| loaded.contains(here)).is_some_and(|loaded| loaded.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_cpython_has_no_host() {
        assert!(Host::at_start().is_none());
        assert!(Host::anywhere().is_none());
    }

    #[test]
    fn objects_are_found_by_an_address_in_them() {
        let puts = Object::all()
            .find_map(|object| object.symbol(c"puts"))
            .unwrap();
        let libc = Object::defining(puts.as_ptr()).unwrap();
        assert_eq!(libc.symbol(c"puts"), Some(puts));
        assert!(libc.symbol(c"obmalloc_no_such_symbol").is_none());
        assert!(Object::all().any(|object| object.handle == libc.handle));
        assert!(Object::all().count() > 1);
        assert!(libc.dynamic().is_some());
        assert!(Object::defining(ptr::without_provenance(8)).is_none());
    }
}
