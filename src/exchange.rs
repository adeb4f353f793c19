//! The exchange of runs between the threads' magazines and the heap: by the class's
//! depot while that can serve, else by its pools.
//!
//! # Threads
//!
//! Any thread, with no lock held.

use core::mem::MaybeUninit;
use core::ptr;
use core::slice;

use crate::depot::Left;
use crate::heap::{self, Heap};
use crate::lane::Lane;
use crate::size_class::{BLOCKS_PER_WORD, SizeClass};
use crate::supply::lane_of;

impl Heap {
    /// A run of free blocks of `class` for a thread that has none: what came to the
    /// depot last, else as `take`.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub fn refill(
        &self,
        lane: Lane,
        class: SizeClass,
        request: usize,
        out: &mut [*mut u8],
    ) -> usize {
        let used = self.used(lane, class);
        let taken = used.depot.take(self.slots(lane, class), out);
        if taken == 0 {
            drop(used);
            return self.take(lane, class, request, out);
        }
        used.took(0, request);
        taken
    }

    /// Takes a run of blocks of `class` that a thread has too many of into the depot of
    /// the lane that the first one belongs to; if that is full, as many of its older
    /// blocks, or these, go to the pools.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.rest")]
    pub fn flush(&self, class: SizeClass, run: &[*mut u8]) {
        if heap::at_once() {
            return self.give(class, run);
        }
        let Some(first) = run.first() else {
            return;
        };
        let (lane, mut older) = (lane_of(*first), [MaybeUninit::uninit(); BLOCKS_PER_WORD]);
        let used = self.used(lane, class);
        let slots = self.slots(lane, class);
        let left = used.depot.put(slots, class, run, &mut older);
        drop(used);
        match left {
            Left::Nothing => {}
            Left::Run => self.give(class, run),
            Left::Older(n) => {
                // SAFETY: so many were put there.
                let older = unsafe { slice::from_raw_parts(older.as_ptr().cast(), n) };
                self.give(class, older);
            }
        }
    }

    /// Gives what is in the depots to the pools: what nobody has taken since this was
    /// called the last time, or `all`. No arena goes back.
    pub fn empty_depots(&self, all: bool) {
        for (lane, class, used) in self.all_used() {
            let unused = used.depot.unused();
            let mut rest = if all { used.depot.held() } else { unused };
            drop(used);
            let mut run = [ptr::null_mut(); BLOCKS_PER_WORD];
            while rest > 0 {
                let wanted = rest.min(run.len());
                let slots = self.slots(lane, class);
                let taken = self.used(lane, class).depot.take(slots, &mut run[..wanted]);
                self.take_back(class, &run[wanted - taken..wanted]);
                rest = if taken < wanted { 0 } else { rest - taken };
            }
        }
    }
}
