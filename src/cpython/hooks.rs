//! `OBMALLOC_DEBUG=1`: the host's own debug hooks over the library's table, on a release build, without
//! the interpreter's knowledge.
//!
//! ```text
//!    PyObject_Malloc -> host's table -> host's debug hook -> our table's malloc
//! ```
//!
//! They find writes after the end or before the start of a block, a block that is freed in another
//! domain, and a call without the GIL; new and freed bytes are filled with patterns. The hooks cover
//! all three domains, as with `PYTHONMALLOC=debug`.
//!
//! They are set only before the host has allocated anything: an earlier block has no header. 2.7 has
//! no hooks.
//!
//! A host that is built `--with-pydebug` has the hooks in its tables from the start. Then the
//! library's table goes under them, and falls back to the table that was under them. Over them it
//! would disable them; and a second call of `PyMem_SetupDebugHooks` would make the hooks, which have
//! one context, their own fallback.
//!
//! # Invariants
//!
//! HOST-2  `OVER_US` holds the table of a domain while the hooks are over the library's table in it,
//!     else nothing.

use core::cell::Cell;

use super::symbols::Host;
use crate::domains::ffi::PyMemAllocatorEx;
use crate::os::weak::function;

/// The tables of MEM and OBJ right after the hooks were set.
struct OverUs(Cell<[PyMemAllocatorEx; 2]>);
// SAFETY: written before the host runs other threads.
unsafe impl Sync for OverUs {}

static OVER_US: OverUs = OverUs(Cell::new([PyMemAllocatorEx::NONE; 2]));

/// Makes the host set its hooks over its tables. `tables` returns those of MEM and OBJ.
pub(crate) fn put_over(host: &Host, tables: impl Fn() -> [PyMemAllocatorEx; 2]) {
    let Some(setup) = host.symbol(c"PyMem_SetupDebugHooks") else {
        return;
    };
    // SAFETY: `PyMem_SetupDebugHooks` has this type since 3.4.
    let setup = unsafe { function::<unsafe extern "C" fn()>(setup) };
    // SAFETY: the host has not allocated in these domains yet.
    unsafe { setup() };
    are(tables());
}

/// Sets the tables of MEM and OBJ that are the hooks over the library's table, or none.
pub(crate) fn are(tables: [PyMemAllocatorEx; 2]) {
    OVER_US.0.set(tables);
}

/// The context of a hook: `debug_alloc_api_t` of every version that has tables.
#[repr(C)]
struct Hook {
    /// The domain's letter.
    domain: u8,
    /// The table that the hook calls.
    under: PyMemAllocatorEx,
}

/// The table under the host's debug hook, if `table` is the hook of the domain with this
/// letter.
pub(crate) fn under(host: &Host, table: &PyMemAllocatorEx, letter: u8) -> Option<PyMemAllocatorEx> {
    // No other table of the host has a context in its own data.
    let hook = table.ctx.cast::<Hook>();
    let last = table.ctx.wrapping_byte_add(size_of::<Hook>() - 1);
    if !(host.defines(table.ctx) && host.defines(last) && hook.is_aligned()) {
        return None;
    }
    // SAFETY: within the host's data, to which its tables point; read as bytes.
    let (domain, under) = unsafe { ((*hook).domain, (*hook).under) };
    let whole = under.malloc.is_some()
        && under.calloc.is_some()
        && under.realloc.is_some()
        && under.free.is_some();
    (domain == letter && whole).then_some(under)
}

/// Whether the hooks were set over the library's table.
pub(crate) fn stand() -> bool {
    OVER_US.0.get()[0].malloc.is_some()
}

/// Whether this table is that of the hooks over the library's table.
pub(crate) fn are_over_us(table: &PyMemAllocatorEx) -> bool {
    let malloc = |table: &PyMemAllocatorEx| table.malloc.map(|malloc| malloc as *const ());
    let same = |hooks: &PyMemAllocatorEx| hooks.ctx == table.ctx && malloc(hooks) == malloc(table);
    stand() && OVER_US.0.get().iter().any(same)
}
