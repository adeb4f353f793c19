//! What the exported names do in a process with a CPython that has an obmalloc
//! of its own: mostly what its own functions of these names do.
//!
//! One truth: where a host has tables, our names lead to the host's functions,
//! which look into its tables, whatever hooks are there, and come back to us
//! by them. Three things are added on the way:
//!
//! - A block of ours given to `PyMem_RawFree` is ours all the same. That is
//!   how blocks of the first life of an interpreter survive its second: from
//!   3.12 on another `Py_Initialize` resets the tables, and what pymalloc does
//!   not know it passes to `PyMem_RawFree`.
//! - An allocator that a program sets for the host's arenas is ours, too.
//! - While our table is in its place, the host's questions about its allocator
//!   are answered: we are its pymalloc. Without that it calls the allocator
//!   unknown, counts no blocks and prints no table.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use super::exports::{Answers, Exports, Functions, Tables, straight_over};
use super::lookup::{Domains, Once, answers, domains, tables};
use super::own::STRAIGHT;
use super::symbols::Host;
use super::{hooks, python2, table};
use crate::address_map::MAP;
use crate::allocator::Allocator;
use crate::arena_source;
use crate::domains::era;
use crate::domains::outside::{PyMemAllocatorEx, PyObjectArenaAllocator};
use crate::geometry::{ALIGNMENT, PACKED_ALIGNMENT};
use crate::os::text::CFile;
use crate::{guard, packing, stats, stats_table, watch};

static OVER_PYTHON_2: Functions = straight_over!(object, realloc, &python2::BELOW, ALIGNMENT);
static PACKED_OVER_PYTHON_2: Functions =
    straight_over!(object, realloc, &python2::BELOW, PACKED_ALIGNMENT);
static WATCHED_OVER_PYTHON_2: Functions = straight_over!(watch, watch, &python2::BELOW, ALIGNMENT);

/// What our names do where we stand aside, and where we serve.
static ASIDE: Once<Exports> = Once::new(STRAIGHT);
static SERVED: Once<Exports> = Once::new(STRAIGHT);

fn is_ours(p: *mut c_void) -> bool {
    MAP.find(p.addr()).class().is_some() || guard::owns(p.addr())
}

unsafe extern "C" fn raw_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if is_ours(p) {
        // SAFETY: T1; the pointer's contract is the caller's.
        unsafe { watch::realloc::<ALIGNMENT>(&HOST_RAW, p, n) }
    } else {
        // SAFETY: the host's own contract.
        unsafe { (domains().raw.realloc)(p, n) }
    }
}

unsafe extern "C" fn raw_free(p: *mut c_void) {
    if is_ours(p) {
        // SAFETY: as in `raw_realloc`.
        unsafe { watch::free(&HOST_RAW, p) }
    } else {
        // SAFETY: the host's own contract.
        unsafe { (domains().raw.free)(p) }
    }
}

/// The host's RAW functions as a table below us.
static HOST_RAW: Allocator = Allocator {
    ctx: ptr::null_mut(),
    malloc: below_malloc,
    calloc: below_calloc,
    realloc: below_realloc,
    free: below_free,
};

unsafe extern "C" fn below_malloc(_: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the host's own contract, as in the three below.
    unsafe { (domains().raw.malloc)(n) }
}

unsafe extern "C" fn below_calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (domains().raw.calloc)(nelem, elsize) }
}

unsafe extern "C" fn below_realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (domains().raw.realloc)(p, n) }
}

unsafe extern "C" fn below_free(_: *mut c_void, p: *mut c_void) {
    // SAFETY: as above.
    unsafe { (domains().raw.free)(p) }
}

unsafe extern "C" fn get(domain: c_int, table: *mut PyMemAllocatorEx) {
    // SAFETY: the host's own functions, with their own arguments, as in all
    // that follow.
    unsafe { (tables().get)(domain, table) };
}

unsafe extern "C" fn set(domain: c_int, table: *const PyMemAllocatorEx) {
    // SAFETY: as above.
    unsafe { (tables().set)(domain, table) };
}

unsafe extern "C" fn setup_debug_hooks() {
    // SAFETY: as above.
    unsafe { (tables().setup_debug_hooks)() };
}

unsafe extern "C" fn setup(name: usize) -> c_int {
    // SAFETY: as above.
    unsafe { (tables().setup)(name) }
}

unsafe extern "C" fn get_arenas(table: *mut PyObjectArenaAllocator) {
    // SAFETY: as above.
    unsafe { (tables().get_arenas)(table) };
}

unsafe extern "C" fn set_arenas_of_host(table: *const PyObjectArenaAllocator) {
    // SAFETY: as above.
    unsafe { (tables().set_arenas)(table) };
}

