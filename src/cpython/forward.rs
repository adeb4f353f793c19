//! The functions behind the exported names in a process with a CPython that has an obmalloc of its
//! own: mostly the host's functions of the same names.
//!
//! The host's tables decide: the exported names call the host's functions, which read its tables,
//! with whatever hooks are there, and reach the library through them. Three things are added:
//!
//! - `PyMem_RawFree` frees a block of a pool to its pool. So blocks of the first life of an
//!   interpreter survive its second: from 3.12 on another `Py_Initialize` resets the tables, and
//!   pymalloc passes foreign blocks to `PyMem_RawFree`.
//! - An allocator that a program sets for the host's arenas serves the library's arenas, too.
//! - While the library's table is installed, it answers the host's queries about its allocator as
//!   its pymalloc. Otherwise the host would call its allocator unknown, count no blocks and print
//!   no table.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use super::builtin::STRAIGHT;
use super::exports::{Answers, Exports, Tables};
use super::lookup::{self, Domains, Lookup};
use super::symbols::Host;
use super::{hooks, install, python2};
use crate::arena::chunk;
use crate::arena::page_map::MAP;
use crate::base::layout::{ALIGNMENT, PACKED_ALIGNMENT};
use crate::base::vtable::{Allocator, Backend};
use crate::domains::adapter::{Fallback, Functions, Instrumented, Object};
use crate::domains::compat;
use crate::domains::ffi::{PyMemAllocatorEx, PyObjectArenaAllocator};
use crate::guard;
use crate::os::once::Made;
use crate::os::text::CFile;
use crate::policy::alignment;
use crate::profile;
use crate::stats;
use crate::stats::debug_stats;
use crate::tcache::sampled;
use crate::tools;

/// The fallback is 2.7's own allocator.
struct InPython2;

impl Fallback for InPython2 {
    unsafe fn of<'a>(_: *mut c_void) -> &'a Allocator {
        &python2::BELOW
    }
}

static OVER_PYTHON_2: Functions = Functions::hot_of::<Object<InPython2, ALIGNMENT>>();
static PACKED_OVER_PYTHON_2: Functions = Functions::hot_of::<Object<InPython2, PACKED_ALIGNMENT>>();
static WATCHED_OVER_PYTHON_2: Functions = Functions::hot_of::<Instrumented<InPython2>>();

/// The functions of the host that is served, or of the first one that is not.
fn lookup<const IS_SERVED: bool>() -> &'static Lookup {
    if IS_SERVED {
        &lookup::SERVED
    } else {
        &lookup::ASIDE
    }
}

fn domains<const IS_SERVED: bool>() -> &'static Domains {
    lookup::<IS_SERVED>().domains()
}

fn tables<const IS_SERVED: bool>() -> &'static Tables {
    lookup::<IS_SERVED>().tables()
}

fn answers<const IS_SERVED: bool>() -> &'static Answers {
    lookup::<IS_SERVED>().answers()
}

/// The exports of the host that is not served, and of the one that is served.
static ASIDE: Made<Exports> = Made::new(STRAIGHT);
static SERVED: Made<Exports> = Made::new(STRAIGHT);

fn is_ours(p: *mut c_void) -> bool {
    MAP.find(p.addr()).class().is_some()
        || guard::owns(p.addr())
        || profile::may_own(p.addr()) && sampled::class_of(p).is_some()
}

unsafe extern "C" fn raw_realloc<const IS_SERVED: bool>(p: *mut c_void, n: usize) -> *mut c_void {
    if is_ours(p) {
        // SAFETY: `p` is a block of a pool or a guarded block; VTABLE-1 holds for the host's RAW.
        unsafe { tools::realloc::<ALIGNMENT>(&raw_of_host::<IS_SERVED>(), p, n) }
    } else {
        // SAFETY: `p` is NULL or a block of the host's domain RAW.
        unsafe { (domains::<IS_SERVED>().raw.realloc)(p, n) }
    }
}

unsafe extern "C" fn raw_free<const IS_SERVED: bool>(p: *mut c_void) {
    if is_ours(p) {
        // SAFETY: `p` is a block of a pool or a guarded block; VTABLE-1 holds for the host's RAW.
        unsafe { tools::free(&raw_of_host::<IS_SERVED>(), p) }
    } else {
        // SAFETY: `p` is NULL or a block of the host's domain RAW.
        unsafe { (domains::<IS_SERVED>().raw.free)(p) }
    }
}

