//! What the library and the command share: the library writes it, the command reads it.
//! This crate has no dependency and no code that can panic or allocate.
#![no_std]
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    reason = "fields without a comment say it by their names"
)]

pub mod counters;
pub mod layout;
pub mod options;
pub mod status;
