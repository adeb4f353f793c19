//! The host: the CPython in the process, and how it is served.
//!
//! ```text
//!    constructor, first call of an exported name, obmalloc_install()
//!        |
//!        v
//!    dispatch       what the exported names do from now on
//!    attach         decides whether the host is served; status line (state)
//!        |
//!        +-- elf          the loaded objects and their symbols
//!        +-- symbols      finds a CPython among them
//!        +-- version      its version, and whether it can be served
//!        +-- user_choice  PYTHONMALLOC, -X dev: an allocator that the user chose
//!        +-- install      3.6 and later: puts our functions into its tables
//!        +-- hooks        OBMALLOC_DEBUG: the host's debug hooks over our functions
//!        +-- python2      2.7: takes its symbols over, once that is proved safe
//!        +-- tracing      whether tracemalloc runs (late installation)
//!        +-- exports      the functions behind the exported names:
//!              builtin      the own tables (C programs; a CPython linked with us)
//!              forward      the host's functions (lookup)
//!              several      several hosts (company): those of the caller's host, found by
//!                           the return address or the GIL (gil)
//! ```
//!
//! Either every call of a domain comes to us or none does, and the status line says why. After
//! any failure here the host runs as if the library were not there.

pub(crate) mod version;

pub(crate) mod user_choice;

pub(crate) mod elf;

pub(crate) mod symbols;

pub(crate) mod tracing;

pub(crate) mod exports;

pub(crate) mod hooks;

pub(crate) mod install;

pub(crate) mod python2;

mod raw_samples;

pub(crate) mod builtin;

pub(crate) mod lookup;

pub(crate) mod forward;

pub(crate) mod gil;

pub(crate) mod self_check;
mod several;

pub(crate) mod state;

pub(crate) mod company;

pub(crate) mod attach;

pub(crate) mod dispatch;
