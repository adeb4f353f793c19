//! The debug hooks: tables that stand over whatever is in a domain, surround
//! every block with bytes nobody may change, and look at them when it comes
//! back.
//!
//! ```text
//!          -16        -8  -7            p                 p+n        p+n+8
//!    +-----------+------+--------------+-- ... --+-----------+-----------+
//!    |  n, high  | 'r'  |   FORBIDDEN  | n bytes | FORBIDDEN |  serial   |
//!    | byte 1st  | 'm'  |   7 bytes    |         |  8 bytes  |  number   |
//!    |           | 'o'  |              |         |           | (to 3.7)  |
//!    +-----------+------+--------------+-- ... --+-----------+-----------+
//!    |<- what the table below handed out                               ->|
//! ```
//!
//! New bytes are filled with CLEAN, but for calloc's; all of a block that is
//! freed with DEAD, these surroundings too. What each version writes is in
//! `compat.rs`. A block that was changed where it must not be, or comes back by
//! another domain, is described on stderr (`dump`), and the process ends as
//! CPython ends it.
//!
//! - `block`: the layout, and the look at it
//! - `dump`: the description
//! - `hooks`: the tables

pub(crate) mod block;

pub(crate) mod dump;

pub(crate) mod hooks;
