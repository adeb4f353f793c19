//! What CPython's memory shows without a call into the interpreter: the Python lines of a thread
//! (`frames`), the type of a block's object (`objects`), and which objects are frozen (`frozen`).
//!
//! ```text
//!    frames  -->  layout           offsets by version, to 3.12
//!            -->  debug_offsets    the interpreter's own record, from 3.13 on
//!    objects                       offsets that every version has
//!    frozen  -->  debug_offsets    from 3.13 on
//!    readable                      reads at addresses that may be damaged
//!    host                          the version
//! ```

pub(crate) mod debug_offsets;

pub(crate) mod frames;

pub(crate) mod frozen;

pub(crate) mod host;

mod layout;

pub(crate) mod readable;

pub(crate) mod objects;
