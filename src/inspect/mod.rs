//! What CPython's memory shows without a call into the interpreter: the Python lines of a thread
//! (`frames`), and the type of a block's object (`objects`).
//!
//! ```text
//!    frames  -->  layout           offsets by version, to 3.12
//!            -->  debug_offsets    the interpreter's own record, from 3.13 on
//!    objects                       offsets that every version has
//!    readable                      reads at addresses that may be damaged
//!    host                          the version
//! ```

pub(crate) mod debug_offsets;

pub(crate) mod frames;

mod host;

mod layout;

pub(crate) mod readable;

pub(crate) mod objects;
