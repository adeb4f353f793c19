//! A callback slot: a thread that finds the function sees what its setter did before.

use crate::base::callback::Callback;
use crate::sync::Cell;
use crate::sync::execution::{model, spawn};
use std::rc::Rc;

#[test]
fn who_finds_the_function_sees_what_was_set_before() {
    model(None, || {
        let both = Rc::new((Callback::<fn() -> u32>::unset(), Cell::new(0)));
        let other = Rc::clone(&both);
        let thread = spawn(move || {
            other.1.set(7);
            other.0.set(|| 7);
        });
        if let Some(function) = both.0.get() {
            assert_eq!(both.1.get(), function());
        }
        thread.join().unwrap();
        assert_eq!(both.0.get().map(|function| function()), Some(7));
    });
}