/// The host's own functions of the domain RAW.
struct HostRaw<const IS_SERVED: bool>;

impl<const IS_SERVED: bool> Backend for HostRaw<IS_SERVED> {
    unsafe fn malloc(_: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: the host's malloc takes any size.
        unsafe { (domains::<IS_SERVED>().raw.malloc)(n) }
    }

    unsafe fn calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        // SAFETY: the host's calloc takes any sizes.
        unsafe { (domains::<IS_SERVED>().raw.calloc)(nelem, elsize) }
    }

    unsafe fn realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: `p` is NULL or a block of the host's domain RAW.
        unsafe { (domains::<IS_SERVED>().raw.realloc)(p, n) }
    }

    unsafe fn free(_: *mut c_void, p: *mut c_void) {
        // SAFETY: `p` is NULL or a block of the host's domain RAW.
        unsafe { (domains::<IS_SERVED>().raw.free)(p) }
    }
}

/// The host's domain RAW as a fallback allocator.
const fn raw_of_host<const IS_SERVED: bool>() -> Allocator {
    Allocator::of::<HostRaw<IS_SERVED>>(ptr::null_mut())
}

unsafe extern "C" fn get<const IS_SERVED: bool>(domain: c_int, table: *mut PyMemAllocatorEx) {
    // SAFETY: the host's own function, with the caller's own arguments.
    unsafe { (tables::<IS_SERVED>().get)(domain, table) };
}

unsafe extern "C" fn set<const IS_SERVED: bool>(domain: c_int, table: *const PyMemAllocatorEx) {
    // SAFETY: the host's own function, with the caller's own arguments.
    unsafe { (tables::<IS_SERVED>().set)(domain, table) };
}

unsafe extern "C" fn setup_debug_hooks<const IS_SERVED: bool>() {
    // SAFETY: the host's own function, with the caller's own arguments.
    unsafe { (tables::<IS_SERVED>().setup_debug_hooks)() };
}

unsafe extern "C" fn setup<const IS_SERVED: bool>(name: usize) -> c_int {
    // SAFETY: the host's own function, with the caller's own arguments.
    unsafe { (tables::<IS_SERVED>().setup)(name) }
}

unsafe extern "C" fn get_arenas<const IS_SERVED: bool>(table: *mut PyObjectArenaAllocator) {
    // SAFETY: the host's own function, with the caller's own arguments.
    unsafe { (tables::<IS_SERVED>().get_arenas)(table) };
}

unsafe extern "C" fn set_arenas_of_host<const IS_SERVED: bool>(
    table: *const PyObjectArenaAllocator,
) {
    // SAFETY: the host's own function, with the caller's own arguments.
    unsafe { (tables::<IS_SERVED>().set_arenas)(table) };
}

/// CPython 3.6 sets its tables anew in its `main`, whatever they hold.
unsafe extern "C" fn setup_then_install(name: usize) -> c_int {
    // SAFETY: the host's own function, with the caller's own arguments.
    let result = unsafe { (tables::<true>().setup)(name) };
    let name = ptr::with_exposed_provenance::<c_char>(name);
    // SAFETY: in 3.6 the argument is NULL or a C string.
    let default = name.is_null() || unsafe { *name } == 0;
    let host = Host::at_start()
        .filter(|host| default && result == 0 && lookup::SERVED.lies_at(host.range()));
    if let Some(host) = host {
        // It succeeded before, or this function would not be called.
        let _ = install::install(&host);
        if hooks::stand() {
            install::put_hooks_over(&host);
        }
    }
    result
}

/// The host's own arena allocator. (Or one that a program had set before the library was loaded;
/// then the library's arenas still come from the kernel.)
fn before_programs() -> &'static PyObjectArenaAllocator {
    const STANDARD: PyObjectArenaAllocator = PyObjectArenaAllocator {
        ctx: ptr::null_mut(),
        alloc: None,
        free: None,
    };
    static BEFORE: Made<PyObjectArenaAllocator> = Made::new(STANDARD);
    BEFORE.or_make(|| {
        let mut table = STANDARD;
        // SAFETY: the host's own function, and room for a table.
        unsafe { (tables::<true>().get_arenas)(&raw mut table) };
        table
    })
}

