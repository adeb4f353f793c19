//! The thread cache: free blocks that a thread allocates and frees without a lock.
//!
//! ```text
//!    thread word --> magazines of all classes --> slots: addresses of free blocks
//!                    \____ one record, in the library's metadata ____/
//!
//!    registry        all records, those without a thread, the process's generation
//! ```
//!
//! `magazine` is the hit path, and how a magazine is filled and emptied; `registry` gives each
//! thread a record at its first miss and takes it back at the thread's end; `counters` counts
//! the requests that the fallback allocator served.
//!
//! # Invariants
//!
//! MAGAZINE-1 to MAGAZINE-4 are in `magazine`, REGISTRY-1, REGISTRY-2 and SHARD-1 in `registry`.
//!
//! # Uses
//!
//! `heap` for blocks, `arena::metadata` for records, `os::thread_word` for the word. Nothing
//! here calls the fallback allocator.

pub(crate) mod counters;

pub(crate) mod magazine;

pub(crate) mod registry;

pub(crate) mod sampled;
