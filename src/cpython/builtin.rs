//! The functions behind the exported names where the tables are the library's own (`domains/`): in a
//! C program, and in a CPython that is linked with the library.

use core::ffi::{CStr, c_char, c_int};
use core::ptr;

use super::exports::{Answers, Exports, Tables};
use crate::arena::chunk;
use crate::base::callback::Callback;
use crate::domains::adapter::{Forward, Functions};
use crate::domains::compat;
use crate::domains::debug::hooks;
use crate::domains::domain::{Domain, all_standard};
use crate::domains::ffi::{PyMemAllocatorEx, PyObjectArenaAllocator, no_table};
use crate::domains::names::{self, Name};
use crate::domains::pymalloc::{Mem, Obj, Pymalloc};
use crate::domains::raw::{Malloc, Raw};
use crate::os::text::CFile;
use crate::policy::alignment;
use crate::stats;
use crate::stats::debug_stats;
use crate::tools;

/// While all tables are as at the start, and no domain is packed.
pub(crate) const STRAIGHT: Exports = Exports {
    raw: Functions::checked::<Malloc>(),
    mem: Functions::hot_of::<Pymalloc>(),
    object: Functions::hot_of::<Pymalloc>(),
    tables: TABLES,
    answers: ANSWERS,
};

/// When a table has changed, or a domain is packed.
const BY_TABLE: Exports = Exports {
    raw: Functions::checked::<Forward<Raw>>(),
    mem: Functions::checked::<Forward<Mem>>(),
    object: Functions::checked::<Forward<Obj>>(),
    tables: TABLES,
    answers: ANSWERS,
};

const TABLES: Tables = Tables {
    get,
    set,
    setup_debug_hooks,
    setup,
    get_arenas,
    set_arenas,
};

const ANSWERS: Answers = Answers {
    debug_malloc_stats,
    allocated_blocks,
    allocator_name,
    pymalloc_enabled,
};

/// Called after tables may have changed.
pub(crate) static CHANGED: Callback<fn()> = Callback::unset();

fn changed() {
    if let Some(listener) = CHANGED.get() {
        listener();
    }
}

static BOTH: [Exports; 2] = [BY_TABLE, STRAIGHT];

/// The exports for the present tables.
pub(crate) fn current() -> &'static Exports {
    let straight = all_standard() && !alignment::any() && !tools::is_wanted();
    &BOTH[usize::from(straight)]
}

/// Whether these exports are one of the two of this file.
pub(crate) fn are_own(exports: &Exports) -> bool {
    BOTH.iter().any(|own| ptr::eq(own, exports))
}

unsafe extern "C" fn get(domain: c_int, table: *mut PyMemAllocatorEx) {
    if table.is_null() {
        no_table("PyMem_GetAllocator");
    }
    let domain = Domain::with_number(domain);
    // SAFETY: not NULL, so room for a table by the function's contract.
    unsafe { *table = domain.map_or(PyMemAllocatorEx::NONE, |domain| domain.get().into()) };
}

unsafe extern "C" fn set(domain: c_int, table: *const PyMemAllocatorEx) {
    if table.is_null() {
        no_table("PyMem_SetAllocator");
    }
    if let Some(domain) = Domain::with_number(domain) {
        // SAFETY: not NULL, so a readable table by the function's contract.
        domain.set(&unsafe { *table }.filled());
        changed();
    }
}

unsafe extern "C" fn setup_debug_hooks() {
    Domain::ALL.into_iter().for_each(hooks::put_over);
    changed();
}

unsafe extern "C" fn setup(name: usize) -> c_int {
    let name = if compat::setup_takes_text() {
        let text = ptr::with_exposed_provenance::<c_char>(name);
        let text = if text.is_null() {
            c""
        } else {
            // SAFETY: the argument is a C string in these versions.
            unsafe { CStr::from_ptr(text) }
        };
        if text.is_empty() {
            Some(Name::Default)
        } else {
            Name::of(text)
        }
    } else {
        Name::with_number(name as c_int)
    };
    match name {
        Some(name) => {
            name.install();
            changed();
            0
        }
        None => -1,
    }
}

unsafe extern "C" fn get_arenas(table: *mut PyObjectArenaAllocator) {
    if table.is_null() {
        no_table("PyObject_GetArenaAllocator");
    }
    // SAFETY: not NULL, so room for a table by the function's contract.
    unsafe { *table = chunk::get().into() };
}

unsafe extern "C" fn set_arenas(table: *const PyObjectArenaAllocator) {
    if table.is_null() {
        no_table("PyObject_SetArenaAllocator");
    }
    // SAFETY: not NULL, so a readable table by the function's contract.
    chunk::set(&unsafe { *table }.filled(), compat::arena_size());
}

unsafe extern "C" fn debug_malloc_stats(out: *mut libc::FILE) -> c_int {
    if !names::objects_are_ours() {
        return 0;
    }
    // SAFETY: an open file by the function's contract.
    let mut out = unsafe { CFile::new(out) };
    // A write error is ignored, as in CPython.
    let _ = debug_stats::write(&mut out, hooks::calls());
    1
}

unsafe extern "C" fn allocated_blocks() -> isize {
    stats::allocated_blocks()
}

unsafe extern "C" fn allocator_name() -> *const c_char {
    names::current().map_or(ptr::null(), CStr::as_ptr)
}

unsafe extern "C" fn pymalloc_enabled() -> c_int {
    names::objects_are_ours().into()
}
