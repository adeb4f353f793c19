//! The base of all other folders: the numbers of the layout, size classes, CPython's allocator
//! tables, intrusive lists, callbacks, and the order of the hit path's code.
//!
//! # Invariants
//!
//! CLASS-1 to CLASS-4 are in `size_class`, VTABLE-1 is in `vtable`.
//!
//! # Uses
//!
//! `sync` and the C library's malloc. Nothing here makes a system call or holds state.

pub(crate) mod hot;

pub(crate) mod layout;

pub(crate) mod size_class;

pub(crate) mod vtable;

pub(crate) mod callback;

pub(crate) mod list;
