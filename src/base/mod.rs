//! What every other folder is made of: the numbers of the layout, size classes, CPython's
//! tables, intrusive lists, callbacks, and the order of the hit path's code. Nothing here makes
//! a system call or holds state.

pub mod hot;

pub mod layout;

pub mod size_class;

pub mod vtable;

pub mod callback;

pub mod list;
