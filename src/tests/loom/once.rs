//! Work that is done once is done before any thread continues.

use crate::os::once::Once;
use crate::sync::Cell;
use crate::sync::execution::{model, spawn};
use std::rc::Rc;

#[test]
fn no_thread_goes_on_before_it_is_done() {
    for is_child in [false, true] {
        model(Some(2), move || {
            let once = if is_child {
                Once::of_another_process()
            } else {
                Once::new()
            };
            let both = Rc::new((once, Cell::new(0)));
            let call = |(once, times): &(Once, Cell<u32>)| {
                once.call(|| times.set(times.get() + 1));
                assert_eq!(times.get(), 1);
            };
            let other = Rc::clone(&both);
            let thread = spawn(move || call(&other));
            call(&both);
            thread.join().unwrap();
        });
    }
}
