//! The host's tables, from 3.6 on: ours go into the domains MEM and OBJ by the
//! host's own `PyMem_SetAllocator`, so that the host's tables stay the truth
//! and its hooks (tracemalloc, debug hooks, memray) work as ever.
//!
//! RAW stays what it is. Up to 3.13 the host swaps that table for the C
//! library's and back, on its own, with other threads running: blocks of ours
//! would be freed by the C library.
//!
//! # Invariants
//!
//! HOST-1  `BELOW` holds what was in a domain before us, from before our table is
//!     in it. It is written again only with the same.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::ptr;

use super::exports::{GetAllocator, SetAllocator};
use super::hooks;
use super::reason::Reason;
use super::symbols::Host;
use crate::base::layout::{ALIGNMENT, PACKED_ALIGNMENT};
use crate::base::vtable::{Allocator, LIBC};
use crate::domains::adapter::INSTRUMENTED;
use crate::domains::ffi::PyMemAllocatorEx;
use crate::object;
use crate::object::realloc;
use crate::os::weak::function;
use crate::policy::alignment;
use crate::tools;

/// The numbers that CPython gives the two domains.
const MEM: c_int = 1;
const OBJ: c_int = 2;
/// The letters by which its debug hooks know the domains.
const LETTERS: [u8; 3] = *b"rmo";

/// What was in a domain before us. Its address is our table's context.
struct Below(UnsafeCell<Allocator>);
// SAFETY: HOST-1: written before anyone can read it through our table.
unsafe impl Sync for Below {}

static BELOW_MEM: Below = Below(UnsafeCell::new(LIBC));
static BELOW_OBJ: Below = Below(UnsafeCell::new(LIBC));

/// Our table, but for its context, for a domain that is aligned to so many bytes. Its
/// functions lie where `base/hot.rs` says.
macro_rules! table {
    ($align:ident, $malloc:literal, $calloc:literal, $realloc:literal) => {{
        #[unsafe(link_section = $malloc)]
        unsafe extern "C" fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
            // SAFETY: our table's context is a `Below`; HOST-1, VTABLE-1.
            unsafe { object::malloc::<$align>(&*ctx.cast(), n) }
        }
        #[unsafe(link_section = $calloc)]
        unsafe extern "C" fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
            // SAFETY: as in `malloc`.
            unsafe { object::calloc::<$align>(&*ctx.cast(), nelem, elsize) }
        }
        #[unsafe(link_section = $realloc)]
        unsafe extern "C" fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
            // SAFETY: as in `malloc`; the pointer's contract is the host's.
            unsafe { realloc::realloc::<$align>(&*ctx.cast(), p, n) }
        }
        Allocator {
            ctx: ptr::null_mut(),
            malloc,
            calloc,
            realloc,
            free,
        }
    }};
}

#[unsafe(link_section = ".text.hot.free")]
unsafe extern "C" fn free(ctx: *mut c_void, p: *mut c_void) {
    // SAFETY: as in `table!`.
    unsafe { object::free(&*ctx.cast(), p) }
}

const PLAIN: Allocator = table!(
    ALIGNMENT,
    ".text.hot.malloc",
    ".text.hot.calloc",
    ".text.hot.realloc"
);
const PACKED: Allocator = table!(
    PACKED_ALIGNMENT,
    ".text.hot.packed.malloc",
    ".text.hot.packed.calloc",
    ".text.hot.packed.realloc"
);

/// The host's tables, and its functions to read and write them.
struct Tables {
    get: GetAllocator,
    set: SetAllocator,
}

impl Tables {
    fn of(host: &Host) -> Option<Tables> {
        // 3.4 has tables of four functions, and no PyMem_RawCalloc.
        host.symbol(c"PyMem_RawCalloc")?;
        let get = host.symbol(c"PyMem_GetAllocator")?;
        let set = host.symbol(c"PyMem_SetAllocator")?;
        // SAFETY: the signatures that these names have since 3.5.
        let get = unsafe { function::<GetAllocator>(get) };
        // SAFETY: as above.
        let set = unsafe { function::<SetAllocator>(set) };
        Some(Tables { get, set })
    }

