//! The exchange of runs between the threads' magazines and the heap: by the class's
//! depot while that can serve, else by its pools.
//!
//! # Threads
//!
//! Any thread, with no lock held.

use core::mem::MaybeUninit;
use core::ptr;
use core::slice;

use crate::base::size_class::{BLOCKS_PER_WORD, SizeClass};
use crate::heap::depot::Left;
use crate::heap::supply::shard_of;
use crate::heap::{self, Heap};
use crate::os::lock::MaintenanceScope;
use crate::pool::shard::Shard;

impl Heap {
    /// A run of free blocks of `class` for a thread that has none: what came to the
    /// depot last, else as `take`.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub fn refill(
        &self,
        shard: Shard,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let used = self.used(shard, class);
        let taken = used.depot.take(class, out);
        if taken == 0 {
            return self.take_holding(used, shard, class, request, out);
        }
        used.record_take(0, request);
        taken
    }

    /// Takes a run of blocks of `class` that a thread has too many of into the depot of
    /// the shard that the first one belongs to. What leaves that, the oldest run if it is
    /// full, goes to the pools.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub fn flush(&self, class: SizeClass, run: &[*mut u8]) {
        if heap::at_once() {
            return self.give(class, run);
        }
        let Some(first) = run.first() else {
            return;
        };
        let (shard, mut oldest) = (shard_of(*first), [MaybeUninit::uninit(); BLOCKS_PER_WORD]);
        let used = self.used(shard, class);
        let leaving = match used.depot.put(class, run, &mut oldest) {
            Left::Nothing => return,
            Left::Run => run,
            // SAFETY: so many were put there.
            Left::Oldest(n) => unsafe { slice::from_raw_parts(oldest.as_ptr().cast(), n) },
        };
        self.give_holding(used, shard, class, leaving);
    }

    /// Gives what is in the depots to the pools: what nobody has taken since this was
    /// called the last time, or `all`. No arena goes back.
    pub fn empty_depots(&self, all: bool) {
        let _tending = MaintenanceScope::begin();
        for (shard, class, used) in self.all_used() {
            let (rows, unused) = (used.depot.rows(), used.depot.unused());
            drop(used);
            let leaving = if all { rows } else { unused };
            let mut run = [ptr::null_mut(); BLOCKS_PER_WORD];
            for _ in 0..leaving {
                let used = self.used(shard, class);
                let taken = used.depot.take_oldest(class, &mut run);
                drop(used);
                self.take_back(class, &run[..taken]);
            }
        }
    }
}
