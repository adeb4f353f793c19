//! Annotations of blocks for Valgrind's memcheck, and for AddressSanitizer by its two functions for
//! allocators.

use core::ffi::c_void;
use core::ptr;

use crate::os::memcheck;
use crate::os::weak::{function, weak_symbol};
use crate::sync::{AtomicU8, Ordering::Relaxed};

type Mark = unsafe extern "C" fn(*const c_void, usize);

/// The tool of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tool {
    None,
    Memcheck,
    AddressSanitizer,
}

static TOOL: AtomicU8 = AtomicU8::new(Tool::None as u8);

/// Finds the tool, at start; none if not `wanted`.
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

/// Whether there is a tool.
pub(crate) fn any() -> bool {
    TOOL.load(Relaxed) != Tool::None as u8
}

fn is(tool: Tool) -> bool {
    TOOL.load(Relaxed) == tool as u8
}

fn poison() -> Option<Mark> {
    // SAFETY: the function has this type in every version of the tool.
    weak_symbol!("__asan_poison_memory_region").map(|mark| unsafe { function(mark) })
}

fn unpoison() -> Option<Mark> {
    // SAFETY: the function has this type in every version of the tool.
    weak_symbol!("__asan_unpoison_memory_region").map(|mark| unsafe { function(mark) })
}

fn mark(how: Option<Mark>, address: usize, n: usize) {
    if let Some(mark) = how {
        // SAFETY: the library's memory; the call changes only the tool's shadow of it.
        unsafe { mark(ptr::without_provenance(address), n) };
    }
}

/// Marks the first `n` of `size` bytes at `address` as a block, and the others and the `before` bytes
/// before it as inaccessible.
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

/// Marks the block at `address`, of `size` bytes in all, as freed. Memcheck reports an address without
/// a live block.
pub(crate) fn block_ends(address: usize, size: usize) {
    if is(Tool::Memcheck) {
        memcheck::block_ends(address);
    } else {
        mark(poison(), address, size);
    }
}

/// Runs `look`, which accesses a word that is marked as inaccessible, without reports.
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
