//! The three domains, by CPython's numbers.

use core::ffi::c_int;

use super::pymalloc::{self, MEM, OBJ};
use super::raw::{MALLOC, RAW};
use super::table::{self, Table};
use crate::base::vtable::Allocator;
use crate::policy::alignment;

/// A domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum Domain {
    /// `PyMem_Raw*`: from any thread, without the GIL.
    Raw = 0,
    /// `PyMem_*`: buffers.
    Mem = 1,
    /// `PyObject_*`: objects.
    Obj = 2,
}

impl Domain {
    pub(crate) const ALL: [Domain; 3] = [Domain::Raw, Domain::Mem, Domain::Obj];

    /// The domain with this number.
    pub(crate) fn with_number(number: c_int) -> Option<Domain> {
        Domain::ALL
            .into_iter()
            .find(|&domain| domain as c_int == number)
    }

    fn table(self) -> &'static Table {
        match self {
            Domain::Raw => &RAW,
            Domain::Mem => &MEM,
            Domain::Obj => &OBJ,
        }
    }

    /// Its present table.
    #[inline(always)]
    pub(crate) fn get(self) -> Allocator {
        self.table().get()
    }

    /// Sets its table.
    pub(crate) fn set(self, table: &Allocator) {
        self.table().set(table);
    }

    /// Its table at the start.
    pub(crate) fn standard(self) -> Allocator {
        match self {
            Domain::Raw => MALLOC,
            Domain::Mem => pymalloc::packed(alignment::mem()),
            Domain::Obj => pymalloc::packed(alignment::obj()),
        }
    }
}

/// Whether all three tables are those of the start.
pub(crate) fn all_standard() -> bool {
    let is_standard = |domain: Domain| table::same(&domain.get(), &domain.standard());
    Domain::ALL.into_iter().all(is_standard)
}
