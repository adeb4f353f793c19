//! Shared parts of the tests.

use core::ptr::NonNull;

pub(crate) use std::{boxed::Box, format, vec, vec::Vec};

use crate::arena::Arena;
use crate::arena::chunk::Chunk;
pub(crate) use crate::arena::page_map::MAP;
use crate::os::memory;

/// A record that is in charge of nothing, and in no heap.
pub(crate) fn lone_record() -> &'static Arena {
    let size = size_of::<Arena>().next_multiple_of(memory::page_size());
    let record: NonNull<Arena> = memory::map(size).unwrap().cast();
    // SAFETY: mapped zero for it.
    unsafe { Arena::init_record(record) }
}

/// An arena that is mapped and in the address map, and in no heap.
pub(crate) fn lone_arena() -> &'static Arena {
    let arena = lone_record();
    arena.init(Chunk::take().unwrap());
    assert!(MAP.add_arena(arena));
    arena
}
