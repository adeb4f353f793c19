//! Two threads that each enter a table and then look into the other's: at least one finds the other.
//! So do a fork and a call of the loader, and an early fork and the first use of the heap.

use crate::os::roster::Roster;
use crate::sync::execution::{model, spawn};
use std::rc::Rc;

#[test]
fn at_least_one_finds_the_other() {
    model(None, || {
        let tables = Rc::new([Roster::<1>::new(), Roster::<1>::new()]);
        let others = Rc::clone(&tables);
        let thread = spawn(move || {
            assert!(others[1].enter());
            others[0].has_others()
        });
        assert!(tables[0].enter());
        let finds = tables[1].has_others();
        assert!(thread.join().unwrap() || finds);
    });
}
