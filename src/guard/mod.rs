//! Guarded blocks: one allocation in N is placed beside an inaccessible page, and made inaccessible
//! when it is freed. A memory error is found where it happens, and reported with the allocation and
//! the free of the block. Off unless a setting turns it on.
//!
//! ```text
//!    allocate: sampler (is it sampled?) --> slots (a free slot) --> region (address)
//!              --> trace (caller)  --> open the page --> slack (fill)
//!    free:     slots (the block) --> slack (check) --> trace --> close the page
//!    a fault:  fault (handler) --> reporter (one at a time) --> report
//! ```
//!
//! Found at the access: a use of a freed block until its slot is used again; an access before a
//! block on the left of its slot, or after a block on the right beyond the bytes that alignment
//! leaves. Found at free: writes within the open pages; a double free; an address where no block
//! begins. Not found: accesses to another block's open page; system calls that read or write at the
//! address, which fail with EFAULT.
//!
//! # Threads
//!
//! Any thread may call all functions. The lock of the slots is the last in the order of locks, and
//! held for a few steps: traces are taken, and pages opened and closed, outside of it.

use core::ptr;

mod sampler;

mod region;

mod slack;

pub(crate) mod native;

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

use crate::inspect::frames;
use crate::os::lock::Word;
use crate::os::sandbox;
use crate::os::text;
use crate::pool::invalid_free;

/// Sets the rate: one allocation in `n` is guarded; 0: none.
pub(crate) fn set_rate(n: usize) {
    sampler::set_rate(n);
}

/// Whether allocations are sampled.
pub(crate) fn is_on() -> bool {
    sampler::rate() != 0
}

/// At the first block of the process, with no lock held: makes the C library load its unwinder,
/// which takes a descriptor for a moment and must not happen in a signal handler.
pub(crate) fn begin() {
    if is_on() {
        native::prepare();
    }
}

/// A guarded block of `n` bytes, aligned to 16 bytes and zero, if this allocation is sampled and
/// there is room. Else null.
#[inline]
pub(crate) fn allocate(n: usize) -> *mut u8 {
    if sampler::is_turn() {
        take_turn(n)
    } else {
        ptr::null_mut()
    }
}

/// Whether the address is in the region, in a block or beside it.
#[inline]
pub(crate) fn owns(address: usize) -> bool {
    region::contains(address)
}

#[cold]
#[inline(never)]
fn take_turn(n: usize) -> *mut u8 {
    if n > LARGEST || !frames::is_ready() || !sandbox::allows() {
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
    // SAFETY: this call has taken the slot (GUARD-2).
    if !unsafe { region.open(block, n) } {
        SLOTS.lock().give(i, State::Unused);
        return ptr::null_mut();
    }
    // SAFETY: the pages are open.
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

/// Frees a block.
///
/// # Safety
/// `p` is in the region, and the program uses its block no more. Whether `p` is a live block is
/// checked.
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
    // SAFETY: the block's pages, which are open until this call closes them.
    if let Some(damage) = unsafe { slack(&region, address, n).corruption() } {
        mistake(Access::CorruptionFoundByFree(damage), address);
    }
    // SAFETY: this call frees the block of the slot (GUARD-2).
    unsafe { slot.record_free() };
    // SAFETY: the program uses the block no more, by the contract above. If the kernel refuses, the
    // block stays open, and a use after free goes unnoticed.
    unsafe { region.close(address, n) };
    SLOTS.lock().give(i, State::Freed);
}

/// The requested size of a block that is about to be reallocated; `None`, and a report, if no live
/// block begins there.
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

/// Reports an error that a call has found, and ends the process, unless a setting lets it continue.
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
    // No reported error has damaged the heap, so the program may continue.
    invalid_free::fatal_unless_continuing(format_args!(
        "{} of {address:#x} is reported above (pid {})",
        access.word(),
        text::pid()
    ));
    drop(reporter);
}

/// The lock, for forks, so that the child finds the slots whole. Blocks that other threads were
/// about to allocate or close are lost to the child.
pub(crate) fn word() -> &'static Word {
    SLOTS.word()
}

