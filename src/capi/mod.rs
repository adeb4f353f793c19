//! The C ABI: what the library exports, and nothing else. Each function does
//! what [`route`](crate::cpython::dispatch) says.
//!
//! Pointers given back to a function must be NULL or have come from the same
//! domain; `PyMem_*` and `PyObject_*` accept each other's blocks and the C
//! library's. That contract, and not a `# Safety` section on each function,
//! stands at the head of the header that is made from these files.
#![allow(
    clippy::missing_safety_doc,
    reason = "the contract stands at the header's head"
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
