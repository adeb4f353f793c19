//! Claims: large classes take their pools side by side.
//!
//! ```text
//!    a small class    the fullest arena that has an empty pool, as in obmalloc
//!    a large class    the arena that it has claimed, pool after pool; when that is
//!                     full, the fullest one that nobody has claimed, or another
//!
//!    arena   |aaaaaaaaaaaa....|     |bbbbbbbb........|     |ccccd.f.g.......|
//!             claimed by a           claimed by b           small classes
//! ```
//!
//! In a heap that grows by several classes in turn, pools of one class would come to
//! lie in between those of others. Side by side, what was made one after the other lies
//! one after the other beyond the end of a pool, and the collector and the first touch
//! feel it. A class is large when it has two arenas' worth of pools: so what is claimed
//! and not yet used is less than half of what is in use, and it is address space only.
//!
//! # Invariants
//!
//! AFFINITY-1  An arena that is claimed has an empty pool and one that is not. Each class
//!     in each shard claims one at the most.
#![forbid(unsafe_code)]

use core::num::NonZeroU16;

use crate::base::size_class::{SizeClass, TABLE_LEN};
use crate::pool::shard::Shard;

/// Who claims an arena: a class in a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)] // so that zero is nobody's
pub(crate) struct Affinity(NonZeroU16);

impl Affinity {
    /// That of a class. (There is one of every class: no index is 0, CLASS-1.)
    pub(crate) fn of(shard: Shard, class: SizeClass) -> Option<Affinity> {
        NonZeroU16::new((shard.index() * TABLE_LEN + class.index()) as u16).map(Affinity)
    }
}
