//! The names in a heap profile, which the library writes and the command reads: gzipped
//! `profile.proto`, the format of pprof.
//!
//! ```text
//!    sample types   alloc_objects  alloc_space  inuse_objects  inuse_space  pinned_space
//!    a sample       a live block, with all of its labels; or the sums of a stack's allocations, in
//!                   which the last three values are 0, and which has no label
//!    a location     a frame of Python (function, file and line), or of C (an address and, if the
//!                   object has symbols, a function)
//!    period         the mean bytes between two samples
//! ```
//!
//! Values are estimates: each sample is divided by the probability with which a block of its size is
//! sampled.
//!
//! # Requests
//!
//! A reader of the stats page sets [`WANT_PROFILE`](crate::layout::WANT_PROFILE) as it sets
//! `WANT_SNAPSHOT`: the bytes after the page are then a profile, or `snapshot_error` says why not
//! (`ENODATA`: the profiler is off).

/// The values of a sample, in their order, and their units.
pub const SAMPLE_TYPES: [(&str, &str); 5] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("pinned_space", "bytes"),
];
/// The value that readers show first.
pub const DEFAULT_SAMPLE_TYPE: &str = "inuse_space";
/// The type and unit of the period.
pub const PERIOD_TYPE: (&str, &str) = ("space", "bytes");

/// Labels of a live block. A text: the name of its object's type; absent if it has none.
pub const LABEL_TYPE: &str = "type";
/// A text: `mem`, `obj` or `raw`.
pub const LABEL_DOMAIN: &str = "domain";
/// A number with the unit `bytes`: the size of the block.
pub const LABEL_BYTES: &str = "bytes";
/// A text: the name of the thread that allocated it, as the kernel has it.
pub const LABEL_THREAD: &str = "thread";
/// A number: the kernel's id of the thread.
pub const LABEL_TID: &str = "tid";
/// A number with the unit `milliseconds`: since its allocation.
pub const LABEL_AGE: &str = "age";
/// `yes` if the process's parent allocated it, before the fork.
pub const LABEL_INHERITED: &str = "inherited";
/// `yes` if the object is one that `gc.freeze` has moved out of the collector's sight.
pub const LABEL_FROZEN: &str = "frozen";

/// Comments of a profile are `key=value`. The library's version.
pub const COMMENT_VERSION: &str = "obmalloc";
/// The process's number in its own pid namespace.
pub const COMMENT_PID: &str = "pid";
/// The version of the host, if there is one.
pub const COMMENT_HOST: &str = "python";
/// Samples without Python frames because their thread ran none, or did not hold the GIL.
pub const COMMENT_NO_FRAMES: &str = "samples_without_frames";
/// Times that the tables were full and the period was doubled.
pub const COMMENT_DOUBLED: &str = "period_doubled";
/// Samples whose frames are incomplete because there was no room for them.
pub const COMMENT_CUT: &str = "stacks_cut";

/// The function of a sample whose stack is empty.
pub const NO_PYTHON: &str = "(no Python frames)";
/// The outermost function of a stack that was too deep to be recorded as a whole.
pub const TRUNCATED: &str = "(more frames)";
