//! Arenas' records: where they come from, and how all of them are reached.
//!
//! They are pieces of metadata. One whose arena went back to the kernel waits for the next;
//! none is ever given back.
//!
//! # Threads
//!
//! Under the arenas' lock.

use crate::arena::Arena;
use crate::arena::metadata;
use crate::base::list::List;
use crate::sync::Cell;

/// The records there are.
pub(crate) struct Records {
    /// Those whose arena was given back.
    spare: List<Arena>,
    /// The record that was made last; each knows the one before it.
    newest: Cell<Option<&'static Arena>>,
    /// How many there are.
    made: Cell<usize>,
}

impl Records {
    /// None yet.
    pub(crate) const fn new() -> Records {
        Records {
            spare: List::new(),
            newest: Cell::new(None),
            made: Cell::new(0),
        }
    }

    /// A record that is in charge of nothing. `None` if there is no memory for one.
    pub(crate) fn take(&self) -> Option<&'static Arena> {
        self.spare.pop().or_else(|| self.make())
    }

    /// Takes a record back that is in charge of nothing any more.
    pub(crate) fn give(&self, record: &'static Arena) {
        self.spare.push(record);
    }

    /// The record that was made last. From it, all are reached.
    pub(crate) fn newest(&self) -> Option<&'static Arena> {
        self.newest.get()
    }

    /// Bytes of records.
    pub(crate) fn bytes(&self) -> usize {
        self.made.get() * size_of::<Arena>()
    }

    fn make(&self) -> Option<&'static Arena> {
        let record = metadata::take(size_of::<Arena>())?.cast();
        self.made.set(self.made.get() + 1);
        // SAFETY: a piece of metadata is zero, the caller's alone, never unmapped, and aligned to
        // more than a record.
        let record = unsafe { Arena::begin(record) };
        record.follow(self.newest.replace(Some(record)));
        Some(record)
    }
}

const _: () = assert!(align_of::<Arena>() <= metadata::ALIGNMENT);
