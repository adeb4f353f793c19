//! The host: the CPython that we find in the process, and how we get in.
//!
//! ```text
//!    constructor, first call of an exported name, obmalloc_install()
//!        |
//!        v
//!    route.rs       what the exported names do from now on
//!    attach.rs      whether we serve this process, and the status line (state.rs)
//!        |
//!        +-- elf.rs        which objects are loaded, and what do they define?
//!        +-- symbols.rs    is there a CPython, and where?
//!        +-- version.rs    which one, and is it one of ours?
//!        +-- choice.rs     PYTHONMALLOC, -X dev: did the user choose?
//!        +-- reason.rs     why we do not serve a process
//!        +-- table.rs      3.6 and later: into its tables
//!        +-- hooks.rs      OBMALLOC_DEBUG: the host's debug hooks over us
//!        +-- python2.rs    2.7: before its symbols, once that is proved
//!        +-- tracing.rs    is tracemalloc running? (late installation)
//!        +-- exports.rs    what the exported names can do:
//!              own.rs        by tables of our own (C programs; linked in)
//!              theirs.rs     by the host's functions (lookup.rs)
//!              several.rs    several hosts (company.rs): by those of the
//!                            caller's, found by its address or GIL (gil.rs)
//! ```
//!
//! Either every call of a domain lands on us, or none does, and the status
//! line says why. Whatever goes wrong here, the host runs as if we were not
//! there.

pub(crate) mod version;

pub(crate) mod choice;

pub(crate) mod reason;

pub(crate) mod elf;

pub(crate) mod symbols;

pub(crate) mod tracing;

pub(crate) mod exports;

pub(crate) mod hooks;

pub(crate) mod table;

pub(crate) mod python2;

pub(crate) mod own;

pub(crate) mod lookup;

pub(crate) mod theirs;

pub(crate) mod gil;

pub(crate) mod several;

pub(crate) mod state;

pub(crate) mod company;

pub(crate) mod attach;

pub(crate) mod route;
