//! Statistics look at a thread's magazines while it uses them.

use super::Own;
use crate::lane::Lane;
use crate::magazine::Slot;
use crate::magazines::{Magazines, SLOTS};
use crate::size_class::SizeClass;
use crate::sync::execution::{model, spawn};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// The owner fills both halves and takes all out again, so that the halves change places
/// both ways. Who looks sees no more blocks than fit, and touches nothing that changes
/// under its eyes.
#[test]
fn statistics_see_no_more_than_fits() {
    model(Some(3), || {
        let own = Own::new();
        let heap = own.0;
        let class = SizeClass::of(8192).unwrap();
        let layouts = [Layout::new::<Magazines>(), Layout::new::<[Slot; SLOTS]>()];
        // SAFETY: all zero are magazines never used, and null slots.
        let memory = layouts.map(|layout| unsafe { std::alloc::alloc_zeroed(layout) });
        // SAFETY: as above.
        let magazines: &'static Magazines = unsafe { &*memory[0].cast() };
        let slots = NonNull::new(memory[1].cast()).unwrap();
        // SAFETY: so many null slots.
        unsafe { magazines.lay_out(slots, Lane::FIRST, 0) };
        let blocks: [*mut u8; 2] = [64, 128].map(ptr::without_provenance_mut);
        let found = crate::address_map::Found::of(class);
        let thread = spawn(move || {
            assert!(magazines.push(found, blocks[0]));
            assert!(!magazines.push(found, blocks[1]), "a half holds one");
            assert_eq!(magazines.flush(heap, class), 0);
            assert!(magazines.push(found, blocks[1]));
            assert_eq!(magazines.held(class), 2);
            assert_eq!(magazines.pop(class), blocks[1]);
            assert_eq!(magazines.refill(heap, class, 1), blocks[0]);
        });
        for _ in 0..2 {
            let held = magazines.held(class);
            assert!(held <= 2, "{held} of 2");
        }
        thread.join().unwrap();
        assert_eq!(magazines.held(class), 0);
        for (memory, layout) in memory.into_iter().zip(layouts) {
            // SAFETY: from there, and the thread has ended.
            unsafe { std::alloc::dealloc(memory, layout) };
        }
    });
}
