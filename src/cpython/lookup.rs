//! The host's own functions by name, as far as it has them. Each set is looked up when it is first
//! needed: in a static host, which does not call the exported names, never.

use core::ffi::{c_int, c_void};
use core::mem;

use super::builtin::STRAIGHT;
use super::exports::{
    AllocatedBlocks, AllocatorName, Answers, DebugMallocStats, Exports, GetAllocator, GetArenas,
    PymallocEnabled, SetAllocator, SetArenas, Setup, SetupDebugHooks, Tables,
};
use super::symbols::Host;
use crate::domains::adapter::{Calloc, Free, Functions, Malloc, Realloc};
use crate::os::once::Made;

/// A host's functions, each set looked up when it is first needed.
pub(crate) struct Lookup {
    host: Made<Option<Host>>,
    domains: Made<Domains>,
    tables: Made<Tables>,
    answers: Made<Answers>,
}

/// The functions of the host that is not served: of several, the first.
pub(crate) static ASIDE: Lookup = Lookup::new();
/// The functions of the host that is served.
pub(crate) static SERVED: Lookup = Lookup::new();

/// The functions without a host.
const WITHOUT: Domains = Domains {
    raw: STRAIGHT.raw,
    mem: STRAIGHT.mem,
    object: STRAIGHT.object,
};

impl Lookup {
    const fn new() -> Lookup {
        Lookup {
            host: Made::new(None),
            domains: Made::new(WITHOUT),
            tables: Made::new(STRAIGHT.tables),
            answers: Made::new(STRAIGHT.answers),
        }
    }

    /// Sets the host, unless it is set.
    pub(crate) fn is_for(&self, host: &Host) {
        self.host.or_make(|| Some(*host));
    }

    fn host(&self) -> Option<&Host> {
        self.host.or_make(|| None).as_ref()
    }

    /// Whether the host has this address range.
    pub(crate) fn lies_at(&self, range: (usize, usize)) -> bool {
        let host = self.host.made().and_then(|host| host.as_ref());
        host.is_some_and(|host| host.range() == range)
    }

    /// The host's functions of the three domains.
    pub(crate) fn domains(&self) -> &Domains {
        self.domains
            .or_make(|| self.host().map_or(WITHOUT, domains_of))
    }

    /// The host's functions that read and change its tables.
    pub(crate) fn tables(&self) -> &Tables {
        self.tables
            .or_make(|| self.host().map_or(STRAIGHT.tables, tables_of))
    }

    /// The functions by which the host queries its allocator.
    pub(crate) fn answers(&self) -> &Answers {
        self.answers
            .or_make(|| self.host().map_or(STRAIGHT.answers, answers_of))
    }
}

/// All functions of a host; the library's own where it has none.
pub(crate) fn all_of(host: &Host) -> Exports {
    let Domains { raw, mem, object } = domains_of(host);
    Exports {
        raw,
        mem,
        object,
        tables: tables_of(host),
        answers: answers_of(host),
    }
}

/// The host's functions of the three domains.
#[derive(Clone, Copy)]
pub(crate) struct Domains {
    /// `PyMem_Raw*`
    pub raw: Functions,
    /// `PyMem_*`
    pub mem: Functions,
    /// `PyObject_*`
    pub object: Functions,
}

/// The host's function of this name, or `$own` if it has none.
macro_rules! function {
    ($host:expr, $name:literal as $type:ty, or $own:expr) => {
        match $host.symbol($name) {
            // SAFETY: the function has this signature in every CPython.
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

/// The host's functions of the three domains; the library's own where it has none.
fn domains_of(host: &Host) -> Domains {
    Domains {
        raw: functions_of!(
            host,
            c"PyMem_RawMalloc",
            c"PyMem_RawCalloc",
            c"PyMem_RawRealloc",
            c"PyMem_RawFree",
            or STRAIGHT.raw
        ),
        mem: mem_of(host),
        object: object_of(host),
    }
}

/// The host's functions of the domain MEM; the library's own where it has none.
pub(super) fn mem_of(host: &Host) -> Functions {
    functions_of!(
        host,
        c"PyMem_Malloc",
        c"PyMem_Calloc",
        c"PyMem_Realloc",
        c"PyMem_Free",
        or STRAIGHT.mem
    )
}

/// The host's functions of the domain OBJ; the library's own where it has none.
pub(super) fn object_of(host: &Host) -> Functions {
    functions_of!(
        host,
        c"PyObject_Malloc",
        c"PyObject_Calloc",
        c"PyObject_Realloc",
        c"PyObject_Free",
        or STRAIGHT.object
    )
}

fn tables_of(host: &Host) -> Tables {
    let own = STRAIGHT.tables;
    Tables {
        get: function!(host, c"PyMem_GetAllocator" as GetAllocator, or own.get),
        set: function!(host, c"PyMem_SetAllocator" as SetAllocator, or own.set),
        setup_debug_hooks: function!(
            host, c"PyMem_SetupDebugHooks" as SetupDebugHooks, or own.setup_debug_hooks
        ),
        setup: function!(host, c"_PyMem_SetupAllocators" as Setup, or no_setup),
        get_arenas: function!(host, c"PyObject_GetArenaAllocator" as GetArenas, or own.get_arenas),
        set_arenas: function!(host, c"PyObject_SetArenaAllocator" as SetArenas, or own.set_arenas),
    }
}

fn answers_of(host: &Host) -> Answers {
    // The name in 3.7.
    let name = function!(
        host, c"_PyMem_GetAllocatorsName" as AllocatorName, or STRAIGHT.answers.allocator_name
    );
    Answers {
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
