//! What every other folder is made of: the numbers of the layout, size classes, CPython's
//! tables, intrusive lists, callbacks, and the order of the hit path's code. Nothing here makes
//! a system call or holds state.

pub(crate) mod hot;

pub(crate) mod layout;

pub(crate) mod size_class;

pub(crate) mod vtable;

pub(crate) mod callback;

pub(crate) mod list;
