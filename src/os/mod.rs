//! The kernel and the C library: mappings, locks, threads, the thread word, the dynamic loader,
//! files, the process and its cgroup, lines of text. Nothing here is about allocators.

#[cfg(not(panic = "unwind"))]
mod abort;

pub(crate) mod arch;

#[cfg(feature = "model")]
pub mod faults;

#[cfg(miri)]
pub(crate) mod interpreted;

pub(crate) mod errno;

pub(crate) mod c_library;

pub(crate) mod cancel;

pub(crate) mod sandbox;

pub(crate) mod memory;

pub(crate) mod clock;

pub(crate) mod quiet;

pub(crate) mod descriptor;

pub(crate) mod text;

pub(crate) mod weak;

pub(crate) mod wait;

pub(crate) mod roster;

pub(crate) mod loader;

pub(crate) mod thread;

pub(crate) mod once;

pub(crate) mod memcheck;

pub(crate) mod apart;

pub(crate) mod file;

pub(crate) mod forker;

pub(crate) mod kept_text;

pub(crate) mod lock;

pub(crate) mod helper;

pub(crate) mod thread_word;

pub(crate) mod environment;

pub(crate) mod thp;

pub(crate) mod target;

pub(crate) mod output;

pub(crate) mod shared;

pub(crate) mod process;

pub(crate) mod cgroup;
