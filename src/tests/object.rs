//! The object allocator against a naive model: random operations on the process's heap, with the
//! contents of every block written and verified, from several threads.

use super::*;
use crate::base::size_class::MEDIUM_MAX;
use crate::base::vtable::LIBC;
use crate::object;
use crate::policy::size_policy;
use crate::stats;
use core::ffi::c_void;
use core::ptr;
use proptest::prelude::*;
use std::sync::mpsc;

/// A block with its expected contents.
struct Owned {
    p: *mut u8,
    len: usize,
    seed: u8,
}

// SAFETY: a block belongs to the owner of its `Owned`.
unsafe impl Send for Owned {}

fn byte(seed: u8, i: usize) -> u8 {
    seed.wrapping_add((i % 251) as u8)
}

impl Owned {
    fn new(p: *mut c_void, len: usize, seed: u8) -> Owned {
        assert!(!p.is_null());
        assert_eq!(p.addr() % 16, 0);
        let owned = Owned {
            p: p.cast(),
            len,
            seed,
        };
        owned.fill(0);
        owned
    }

    fn malloc(len: usize, seed: u8) -> Owned {
        // SAFETY: VTABLE-1 holds for the C library's table.
        Owned::new(unsafe { object::malloc::<16>(&LIBC, len) }, len, seed)
    }

    fn calloc(len: usize, seed: u8) -> Owned {
        // SAFETY: VTABLE-1 holds for the C library's table.
        let p = unsafe { object::calloc::<16>(&LIBC, 1, len) };
        for i in 0..len {
            // SAFETY: within the block.
            assert_eq!(unsafe { p.cast::<u8>().add(i).read() }, 0);
        }
        Owned::new(p, len, seed)
    }

    fn fill(&self, from: usize) {
        for i in from..self.len {
            // SAFETY: within the block.
            unsafe { self.p.add(i).write(byte(self.seed, i)) };
        }
    }

    fn verify(&self, len: usize) {
        for i in 0..len {
            // SAFETY: within the block.
            let found = unsafe { self.p.add(i).read() };
            assert_eq!(found, byte(self.seed, i), "byte {i}");
        }
    }

    fn realloc(&mut self, len: usize) {
        // SAFETY: a live block, used no more.
        let p = unsafe { object::realloc::<16>(&LIBC, self.p.cast(), len) };
        assert!(!p.is_null());
        let kept = self.len.min(len);
        (self.p, self.len) = (p.cast(), len);
        self.verify(kept);
        self.fill(kept);
    }

    fn free(self) {
        self.verify(self.len);
        // SAFETY: a live block, used no more.
        unsafe { object::free(&LIBC, self.p.cast()) };
    }
}

#[derive(Clone, Debug)]
enum Act {
    Malloc(usize),
    Calloc(usize),
    Realloc(usize, usize),
    Free(usize),
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..600usize, 3 => 500..5000usize, 1 => 4000..70_000usize]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => sizes().prop_map(Act::Malloc),
        1 => sizes().prop_map(Act::Calloc),
        2 => (any::<usize>(), sizes()).prop_map(|(i, n)| Act::Realloc(i, n)),
        4 => any::<usize>().prop_map(Act::Free),
    ];
    proptest::collection::vec(act, 1..600)
}

fn perform(acts: &[Act]) {
    size_policy::set(MEDIUM_MAX);
    let mut live: Vec<Owned> = Vec::new();
    for (seed, act) in acts.iter().enumerate() {
        let seed = seed as u8;
        match *act {
            Act::Malloc(n) => live.push(Owned::malloc(n, seed)),
            Act::Calloc(n) => live.push(Owned::calloc(n, seed)),
            Act::Realloc(i, n) if !live.is_empty() => {
                let i = i % live.len();
                live[i].realloc(n);
            }
            Act::Free(i) if !live.is_empty() => live.swap_remove(i % live.len()).free(),
            Act::Realloc(..) | Act::Free(_) => {}
        }
    }
    // Overlapping blocks would have changed each other's contents.
    for owned in live {
        owned.free();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_programs_keep_their_contents(acts in acts()) {
        perform(&acts);
        crate::tests::model::check_heap(&crate::heap::HEAP);
    }
}

#[test]
fn blocks_may_be_freed_by_another_thread() {
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::sync_channel::<Owned>(256);
        for thread in 0..2u8 {
            let send = send.clone();
            scope.spawn(move || {
                for i in 0..20_000usize {
                    send.send(Owned::malloc(i % 3000, thread)).unwrap();
                }
            });
        }
        drop(send);
        scope.spawn(move || receive.into_iter().for_each(Owned::free));
    });
    crate::tests::model::check_heap(&crate::heap::HEAP);
}

#[test]
fn threads_come_and_go() {
    for round in 0..50u8 {
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                scope.spawn(move || {
                    let blocks: Vec<_> =
                        (0..600).map(|n| Owned::malloc(n, round ^ thread)).collect();
                    blocks.into_iter().for_each(Owned::free);
                });
            }
        });
    }
    crate::tests::model::check_heap(&crate::heap::HEAP);
}

#[test]
fn impossible_sizes_are_refused_and_change_nothing() {
    let block = Owned::malloc(100, 7);
    for n in [
        usize::MAX,
        isize::MAX as usize + 1,
        isize::MAX as usize,
        1 << 62,
    ] {
        // SAFETY: any size is valid, and the block is live.
        unsafe {
            assert!(object::malloc::<16>(&LIBC, n).is_null());
            assert!(object::calloc::<16>(&LIBC, n, 1).is_null());
            assert!(object::calloc::<16>(&LIBC, 1, n).is_null());
            assert!(object::calloc::<16>(&LIBC, n, n).is_null());
            assert!(object::realloc::<16>(&LIBC, block.p.cast(), n).is_null());
            assert!(object::realloc::<16>(&LIBC, ptr::null_mut(), n).is_null());
        }
    }
    block.free();
}

#[test]
fn a_block_stays_while_three_quarters_of_it_are_used() {
    size_policy::set(MEDIUM_MAX);
    for (size, stays) in [(512, 385), (64, 49), (1024, 769), (32768, 24577)] {
        let mut block = Owned::malloc(size, 1);
        let before = block.p;
        block.realloc(stays);
        assert_eq!(block.p, before, "{size} to {stays}");
        block.realloc(size);
        assert_eq!(block.p, before);
        block.realloc(stays - 1);
        assert_ne!(block.p, before, "{size} to {}", stays - 1);
        block.free();
    }
}

#[test]
fn foreign_blocks_go_to_whom_they_belong() {
    for n in [1, 100, 5000, 100_000] {
        // SAFETY: a block of the C library, passed to realloc and then to free.
        unsafe {
            let p = libc::malloc(n);
            let p = object::realloc::<16>(&LIBC, p, 2 * n);
            assert!(MAP.find(p.addr()).class().is_none(), "it stays foreign");
            object::free(&LIBC, p);
            object::free(&LIBC, libc::malloc(n));
            object::free(&LIBC, ptr::null_mut());
        }
    }
}

#[test]
fn requests_above_the_limit_go_below() {
    size_policy::set(MEDIUM_MAX);
    let asked = || stats::HeapStats::now().unwrap().fallback().requests;
    let before = asked();
    let block = Owned::malloc(32769, 3);
    assert!(MAP.find(block.p.addr()).class().is_none());
    assert!(asked() > before);
    block.free();
    let block = Owned::malloc(32768, 3);
    assert!(MAP.find(block.p.addr()).class().is_some());
    block.free();
}
