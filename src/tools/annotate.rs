//! The tools that want to know where blocks begin and end: Valgrind's memcheck, and
//! AddressSanitizer, by its two functions for allocators.

use core::ffi::c_void;
use core::ptr;

use crate::os::memcheck;
use crate::os::weak::{function, weak_symbol};
use crate::sync::{AtomicU8, Ordering::Relaxed};

type Mark = unsafe extern "C" fn(*const c_void, usize);

/// Which tool is there.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tool {
    None,
    Memcheck,
    AddressSanitizer,
}

static TOOL: AtomicU8 = AtomicU8::new(Tool::None as u8);

/// Looks for a tool, at start; unless `wanted`, none is seen.
pub(crate) fn look(wanted: bool) {
    let tool = if !wanted {
        Tool::None
    } else if memcheck::is_there() {
        Tool::Memcheck
    } else if poison().is_some() && unpoison().is_some() {
        Tool::AddressSanitizer
    } else {
        Tool::None
    };
    TOOL.store(tool as u8, Relaxed);
}

/// Whether there is one.
pub(crate) fn any() -> bool {
    TOOL.load(Relaxed) != Tool::None as u8
}

fn is(tool: Tool) -> bool {
    TOOL.load(Relaxed) == tool as u8
}

fn poison() -> Option<Mark> {
    // SAFETY: the type that it has.
    weak_symbol!("__asan_poison_memory_region").map(|mark| unsafe { function(mark) })
}

fn unpoison() -> Option<Mark> {
    // SAFETY: the type that it has.
    weak_symbol!("__asan_unpoison_memory_region").map(|mark| unsafe { function(mark) })
}

fn mark(how: Option<Mark>, address: usize, n: usize) {
    if let Some(mark) = how {
        // SAFETY: memory of ours; what is marked is the tool's shadow of it.
        unsafe { mark(ptr::without_provenance(address), n) };
    }
}

/// Of the `size` bytes at `address` the first `n` are a block from now on, the others
/// nobody's, nor the `before` bytes before it.
pub(crate) fn block_begins(address: usize, n: usize, size: usize, before: usize) {
    if is(Tool::Memcheck) {
        memcheck::make_inaccessible(address - before, before);
        memcheck::make_inaccessible(address + n, size - n);
        memcheck::block_begins(address, n);
    } else {
        mark(poison(), address - before, before);
        mark(unpoison(), address, n);
        mark(poison(), address + n, size - n);
    }
}

/// The block at `address`, of `size` bytes in all, is nobody's. Memcheck says so if none
/// is live there.
pub(crate) fn block_ends(address: usize, size: usize) {
    if is(Tool::Memcheck) {
        memcheck::block_ends(address);
    } else {
        mark(poison(), address, size);
    }
}

/// What `look` does in a word of ours that is nobody's: the tool looks away.
pub(crate) fn unseen<T>(address: usize, look: impl FnOnce() -> T) -> T {
    if is(Tool::Memcheck) {
        memcheck::make_defined(address, size_of::<usize>());
    }
    let result = look();
    if is(Tool::Memcheck) {
        memcheck::make_inaccessible(address, size_of::<usize>());
    }
    result
}
