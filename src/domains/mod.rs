//! The domains RAW, MEM and OBJ with the library's own tables: in C programs, and in a CPython that is
//! linked with the library in place of its `obmalloc.o`. (A CPython with an obmalloc of its own has
//! its own tables: see `cpython/`.)
//!
//! ```text
//!    PyMem_RawMalloc     PyMem_Malloc        PyObject_Malloc
//!          |                  |                    |
//!          v                  v                    v
//!    table of RAW        table of MEM         table of OBJ     PyMem_SetAllocator
//!          |                  |                    |
//!     [debug 'r']        [debug 'm']          [debug 'o']      PyMem_SetupDebugHooks
//!          |                  |                    |
//!          |                  +------ object ------+
//!          |                             |  large, foreign
//!          +<----------------------------+  through the table of RAW
//!          v
//!    the C library
//! ```
//!
//! While no table has changed, the exported functions call [`object`](crate::object) directly; later
//! they read the tables (`cpython/dispatch.rs`).
//!
//! - `ffi`: the C types of tables, whose functions may be missing
//! - `table`: one domain's table, which any thread may read while it changes
//! - `adapter`: allocators as types, from which tables and exported functions are made
//! - `raw`: the C library, and the domain RAW
//! - `pymalloc`: the object allocator, and the domains MEM and OBJ
//! - `domain`: the three domains by number; reading and writing their tables
//! - `compat`: differences between CPython's versions
//! - `python`: functions of the CPython that the library is linked into
//! - `debug`: the debug hooks
//! - `names`: the values of PYTHONMALLOC

pub(crate) mod ffi;

pub(crate) mod table;

pub(crate) mod adapter;

pub(crate) mod raw;

pub(crate) mod pymalloc;

pub(crate) mod domain;

pub(crate) mod compat;

pub(crate) mod python;

pub(crate) mod debug;

pub(crate) mod names;
