//! The model: random operations on obmalloc, against a naive account of what must be.
//!
//! ```text
//!    seed --> Random --+
//!                      +--> bytes --> Engine: one operation after the other
//!    libFuzzer's bytes +                |            |
//!                                       v            v
//!                              the library        what must be: each block's
//!                              (its C names)      contents, alignment, place;
//!                                       |         how many there are
//!                                       +---- equal? ----+
//! ```
//!
//! An operation is drawn from a few bytes, so a seed or a file of bytes is a whole run
//! that can be done again. What happens beside malloc, calloc, realloc and free stands in
//! [`rare`]: threads that come, take over and go (one runs at a time, so that a run can be
//! done again), forks, trims, time that passes, tables that change, refusals by the
//! kernel and by layer 0, and storms, in which threads do run at once.
//!
//! - [`source`]: where the bytes come from
//! - [`block`]: a block with what must stand in it
//! - [`sizes`]: which sizes are asked for
//! - [`domain`]: the library's functions, by their C names
//! - [`settings`]: the environment that the library runs in
//! - [`refusals`]: the kernel, layer 0 and a program's arenas that say no
//! - [`history`]: what was done last, for who has to look into a failure
//! - [`account`]: the numbers that the library says of itself
//! - [`engine`]: the operations
//! - [`rare`]: the rarer ones
//! - [`crew`]: threads that take turns
//! - [`storm`]: threads that do not

pub mod account;
pub mod block;
pub mod crew;
pub mod domain;
pub mod engine;
pub mod history;
pub mod rare;
pub mod refusals;
pub mod settings;
pub mod sizes;
pub mod source;
pub mod storm;

/// To be called once, at the start: what the library does not read from the environment.
pub fn start() {
    if settings::Settings::of_environment().debug {
        // SAFETY: nothing is allocated yet.
        unsafe { obmalloc::capi::tables::PyMem_SetupDebugHooks() };
    }
}
