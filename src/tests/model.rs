//! The facade for code that tests the library: the model and the fuzzers (`fuzz/`), and the tests
//! beside the sources. No released library has it.
//!
//! Each structure asserts its own invariants; this file asserts those between structures.

use std::vec::Vec;

use crate::arena::page_map::MAP;
use crate::base::size_class::{SizeClass, TABLE_LEN};
use crate::heap::Heap;
use crate::pool::{SHARDS, Shard};
#[cfg(feature = "model")]
use crate::tcache::registry;

/// Sums over the pools of a class in a shard.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Sum {
    pools: usize,
    full: usize,
    taken: usize,
    resident: usize,
}

/// Asserts the invariants of the heap. Holds all locks, in the order of HEAP-2, as fork
/// does: other threads may use the heap meanwhile.
pub(crate) fn check_heap(heap: &Heap) {
    // The classes of packed domains last: the order of a shard's locks.
    let bins_of = |shard| {
        let by_packed = |packed| SizeClass::all().filter(move |class| class.is_packed() == packed);
        let classes = by_packed(false).chain(by_packed(true));
        classes.map(move |class| (shard, class, heap.bin(shard, class)))
    };
    let all: Vec<_> = heap.shards().flat_map(bins_of).collect();
    let arenas = heap.arenas.lock();
    arenas.check();
    let mut sums = [[Sum::default(); TABLE_LEN]; SHARDS];
    let (mut affinities, mut bases) = (Vec::new(), Vec::new());
    for arena in arenas.mapped() {
        bases.push(arena.base());
        affinities.extend(arena.affinity());
        for pool in arena.pools().take(arena.len()) {
            let (base, class) = (pool.base(), pool.class());
            assert_eq!(MAP.find(base).class(), class, "MAP-1");
            let found = MAP.arena(base).expect("MAP-3 ARENAS-3");
            assert!(core::ptr::eq(found, arena), "MAP-3 ARENAS-3");
            let Some(class) = class else {
                continue;
            };
            assert!(Shard::open().any(|shard| shard == pool.shard()), "SHARD-1");
            let sum = &mut sums[pool.shard().index()][class.index()];
            sum.pools += 1;
            sum.full += usize::from(pool.free() == 0);
            sum.taken += (class.info().blocks - pool.free()) as usize;
            sum.resident += pool.resident().bytes();
        }
    }
    for (shard, class, bin) in &all {
        bin.check(*shard, *class);
        bin.depot.check(*class);
        let sum = Sum {
            pools: bin.pools(),
            full: bin.full(),
            taken: bin.taken(),
            resident: bin.resident(),
        };
        assert_eq!(
            sum,
            sums[shard.index()][class.index()],
            "{shard:?} {class:?}"
        );
    }
    let others = |n: usize| affinities[n + 1..].contains(&affinities[n]);
    assert!(!(0..affinities.len()).any(others), "AFFINITY-1");
    bases.sort_unstable();
    assert!(bases.windows(2).all(|pair| pair[0] < pair[1]), "CHUNK-1");
}

/// Asserts the invariants of the free blocks in magazines and depots (HEAP-1), and returns them,
/// sorted. Called on the process's heap while no other thread is in a call.
#[cfg(feature = "model")]
pub(crate) fn cached(heap: &Heap) -> Vec<usize> {
    let mut cached = Vec::new();
    let mut add = |class: SizeClass, blocks: Vec<*mut u8>| {
        for block in &blocks {
            let address = block.addr();
            assert_eq!(MAP.find(address).class(), Some(class), "DEPOT-1 MAGAZINE-2");
            let arena = MAP.arena(address).expect("MAP-3");
            assert!(arena.pool(address).is_taken(address), "HEAP-1 POOL-1");
        }
        cached.extend(blocks.iter().map(|block| block.addr()));
    };
    registry::check(|magazines, is_idle| {
        for class in SizeClass::all() {
            let blocks = magazines.check(class);
            assert!(blocks.is_empty() || !is_idle, "REGISTRY-1");
            add(class, blocks);
        }
    });
    for (_, class, bin) in heap.touched_bins() {
        add(class, bin.depot.check(class));
    }
    cached.sort_unstable();
    assert!(cached.windows(2).all(|pair| pair[0] < pair[1]), "HEAP-1");
    cached
}

/// The functions for the model and the fuzzers.
#[cfg(feature = "model")]
mod facade {
    use super::*;
    use crate::arena::chunk::STANDARD;
    use crate::domains::ffi::PyObjectArenaAllocator;
    use crate::heap::HEAP;
    use crate::os::clock;
    use crate::stats::HeapStats;
    use core::sync::atomic::Ordering::Relaxed;

    pub use crate::os::faults;

    /// Asserts the invariants of the process's heap.
    pub fn check() {
        super::check_heap(&HEAP);
    }

    /// The addresses of the blocks in all magazines and depots, sorted.
    pub fn cached_blocks() -> Vec<usize> {
        super::cached(&HEAP)
    }

    /// The size class of the pool that an address is in, in bytes.
    pub fn size_of_class_at(address: usize) -> Option<usize> {
        MAP.find(address).class().map(|class| class.size())
    }

    /// Asserts that the statistics add up: `Err` has the sum, and two totals. All are 0
    /// if there is no memory for a snapshot.
    pub fn check_statistics() -> Result<(), (usize, usize, usize)> {
        let Some(now) = HeapStats::now() else {
            return Err((0, 0, 0));
        };
        let of_classes: usize = now.classes().map(|class| class.counts.pools).sum();
        if of_classes + now.arenas.free_pools != now.arenas.pools {
            return Err((of_classes, now.arenas.free_pools, now.arenas.pools));
        }
        let it = now.counters(None).resident;
        let sum = it.live + it.in_magazines + it.free_in_pools + it.empty_pools + it.metadata;
        if sum != it.total {
            return Err((sum as usize, it.total as usize, 0));
        }
        Ok(())
    }

    /// Arenas that are mapped, and pools in use.
    pub fn arenas_and_pools() -> (usize, usize) {
        let counts = HEAP.arena_counts();
        (counts.mapped, counts.pools - counts.free_pools)
    }

    /// Makes `milliseconds` of the library's clock pass.
    pub fn pass_time(milliseconds: u64) {
        clock::AHEAD.fetch_add(milliseconds, Relaxed);
    }

    /// Sets the version 3.`minor`.`patch` of CPython whose arena size holds.
    pub fn set_era(minor: u32, patch: u32) {
        crate::domains::compat::set(minor, patch);
    }

    /// The arena allocator of the library itself.
    pub fn standard_arenas() -> PyObjectArenaAllocator {
        STANDARD.into()
    }
}

#[cfg(feature = "model")]
pub use facade::*;
