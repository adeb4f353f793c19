//! The allocators by name: the values of PYTHONMALLOC, the tables of each, and the present one.
//!
//! ```text
//!    default, pymalloc    RAW: the C library    MEM, OBJ: the object allocator
//!    malloc               RAW: the C library    MEM, OBJ: the C library
//!    mimalloc (3.13)      RAW: the C library    MEM, OBJ: the object allocator, by this name
//!    ..._debug            one of these under the debug hooks
//!    debug                default, under the debug hooks
//! ```
//!
//! In a debug build of CPython, `default` is `pymalloc_debug`.

use core::ffi::{CStr, c_int};

use super::compat;
use super::debug::hooks;
use super::domain::Domain;
use super::pymalloc::{MIMALLOC, is_ours};
use super::raw::MALLOC;
use super::table::same;
use crate::base::vtable::Allocator;
use crate::os::weak::is_debug_build;

/// An allocator by name, with CPython's numbers (`PyMemAllocatorName`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum Name {
    /// None: the tables stay as they are.
    NotSet = 0,
    /// `default`
    Default = 1,
    /// `debug`
    Debug = 2,
    /// `malloc`
    Malloc = 3,
    /// `malloc_debug`
    MallocDebug = 4,
    /// `pymalloc`
    Pymalloc = 5,
    /// `pymalloc_debug`
    PymallocDebug = 6,
    /// `mimalloc`, from 3.13 on
    Mimalloc = 7,
    /// `mimalloc_debug`, from 3.13 on
    MimallocDebug = 8,
}

const NAMES: [(&CStr, Name); 8] = [
    (c"default", Name::Default),
    (c"debug", Name::Debug),
    (c"malloc", Name::Malloc),
    (c"malloc_debug", Name::MallocDebug),
    (c"pymalloc", Name::Pymalloc),
    (c"pymalloc_debug", Name::PymallocDebug),
    (c"mimalloc", Name::Mimalloc),
    (c"mimalloc_debug", Name::MimallocDebug),
];

impl Name {
    /// The allocator of this name, if this version of CPython has it.
    pub(crate) fn of(text: &CStr) -> Option<Name> {
        if text.is_empty() {
            return Some(Name::NotSet);
        }
        let (_, name) = NAMES.iter().find(|(known, _)| *known == text)?;
        name.known_here()
    }

    /// The allocator with this number, if this version of CPython has it.
    pub(crate) fn with_number(number: c_int) -> Option<Name> {
        if number == Name::NotSet as c_int {
            return Some(Name::NotSet);
        }
        let (_, name) = NAMES.iter().find(|(_, name)| *name as c_int == number)?;
        name.known_here()
    }

    fn known_here(self) -> Option<Name> {
        let is_new = matches!(self, Name::Mimalloc | Name::MimallocDebug);
        (!is_new || compat::knows_mimalloc()).then_some(self)
    }

    /// Sets the tables of all domains.
    pub(crate) fn install(self) {
        let standard = || Some([Domain::Mem, Domain::Obj].map(Domain::standard));
        let (objects, hooked) = match self {
            Name::NotSet => return,
            Name::Default => (standard(), is_debug_build()),
            Name::Pymalloc => (standard(), false),
            Name::Debug if compat::debug_keeps_tables() => (None, true),
            Name::Debug | Name::PymallocDebug => (standard(), true),
            Name::Malloc => (Some([MALLOC; 2]), false),
            Name::MallocDebug => (Some([MALLOC; 2]), true),
            Name::Mimalloc => (Some([MIMALLOC; 2]), false),
            Name::MimallocDebug => (Some([MIMALLOC; 2]), true),
        };
        if let Some([mem, obj]) = objects {
            Domain::Raw.set(&MALLOC);
            Domain::Mem.set(&mem);
            Domain::Obj.set(&obj);
        }
        if hooked {
            Domain::ALL.into_iter().for_each(hooks::put_over);
        }
    }
}

/// Sets the table of one domain to the default of this build.
pub(crate) fn install_default(domain: Domain) {
    domain.set(&domain.standard());
    if is_debug_build() {
        hooks::put_over(domain);
    }
}

/// The name of the present tables, if it is one of these.
pub(crate) fn current() -> Option<&'static CStr> {
    let tables = Domain::ALL.map(hooks::under);
    let hooked = tables[0].1;
    if tables.iter().any(|(_, other)| *other != hooked) {
        return None;
    }
    let [raw, mem, obj] = tables.map(|(table, _)| table);
    let both = |table: &Allocator| same(&mem, table) && same(&obj, table);
    if !same(&raw, &MALLOC) {
        None
    } else if same(&mem, &Domain::Mem.standard()) && same(&obj, &Domain::Obj.standard()) {
        Some(if hooked {
            c"pymalloc_debug"
        } else {
            c"pymalloc"
        })
    } else if both(&MIMALLOC) {
        Some(if hooked {
            c"mimalloc_debug"
        } else {
            c"mimalloc"
        })
    } else if both(&MALLOC) {
        Some(if hooked { c"malloc_debug" } else { c"malloc" })
    } else {
        None
    }
}

/// Whether the debug hooks are over the domain OBJ of the library's own tables.
pub(crate) fn are_hooked() -> bool {
    hooks::under(Domain::Obj).1
}

/// Whether the object allocator serves the domain OBJ, perhaps under the debug hooks.
pub(crate) fn objects_are_ours() -> bool {
    is_ours(&hooks::under(Domain::Obj).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_cpythons() {
        assert_eq!(Name::of(c""), Some(Name::NotSet));
        assert_eq!(Name::of(c"pymalloc_debug"), Some(Name::PymallocDebug));
        assert_eq!(Name::of(c"jemalloc"), None);
        for (text, name) in NAMES {
            assert_eq!(Name::of(text), Some(name));
            assert_eq!(Name::with_number(name as c_int), Some(name));
        }
        assert_eq!(Name::with_number(0), Some(Name::NotSet));
        for number in [-1, 9, i32::MAX, i32::MIN] {
            assert_eq!(Name::with_number(number), None);
        }
    }
}
