//! What the exported names do where the tables are ours (`domains/`): in a C
//! program, and in a CPython that is linked with us.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use super::exports::{Answers, Exports, Functions, Tables, straight_over};
use crate::arena::chunk;
use crate::base::callback::Callback;
use crate::base::layout::{ALIGNMENT, REQUEST_MAX};
use crate::domains::debug::hooks;
use crate::domains::domain::{Domain, all_standard};
use crate::domains::era;
use crate::domains::names::{self, Name};
use crate::domains::outside::{PyMemAllocatorEx, PyObjectArenaAllocator, no_table};
use crate::domains::pymalloc::{MEM, OBJ};
use crate::domains::raw::{self, RAW, WHATEVER_IS_IN_RAW};
use crate::os::errno;
use crate::os::text::CFile;
use crate::policy::alignment;
use crate::stats;
use crate::stats::debug_stats;
use crate::tools;

/// Functions that look into a table. Sizes that no domain is ever asked for
/// do not get there.
macro_rules! by_table {
    ($table:ident) => {{
        unsafe extern "C" fn malloc(n: usize) -> *mut c_void {
            if n > REQUEST_MAX {
                return errno::no_memory();
            }
            // SAFETY: VTABLE-1, as in the three that follow; the pointers' contract
            // is the caller's.
            unsafe { $table.malloc(n) }
        }
        unsafe extern "C" fn calloc(nelem: usize, elsize: usize) -> *mut c_void {
            match nelem.checked_mul(elsize) {
                // SAFETY: as above.
                Some(n) if n <= REQUEST_MAX => unsafe { $table.calloc(nelem, elsize) },
                _ => errno::no_memory(),
            }
        }
        unsafe extern "C" fn realloc(p: *mut c_void, n: usize) -> *mut c_void {
            if n > REQUEST_MAX {
                return errno::no_memory();
            }
            // SAFETY: as above.
            unsafe { $table.realloc(p, n) }
        }
        unsafe extern "C" fn free(p: *mut c_void) {
            // SAFETY: as above.
            unsafe { $table.free(p) }
        }
        Functions {
            malloc,
            calloc,
            realloc,
            free,
        }
    }};
}
/// While all tables are as at the start, and no domain is packed.
pub(crate) const STRAIGHT: Exports = Exports {
    raw: Functions {
        malloc: raw_malloc,
        calloc: raw_calloc,
        realloc: raw_realloc,
        free: raw_free,
    },
    mem: straight_over!(object, &WHATEVER_IS_IN_RAW, ALIGNMENT),
    object: straight_over!(object, &WHATEVER_IS_IN_RAW, ALIGNMENT),
    tables: TABLES,
    answers: ANSWERS,
};

/// When they are not.
const BY_TABLE: Exports = Exports {
    raw: by_table!(RAW),
    mem: by_table!(MEM),
    object: by_table!(OBJ),
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

/// What is to be called after tables may have changed.
pub(crate) static CHANGED: Callback<fn()> = Callback::unset();

fn changed() {
    if let Some(listener) = CHANGED.get() {
        listener();
    }
}

static BOTH: [Exports; 2] = [BY_TABLE, STRAIGHT];

/// What the exported names do now, where the tables are ours.
pub(crate) fn current() -> &'static Exports {
    let straight = all_standard() && !alignment::any() && !tools::is_wanted();
    &BOTH[usize::from(straight)]
}

/// Whether these are what the exported names do where the tables are ours.
pub(crate) fn are_own(exports: &Exports) -> bool {
    BOTH.iter().any(|own| ptr::eq(own, exports))
}

unsafe extern "C" fn raw_malloc(n: usize) -> *mut c_void {
    if n > REQUEST_MAX {
        return errno::no_memory();
    }
    // SAFETY: VTABLE-1.
    unsafe { (raw::MALLOC.malloc)(ptr::null_mut(), n) }
}

unsafe extern "C" fn raw_calloc(nelem: usize, elsize: usize) -> *mut c_void {
    match nelem.checked_mul(elsize) {
        // SAFETY: VTABLE-1.
        Some(n) if n <= REQUEST_MAX => unsafe {
            (raw::MALLOC.calloc)(ptr::null_mut(), nelem, elsize)
        },
        _ => errno::no_memory(),
    }
}

unsafe extern "C" fn raw_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if n > REQUEST_MAX {
        return errno::no_memory();
    }
    // SAFETY: the pointer's contract is the caller's.
    unsafe { raw::realloc(ptr::null_mut(), p, n) }
}

unsafe extern "C" fn raw_free(p: *mut c_void) {
    // SAFETY: as above.
    unsafe { raw::free(ptr::null_mut(), p) }
}

unsafe extern "C" fn get(domain: c_int, table: *mut PyMemAllocatorEx) {
    if table.is_null() {
        no_table("PyMem_GetAllocator");
    }
    let domain = Domain::with_number(domain);
    // SAFETY: the caller's place for a table.
    unsafe { *table = domain.map_or(PyMemAllocatorEx::NONE, |domain| domain.get().into()) };
}

unsafe extern "C" fn set(domain: c_int, table: *const PyMemAllocatorEx) {
    if table.is_null() {
        no_table("PyMem_SetAllocator");
    }
    if let Some(domain) = Domain::with_number(domain) {
        // SAFETY: the caller's table.
        domain.set(&unsafe { *table }.filled());
        changed();
    }
}

unsafe extern "C" fn setup_debug_hooks() {
    Domain::ALL.into_iter().for_each(hooks::put_over);
    changed();
}

unsafe extern "C" fn setup(name: usize) -> c_int {
    let name = if era::setup_takes_text() {
        let text = ptr::with_exposed_provenance::<c_char>(name);
        let text = if text.is_null() {
            c""
        } else {
            // SAFETY: the host's argument, a C string.
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
    // SAFETY: the caller's place for a table.
    unsafe { *table = chunk::get().into() };
}

unsafe extern "C" fn set_arenas(table: *const PyObjectArenaAllocator) {
    if table.is_null() {
        no_table("PyObject_SetArenaAllocator");
    }
    // SAFETY: the caller's table.
    chunk::set(&unsafe { *table }.filled(), era::arena_size());
}

unsafe extern "C" fn debug_malloc_stats(out: *mut libc::FILE) -> c_int {
    if !names::objects_are_ours() {
        return 0;
    }
    // SAFETY: the caller's file.
    let mut out = unsafe { CFile::new(out) };
    // What the file does not take is lost, as in CPython.
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
