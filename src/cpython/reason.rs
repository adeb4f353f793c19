//! Why a process is not served.
#![forbid(unsafe_code)]

use super::user_choice::Choice;

/// Why we do not serve a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// There is no CPython in it.
    NoHost,
    /// The version is not one of those that are served.
    Unsupported,
    /// Built without a GIL: its collector walks its own allocator's pages.
    FreeThreaded,
    /// The user chose another allocator.
    Chosen(Choice),
    /// Somebody else's allocator is installed.
    OtherAllocator,
    /// It has no tables, or not such as ours.
    NoTables,
    /// A 2.7 whose calls cannot be proved to reach us.
    NotInterposable,
    /// We or CPython were loaded late, and nobody has called `obmalloc_install`.
    LoadedLate,
    /// It is linked with this library already.
    InPlace,
    /// A 2.7 that runs already.
    TooLate,
    /// tracemalloc is tracing.
    Tracing,
    /// `obmalloc_install` was called without the GIL.
    NoGil,
    /// Its debug hooks stand in its tables, and do not come to stand over ours.
    DebugHooks,
    /// Another CPython of this process is served.
    ServesAnother,
}
