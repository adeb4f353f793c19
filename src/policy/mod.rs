//! What settings decide, as plain atomics that lower folders read: memory limits, up to which
//! size pools serve, alignment, huge pages, and what a forked child does with inherited pools.

pub mod limits;

pub mod size_policy;

pub mod alignment;

pub mod fork_cow;

pub mod huge_pages;
