//! The domains RAW, MEM and OBJ with tables of our own: in C programs, and in
//! a CPython that is linked with us in place of its `obmalloc.o`. (A CPython
//! with an obmalloc of its own has its own tables: see `cpython/`.)
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
//! While all three tables are as they were at the start, the exported
//! functions lead straight to [`object`](crate::object); else they look into
//! the tables (`cpython/dispatch.rs`).
//!
//! - `outside`: the tables' types as C has them; they may have holes
//! - `table`: one domain's table, which anyone may read while it changes
//! - `adapter`: allocators as types, from which tables and exported functions are made
//! - `raw`: the C library, and the domain RAW
//! - `pymalloc`: ours, and the domains MEM and OBJ
//! - `domain`: the three by number; reading and writing tables
//! - `era`: what differs between CPython's versions
//! - `python`: what is asked of the CPython that we are linked into
//! - `debug`: the debug hooks
//! - `names`: PYTHONMALLOC and its values

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
