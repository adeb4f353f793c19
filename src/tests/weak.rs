//! Threads that hand over arenas and blocks by the weakest means that a program may use. Run as they
//! are, and by Miri with several seeds (`tests/concurrency/run.py miri`): its atomics return old
//! values that C11 allows, on any target, and it reports each access to plain memory that nothing
//! orders. The content of blocks is such memory, and so are the pages that a purge empties.

use super::*;
use crate::base::layout::POOL_SIZE;
use crate::base::size_class::SizeClass;
use crate::base::vtable::LIBC;
use crate::heap::{HEAP, Heap};
use crate::object;
use crate::pool::Shard;
use crate::sync::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::tcache::magazine::{Magazines, SLOTS};
use crate::tcache::registry;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// Arenas that a thread adds and removes.
const ARENAS: usize = if cfg!(miri) { 4 } else { 50 };
/// Blocks that each thread allocates.
const BLOCKS: usize = if cfg!(miri) { 60 } else { 20_000 };

/// A thread looks up addresses that it has without any ordering, while another adds and removes the
/// arenas there.
#[test]
fn a_lookup_finds_a_whole_record_or_none() {
    static BASE: AtomicUsize = AtomicUsize::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !OVER.load(Relaxed) {
                let base = BASE.load(Relaxed);
                let address = base + POOL_SIZE + 5;
                if let Some(arena) = MAP.arena(address) {
                    let pool = arena.pool(address);
                    assert!(pool.base() != 0);
                    assert!(arena.base() != 0);
                    let _ = (pool.owner(), MAP.find(address), MAP.find_far(address));
                }
                std::thread::yield_now();
            }
        });
        let mut chunks = Vec::new();
        let record = lone_record();
        for _ in 0..ARENAS {
            let chunk = crate::arena::chunk::Chunk::take().unwrap();
            record.init(chunk);
            assert!(MAP.add_arena(record));
            BASE.store(record.base(), Relaxed);
            let pool = record.take_pool().unwrap();
            let class = SizeClass::of(64).unwrap();
            pool.assign(Shard::FIRST, class);
            MAP.set_class(pool.base(), Some(class));
            std::thread::yield_now();
            MAP.set_class(pool.base(), None);
            pool.reset();
            MAP.remove_arena(record);
            chunks.extend(record.take_chunk());
        }
        OVER.store(true, Relaxed);
        chunks.into_iter().for_each(|chunk| chunk.release());
    });
}

/// A thread adds an arena, assigns a pool and hands a block over; the other one finds its class, by
/// both ways.
#[test]
fn a_block_is_found_by_whoever_it_was_handed_to() {
    static HANDED: AtomicUsize = AtomicUsize::new(0);
    let class = SizeClass::of(512);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1..=ARENAS {
                let mut address;
                loop {
                    address = HANDED.load(Acquire);
                    if address != 0 {
                        break;
                    }
                    std::thread::yield_now();
                }
                assert_eq!(MAP.find(address).class(), class, "turn {turn}");
                assert_eq!(MAP.find_far(address).class(), class, "turn {turn}");
                HANDED.store(0, Release);
            }
        });
        for _ in 0..ARENAS {
            let arena = lone_arena();
            let pool = arena.take_pool().unwrap();
            pool.assign(Shard::FIRST, class.unwrap());
            MAP.set_class(pool.base(), class);
            HANDED.store(pool.base() + 48, Release);
            while HANDED.load(Acquire) != 0 {
                std::thread::yield_now();
            }
            MAP.set_class(pool.base(), None);
            pool.reset();
            MAP.remove_arena(arena);
            arena
                .take_chunk()
                .into_iter()
                .for_each(|chunk| chunk.release());
        }
    });
}

