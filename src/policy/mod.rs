//! What settings decide, as plain atomics that lower layers read: memory limits, up to which size
//! pools serve, alignment, huge pages, and copy-on-write after a fork. Uses `base/` and `os/` only.

pub(crate) mod limits;

pub(crate) mod size_policy;

pub(crate) mod alignment;

pub(crate) mod fork_cow;

pub(crate) mod huge_pages;