/// CPython 3.6 sets its tables anew from its `main`, whatever is in them.
unsafe extern "C" fn setup_then_install(name: usize) -> c_int {
    // SAFETY: the host's own function, with its own argument.
    let result = unsafe { (tables().setup)(name) };
    let name = ptr::with_exposed_provenance::<c_char>(name);
    // SAFETY: in 3.6 the argument is NULL or a C string.
    let default = name.is_null() || unsafe { *name } == 0;
    let host = Host::at_start().filter(|_| default && result == 0);
    if let Some(host) = host {
        // It was possible before, or nothing led here.
        let _ = table::install(&host);
        if hooks::stand() {
            table::put_hooks_over(&host);
        }
    }
    result
}

/// What the host's own arenas come from. (Or, had a program set something
/// before we were there, that: then our arenas go on to come from the kernel.)
fn before_programs() -> &'static PyObjectArenaAllocator {
    const STANDARD: PyObjectArenaAllocator = PyObjectArenaAllocator {
        ctx: ptr::null_mut(),
        alloc: None,
        free: None,
    };
    static BEFORE: Once<PyObjectArenaAllocator> = Once::new(STANDARD);
    BEFORE.or_make(|| {
        let mut table = STANDARD;
        // SAFETY: the host's own function, and a place for a table.
        unsafe { (tables().get_arenas)(&raw mut table) };
        table
    })
}

/// Lets our arenas come from where the host's would: from an allocator that a
/// program sets, and when it puts the host's back, from the kernel.
unsafe extern "C" fn set_arenas(table: *const PyObjectArenaAllocator) {
    let before = before_programs().filled();
    // SAFETY: the host's own function, with its own argument.
    unsafe { (tables().set_arenas)(table) };
    // SAFETY: NULL would have ended in the host.
    let now = unsafe { *table }.filled();
    let is_back = now.ctx == before.ctx && now.alloc as *const () == before.alloc as *const ();
    let source = if is_back { arena_source::STANDARD } else { now };
    arena_source::set(&source, era::arena_size());
}

fn we_are_in_place() -> bool {
    table::is_installed(tables().get)
}

unsafe extern "C" fn debug_malloc_stats(out: *mut libc::FILE) -> c_int {
    if !we_are_in_place() {
        // SAFETY: the host's own function, with its own argument.
        return unsafe { (answers().debug_malloc_stats)(out) };
    }
    // SAFETY: the host's file.
    let mut out = unsafe { CFile::new(out) };
    // What the file does not take is lost, as in CPython.
    let _ = stats_table::write(&mut out, None);
    1
}

/// Ours, and those that the host has served: the large ones.
unsafe extern "C" fn allocated_blocks() -> isize {
    // SAFETY: the host's own function.
    let theirs = unsafe { (answers().allocated_blocks)() };
    stats::live_blocks().cast_signed() + theirs
}

unsafe extern "C" fn allocator_name() -> *const c_char {
    if we_are_in_place() {
        let name = if hooks::stand() {
            c"pymalloc_debug"
        } else {
            c"pymalloc"
        };
        name.as_ptr()
    } else {
        // SAFETY: the host's own function.
        unsafe { (answers().allocator_name)() }
    }
}

unsafe extern "C" fn pymalloc_enabled() -> c_int {
    if we_are_in_place() {
        1
    } else {
        // SAFETY: the host's own function.
        unsafe { (answers().pymalloc_enabled)() }
    }
}

/// What the exported names do in a process with this host; `served` says
/// whether we are in its tables, or before its symbols.
pub fn in_host(host: &Host, served: bool) -> &'static Exports {
    let place = if served { &SERVED } else { &ASIDE };
    place.or_make(|| {
        let Domains { raw, mem, object } = *domains();
        let mut ours = Exports {
            raw,
            mem,
            object,
            tables: Tables {
                get,
                set,
                setup_debug_hooks,
                setup,
                get_arenas,
                set_arenas: set_arenas_of_host,
            },
            answers: Answers {
                debug_malloc_stats,
                allocated_blocks,
                allocator_name,
                pymalloc_enabled,
            },
        };
        if host.version.has_tables() {
            ours.raw.realloc = raw_realloc;
            ours.raw.free = raw_free;
            if served {
                ours.tables.set_arenas = set_arenas;
                if (host.version.major, host.version.minor) == (3, 6) {
                    ours.tables.setup = setup_then_install;
                }
            }
        } else if served {
            ours.object = if watch::is_wanted() {
                WATCHED_OVER_PYTHON_2
            } else if packing::obj() {
                PACKED_OVER_PYTHON_2
            } else {
                OVER_PYTHON_2
            };
        }
        ours
    })
}
