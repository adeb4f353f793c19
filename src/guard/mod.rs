//! Guarded blocks: one allocation in so many is laid beside a page that nobody can
//! access, and shut when it is freed, so that mistakes are found where they happen
//! and reported with who allocated and who freed the block. Off unless a setting
//! asks.
//!
//! ```text
//!    allocate: sampler (whose turn) --> slots (a free one) --> region (where)
//!              --> trace (who)  --> open the page --> slack (fill)
//!    free:     slots (what is there) --> slack (look) --> trace --> shut the page
//!    a fault:  fault (whose handler) --> reporter (one at a time) --> report
//! ```
//!
//! What it sees at once: an access to a freed block while its slot has not been used
//! again; before a block on the left of its slot; more than what alignment leaves
//! after one on the right. At free: writes within the open pages; a block that is
//! free already; an address where none begins. What it does not see: accesses that
//! hit another block's open page; what the kernel is told to read or write, which
//! fails with EFAULT.
//!
//! # Threads
//!
//! All functions may be called by any thread. The slots' lock is the last in the
//! order of locks, and held for a few steps: traces are taken, and pages opened and
//! shut, outside of it.

use core::ptr;

mod sampler;

mod region;

mod slack;

mod native;

mod layout;

mod python;

mod trace;

mod slots;

mod reporter;

mod report;

mod fault;

use region::{LARGEST, Region, Side};
use report::{Access, MemoryError};
use reporter::Reporter;
use slack::Slack;
use slots::{SLOTS, State};

use crate::os::lock::Word;
use crate::os::sandbox;
use crate::os::text;
use crate::pool::invalid_free;

/// Has one allocation in `n` guarded from now on; 0: none.
pub(crate) fn set_rate(n: usize) {
    sampler::set_rate(n);
}

/// Whether allocations are to be asked for here at all.
pub(crate) fn is_on() -> bool {
    sampler::rate() != 0
}

/// At the first block of the process, with no lock held: the C library opens a library to
/// unwind with, which takes a descriptor for a moment, and must not happen in a handler.
pub(crate) fn begin() {
    if is_on() {
        native::prepare();
    }
}

/// A guarded block of `n` bytes, if it is this allocation's turn and there is room:
/// aligned to 16 bytes, and zero. Else null.
#[inline]
pub(crate) fn allocate(n: usize) -> *mut u8 {
    if sampler::is_turn() {
        take_turn(n)
    } else {
        ptr::null_mut()
    }
}

/// Whether the address is one of ours, in a block or beside it.
#[inline]
pub(crate) fn owns(address: usize) -> bool {
    region::contains(address)
}

#[cold]
#[inline(never)]
fn take_turn(n: usize) -> *mut u8 {
    if n > LARGEST || !python::is_ready() || !sandbox::allows() {
        return ptr::null_mut();
    }
    let Some((i, region)) = take_slot() else {
        return ptr::null_mut();
    };
    let side = if sampler::random() & 1 == 0 {
        Side::Left
    } else {
        Side::Right
    };
    let block = region.place(i, n, side);
    // SAFETY: the slot is this call's.
    if !unsafe { region.open(block, n) } {
        SLOTS.lock().give(i, State::Unused);
        return ptr::null_mut();
    }
    // SAFETY: opened just now.
    unsafe { slack(&region, block, n).fill() };
    let slot = SLOTS.lock().slot(i);
    // SAFETY: taken by this call (GUARD-2).
    unsafe { slot.record_alloc(block, n) };
    SLOTS.lock().is_live(i);
    ptr::with_exposed_provenance_mut(block)
}

fn take_slot() -> Option<(usize, Region)> {
    let slots = SLOTS.lock();
    if !slots.exist_or_can() {
        return None;
    }
    if slots.make() {
        fault::install();
    }
    Some((slots.take()?, slots.region()))
}

fn slack(region: &Region, block: usize, n: usize) -> Slack {
    Slack {
        pages: region.touched(block, n),
        block: (block, n),
    }
}

/// Gives a block back.
///
/// # Safety
/// `p` is [`owned`](owns), and the block there is not used any more. That it is a
/// live block is found out.
pub(crate) unsafe fn free(p: *mut u8) {
    let address = p.addr();
    let slots = SLOTS.lock();
    let Some(i) = live_block(&slots, address) else {
        drop(slots);
        mistake(Access::Free, address);
        return;
    };
    slots.set_freeing(i);
    let (slot, region) = (slots.slot(i), slots.region());
    drop(slots);
    let n = slot.block().1;
    // SAFETY: the block's pages, which are open until this call shuts them.
    if let Some(damage) = unsafe { slack(&region, address, n).corruption() } {
        mistake(Access::CorruptionFoundByFree(damage), address);
    }
    // SAFETY: dying by this call (GUARD-2).
    unsafe { slot.record_free() };
    // SAFETY: the caller's promise. If the kernel refuses, the block stays open, and
    // a use after free is not seen.
    unsafe { region.close(address, n) };
    SLOTS.lock().give(i, State::Freed);
}

