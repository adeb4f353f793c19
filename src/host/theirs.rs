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

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicPtr,
    Ordering::{Acquire, Release},
};

use super::exports::{
    AllocatedBlocks, AllocatorName, Answers, Calloc, DebugMallocStats, Exports, Free, Functions,
    GetAllocator, GetArenas, Malloc, PymallocEnabled, Realloc, SetAllocator, SetArenas, Setup,
    SetupDebugHooks, Tables, straight_over,
};
use super::own::STRAIGHT;
use super::symbols::Host;
use super::{python2, table};
use crate::address_map::MAP;
use crate::allocator::Allocator;
use crate::arena_source;
use crate::domains::era;
use crate::domains::outside::PyObjectArenaAllocator;
use crate::object;
use crate::os::text::CFile;
use crate::{stats, stats_table};

static OVER_PYTHON_2: Functions = straight_over!(&python2::BELOW);

/// A place for `Exports` that are made once.
struct Once {
    exports: UnsafeCell<Exports>,
    /// Release: they are made. Pairs with the Acquire in `or_make`.
    made: AtomicBool,
}
// SAFETY: written at start or under the host's GIL, before anybody is led
// there, and never again.
unsafe impl Sync for Once {}

impl Once {
    const fn new() -> Once {
        Once {
            exports: UnsafeCell::new(STRAIGHT),
            made: AtomicBool::new(false),
        }
    }

    fn get(&self) -> &Exports {
        // SAFETY: not written any more once somebody is led there.
        unsafe { &*self.exports.get() }
    }

    fn or_make(&self, make: impl FnOnce() -> Exports) -> &Exports {
        if !self.made.load(Acquire) {
            // SAFETY: nobody is led there yet.
            unsafe { *self.exports.get() = make() };
            self.made.store(true, Release);
        }
        self.get()
    }
}

/// The host's own functions, as far as it has them.
static HOSTS: Once = Once::new();
/// What our names do where we stand aside, and where we serve.
static ASIDE: Once = Once::new();
static SERVED: Once = Once::new();

fn hosts() -> &'static Exports {
    HOSTS.get()
}

fn is_ours(p: *mut c_void) -> bool {
    MAP.find(p.addr()).class().is_some()
}

unsafe extern "C" fn raw_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if is_ours(p) {
        // SAFETY: T1; the pointer's contract is the caller's.
        unsafe { object::realloc(&HOST_RAW, p, n) }
    } else {
        // SAFETY: the host's own contract.
        unsafe { (hosts().raw.realloc)(p, n) }
    }
}

unsafe extern "C" fn raw_free(p: *mut c_void) {
    if is_ours(p) {
        // SAFETY: as in `raw_realloc`.
        unsafe { object::free(&HOST_RAW, p) }
    } else {
        // SAFETY: the host's own contract.
        unsafe { (hosts().raw.free)(p) }
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
    unsafe { (hosts().raw.malloc)(n) }
}

unsafe extern "C" fn below_calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (hosts().raw.calloc)(nelem, elsize) }
}

unsafe extern "C" fn below_realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (hosts().raw.realloc)(p, n) }
}

unsafe extern "C" fn below_free(_: *mut c_void, p: *mut c_void) {
    // SAFETY: as above.
    unsafe { (hosts().raw.free)(p) }
}

/// CPython 3.6 sets its tables anew from its `main`, whatever is in them.
unsafe extern "C" fn setup_then_install(name: usize) -> c_int {
    // SAFETY: the host's own function, with its own argument.
    let result = unsafe { (hosts().tables.setup)(name) };
    let name = ptr::with_exposed_provenance::<c_char>(name);
    // SAFETY: in 3.6 the argument is NULL or a C string.
    let default = name.is_null() || unsafe { *name } == 0;
    let host = Host::at_start().filter(|_| default && result == 0);
    if let Some(host) = host {
        // It was possible before, or nothing led here.
        let _ = table::install(&host);
    }
    result
}

/// The function by which the host's own arenas come, while we serve.
static HOSTS_ARENAS: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Lets our arenas come from where the host's would: from an allocator that a
/// program has set, and else from where ours do.
fn follow_arenas() {
    let mut table = arena_source::STANDARD.into();
    // SAFETY: the host's own function, and a place for a table.
    unsafe { (hosts().tables.get_arenas)(&raw mut table) };
    let alloc = table
        .alloc
        .map_or(ptr::null_mut(), |alloc| alloc as *mut ());
    let table = if alloc == HOSTS_ARENAS.load(Acquire) {
        arena_source::STANDARD
    } else {
        table.filled()
    };
    arena_source::set(&table, era::arena_size());
}

unsafe extern "C" fn set_arenas(table: *const PyObjectArenaAllocator) {
    // SAFETY: the host's own function, with its own argument.
    unsafe { (hosts().tables.set_arenas)(table) };
    follow_arenas();
}

/// Finds out by which function the host's own arenas come.
fn know_arenas(host: &Host) {
    let mut table = arena_source::STANDARD.into();
    // SAFETY: as in `follow_arenas`.
    unsafe { (hosts().tables.get_arenas)(&raw mut table) };
    let alloc = table
        .alloc
        .map_or(ptr::null_mut(), |alloc| alloc as *mut ());
    if host.defines(alloc.cast()) {
        HOSTS_ARENAS.store(alloc, Release);
    }
    follow_arenas();
}

