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

pub mod counters;

pub mod magazine;

pub mod magazines;

pub mod current;

pub mod registry;
