//! Arenas' records: where they come from, and how all of them are reached.
//!
//! Records are mapped many at once, and what is not used of them is not touched. One
//! whose arena went back to the kernel waits for the next; none is ever unmapped.
//!
//! # Threads
//!
//! Under the arenas' lock.

use core::ptr::NonNull;

use crate::arena::Arena;
use crate::list::List;
use crate::os::memory;
use crate::os::process::name_mapping;
use crate::sync::Cell;

/// Bytes mapped at once for records.
const BYTES: usize = 256 * 1024;

/// The records there are.
pub struct Records {
    /// Those whose arena was given back.
    spare: List<Arena>,
    /// Those never used: where they begin, and how many.
    fresh: Cell<Option<NonNull<Arena>>>,
    fresh_left: Cell<usize>,
    /// The record that was made last; each knows the one before it.
    newest: Cell<Option<&'static Arena>>,
    /// Bytes mapped for them, and of those that were ever used.
    bytes: Cell<usize>,
    used: Cell<usize>,
}

impl Records {
    /// None yet.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> Records {
        Records {
            spare: List::new(),
            fresh: Cell::new(None),
            fresh_left: Cell::new(0),
            newest: Cell::new(None),
            bytes: Cell::new(0),
            used: Cell::new(0),
        }
    }

    /// A record that is in charge of nothing. `None` if there is no memory for one.
    pub fn take(&self) -> Option<&'static Arena> {
        self.spare.pop().or_else(|| self.make())
    }

    /// Takes a record back that is in charge of nothing any more.
    pub fn give(&self, record: &'static Arena) {
        self.spare.push(record);
    }

    /// The record that was made last. From it, all are reached.
    pub fn newest(&self) -> Option<&'static Arena> {
        self.newest.get()
    }

    /// Bytes mapped for records.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Bytes of records that were ever used.
    pub fn bytes_used(&self) -> usize {
        self.used.get()
    }

    fn make(&self) -> Option<&'static Arena> {
        if self.fresh_left.get() == 0 {
            let bytes = BYTES.next_multiple_of(memory::page_size());
            let records = memory::map(bytes)?;
            name_mapping(records, bytes, c"obmalloc: records");
            self.fresh.set(Some(records.cast()));
            self.fresh_left.set(bytes / size_of::<Arena>());
            self.bytes.set(self.bytes.get() + bytes);
        }
        let record = self.fresh.get()?;
        self.used.set(self.used.get() + size_of::<Arena>());
        self.fresh_left.set(self.fresh_left.get() - 1);
        // SAFETY: at most one past the last record of the mapping.
        self.fresh.set(Some(unsafe { record.add(1) }));
        // SAFETY: mapped zero, aligned to the OS page and so to the record,
        // handed out once, and never unmapped.
        let record = unsafe { Arena::begin(record) };
        record.follow(self.newest.replace(Some(record)));
        Some(record)
    }
}

const _: () = assert!(BYTES > size_of::<Arena>());