    /// The tables under the debug hooks of MEM and OBJ, where the host has them.
    fn under_hooks(&self, host: &Host) -> [Option<PyMemAllocatorEx>; 2] {
        [MEM, OBJ]
            .map(|domain| hooks::under(host, &current(self.get, domain), LETTERS[domain as usize]))
    }

    /// Puts our table, over what is in the domain now or under the hook that stands there.
    fn install(&self, host: &Host, domain: c_int, below: &'static Below, packed: bool) {
        let now = current(self.get, domain);
        let under = hooks::under(host, &now, LETTERS[domain as usize]);
        // SAFETY: HOST-1. Nobody reads it yet, or it is as it was.
        unsafe { *below.0.get() = under.unwrap_or(now).filled() };
        let ours = Allocator {
            ctx: below.0.get().cast(),
            ..flavour(packed)
        };
        // SAFETY: a whole table that lives as long as the process (VTABLE-1). The
        // host copies it.
        unsafe { (self.set)(domain, &ours.into()) };
    }
}

/// Our table, but for its context.
fn flavour(packed: bool) -> Allocator {
    if tools::is_wanted() {
        INSTRUMENTED
    } else if packed {
        PACKED
    } else {
        PLAIN
    }
}

/// What is in a domain of the host's.
fn current(get: GetAllocator, domain: c_int) -> PyMemAllocatorEx {
    let mut table = PyMemAllocatorEx::NONE;
    // SAFETY: the host's function, and a place for a table.
    unsafe { get(domain, &raw mut table) };
    table
}

fn is_ours(table: &PyMemAllocatorEx) -> bool {
    table.malloc.is_some_and(|other| {
        let mut ours = [PLAIN, PACKED, INSTRUMENTED]
            .iter()
            .map(|table| table.malloc);
        ours.any(|malloc| other as *const () == malloc as *const ())
    })
}

/// Whether our table is in both domains of the host, with no hook over it but those
/// that `OBMALLOC_DEBUG` asked for. `get` is the host's `PyMem_GetAllocator`.
pub(crate) fn is_installed(get: GetAllocator) -> bool {
    let is_in = |domain| {
        let table = current(get, domain);
        is_ours(&table) || hooks::are_over_us(&table)
    };
    [MEM, OBJ].into_iter().all(is_in)
}

/// Has the host put its debug hooks over us, as `hooks.rs` says.
pub(crate) fn put_hooks_over(host: &Host) {
    if let Some(tables) = Tables::of(host) {
        hooks::put_over(host, || {
            [MEM, OBJ].map(|domain| current(tables.get, domain))
        });
    }
}

/// Puts our table into the host's domains MEM and OBJ: both or none.
///
/// To be called before the host runs other threads, or under its GIL. Where
/// ours is in both already, nothing changes.
pub(crate) fn install(host: &Host) -> Result<(), Reason> {
    let tables = Tables::of(host).ok_or(Reason::NoTables)?;
    if is_installed(tables.get) {
        return Ok(());
    }
    // What somebody else has put there may be put back some day, over ours,
    // with blocks of ours alive.
    let is_the_hosts = |domain| {
        let malloc = current(tables.get, domain).malloc;
        malloc.is_some_and(|malloc| host.defines(malloc as *const c_void))
    };
    if ![MEM, OBJ].into_iter().all(is_the_hosts) {
        return Err(Reason::OtherAllocator);
    }
    let before = [MEM, OBJ].map(|domain| current(tables.get, domain));
    let hooked = tables.under_hooks(host);
    tables.install(host, MEM, &BELOW_MEM, alignment::mem());
    tables.install(host, OBJ, &BELOW_OBJ, alignment::obj());
    if hooked.iter().any(Option::is_some) {
        put_hooks_over(host);
        let ours = tables.under_hooks(host);
        if !ours.iter().all(|under| under.as_ref().is_some_and(is_ours)) {
            for (domain, table) in [MEM, OBJ].into_iter().zip(before) {
                // SAFETY: what was there. Nothing was allocated since.
                unsafe { (tables.set)(domain, &raw const table) };
            }
            hooks::are([PyMemAllocatorEx::NONE; 2]);
            return Err(Reason::DebugHooks);
        }
    }
    Ok(())
}