fn we_are_in_place() -> bool {
    table::is_installed(hosts().tables.get)
}

unsafe extern "C" fn debug_malloc_stats(out: *mut libc::FILE) -> c_int {
    if !we_are_in_place() {
        // SAFETY: the host's own function, with its own argument.
        return unsafe { (hosts().answers.debug_malloc_stats)(out) };
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
    let theirs = unsafe { (hosts().answers.allocated_blocks)() };
    stats::live_blocks().cast_signed() + theirs
}

unsafe extern "C" fn allocator_name() -> *const c_char {
    if we_are_in_place() {
        c"pymalloc".as_ptr()
    } else {
        // SAFETY: the host's own function.
        unsafe { (hosts().answers.allocator_name)() }
    }
}

unsafe extern "C" fn pymalloc_enabled() -> c_int {
    if we_are_in_place() {
        1
    } else {
        // SAFETY: the host's own function.
        unsafe { (hosts().answers.pymalloc_enabled)() }
    }
}

/// The host's function of this name, or what we do where it has none.
macro_rules! function {
    ($host:expr, $name:literal as $type:ty, or $own:expr) => {
        match $host.symbol($name) {
            // SAFETY: the signature that this name has in every CPython.
            Some(function) => unsafe { mem::transmute::<*mut c_void, $type>(function.as_ptr()) },
            None => $own,
        }
    };
}

macro_rules! functions_of {
    ($host:expr, $malloc:literal, $calloc:literal, $realloc:literal, $free:literal, or $own:expr) => {
        Functions {
            malloc: function!($host, $malloc as Malloc, or $own.malloc),
            calloc: function!($host, $calloc as Calloc, or $own.calloc),
            realloc: function!($host, $realloc as Realloc, or $own.realloc),
            free: function!($host, $free as Free, or $own.free),
        }
    };
}

fn of_host(host: &Host) -> Exports {
    let (tables, answers) = (STRAIGHT.tables, STRAIGHT.answers);
    let name = function!(
        host, c"_PyMem_GetAllocatorsName" as AllocatorName, or answers.allocator_name
    );
    Exports {
        raw: functions_of!(
            host,
            c"PyMem_RawMalloc",
            c"PyMem_RawCalloc",
            c"PyMem_RawRealloc",
            c"PyMem_RawFree",
            or STRAIGHT.raw
        ),
        mem: functions_of!(
            host,
            c"PyMem_Malloc",
            c"PyMem_Calloc",
            c"PyMem_Realloc",
            c"PyMem_Free",
            or STRAIGHT.mem
        ),
        object: functions_of!(
            host,
            c"PyObject_Malloc",
            c"PyObject_Calloc",
            c"PyObject_Realloc",
            c"PyObject_Free",
            or STRAIGHT.object
        ),
        tables: Tables {
            get: function!(host, c"PyMem_GetAllocator" as GetAllocator, or tables.get),
            set: function!(host, c"PyMem_SetAllocator" as SetAllocator, or tables.set),
            setup_debug_hooks: function!(
                host, c"PyMem_SetupDebugHooks" as SetupDebugHooks, or tables.setup_debug_hooks
            ),
            setup: function!(host, c"_PyMem_SetupAllocators" as Setup, or no_setup),
            get_arenas: function!(
                host, c"PyObject_GetArenaAllocator" as GetArenas, or tables.get_arenas
            ),
            set_arenas: function!(
                host, c"PyObject_SetArenaAllocator" as SetArenas, or tables.set_arenas
            ),
        },
        answers: Answers {
            debug_malloc_stats: function!(
                host, c"_PyObject_DebugMallocStats" as DebugMallocStats, or no_statistics
            ),
            allocated_blocks: function!(
                host, c"_Py_GetAllocatedBlocks" as AllocatedBlocks, or no_blocks
            ),
            allocator_name: function!(
                host, c"_PyMem_GetCurrentAllocatorName" as AllocatorName, or name
            ),
            pymalloc_enabled: function!(
                host, c"_PyMem_PymallocEnabled" as PymallocEnabled, or no_pymalloc
            ),
        },
    }
}

unsafe extern "C" fn no_setup(_: usize) -> c_int {
    -1
}

unsafe extern "C" fn no_statistics(_: *mut libc::FILE) -> c_int {
    0
}

unsafe extern "C" fn no_blocks() -> isize {
    0
}

unsafe extern "C" fn no_pymalloc() -> c_int {
    0
}

/// What the exported names do in a process with this host; `served` says
/// whether we are in its tables, or before its symbols.
pub fn in_host(host: &Host, served: bool) -> &'static Exports {
    let theirs = HOSTS.or_make(|| of_host(host));
    let place = if served { &SERVED } else { &ASIDE };
    place.or_make(|| {
        let mut ours = *theirs;
        if host.version.has_tables() {
            ours.raw.realloc = raw_realloc;
            ours.raw.free = raw_free;
            if served {
                know_arenas(host);
                ours.tables.set_arenas = set_arenas;
                ours.answers = Answers {
                    debug_malloc_stats,
                    allocated_blocks,
                    allocator_name,
                    pymalloc_enabled,
                };
                if (host.version.major, host.version.minor) == (3, 6) {
                    ours.tables.setup = setup_then_install;
                }
            }
        } else if served {
            ours.object = OVER_PYTHON_2;
        }
        ours
    })
}
