//! What the heap holds, counted.
//!
//! # Threads
//!
//! Any thread, with no lock held. One lock after the other is taken: while other
//! threads allocate, the parts of a sum are of different moments.
#![forbid(unsafe_code)]

use crate::arena::set::Counts;
use crate::base::size_class::SizeClass;
use crate::heap::Heap;
use crate::heap::bin::UsedPools;
use crate::os::lock::Held;
use crate::pool::shard::Shard;

/// What a class holds at one moment, in all shards.
#[derive(Clone, Copy, Default)]
pub struct ClassCounts {
    /// Its pools, used and full.
    pub pools: usize,
    /// Of these, how many are full.
    pub full: usize,
    /// Blocks that are live, in some thread's magazine or in the depot.
    pub taken: usize,
    /// Blocks in the depot.
    pub in_depot: usize,
    /// Bytes of resident pages in its pools.
    pub resident: usize,
    /// Requests that were looked at.
    pub sampled: usize,
    /// The bytes of these.
    pub requested: usize,
}

impl Heap {
    /// What a class holds now.
    pub fn class_counts(&self, class: SizeClass) -> ClassCounts {
        let mut sum = ClassCounts::default();
        for used in self.shards().filter_map(|shard| self.touched(shard, class)) {
            sum.pools += used.pools();
            sum.full += used.full();
            sum.taken += used.taken();
            sum.in_depot += used.depot.held();
            sum.resident += used.resident();
            sum.sampled += used.sampled();
            sum.requested = sum.requested.wrapping_add(used.requested());
        }
        sum
    }

    /// What the arenas hold now.
    pub fn arena_counts(&self) -> Counts {
        self.arenas.lock().counts()
    }

    /// Bytes that are with us and that no block lies in which is live or in a
    /// magazine. Not all of them make whole pages.
    pub fn free_bytes(&self) -> usize {
        let of_class = |(_, class, used): (Shard, SizeClass, Held<'_, UsedPools>)| {
            // A depot may hold some blocks of another shard.
            let taken = used.taken().saturating_sub(used.depot.held());
            used.resident().saturating_sub(taken * class.size())
        };
        let used: usize = self.all_used().map(of_class).sum();
        used + self.arena_counts().resident_empty
    }
}
