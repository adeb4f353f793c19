//! The heap profiler over the object allocator: random programs whose allocations are sampled, each in
//! a forked child, because the profiler is the process's.

use super::*;
use crate::base::size_class::MEDIUM_MAX;
use crate::base::vtable::LIBC;
use crate::heap::HEAP;
use crate::object;
use crate::policy::size_policy;
use crate::profile::{self, live};
use crate::stats;
use core::ffi::c_void;
use std::panic;

/// Runs `body` in a forked child. Panics if it does.
fn in_child(body: impl FnOnce() + panic::UnwindSafe) {
    // The fork handlers are those of a process that has used the library.
    // SAFETY: VTABLE-1 holds for the C library's table; freed at once.
    unsafe { object::free(&LIBC, object::malloc::<16>(&LIBC, 8)) };
    // SAFETY: the child has this thread only, and ends without returning.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let done = panic::catch_unwind(body);
        // SAFETY: ends the child.
        unsafe { libc::_exit(done.is_err().into()) };
    }
    let mut status = 0;
    // SAFETY: room for the status.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the child's status");
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % n
    }

    fn size(&mut self) -> usize {
        match self.below(10) {
            0 => 4000 + self.below(60_000),
            1..4 => 500 + self.below(5000),
            _ => self.below(600),
        }
    }
}

/// A block, its bytes and the byte that they have.
type Owned = (*mut u8, usize, u8);

/// # Safety
/// A block of `n` bytes.
unsafe fn has(p: *mut u8, n: usize, byte: u8) -> bool {
    // SAFETY: a block of `n` bytes, by the contract above.
    (0..n).all(|i| unsafe { p.add(i).read() } == byte)
}

/// Performs `acts` random acts. Returns the blocks that live.
fn perform(random: &mut Random, acts: usize) -> Vec<Owned> {
    let mut live: Vec<Owned> = Vec::new();
    for act in 0..acts {
        let (n, byte) = (random.size(), act as u8);
        let which = if live.is_empty() {
            0
        } else {
            random.below(live.len())
        };
        match random.below(11) {
            0..4 => {
                // SAFETY: VTABLE-1 holds for the C library's table; a new block of `n` bytes.
                let p = unsafe { object::malloc::<16>(&LIBC, n) }.cast::<u8>();
                // SAFETY: a new block of `n` bytes.
                unsafe { p.write_bytes(byte, n) };
                live.push((p, n, byte));
            }
            4 => {
                // SAFETY: VTABLE-1 holds for the C library's table; a new block of `n` bytes.
                let p = unsafe { object::calloc::<16>(&LIBC, 1, n) }.cast::<u8>();
                // SAFETY: a new block of `n` bytes.
                assert!(unsafe { has(p, n, 0) });
                live.push((p, n, 0));
            }
            5 | 6 if !live.is_empty() => {
                let (p, len, before) = live[which];
                // SAFETY: a live block, used no more.
                let p = unsafe { object::realloc::<16>(&LIBC, p.cast::<c_void>(), n) };
                let p = p.cast::<u8>();
                // SAFETY: the first bytes of a block of `n` bytes.
                assert!(unsafe { has(p, n.min(len), before) });
                // SAFETY: a block of `n` bytes.
                unsafe { p.write_bytes(byte, n) };
                live[which] = (p, n, byte);
            }
            _ if !live.is_empty() => free(live.swap_remove(which)),
            _ => {}
        }
    }
    live
}

fn free((p, n, byte): Owned) {
    // SAFETY: a live block of `n` bytes, used no more.
    unsafe {
        assert!(has(p, n, byte), "{n} bytes");
        object::free(&LIBC, p.cast());
    }
}

/// Estimates of live objects and bytes.
fn estimate() -> (f64, f64) {
    live::with(|live| {
        let (mut objects, mut bytes) = (0.0, 0.0);
        for record in live.samples() {
            let weight = 1.0 / profile::sampler::probability_now(record.size);
            objects += weight;
            bytes += weight * record.size as f64;
        }
        (objects, bytes)
    })
}

fn counted() -> usize {
    live::with(|live| live.counted())
}

#[test]
fn sampled_programs_keep_their_contents() {
    for interval in [1, 40, 1000, 100_000] {
        in_child(|| {
            size_policy::set(MEDIUM_MAX);
            profile::set_memory(64 << 20);
            profile::start(interval).unwrap();
            let mut random = Random(interval as u64);
            for _ in 0..8 {
                let live = perform(&mut random, 2000);
                if interval == 1 {
                    // Blocks from before the start may be used again without a sample.
                    assert!(counted() > 0 && counted() <= live.len());
                }
                crate::tests::model::check_heap(&HEAP);
                live.into_iter().for_each(free);
                assert_eq!(counted(), 0);
            }
            profile::stop();
            perform(&mut random, 5000).into_iter().for_each(free);
            crate::tests::model::check_heap(&HEAP);
        });
    }
}

