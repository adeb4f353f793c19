//! The debug hooks: tables over those of the domains. They surround every block with bytes that must
//! not change, and check them when the block is freed.
//!
//! ```text
//!          -16        -8  -7            p                 p+n        p+n+8
//!    +-----------+------+--------------+-- ... --+-----------+-----------+
//!    |  n, high  | 'r'  |   FORBIDDEN  | n bytes | FORBIDDEN |  serial   |
//!    | byte 1st  | 'm'  |   7 bytes    |         |  8 bytes  |  number   |
//!    |           | 'o'  |              |         |           | (to 3.7)  |
//!    +-----------+------+--------------+-- ... --+-----------+-----------+
//!    |<- block of the table under the hooks                            ->|
//! ```
//!
//! New bytes are filled with CLEAN, except calloc's; a freed block with DEAD, its surroundings too.
//! `compat.rs` has the values of each version. A block whose surroundings were changed, or that is
//! freed in another domain, is described on stderr (`dump`), and the process ends as CPython ends it.
//!
//! - `block`: the layout, and its check
//! - `dump`: the description
//! - `hooks`: the tables

pub(crate) mod block;

pub(crate) mod dump;

pub(crate) mod hooks;
