//! The object allocator in the domains MEM and OBJ, which start with it: `pymalloc` to CPython,
//! and `mimalloc` in `PYTHONMALLOC=mimalloc`.

use core::ffi::c_void;
use core::ptr;

use super::adapter::{INSTRUMENTED, Object, StaticTable};
use super::raw::{InRaw, RAW_FORWARD};
use super::table::Table;
use crate::base::layout::{ALIGNMENT, PACKED_ALIGNMENT};
use crate::base::vtable::Allocator;
use crate::tools;

/// The object allocator with the domain RAW as its fallback.
pub(crate) type Pymalloc = Object<InRaw, ALIGNMENT>;

/// `PYTHONMALLOC=pymalloc`, the default.
pub(crate) const PYMALLOC: Allocator = Allocator::hot_of::<Pymalloc>(ptr::null_mut());

/// Its table with blocks aligned to 8 bytes.
const PACKED: Allocator = Allocator::hot_of::<Object<InRaw, PACKED_ALIGNMENT>>(ptr::null_mut());

/// The instrumented one.
const WATCHED: Allocator = Allocator {
    ctx: (&raw const RAW_FORWARD).cast::<c_void>().cast_mut(),
    ..INSTRUMENTED
};

/// The table of a domain whose blocks are aligned to 8 bytes (`packed`) or 16.
pub(crate) fn packed(packed: bool) -> Allocator {
    if tools::is_wanted() {
        WATCHED
    } else if packed {
        PACKED
    } else {
        PYMALLOC
    }
}

/// `PYTHONMALLOC=mimalloc`: the same functions; the context tells the two apart.
pub(crate) const MIMALLOC: Allocator = Allocator {
    ctx: (&raw const MIMALLOC_MARK).cast::<c_void>().cast_mut(),
    ..PYMALLOC
};

static MIMALLOC_MARK: u8 = 0;

/// The domain MEM.
pub(crate) static MEM: Table = Table::new(PYMALLOC);
/// The domain OBJ.
pub(crate) static OBJ: Table = Table::new(PYMALLOC);

/// The domain MEM as a type.
pub(crate) struct Mem;

impl StaticTable for Mem {
    fn table() -> &'static Table {
        &MEM
    }
}

/// The domain OBJ as a type.
pub(crate) struct Obj;

impl StaticTable for Obj {
    fn table() -> &'static Table {
        &OBJ
    }
}

/// Whether `table` is the object allocator, under whichever name.
pub(crate) fn is_ours(table: &Allocator) -> bool {
    [PYMALLOC, PACKED, WATCHED]
        .iter()
        .any(|ours| table.malloc as *const () == ours.malloc as *const ())
}