#[test]
fn estimates_are_right_when_most_blocks_are_temporary() {
    in_child(|| {
        const KEPT: usize = 20_000;
        profile::start(2000).unwrap();
        let mut kept = Vec::new();
        for _ in 0..KEPT {
            for _ in 0..10 {
                // SAFETY: VTABLE-1 holds for the C library's table; freed at once.
                unsafe { object::free(&LIBC, object::malloc::<16>(&LIBC, 90)) };
            }
            // SAFETY: VTABLE-1 holds for the C library's table.
            kept.push(unsafe { object::malloc::<16>(&LIBC, 96) });
        }
        let (objects, bytes) = estimate();
        // Each is a sample with a probability of 0.047: a standard deviation of 638 objects.
        assert!((objects - KEPT as f64).abs() < 6.0 * 638.0, "{objects}");
        assert!((bytes / objects - 96.0).abs() < 1e-6);
        for p in kept {
            // SAFETY: a live block, used no more.
            unsafe { object::free(&LIBC, p) };
        }
        crate::tests::model::check_heap(&HEAP);
    });
}

#[test]
fn when_the_tables_are_full_the_estimates_stay_right() {
    in_child(|| {
        const KEPT: usize = 20_000;
        profile::set_memory(64 << 10);
        profile::start(1).unwrap();
        let kept: Vec<_> = (0..KEPT)
            // SAFETY: VTABLE-1 holds for the C library's table.
            .map(|_| unsafe { object::malloc::<16>(&LIBC, 200) })
            .collect();
        let (objects, _) = estimate();
        let samples = counted() as f64;
        assert!(samples < 200.0 && profile::interval() > 1000, "{samples}");
        let slack = 6.0 * objects / samples.sqrt();
        assert!((objects - KEPT as f64).abs() < slack, "{objects} {samples}");
        for p in kept {
            // SAFETY: a live block, used no more.
            unsafe { object::free(&LIBC, p) };
        }
        assert_eq!(counted(), 0);
        crate::tests::model::check_heap(&HEAP);
    });
}

#[test]
fn threads_free_each_others_samples_while_the_profiler_starts_and_stops() {
    in_child(|| {
        profile::set_memory(1 << 20);
        let (send, receive) = std::sync::mpsc::sync_channel::<usize>(256);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let send = send.clone();
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for _ in 0..5_000 {
                        // SAFETY: VTABLE-1 holds for the C library's table.
                        let p = unsafe { object::malloc::<16>(&LIBC, random.size()) };
                        send.send(p.expose_provenance()).unwrap();
                    }
                });
            }
            drop(send);
            scope.spawn(move || {
                for address in receive {
                    let p = core::ptr::with_exposed_provenance_mut::<c_void>(address);
                    // SAFETY: a live block of another thread, used no more.
                    unsafe { object::free(&LIBC, p) };
                }
            });
            for interval in [1, 100, 5000].into_iter().cycle().take(60) {
                profile::start(interval).unwrap();
                assert_eq!(profile::start(interval), Err(libc::EALREADY));
                drop(stats::profile::encoded().unwrap());
                profile::stop();
            }
        });
        assert_eq!(counted(), 0);
        crate::tests::model::check_heap(&HEAP);
    });
}

#[test]
fn a_child_has_its_parents_samples() {
    in_child(|| {
        profile::start(1).unwrap();
        // SAFETY: VTABLE-1 holds for the C library's table.
        let kept: Vec<_> = (0..100)
            .map(|_| unsafe { object::malloc::<16>(&LIBC, 5000) })
            .collect();
        let before = counted();
        assert!(before > 0);
        let inherited = || {
            live::with(|live| {
                let now = live.generation;
                live.samples()
                    .filter(|record| record.generation != now)
                    .count()
            })
        };
        assert_eq!(inherited(), 0);
        // SAFETY: the child ends without returning.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: VTABLE-1 holds for the C library's table.
            let own = unsafe { object::malloc::<16>(&LIBC, 5000) };
            let seen = (inherited(), counted());
            for p in kept {
                // SAFETY: a live block, used no more.
                unsafe { object::free(&LIBC, p) };
            }
            let is_right = seen == (before, before + 1) && (inherited(), counted()) == (0, 1);
            // SAFETY: ends the child; a live block, used no more.
            unsafe {
                object::free(&LIBC, own);
                libc::_exit((!is_right).into());
            }
        }
        let mut status = 1;
        // SAFETY: room for the status.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!((status, counted()), (0, before));
    });
}