/// How many bytes were asked for, of a block that is about to be reallocated; `None` if
/// no live block begins there, which is reported.
pub(crate) fn size(p: *const u8) -> Option<usize> {
    let slots = SLOTS.lock();
    let live = live_block(&slots, p.addr()).map(|i| slots.slot(i).block().1);
    drop(slots);
    if live.is_none() {
        mistake(Access::Realloc, p.addr());
    }
    live
}

/// The slot of the live block that begins at the address.
fn live_block(slots: &slots::Slots, address: usize) -> Option<usize> {
    let i = slots.region().slot_of(address);
    let slot = slots.slot(i);
    (slot.state() == State::Live && slot.block().0 == address).then_some(i)
}

/// Reports what a call has found, and ends the process, unless it is to go on.
#[cold]
#[inline(never)]
fn mistake(access: Access, address: usize) {
    let reporter = Reporter::when_alone();
    if let Some(reporter) = &reporter {
        let instruction = None;
        report::report(
            reporter,
            MemoryError {
                access,
                address,
                instruction,
            },
        );
    }
    // Nothing of what is reported has damaged the heap, so a program may go on.
    invalid_free::end_or_go_on(format_args!(
        "{} of {address:#x} is reported above (pid {})",
        access.word(),
        text::pid()
    ));
    drop(reporter);
}

/// The lock, for forks, whose child finds the slots whole. What other threads were about to
/// give out or shut at that moment is lost to the child.
pub(crate) fn word() -> &'static Word {
    SLOTS.word()
}

