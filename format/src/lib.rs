//! What the library and the command share: the library writes it, the command reads it.
//! This crate has no dependency and no code that can panic or allocate.
#![no_std]
#![forbid(unsafe_code)]

pub mod layout;
pub mod options;
pub mod status;
