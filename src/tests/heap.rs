//! Pools and arenas while blocks are allocated and freed, on a heap of the test's own.

use super::*;
use crate::arena::set;
use crate::base::layout::{POOL_SIZE, POOLS_PER_ARENA, pool_base};
use crate::base::size_class::SizeClass;
use crate::heap::Heap;
use crate::pool::{SHARDS, Shard};
use crate::tcache::registry;
use core::ptr;

fn heap() -> &'static Heap {
    // Too large for a thread's stack.
    let heap = core::alloc::Layout::new::<Heap>();
    // SAFETY: zeroed memory is a heap without arenas, like the process's own at the start.
    unsafe { &*std::alloc::alloc_zeroed(heap).cast() }
}

fn take(heap: &Heap, class: SizeClass, n: usize) -> Vec<*mut u8> {
    let mut all = Vec::new();
    while all.len() < n {
        let mut batch = vec![ptr::null_mut(); (n - all.len()).min(64)];
        let taken = heap.take(Shard::FIRST, class, 1, &mut batch);
        assert!(taken > 0);
        all.extend(batch.split_off(batch.len() - taken).iter().rev());
    }
    all
}

#[test]
fn a_pool_goes_from_empty_to_used_to_full_and_back() {
    let heap = heap();
    let class = SizeClass::of(48).unwrap();
    let blocks = class.info().blocks as usize;
    let state = || {
        crate::tests::model::check_heap(heap);
        let counts = heap.class_counts(class);
        (counts.pools, counts.full, heap.arena_counts().free_pools)
    };
    assert_eq!(state(), (0, 0, 0));
    let mut all = take(heap, class, 1);
    assert_eq!(state(), (1, 0, POOLS_PER_ARENA - 1), "empty -> used");
    assert_eq!(MAP.find(all[0].addr()).class(), Some(class));
    all.extend(take(heap, class, blocks - 1));
    assert_eq!(state(), (1, 1, POOLS_PER_ARENA - 1), "used -> full");
    heap.give(class, &[all.pop().unwrap()]);
    assert_eq!(state(), (1, 0, POOLS_PER_ARENA - 1), "full -> used");
    heap.give(class, &all);
    assert_eq!(state(), (0, 0, POOLS_PER_ARENA), "used -> empty");
    assert_eq!(MAP.find(all[0].addr()).class(), None);
}

#[test]
fn blocks_come_in_order_of_their_addresses() {
    let heap = heap();
    let class = SizeClass::of(64).unwrap();
    let all = take(heap, class, 500);
    assert!(all.is_sorted());
    assert_eq!(all[0].addr() % 64, 48);
    assert!(
        all.windows(2)
            .all(|pair| pair[1].addr() - pair[0].addr() == 64)
    );
}

#[test]
fn the_fullest_pool_is_used_first() {
    let heap = heap();
    let class = SizeClass::of(256).unwrap();
    let blocks = class.info().blocks as usize;
    let all = take(heap, class, 3 * blocks);
    // One block of the second pool is freed, and half of the blocks of the others.
    heap.give(class, &all[..blocks / 2]);
    heap.give(class, &all[2 * blocks..2 * blocks + blocks / 2]);
    heap.give(class, &[all[blocks]]);
    crate::tests::model::check_heap(heap);
    assert_eq!(take(heap, class, 1), [all[blocks]]);
}

#[test]
fn a_refill_gathers_scattered_blocks_under_one_lock() {
    let heap = heap();
    let class = SizeClass::of(512).unwrap();
    let blocks = class.info().blocks as usize;
    let all = take(heap, class, 5 * blocks);
    for pool in all.chunks(blocks) {
        heap.give(class, &pool[..3]);
    }
    let mut batch = [ptr::null_mut(); 64];
    assert_eq!(
        heap.take(Shard::FIRST, class, 1, &mut batch),
        15,
        "three from each, and no new pool"
    );
    assert_eq!(heap.class_counts(class).pools, 5);
}

#[test]
fn empty_pools_serve_another_class() {
    let heap = heap();
    let (small, large) = (SizeClass::of(16).unwrap(), SizeClass::of(16384).unwrap());
    let first = take(heap, small, 1);
    let base = pool_base(first[0].addr());
    heap.give(small, &first);
    let second = take(heap, large, 4);
    assert_eq!(second[0].addr(), base);
    assert_eq!(second.len() * large.size(), POOL_SIZE);
    crate::tests::model::check_heap(heap);
    heap.give(large, &second);
}

#[test]
fn empty_arenas_are_unmapped() {
    set::set_decay(false);
    let heap = heap();
    let class = SizeClass::of(32768).unwrap();
    let arenas = 20;
    let all = take(heap, class, arenas * POOLS_PER_ARENA * 2);
    assert_eq!(heap.arena_counts().mapped, arenas);
    heap.give(class, &all);
    crate::tests::model::check_heap(heap);
    let counts = heap.arena_counts();
    assert!(counts.mapped < arenas && counts.mapped == counts.empty);
    assert_eq!(counts.mapped + counts.unmapped_total, arenas);
}

#[test]
fn every_class_mixes_in_the_same_arenas() {
    let heap = heap();
    let mut all = Vec::new();
    for class in SizeClass::all() {
        let n = class.info().blocks as usize + 1;
        all.push((class, take(heap, class, n)));
    }
    crate::tests::model::check_heap(heap);
    for (class, blocks) in all.iter().rev() {
        for block in blocks {
            assert_eq!(MAP.find(block.addr()).class(), Some(*class));
        }
        heap.give(*class, blocks);
    }
    crate::tests::model::check_heap(heap);
    let counts = heap.arena_counts();
    assert_eq!(counts.free_pools, counts.mapped * POOLS_PER_ARENA);
}

#[test]
fn shards_share_no_pool_and_blocks_return_to_their_own() {
    let heap = heap();
    let class = SizeClass::of(64).unwrap();
    let take = |shard| {
        let mut batch = [ptr::null_mut(); 64];
        assert_eq!(heap.take(shard, class, 1, &mut batch), batch.len());
        batch
    };
    let shard = |number| registry::shard_of_thread(number, |shard| heap.open(shard));
    let (one, other) = (take(shard(SHARDS - 2)), take(shard(SHARDS - 1)));
    assert_ne!(pool_base(one[0].addr()), pool_base(other[0].addr()));
    assert_eq!(heap.class_counts(class).pools, 2);
    let mixed: Vec<_> = one
        .into_iter()
        .zip(other)
        .flat_map(<[_; 2]>::from)
        .collect();
    heap.give(class, &mixed[2..]);
    crate::tests::model::check_heap(heap);
    assert_eq!(heap.class_counts(class).taken, 2);
    heap.give(class, &mixed[..2]);
    crate::tests::model::check_heap(heap);
    assert_eq!(heap.class_counts(class).pools, 0);
}
