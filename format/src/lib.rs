//! The data that the library writes and the command reads: the schema of the counters, the
//! stats page, heap snapshots. No dependency, no allocation, no panic.
#![no_std]
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    reason = "fields without a comment say it by their names"
)]

pub mod counters;
pub mod events;
pub mod layout;
pub mod options;
pub mod profile;
pub mod status;