/// Sets the host's arena allocator and the library's: one that a program sets, or, when it restores
/// the host's own, the kernel.
unsafe extern "C" fn set_arenas(table: *const PyObjectArenaAllocator) {
    let before = before_programs().filled();
    // SAFETY: the host's own function, with the caller's own arguments.
    unsafe { (tables::<true>().set_arenas)(table) };
    // SAFETY: not NULL, with which the host's function would have crashed.
    let now = unsafe { *table }.filled();
    let is_back = now.ctx == before.ctx && now.alloc as *const () == before.alloc as *const ();
    let source = if is_back { chunk::STANDARD } else { now };
    chunk::set(&source, compat::arena_size());
}

fn we_are_in_place<const IS_SERVED: bool>() -> bool {
    install::is_installed(tables::<IS_SERVED>().get)
}

unsafe extern "C" fn debug_malloc_stats<const IS_SERVED: bool>(out: *mut libc::FILE) -> c_int {
    if !we_are_in_place::<IS_SERVED>() {
        // SAFETY: the host's own function, with the caller's own arguments.
        return unsafe { (answers::<IS_SERVED>().debug_malloc_stats)(out) };
    }
    // SAFETY: the host's open file.
    let mut out = unsafe { CFile::new(out) };
    // A write error is ignored, as in CPython.
    let _ = debug_stats::write(&mut out, None);
    1
}

/// The library's blocks and the large ones, which the host serves. (A host that is not served has
/// no blocks of the library.)
unsafe extern "C" fn allocated_blocks<const IS_SERVED: bool>() -> isize {
    // SAFETY: the host's own function, with the caller's own arguments.
    let theirs = unsafe { (answers::<IS_SERVED>().allocated_blocks)() };
    let ours = if IS_SERVED { stats::live_blocks() } else { 0 };
    ours.cast_signed() + theirs
}

unsafe extern "C" fn allocator_name<const IS_SERVED: bool>() -> *const c_char {
    if we_are_in_place::<IS_SERVED>() {
        let name = if hooks::stand() {
            c"pymalloc_debug"
        } else {
            c"pymalloc"
        };
        name.as_ptr()
    } else {
        // SAFETY: the host's own function, with the caller's own arguments.
        unsafe { (answers::<IS_SERVED>().allocator_name)() }
    }
}

unsafe extern "C" fn pymalloc_enabled<const IS_SERVED: bool>() -> c_int {
    if we_are_in_place::<IS_SERVED>() {
        1
    } else {
        // SAFETY: the host's own function, with the caller's own arguments.
        unsafe { (answers::<IS_SERVED>().pymalloc_enabled)() }
    }
}

/// The exports for this host. `served`: the library is in its tables, or interposes its symbols. A
/// process has at most one of each kind.
pub(crate) fn in_host(host: &Host, served: bool) -> &'static Exports {
    if served {
        lookup::SERVED.is_for(host);
        SERVED.or_make(|| for_served(host))
    } else {
        lookup::ASIDE.is_for(host);
        ASIDE.or_make(|| with_tables_of::<false>(host))
    }
}

fn with_tables_of<const IS_SERVED: bool>(host: &Host) -> Exports {
    let Domains { raw, mem, object } = *domains::<IS_SERVED>();
    let mut ours = Exports {
        raw,
        mem,
        object,
        tables: Tables {
            get: get::<IS_SERVED>,
            set: set::<IS_SERVED>,
            setup_debug_hooks: setup_debug_hooks::<IS_SERVED>,
            setup: setup::<IS_SERVED>,
            get_arenas: get_arenas::<IS_SERVED>,
            set_arenas: set_arenas_of_host::<IS_SERVED>,
        },
        answers: Answers {
            debug_malloc_stats: debug_malloc_stats::<IS_SERVED>,
            allocated_blocks: allocated_blocks::<IS_SERVED>,
            allocator_name: allocator_name::<IS_SERVED>,
            pymalloc_enabled: pymalloc_enabled::<IS_SERVED>,
        },
    };
    if host.version.has_tables() {
        ours.raw.realloc = raw_realloc::<IS_SERVED>;
        ours.raw.free = raw_free::<IS_SERVED>;
    }
    ours
}

fn for_served(host: &Host) -> Exports {
    let mut ours = with_tables_of::<true>(host);
    if host.version.has_tables() {
        ours.tables.set_arenas = set_arenas;
        if (host.version.major, host.version.minor) == (3, 6) {
            ours.tables.setup = setup_then_install;
        }
    } else {
        ours.object = if tools::is_wanted() {
            WATCHED_OVER_PYTHON_2
        } else if alignment::obj() {
            PACKED_OVER_PYTHON_2
        } else {
            OVER_PYTHON_2
        };
    }
    ours
}