/// In a forked child, before the lock is opened.
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

    /// The stderr of a child that runs `body`, and the signal that ends it. The child has its own
    /// region, whatever other tests do.
    fn in_child(body: impl FnOnce()) -> (String, i32) {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        // SAFETY: the child needs no other thread and no lock of one, and ends without returning.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the test's own block, descriptor, or error on purpose.
            unsafe { libc::dup2(ends[1], 2) };
            set_rate(1);
            body();
            // SAFETY: the test's own block, descriptor, or error on purpose.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: the parent's own descriptor.
        unsafe { libc::close(ends[1]) };
        let mut said = String::new();
        // SAFETY: no other object owns the descriptor.
        unsafe { File::from_raw_fd(ends[0]) }
            .read_to_string(&mut said)
            .unwrap();
        let mut status = 0;
        // SAFETY: room for the status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        // An emulator of other machines' programs reports the child's end on a line of its own.
        let is_known = |line: &str| line.starts_with("obmalloc: ") || line.starts_with("qemu: ");
        assert!(said.lines().all(is_known), "{said}");
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
                        // SAFETY: within the block.
                        assert_eq!(unsafe { p.add(i).read() }, 0);
                        // SAFETY: the test's own block, descriptor, or error on purpose.
                        unsafe { p.add(i).write(round) };
                    }
                    // SAFETY: a live guarded block.
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

    /// Reads or writes at this distance from the start or the end of a block.
    fn access(p: *mut u8, offset: isize, write: bool) {
        let p = p.wrapping_offset(offset);
        // SAFETY: within the open page, or a fault, which the test expects.
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
                // SAFETY: a live guarded block.
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
                // musl has no backtrace: the fault alone has a frame.
                let has_frame = after
                    .lines()
                    .nth(1)
                    .is_some_and(|line| line.contains("#0 "));
                assert!(
                    has_frame || cfg!(target_env = "musl") && access != word,
                    "{said}"
                );
            }
        }
    }

    #[test]
    fn what_free_finds_is_reported() {
        let cases: [(&str, fn()); 6] = [
            ("double free: free of ", || {
                let p = allocate(16);
                // SAFETY: the error that the test makes on purpose.
                unsafe { free(p) };
                // SAFETY: the test's own block, descriptor, or error on purpose.
                unsafe { free(p) };
            }),
            ("no block: free of ", || {
                let p = allocate(64).wrapping_add(16);
                // SAFETY: the test's own block, descriptor, or error on purpose.
                unsafe { free(p) };
            }),
            ("use after free: realloc of ", || {
                let p = allocate(16);
                // SAFETY: the test's own block, descriptor, or error on purpose.
                unsafe { free(p) };
                size(p);
            }),
            ("overflow: written 0 bytes after the block of 41 ", || {
                let p = allocate(41);
                access(p, 41, true);
                // SAFETY: the test's own block, descriptor, or error on purpose.
                unsafe { free(p) };
            }),
            (
                "overflow: written 1000 bytes after the block of 41 ",
                || {
                    let p = block_at(Side::Left, 41);
                    access(p, 1041, true);
                    // SAFETY: the test's own block, descriptor, or error on purpose.
                    unsafe { free(p) };
                },
            ),
            ("underflow: written 1 bytes before the block of 41 ", || {
                let p = block_at(Side::Right, 41);
                access(p, -1, true);
                // SAFETY: the test's own block, descriptor, or error on purpose.
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
            invalid_free::set_continue(true);
            let p = allocate(41);
            access(p, 41, true);
            for _ in 0..200 {
                // SAFETY: the error that the test makes on purpose.
                unsafe { free(p) };
            }
            assert_eq!(size(p), None);
            // The child's own blocks are intact.
            for n in 0..2000 {
                let p = allocate(n);
                // SAFETY: a live guarded block.
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
                                // SAFETY: a live block of this thread.
                                unsafe { p.write_bytes(thread, n) };
                            }
                            for (p, n) in blocks {
                                // SAFETY: the test's own block, descriptor, or error on purpose.
                                let bytes = unsafe { core::slice::from_raw_parts(p, n) };
                                assert!(bytes.iter().all(|&byte| byte == thread), "{round}");
                                // SAFETY: the test's own block, descriptor, or error on purpose.
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
