//! The page map: a thread that finds an arena sees its whole record, and a thread that has a block
//! finds its class.

use crate::arena::Arena;
use crate::arena::chunk::Chunk;
use crate::arena::page_map::MAP;
use crate::base::layout::POOL_SIZE;
use crate::base::size_class::SizeClass;
use crate::os::memory;
use crate::pool::Shard;
use crate::sync::execution::{model, spawn};
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Release},
};
use core::ptr::{self, NonNull};
use std::rc::Rc;

/// A chunk and a record for an arena, at the same address in every order.
#[derive(Clone, Copy)]
struct Place(NonNull<Arena>, Chunk);

impl Place {
    fn new() -> Place {
        let size = size_of::<Arena>().next_multiple_of(memory::page_size());
        Place(memory::map(size).unwrap().cast(), Chunk::take().unwrap())
    }

    /// The record, without an arena.
    fn clean(self) -> (&'static Arena, Chunk) {
        // SAFETY: mapped for it; no other model is under way.
        unsafe { self.0.write_bytes(0, 1) };
        // SAFETY: zeroed memory is a record without an arena.
        (unsafe { self.0.as_ref() }, self.1)
    }
}

// SAFETY: all of loom's threads run on one thread.
unsafe impl Send for Place {}
// SAFETY: all of loom's threads run on one thread.
unsafe impl Sync for Place {}

fn is_found(arena: &'static Arena) -> bool {
    MAP.arena(arena.base())
        .is_some_and(|found| ptr::eq(found, arena))
}

/// A thread adds an arena while another looks it up, next to existing `neighbours`.
fn add_and_look_up(neighbours: &'static [Place]) {
    let place = Place::new();
    model(Some(2), move || {
        for neighbour in neighbours {
            let (arena, chunk) = neighbour.clean();
            arena.init(chunk);
            assert!(MAP.add_arena(arena));
        }
        let (arena, chunk) = place.clean();
        let base = chunk.first_pool();
        let thread = spawn(move || {
            arena.init(chunk);
            assert!(MAP.add_arena(arena));
        });
        for address in [base + 5, base + chunk.size() - 1] {
            if let Some(found) = MAP.arena(address) {
                assert_eq!(found.base(), base);
                assert!(found.pool(address).class().is_none());
            }
            assert_eq!(MAP.find(address).class(), None);
        }
        thread.join().unwrap();
        assert!(is_found(arena));
    });
}

#[test]
fn whoever_finds_an_arena_finds_its_record_filled() {
    add_and_look_up(&[]);
}

/// The leaf exists already: the arena's entry publishes the record.
#[test]
fn the_same_where_there_is_a_leaf() {
    add_and_look_up(std::vec![Place::new()].leak());
}

/// An arena is unmapped, and its record becomes that of another one, while a thread looks up a foreign
/// address there.
#[test]
fn a_record_may_become_another_arenas_during_a_lookup() {
    let (place, other) = (Place::new(), Place::new());
    model(Some(2), move || {
        let (arena, chunk) = place.clean();
        let (_, next) = other.clean();
        arena.init(chunk);
        assert!(MAP.add_arena(arena));
        let thread = spawn(move || {
            MAP.remove_arena(arena);
            arena.take_chunk();
            arena.init(next);
            assert!(MAP.add_arena(arena));
        });
        let address = chunk.first_pool() + 5;
        if let Some(found) = MAP.arena(address) {
            assert!(found.pool(address).class().is_none());
        }
        thread.join().unwrap();
        assert!(MAP.arena(address).is_none());
        assert!(is_found(arena));
    });
}

/// A custom arena in a granule that is split for it, or was split for a `neighbour` before.
fn add_a_part_of_a_granule(neighbour: Option<Place>) {
    let place = Place::new();
    model(Some(2), move || {
        let (arena, chunk) = place.clean();
        let part = |pool: usize| {
            let start = chunk.first_pool() + pool * POOL_SIZE;
            let start = NonNull::new(ptr::with_exposed_provenance_mut(start)).unwrap();
            Chunk::custom_at(start, 2 * POOL_SIZE)
        };
        if let Some(neighbour) = neighbour {
            let (before, _) = neighbour.clean();
            before.init(part(8));
            assert!(MAP.add_arena(before));
        }
        let next = part(1);
        let base = next.first_pool();
        let thread = spawn(move || {
            arena.init(next);
            assert!(MAP.add_arena(arena));
        });
        if let Some(found) = MAP.arena(base + POOL_SIZE + 5) {
            assert_eq!(found.base(), base);
            assert!(found.pool(base).class().is_none());
        }
        assert!(MAP.arena(base - 1).is_none());
        thread.join().unwrap();
        assert!(is_found(arena));
    });
}

#[test]
fn whoever_finds_a_part_of_a_granule_finds_its_record_filled() {
    add_a_part_of_a_granule(None);
    add_a_part_of_a_granule(Some(Place::new()));
}

#[test]
fn two_arenas_that_need_the_same_leaf_both_have_it() {
    let places = [Place::new(), Place::new()];
    model(Some(2), move || {
        let [one, other] = places.map(|place| {
            let (arena, chunk) = place.clean();
            arena.init(chunk);
            arena
        });
        let add = |arena| {
            assert!(MAP.add_arena(arena));
            assert!(is_found(arena));
        };
        let thread = spawn(move || add(other));
        add(one);
        thread.join().unwrap();
        assert!(is_found(one) && is_found(other));
    });
}

/// The program hands the block from one thread to the other.
#[test]
fn whoever_has_a_block_finds_its_class() {
    let place = Place::new();
    model(Some(3), move || {
        let (arena, chunk) = place.clean();
        let class = SizeClass::of(512).unwrap();
        let block = Rc::new(AtomicUsize::new(0));
        let handed = Rc::clone(&block);
        let thread = spawn(move || {
            arena.init(chunk);
            assert!(MAP.add_arena(arena));
            let pool = arena.take_pool().unwrap();
            pool.assign(Shard::FIRST, class);
            MAP.set_class(pool.base(), Some(class));
            handed.store(pool.base() + 48, Release);
        });
        let address = block.load(Acquire);
        if address != 0 {
            assert_eq!(MAP.find(address).class(), Some(class));
            let pool = MAP.arena(address).unwrap().pool(address);
            assert!(pool.has_class(class));
        }
        thread.join().unwrap();
        assert_eq!(MAP.find(block.load(Acquire)).class(), Some(class));
    });
}
