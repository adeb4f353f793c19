//! The floor that talks to the kernel and the C library: mappings, locks, the
//! thread word, lines of text. Nothing here knows what an allocator is.

#[cfg(feature = "model")]
pub mod faults;

#[cfg(miri)]
pub mod interpreted;

pub mod errno;

pub mod cancel;

pub mod sandbox;

pub mod memory;

pub mod clock;

pub mod quiet;

pub mod descriptor;

pub mod text;

pub mod weak;

pub mod wait;

pub mod roster;

pub mod loader;

pub mod thread;

pub mod once;

pub mod memcheck;

pub mod apart;

pub mod file;

pub mod forker;

pub mod lock;

pub mod helper;

pub mod thread_word;

pub mod environment;

pub mod thp;

pub mod target;

pub mod output;

pub mod shared;

pub mod process;

pub mod cgroup;
