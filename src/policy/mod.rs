//! TODO policy.

pub mod limits;

pub mod size_policy;

pub mod alignment;

pub mod fork_cow;

pub mod huge_pages;
