//! Up to which size requests are served from pools.
//!
//! Small ones always. Medium ones, up to `DEFAULT`, once the program is a large one:
//! each medium class in use keeps pages of its own, 48 of them some 300 KiB in all, and
//! more in a program that does one thing after the other; the C library, where such
//! blocks come from until then, shares its pages between sizes. (With 16 MiB in place of
//! `LARGE`, the peak of `bench/programs/heaps/mixed.py` was 2.0 MiB above stock's 58, not 0.6.)
//! A program is large when its heap has so many bytes, or when so many are in memory,
//! which is asked now and then while requests are refused, or when it has made `MANY`.
//! A block is freed to where it came from, whatever the cutoff is by then.
//!
//! Not up to [`MEDIUM_MAX`] unless that is asked for: the compiler's and the
//! parser's own blocks of 8 KiB and a little fall into a class of 9 KiB, and the
//! peak of `make run`'s program rises by 3 MiB instead of 0.5.
//!
//! # Threads
//!
//! Atomics that any thread may read and write at any time.
#![forbid(unsafe_code)]

use crate::base::size_class::{MEDIUM_MAX, SMALL_MAX, SizeClass};
use crate::os::process;
use crate::os::sandbox;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// A program that has so many bytes is large.
const LARGE: usize = 64 << 20;
/// After each so many refused requests it is asked whether it does. Starting an
/// interpreter takes 800 (CPython 3.13) to 2500 (3.11).
const ASK_AFTER: usize = 4_000;
/// A program that makes so many is to have them fast, whatever its size. (A calloc of
/// 4 KiB takes 147 ns from pools where it takes 179 from below, benchmark `c_level`.)
const MANY: usize = 100_000;

/// The cutoff of a large program unless another is asked for, in bytes.
const DEFAULT: usize = 8 * 1024;

/// The cutoff now, in bytes.
static NOW: AtomicUsize = AtomicUsize::new(SMALL_MAX);
/// The cutoff of a large program, in bytes.
static RISEN: AtomicUsize = AtomicUsize::new(DEFAULT);
/// Medium requests that the cutoff has kept from the pools.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Sets the cutoff to `bytes`, for programs of any size.
pub(crate) fn set(bytes: usize) {
    let bytes = bytes.clamp(SMALL_MAX, MEDIUM_MAX);
    RISEN.store(bytes, Relaxed);
    NOW.store(bytes, Relaxed);
}

/// The cutoff now, in bytes.
pub(crate) fn now() -> usize {
    NOW.load(Relaxed)
}

/// To be told that the heap's arenas have so many bytes.
pub(crate) fn heap_has(bytes: usize) {
    if bytes >= LARGE {
        rise();
    }
}

fn rise() {
    NOW.store(RISEN.load(Relaxed), Relaxed);
}

/// The class that serves `n` bytes, unless they are served below.
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
    // Not exact when threads race, which is no matter for a threshold.
    let refused = REFUSED.load(Relaxed) + 1;
    REFUSED.store(refused, Relaxed);
    if !refused.is_multiple_of(ASK_AFTER) {
        return;
    }
    if refused >= MANY || is_large() {
        rise();
    }
}

/// Whether so much is in memory. The peak is cheap to read, but was perhaps another program's,
/// before `execve`. If neither can be read the program is large, but in a sandbox, which allows
/// no such call, it is not.
fn is_large() -> bool {
    if !sandbox::allows() {
        return false;
    }
    let reached = |bytes: Option<usize>| bytes.is_none_or(|bytes| bytes >= LARGE);
    reached(process::peak()) && reached(process::resident())
}
