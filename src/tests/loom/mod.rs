//! Models of what threads do at once, run in every order that loom finds, with every
//! value that a load may return. `make loom` runs them.

mod address_map;

mod helper;

mod lock;

mod magazines;

mod once;

mod purge;

use crate::heap::Heap;
use core::alloc::Layout;

/// A heap of the model's own: all zero, and gone at its end.
struct Own(&'static Heap);

impl Own {
    fn new() -> Own {
        // SAFETY: all zero is a heap without memory.
        Own(unsafe { &*std::alloc::alloc_zeroed(Layout::new::<Heap>()).cast() })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let heap = core::ptr::from_ref(self.0).cast_mut().cast();
        // SAFETY: from there, and the model's threads have ended.
        unsafe { std::alloc::dealloc(heap, Layout::new::<Heap>()) };
    }
}
