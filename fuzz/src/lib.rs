//! The model: random operations on obmalloc, checked against a naive account.
//!
//! ```text
//!    seed --> Random --+
//!                      +--> bytes --> Engine: one operation after the other
//!    libFuzzer's bytes +                |            |
//!                                       v            v
//!                              the library        the expected state: contents,
//!                              (its C names)      alignment and place of each block;
//!                                       |         the number of blocks
//!                                       +---- equal? ----+
//! ```
//!
//! An operation is drawn from a few bytes, so a seed or a file of bytes is a whole, reproducible run.
//! [`rare_ops`] has the operations beside malloc, calloc, realloc and free: threads that start, take
//! over and end (one runs at a time, so that a run is reproducible), forks, trims, time that passes,
//! tables that change, refusals by the kernel and by layer 0, and concurrent threads.
//!
//! - [`source`]: the bytes
//! - [`block`]: a block with its expected contents
//! - [`sizes`]: the sizes of requests
//! - [`domain`]: the library's functions, by their C names
//! - [`settings`]: the environment of the library
//! - [`refusals`]: refusals by the kernel, by layer 0 and by a program's arenas
//! - [`history`]: the last operations, to find the cause of a failure
//! - [`account`]: the library's own numbers
//! - [`engine`]: the operations
//! - [`rare_ops`]: the rarer ones
//! - [`turns`]: threads that take turns
//! - [`concurrent`]: threads that run at once

pub mod account;
pub mod block;
pub mod concurrent;
pub mod domain;
pub mod engine;
pub mod history;
pub mod rare_ops;
pub mod refusals;
pub mod settings;
pub mod sizes;
pub mod source;
pub mod turns;

/// Sets what the library does not read from the environment. Called once, at the start.
pub fn start() {
    if settings::Settings::of_environment().debug {
        // SAFETY: no block is allocated yet.
        unsafe { obmalloc::capi::tables::PyMem_SetupDebugHooks() };
    }
}
