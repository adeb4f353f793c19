//! The parts of shared state: atomics, cells under locks, a sequence lock, and spinning on a word
//! that another thread changes.
//!
//! They are the language's own. In a build with `cfg(loom)`, for the models in `tests/loom/`, they
//! are types of the same size that report each access to loom: so the models run the code that is
//! shipped.
//!
//! ```text
//!    every file that shares something
//!        |  use crate::sync::{AtomicU32, Cell, ...}
//!        v
//!    core's own                   with cfg(loom): `modelled`, reported to loom
//! ```

#[cfg(not(all(test, loom)))]
pub(crate) use core::{
    cell::Cell,
    hint::spin_loop,
    sync::atomic::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
        AtomicUsize,
    },
};

pub(crate) use core::sync::atomic::{Ordering, compiler_fence};

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::fence;

pub(crate) mod sequence;

#[cfg(all(test, loom))]
pub(crate) use {
    execution::spin_loop,
    modelled::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
        AtomicUsize, Cell, fence,
    },
};

#[cfg(all(test, loom))]
#[allow(missing_docs, reason = "as the language's own")]
pub(crate) mod execution;

#[cfg(all(test, loom))]
#[allow(missing_docs, reason = "as the language's own")]
pub(crate) mod modelled;

#[cfg(all(test, loom))]
#[allow(missing_docs, reason = "for the models")]
pub(crate) mod threads;
