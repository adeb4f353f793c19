//! The size policy: up to which size pools serve requests.
//!
//! Small requests always come from pools. Medium ones, up to `DEFAULT`, do once the program is
//! large: each medium class in use keeps pages of its own, 48 classes some 300 KiB in all, and
//! more in a program that does one thing after the other. The C library, which serves them until
//! then, shares its pages between sizes. (With 16 MiB in place of `LARGE_PROGRAM`, the peak of
//! `bench/programs/heaps/mixed.py` was 2.0 MiB above stock's 58, not 0.6.) A program is large when its heap
//! or its resident memory has `LARGE_PROGRAM` bytes, or when it has made `MANY` medium requests.
//! A block is freed to its own allocator, whatever the limit is by then.
//!
//! The limit reaches [`MEDIUM_MAX`] by a setting only: blocks of the compiler and the parser, 8 KiB
//! and a little, would come from a class of 9 KiB, and the peak of `make run`'s program would rise
//! by 3 MiB instead of 0.5.
//!
//! # Threads
//!
//! Atomics that any thread may read and write at any time.
#![forbid(unsafe_code)]

use crate::base::size_class::{MEDIUM_MAX, SMALL_MAX, SizeClass};
use crate::os::process;
use crate::os::sandbox;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// Bytes of heap or of resident memory from which on a program is large.
pub(crate) const LARGE_PROGRAM: usize = 64 << 20;
/// Medium requests left to the C library between two readings of the resident memory. The start
/// of an interpreter makes 800 (CPython 3.13) to 2500 (3.11).
const SAMPLE_EVERY: usize = 4_000;
/// Medium requests after which pools serve them, whatever the program's size. (A calloc of 4 KiB
/// takes 147 ns from pools and 179 ns from the C library, benchmark `c_level`.)
pub(crate) const MANY: usize = 100_000;

/// The limit of a large program without a setting, in bytes.
pub(crate) const DEFAULT: usize = 8 * 1024;

/// The limit now, in bytes.
static NOW: AtomicUsize = AtomicUsize::new(SMALL_MAX);
/// The limit of a large program, in bytes.
static RISEN: AtomicUsize = AtomicUsize::new(DEFAULT);
/// Medium requests left to the C library.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Sets the limit to `bytes`, for programs of any size.
pub(crate) fn set(bytes: usize) {
    let bytes = bytes.clamp(SMALL_MAX, MEDIUM_MAX);
    RISEN.store(bytes, Relaxed);
    NOW.store(bytes, Relaxed);
}

/// The limit now, in bytes.
pub(crate) fn now() -> usize {
    NOW.load(Relaxed)
}

/// Notes the size of the heap: all arenas, in bytes.
pub(crate) fn heap_has(bytes: usize) {
    if bytes >= LARGE_PROGRAM {
        rise();
    }
}

fn rise() {
    NOW.store(RISEN.load(Relaxed), Relaxed);
}

/// The class that serves `n` bytes; `None` if the fallback allocator does.
#[inline]
pub(crate) fn class_of(n: usize) -> Option<SizeClass> {
    let class = SizeClass::of(n)?;
    if n > NOW.load(Relaxed) {
        refuse();
        return None;
    }
    Some(class)
}

#[cold]
fn refuse() {
    // Inexact when threads race, which does not matter for a threshold.
    let refused = REFUSED.load(Relaxed) + 1;
    REFUSED.store(refused, Relaxed);
    if !refused.is_multiple_of(SAMPLE_EVERY) {
        return;
    }
    if refused >= MANY || is_large() {
        rise();
    }
}

/// Whether the resident memory has `LARGE_PROGRAM` bytes. The peak is cheap to read, but may be
/// that of the program before `execve`. If neither can be read the program counts as large, but
/// not in a sandbox that forbids the calls.
fn is_large() -> bool {
    if !sandbox::allows() {
        return false;
    }
    let reached = |bytes: Option<usize>| bytes.is_none_or(|bytes| bytes >= LARGE_PROGRAM);
    reached(process::peak()) && reached(process::resident())
}
