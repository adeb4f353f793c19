//! The threads' caches of free blocks.
//!
//! ```text
//!    thread word --> record: magazines of all classes, their slots, counters
//!                      |
//!    registry        all records, idle ones, the generation of the process
//! ```
//!
//! `magazine` is the hit path, `magazines` fills and empties it, `current` is the calling
//! thread's, `registry` has all of them, `counters` counts what the fallback allocator served.

pub(crate) mod counters;

pub(crate) mod magazine;

pub(crate) mod magazines;

pub(crate) mod current;

pub(crate) mod registry;
