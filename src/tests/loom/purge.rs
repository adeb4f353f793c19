//! Free pages are purged while pools change their owner: the purging thread finds the lock of a pool
//! by reads without a lock.

use super::Own;
use crate::base::size_class::SizeClass;
use crate::heap::Heap;
use crate::pool::Pool;
use crate::pool::Shard;
use crate::sync::execution::{model, spawn};
use crate::tcache::registry;
use core::ptr;

/// A pool that was assigned to `shard` and `class`, and one of its blocks.
fn begin(heap: &Heap, shard: Shard, class: SizeClass) -> (&'static Pool, *mut u8) {
    let used = heap.bin(shard, class);
    let pool = heap.assign_pool(&used, shard, class, false).unwrap();
    let (mut block, before) = ([ptr::null_mut()], pool.resident());
    assert_eq!(pool.take(class, &mut block), 1);
    used.resident_changed(before, pool.resident());
    (pool, block[0])
}

fn end(heap: &Heap, shard: Shard, class: SizeClass, (pool, block): (&'static Pool, *mut u8)) {
    let used = heap.bin(shard, class);
    assert_eq!(pool.give(class, &[block]), Ok(1));
    heap.reset_pool(&used, pool);
}

/// The pool is assigned to a shard that is opened meanwhile: a thread that finds the shard in `owner`
/// finds its locks, too.
#[test]
fn who_finds_a_new_shard_finds_its_locks() {
    model(Some(2), || {
        let own = Own::new();
        let heap = own.0;
        let (first, class) = (Shard::FIRST, SizeClass::of(32768).unwrap());
        assert!(heap.add_arena());
        let taken = begin(heap, first, class);
        let mut walk = heap.walk();
        let thread = spawn(move || {
            end(heap, first, class, taken);
            let second = registry::shard_of_thread(1, |shard| heap.open(shard));
            (second, begin(heap, second, class))
        });
        heap.purge_next(&mut walk, true);
        let (second, taken) = thread.join().unwrap();
        end(heap, second, class, taken);
        assert!(heap.release_empty());
    });
}

/// The pool is assigned to another shard, then to the first one in another class.
#[test]
fn a_pool_is_purged_under_the_lock_that_guards_it() {
    model(Some(2), || {
        let own = Own::new();
        let heap = own.0;
        let classes = [32768, 16384].map(|size| SizeClass::of(size).unwrap());
        let (first, second) = (
            Shard::FIRST,
            registry::shard_of_thread(1, |shard| heap.open(shard)),
        );
        assert!(heap.add_arena());
        let taken = begin(heap, first, classes[0]);
        let mut walk = heap.walk();
        let thread = spawn(move || {
            end(heap, first, classes[0], taken);
            let taken = begin(heap, second, classes[0]);
            end(heap, second, classes[0], taken);
            begin(heap, first, classes[1])
        });
        heap.purge_next(&mut walk, true);
        let taken = thread.join().unwrap();
        assert!(
            ptr::eq(taken.0, heap.walk().next_pool()),
            "one pool is all it is about"
        );
        end(heap, first, classes[1], taken);
        assert!(heap.release_empty());
    });
}