/// Two threads, each with magazines of its own, fill blocks and hand them to each other through two
/// words; whoever gets a block checks its content and frees it. Batches go through both magazines and
/// the depot.
#[test]
fn blocks_go_through_two_threads_magazines_with_their_content() {
    static PLACES: [AtomicPtr<usize>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
    // SAFETY: zeroed memory is a heap without arenas.
    let heap: &Heap = unsafe { &*std::alloc::alloc_zeroed(Layout::new::<Heap>()).cast() };
    let class = SizeClass::of(512).unwrap();
    let work = move |seed: usize| {
        let slots = vec![ptr::null_mut::<u8>(); SLOTS].leak();
        let magazines = Box::leak(Box::new(Magazines::zero()));
        // SAFETY: null slots of this thread's own, never freed.
        unsafe { magazines.init(NonNull::from(slots).cast(), Shard::FIRST, 0) };
        let give = |p: *mut usize| {
            let entry = MAP.find(p.addr());
            assert_eq!(entry.class(), Some(class));
            if !magazines.push(entry, p.cast()) {
                assert!(magazines.flush(heap, class) > 0);
                assert!(magazines.push(entry, p.cast()));
            }
        };
        for i in 0..BLOCKS {
            let mut p = magazines.pop(class);
            if p.is_null() {
                p = magazines.refill(heap, class, 512).block;
            }
            let p = p.cast::<usize>();
            assert!(!p.is_null());
            // SAFETY: a new block of 512 bytes.
            unsafe { p.write(!p.addr()) };
            let handed = PLACES[(i + seed) % 2].swap(p, AcqRel);
            if !handed.is_null() {
                // SAFETY: a live block of this thread.
                assert_eq!(unsafe { handed.read() }, !handed.addr());
                give(handed);
            }
            if i % 4 == 3 {
                // One thread frees more than it allocates, and the other less.
                let handed = PLACES[seed].swap(ptr::null_mut(), AcqRel);
                if !handed.is_null() {
                    give(handed);
                }
            }
        }
        magazines.flush_all(heap);
    };
    std::thread::scope(|scope| {
        for seed in [0, 1] {
            scope.spawn(move || work(seed));
        }
    });
    for place in &PLACES {
        let p = place.swap(ptr::null_mut(), AcqRel);
        if !p.is_null() {
            heap.give(class, &[p.cast()]);
        }
    }
    heap.empty_depots(true);
    assert_eq!(heap.class_counts(class).taken, 0);
}

/// Two threads fill blocks and hand them to each other through a few words, by one AcqRel swap each;
/// whoever gets a block checks its content and frees it. Batches go through magazines, depots and
/// pools. A third thread reads the statistics and returns free pages, whose content is lost.
#[test]
#[cfg_attr(miri, ignore = "it takes too long; the one before is its small form")]
fn blocks_go_from_thread_to_thread_with_their_content() {
    static PLACES: [AtomicPtr<usize>; 8] = [const { AtomicPtr::new(ptr::null_mut()) }; 8];
    static OVER: AtomicBool = AtomicBool::new(false);
    let class = SizeClass::of(512).unwrap();
    let check_and_free = |p: *mut usize| {
        if !p.is_null() {
            // SAFETY: a live block of this thread, of at least two words.
            let [first, second] = unsafe { p.cast::<[usize; 2]>().read() };
            assert_eq!((first, second), (p.addr(), !p.addr()));
            // SAFETY: a live block of this thread, used no more.
            unsafe { object::free(&LIBC, p.cast()) };
        }
    };
    let work = |seed: usize| {
        let sizes = [16, 512, 496, 512, 512, 24_000];
        let mut kept = Vec::new();
        for i in 0..BLOCKS {
            // SAFETY: VTABLE-1 holds for the C library's table.
            let p = unsafe { object::malloc::<16>(&LIBC, sizes[(i / 8 + seed) % sizes.len()]) };
            let p = p.cast::<usize>();
            assert!(!p.is_null());
            // SAFETY: a new block of at least two words.
            unsafe { p.cast::<[usize; 2]>().write([p.addr(), !p.addr()]) };
            check_and_free(PLACES[(i + seed) % PLACES.len()].swap(p, AcqRel));
            if i % 64 == 0 {
                // A burst: more blocks than a magazine has slots.
                kept.extend((0..24).map(|_| {
                    // SAFETY: VTABLE-1 holds for the C library's table.
                    unsafe { object::malloc::<16>(&LIBC, 512) }
                }));
                for p in kept.drain(..) {
                    // SAFETY: a live block of this thread, used no more.
                    unsafe { object::free(&LIBC, p) };
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers = [0, 3].map(|seed| scope.spawn(move || work(seed)));
        scope.spawn(|| {
            while !OVER.load(Relaxed) {
                let mut walk = HEAP.walk();
                while HEAP.purge_next(&mut walk, true).is_some() {}
                HEAP.empty_depots(true);
                assert!(HEAP.class_counts(class).taken < usize::MAX / 2);
                std::thread::yield_now();
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        OVER.store(true, Relaxed);
    });
    for place in &PLACES {
        check_and_free(place.swap(ptr::null_mut(), AcqRel));
    }
    assert!(!registry::is_new());
    crate::tests::model::check_heap(&HEAP);
}
