//! `OBMALLOC_DEBUG=1`: the host's own debug hooks over us, on a release build and
//! without a word to the interpreter, which believes that it runs as ever.
//!
//! ```text
//!    PyObject_Malloc -> host's table -> host's debug hook -> our table's malloc
//! ```
//!
//! They find a write beyond a block's end or before its start, a block that is freed in
//! another domain, a call without the GIL; what is free or new is filled with a pattern.
//! The hooks go over all three domains, as `PYTHONMALLOC=debug` has it.
//!
//! Only before the host has allocated anything: a block from before has no header. A
//! 2.7 has no hooks.
//!
//! A host that is built `--with-pydebug` has them in its tables from the start. Then our
//! table goes under them, and falls back to the table that was under them. Over them, our
//! table would take their work away; and a second call of `PyMem_SetupDebugHooks` would
//! make the hooks, with the one context that they have, their own fallback.
//!
//! # Invariants
//!
//! HOST-2  `OVER_US` holds what stands in a domain while the hooks stand over our table in
//!     it, else nothing.

use core::cell::Cell;

use super::symbols::Host;
use crate::domains::ffi::PyMemAllocatorEx;
use crate::os::weak::function;

/// What was in the tables of MEM and OBJ right after the hooks came.
struct OverUs(Cell<[PyMemAllocatorEx; 2]>);
// SAFETY: written before the host runs other threads.
unsafe impl Sync for OverUs {}

static OVER_US: OverUs = OverUs(Cell::new([PyMemAllocatorEx::NONE; 2]));

/// Has the host put its hooks over what is in its tables. `tables` answers what stands
/// in MEM and OBJ.
pub(crate) fn put_over(host: &Host, tables: impl Fn() -> [PyMemAllocatorEx; 2]) {
    let Some(setup) = host.symbol(c"PyMem_SetupDebugHooks") else {
        return;
    };
    // SAFETY: its type since 3.4.
    let setup = unsafe { function::<unsafe extern "C" fn()>(setup) };
    // SAFETY: before the host has allocated anything in these domains.
    unsafe { setup() };
    are(tables());
}

/// Sets the tables of MEM and OBJ that are the hooks over us; or no tables.
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
    // The context of no other table of the host's is in its own data.
    let hook = table.ctx.cast::<Hook>();
    let last = table.ctx.wrapping_byte_add(size_of::<Hook>() - 1);
    if !(host.defines(table.ctx) && host.defines(last) && hook.is_aligned()) {
        return None;
    }
    // SAFETY: within the host's data, which its tables point to; it is only bytes so far.
    let (domain, under) = unsafe { ((*hook).domain, (*hook).under) };
    let whole = under.malloc.is_some()
        && under.calloc.is_some()
        && under.realloc.is_some()
        && under.free.is_some();
    (domain == letter && whole).then_some(under)
}

/// Whether the hooks were put over us.
pub(crate) fn stand() -> bool {
    OVER_US.0.get()[0].malloc.is_some()
}

/// Whether these are the hooks, over us.
pub(crate) fn are_over_us(table: &PyMemAllocatorEx) -> bool {
    let malloc = |table: &PyMemAllocatorEx| table.malloc.map(|malloc| malloc as *const ());
    let same = |hooks: &PyMemAllocatorEx| hooks.ctx == table.ctx && malloc(hooks) == malloc(table);
    stand() && OVER_US.0.get().iter().any(same)
}
