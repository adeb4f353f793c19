//! What settings decide, as plain atomics that lower folders read: memory limits, up to which
//! size pools serve, alignment, huge pages, and what a forked child does with inherited pools.

pub(crate) mod limits;

pub(crate) mod size_policy;

pub(crate) mod alignment;

pub(crate) mod fork_cow;

pub(crate) mod huge_pages;
