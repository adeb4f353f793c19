//! The C ABI: the exported functions, and nothing else. Each jumps to its present function in
//! [`dispatch`](crate::cpython::dispatch).
//!
//! A pointer that is passed to a function is NULL or was returned by a function of the same domain;
//! `PyMem_*` and `PyObject_*` accept each other's blocks and the C library's. The header that is made
//! from these files states this contract once, so the functions have no `# Safety` sections.
#![allow(
    clippy::missing_safety_doc,
    reason = "the header states the contract once"
)]
#![allow(non_snake_case, reason = "the names are CPython's")]

pub mod raw;

pub mod mem;

pub mod object;

pub mod tables;

pub mod introspection;

pub mod extension;

mod cpython_private;

mod start;