/// In the child, before that is opened.
pub(crate) fn forked() {
    reporter::forked();
    sampler::forked();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::FromRawFd;
    use std::string::String;

    /// What a child that runs `body` says on stderr, and the signal that ends it.
    /// The child's region is its own, whatever other tests do.
    fn in_child(body: impl FnOnce()) -> (String, i32) {
        let mut ends = [0; 2];
        // SAFETY: a place for two numbers.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        // SAFETY: the child calls nothing that needs another thread or a lock of one,
        // and ends without returning.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above.
            unsafe { libc::dup2(ends[1], 2) };
            set_rate(1);
            body();
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: the parent's own end.
        unsafe { libc::close(ends[1]) };
        let mut said = String::new();
        // SAFETY: nobody else owns it.
        unsafe { File::from_raw_fd(ends[0]) }
            .read_to_string(&mut said)
            .unwrap();
        let mut status = 0;
        // SAFETY: a place for a number.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert!(
            said.lines().all(|line| line.starts_with("obmalloc: ")),
            "{said}"
        );
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        (said, signal.unwrap_or(0))
    }

    /// A block of `n` bytes at that side of its slot.
    fn block_at(side: Side, n: usize) -> *mut u8 {
        loop {
            let p = allocate(n);
            assert!(!p.is_null());
            let region = SLOTS.lock().region();
            if p.addr() == region.place(region.slot_of(p.addr()), n, side) {
                return p;
            }
        }
    }

    #[test]
    fn blocks_are_given_and_taken_back() {
        let (said, signal) = in_child(|| {
            for round in 0..100 {
                for n in [0, 1, 16, 40, 511, 4096, 5000, LARGEST] {
                    let p = allocate(n);
                    assert!(p.addr().is_multiple_of(16) && owns(p.addr()));
                    assert_eq!(size(p), Some(n));
                    for i in 0..n {
                        // SAFETY: within the block, here and below.
                        assert_eq!(unsafe { p.add(i).read() }, 0);
                        // SAFETY: as above.
                        unsafe { p.add(i).write(round) };
                    }
                    // SAFETY: a block of ours.
                    unsafe { free(p) };
                    assert!(owns(p.addr()));
                }
            }
            assert!(allocate(LARGEST + 1).is_null());
            set_rate(0);
            assert!(!is_on() && allocate(8).is_null());
        });
        assert_eq!((said.as_str(), signal), ("", 0));
    }

    #[test]
    fn when_all_slots_are_live_sampling_passes() {
        let (said, signal) = in_child(|| {
            let slots_max = 20_000;
            let got = (0..slots_max)
                .take_while(|_| !allocate(8).is_null())
                .count();
            assert!(got > 1000 && got < slots_max, "{got}");
        });
        assert_eq!((said.as_str(), signal), ("", 0));
    }

    /// Reads or writes so far from a block's start, or its end.
    fn access(p: *mut u8, offset: isize, write: bool) {
        let p = p.wrapping_offset(offset);
        // SAFETY: a fault, which is the point, or within the open page.
        unsafe {
            if write {
                p.write_volatile(1);
            } else {
                p.read_volatile();
            }
        }
    }

    #[test]
    fn faults_are_reported_with_what_and_how_far() {
        let cases = [
            (
                Side::Left,
                40,
                -1,
                false,
                "underflow: read of",
                " 1 bytes before the block of 40 bytes",
            ),
            (
                Side::Left,
                40,
                -100,
                true,
                "underflow: write of",
                " 100 bytes before the block",
            ),
            (
                Side::Right,
                48,
                48,
                false,
                "overflow: read of",
                " 0 bytes after the block of 48",
            ),
            (
                Side::Right,
                40,
                48,
                true,
                "overflow: write of",
                " 8 bytes after the block of 40",
            ),
        ];
        for (side, n, offset, write, what, place) in cases {
            let (said, signal) = in_child(|| access(block_at(side, n), offset, write));
            assert_eq!(signal, libc::SIGSEGV, "{said}");
            assert!(said.starts_with(&format!("obmalloc: {what}")), "{said}");
            assert!(
                said.contains(place) && said.contains("allocated by"),
                "{said}"
            );
            assert!(!said.contains("freed by"), "{said}");
        }
    }

    #[test]
    fn a_use_after_free_is_reported_with_both_traces() {
        for write in [false, true] {
            let (said, signal) = in_child(|| {
                let p = allocate(100);
                // SAFETY: a block of ours.
                unsafe { free(p) };
                access(p, 64, write);
            });
            let word = if write { "write" } else { "read" };
            assert_eq!(signal, libc::SIGSEGV, "{said}");
            assert!(
                said.contains(&format!("use after free: {word} of ")),
                "{said}"
            );
            assert!(
                said.contains(" 64 bytes into the freed block of 100"),
                "{said}"
            );
            for access in [word, "allocated", "freed"] {
                let after = said
                    .split(&format!("  {access} by thread "))
                    .nth(1)
                    .unwrap();
                assert!(after.lines().nth(1).unwrap().contains("#0 "), "{said}");
            }
        }
    }

    #[test]
    fn what_free_finds_is_reported() {
        let cases: [(&str, fn()); 6] = [
            ("double free: free of ", || {
                let p = allocate(16);
                // SAFETY: the mistake, here and below.
                unsafe { free(p) };
                // SAFETY: as above.
                unsafe { free(p) };
            }),
            ("no block: free of ", || {
                let p = allocate(64).wrapping_add(16);
                // SAFETY: as above.
                unsafe { free(p) };
            }),
            ("use after free: realloc of ", || {
                let p = allocate(16);
                // SAFETY: as above.
                unsafe { free(p) };
                size(p);
            }),
            ("overflow: written 0 bytes after the block of 41 ", || {
                let p = allocate(41);
                access(p, 41, true);
                // SAFETY: as above.
                unsafe { free(p) };
            }),
            (
                "overflow: written 1000 bytes after the block of 41 ",
                || {
                    let p = block_at(Side::Left, 41);
                    access(p, 1041, true);
                    // SAFETY: as above.
                    unsafe { free(p) };
                },
            ),
            ("underflow: written 1 bytes before the block of 41 ", || {
                let p = block_at(Side::Right, 41);
                access(p, -1, true);
                // SAFETY: as above.
                unsafe { free(p) };
            }),
        ];
        for (what, body) in cases {
            let (said, signal) = in_child(body);
            assert_eq!(signal, libc::SIGABRT, "{said}");
            assert!(said.starts_with(&format!("obmalloc: {what}")), "{said}");
            assert!(said.contains("allocated by thread"), "{said}");
        }
    }

    #[test]
    fn a_program_that_is_to_go_on_does() {
        let (said, signal) = in_child(|| {
            invalid_free::set_go_on(true);
            let p = allocate(41);
            access(p, 41, true);
            for _ in 0..200 {
                // SAFETY: the mistake.
                unsafe { free(p) };
            }
            assert_eq!(size(p), None);
            // The child's own blocks are whole.
            for n in 0..2000 {
                let p = allocate(n);
                // SAFETY: a block of ours, once.
                unsafe { free(p) };
            }
        });
        assert_eq!(signal, 0, "{said}");
        assert_eq!(said.matches("overflow: written").count(), 1, "{said}");
        let times = said.matches("double free: ").count();
        assert!((10..100).contains(&times), "{times}");
    }

    #[test]
    fn threads_at_once_have_blocks_of_their_own() {
        let (said, signal) = in_child(|| {
            std::thread::scope(|scope| {
                for thread in 1..5 {
                    scope.spawn(move || {
                        for round in 0..300 {
                            let blocks = [24, 40, 4000].map(|n| (allocate(n), n));
                            for (p, n) in blocks {
                                // SAFETY: a block of this thread's, here and below.
                                unsafe { p.write_bytes(thread, n) };
                            }
                            for (p, n) in blocks {
                                // SAFETY: as above.
                                let bytes = unsafe { core::slice::from_raw_parts(p, n) };
                                assert!(bytes.iter().all(|&byte| byte == thread), "{round}");
                                // SAFETY: as above.
                                unsafe { free(p) };
                            }
                        }
                    });
                }
            });
        });
        assert_eq!((said.as_str(), signal), ("", 0));
    }
}
