//! Which domains are packed: their small blocks are a multiple of 8 bytes instead of
//! 16, and aligned to no more.
//!
//! ```text
//!    request          17 .. 24   25 .. 32   33 .. 40   41 .. 48   49 .. 56
//!    block               32         32         48         48         64
//!    block, packed       24         32         40         48         56
//! ```
//!
//! Nearly half of the blocks of a Python program round to an odd multiple of 8 (a
//! list, a tuple of three, a float), so a packed heap is smaller by an eighth or so,
//! and the collector finds its objects on fewer cache lines. It is what CPython did
//! up to 3.7.3; but compilers may take it that a block of 16 bytes or more is aligned
//! to 16.
//!
//! A type whose size is a multiple of 16 still gets blocks aligned to 16: it is a type
//! whose objects need that, of a size that is not fixed (16-byte items at the end of an
//! object with a header of 8 bytes more), that would notice. So it is asked for, not
//! the default, and may be asked for objects only: buffers, which numbers with SIMD
//! instructions are read from, stay as they are.
//!
//! # Threads
//!
//! Atomics, written at start.
#![forbid(unsafe_code)]

use crate::sync::{AtomicBool, Ordering::Relaxed};

static MEM: AtomicBool = AtomicBool::new(false);
static OBJ: AtomicBool = AtomicBool::new(false);

/// Says which domains are packed.
pub(crate) fn set(mem: bool, obj: bool) {
    MEM.store(mem, Relaxed);
    OBJ.store(obj, Relaxed);
}

/// Whether any is.
pub(crate) fn any() -> bool {
    mem() || obj()
}

/// Whether the domain MEM is packed.
pub(crate) fn mem() -> bool {
    MEM.load(Relaxed)
}

/// Whether the domain OBJ is packed.
pub(crate) fn obj() -> bool {
    OBJ.load(Relaxed)
}
