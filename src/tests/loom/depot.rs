//! A block that one thread frees and another takes from the depot: the second sees what the first did
//! with it.

use super::Own;
use crate::base::size_class::{BLOCKS_PER_WORD, SizeClass};
use crate::heap::Heap;
use crate::pool::Shard;
use crate::sync::Cell;
use crate::sync::execution::{model, spawn};
use core::mem::MaybeUninit;
use core::ptr;

/// Takes a block, as a magazine does; writes to it; and passes it on.
fn use_a_block(heap: &Heap, class: SizeClass) {
    let mut batch = [ptr::null_mut()];
    assert_eq!(heap.refill(Shard::FIRST, class, 1, &mut batch), 1);
    // SAFETY: a block of this thread, larger than a cell.
    let content = unsafe { &*batch[0].cast::<Cell<u32>>() };
    content.set(content.get() + 1);
    heap.flush(class, &batch);
}

#[test]
fn whoever_takes_a_block_sees_what_was_done_with_it() {
    model(Some(2), || {
        let own = Own::new();
        let heap = own.0;
        let class = SizeClass::of(512).unwrap();
        let mut block = [ptr::null_mut()];
        assert_eq!(heap.take(Shard::FIRST, class, 1, &mut block), 1);
        let bin = heap.bin(Shard::FIRST, class);
        let mut oldest = [MaybeUninit::uninit(); BLOCKS_PER_WORD];
        while bin.depot.batches() == 0 {
            bin.depot.put(class, &block, &mut oldest); // it begins to keep batches after some
        }
        drop(bin);
        let thread = spawn(move || use_a_block(heap, class));
        use_a_block(heap, class);
        thread.join().unwrap();
        heap.empty_depots(true);
        assert!(heap.release_empty());
    });
}
