//! TODO base.

pub mod hot;

pub mod layout;

pub mod size_class;

pub mod vtable;

pub mod callback;

pub mod list;
