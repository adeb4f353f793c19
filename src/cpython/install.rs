//! Installation in the host's tables, from 3.6 on: the host's own `PyMem_SetAllocator` puts the
//! library's table into the domains MEM and OBJ, so that the host's tables decide and its hooks
//! (tracemalloc, debug hooks, memray) work as usual.
//!
//! RAW is not changed, except by the profiler (`raw_samples`). Until 3.13 the host swaps that table for the C library's and back while other
//! threads run: the C library would free the library's blocks.
//!
//! # Invariants
//!
//! HOST-1  `Below` holds the table that was in a domain before, from before the library's table is in
//!     it. It is written again only with the same value.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::ptr;

use format::status::Reason;

use super::exports::{GetAllocator, SetAllocator};
use super::hooks;
use super::raw_samples;
use super::self_check::{self, Probe};
use super::symbols::Host;
use crate::base::layout::{ALIGNMENT, PACKED_ALIGNMENT};
use crate::base::vtable::{Allocator, LIBC};
use crate::domains::adapter::INSTRUMENTED;
use crate::domains::ffi::PyMemAllocatorEx;
use crate::object;
use crate::os::weak::function;
use crate::policy::alignment;
use crate::tools;

/// The numbers that CPython gives the domains.
const RAW: c_int = 0;
const MEM: c_int = 1;
const OBJ: c_int = 2;
/// The letters of the domains in its debug hooks.
const LETTERS: [u8; 3] = *b"rmo";

/// The table that was in a domain before. Its address is the context of the library's table.
struct Below(UnsafeCell<Allocator>);
// SAFETY: written before the library's table, through which it is read, is installed (HOST-1).
unsafe impl Sync for Below {}

static BELOW_MEM: Below = Below(UnsafeCell::new(LIBC));
static BELOW_OBJ: Below = Below(UnsafeCell::new(LIBC));

/// The library's table, but for its context, for a domain with this alignment. Its functions are in
/// sections that `base/hot.rs` orders.
macro_rules! table {
    ($align:ident, $malloc:literal, $calloc:literal, $realloc:literal) => {{
        #[unsafe(link_section = $malloc)]
        unsafe extern "C" fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
            // SAFETY: the context is a `Below` (HOST-1); VTABLE-1.
            unsafe { object::malloc::<$align>(&*ctx.cast(), n) }
        }
        #[unsafe(link_section = $calloc)]
        unsafe extern "C" fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
            // SAFETY: the context is a `Below` (HOST-1); VTABLE-1.
            unsafe { object::calloc::<$align>(&*ctx.cast(), nelem, elsize) }
        }
        #[unsafe(link_section = $realloc)]
        unsafe extern "C" fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
            // SAFETY: the context is a `Below` (HOST-1); VTABLE-1; `p` is NULL or a block of the domain.
            unsafe { object::realloc::<$align>(&*ctx.cast(), p, n) }
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
    // SAFETY: the context is a `Below` (HOST-1); VTABLE-1; `p` is NULL or a block of the domain.
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
        // SAFETY: the function has this signature since 3.5.
        let get = unsafe { function::<GetAllocator>(get) };
        // SAFETY: the function has this signature since 3.5.
        let set = unsafe { function::<SetAllocator>(set) };
        Some(Tables { get, set })
    }

    /// Sets the tables of the domains: the tables from before, or those of a check. No block of the
    /// tables that they replace is live.
    fn set_all(&self, domains: &[c_int], tables: &[PyMemAllocatorEx]) {
        for (&domain, table) in domains.iter().zip(tables) {
            // SAFETY: a whole table of functions that live as long as the process (VTABLE-1).
            unsafe { (self.set)(domain, table) };
        }
    }

    /// Whether the host's functions reach the tables that are set. `before` are the tables of MEM and
    /// OBJ; a check's tables are in those of the domains afterwards.
    fn check(&self, host: &Host, domains: &[c_int], before: &[PyMemAllocatorEx; 2]) -> bool {
        static PROBES: [Probe; 2] = [Probe::new(), Probe::new()];
        self.set_all(
            domains,
            &[PROBES[0].table(&before[0]), PROBES[1].table(&before[1])],
        );
        let mut functions = domains.iter().zip(self_check::functions(host)).zip(&PROBES);
        functions.all(|((_, functions), probe)| probe.is_reached_by(functions))
    }

    /// The tables under the debug hooks of MEM and OBJ, if the host has hooks there.
    fn under_hooks(&self, host: &Host) -> [Option<PyMemAllocatorEx>; 2] {
        [MEM, OBJ]
            .map(|domain| hooks::under(host, &current(self.get, domain), LETTERS[domain as usize]))
    }

    /// Puts the library's table into the domain, or under the hook that is there.
    fn install(&self, host: &Host, domain: c_int, below: &'static Below, packed: bool) {
        let now = current(self.get, domain);
        let under = hooks::under(host, &now, LETTERS[domain as usize]);
        // SAFETY: no call reads it yet, or it is written with the same value (HOST-1).
        unsafe { *below.0.get() = under.unwrap_or(now).filled() };
        let ours = Allocator {
            ctx: below.0.get().cast(),
            ..flavour(packed)
        };
        // SAFETY: a complete table whose functions live as long as the process (VTABLE-1). The host
        // copies it.
        unsafe { (self.set)(domain, &ours.into()) };
    }
}

/// The library's table, but for its context.
fn flavour(packed: bool) -> Allocator {
    if tools::is_wanted() {
        INSTRUMENTED
    } else if packed {
        PACKED
    } else {
        PLAIN
    }
}

/// The table in a domain of the host.
fn current(get: GetAllocator, domain: c_int) -> PyMemAllocatorEx {
    let mut table = PyMemAllocatorEx::NONE;
    // SAFETY: the host's function, and room for a table.
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

/// Whether the library's table is in both domains of the host, without a hook over it but those of
/// `OBMALLOC_DEBUG`. `get` is the host's `PyMem_GetAllocator`.
pub(crate) fn is_installed(get: GetAllocator) -> bool {
    are_installed(get, &[MEM, OBJ])
}

fn are_installed(get: GetAllocator, domains: &[c_int]) -> bool {
    let is_in = |&domain: &c_int| {
        let table = current(get, domain);
        is_ours(&table) || hooks::are_over_us(&table)
    };
    domains.iter().all(is_in)
}

/// Makes the host set its debug hooks over the library's table: see `hooks.rs`.
pub(crate) fn put_hooks_over(host: &Host) {
    if let Some(tables) = Tables::of(host) {
        hooks::put_over(host, || {
            [MEM, OBJ].map(|domain| current(tables.get, domain))
        });
    }
}

/// Makes the profiler see the domain RAW of the host, unless another table than the host's is in it.
///
/// Called before the host runs other threads, or under its GIL.
pub(crate) fn sample_raw(host: &Host) {
    let Some(tables) = Tables::of(host) else {
        return;
    };
    let now = current(tables.get, RAW);
    let is_the_hosts = now.malloc.is_some_and(|malloc| {
        !raw_samples::is_malloc(malloc as *const ()) && host.defines(malloc as *const c_void)
    });
    if is_the_hosts {
        // SAFETY: the domain's own table, of functions of the host, which stays loaded.
        let table = unsafe { raw_samples::over(now.filled()) };
        // SAFETY: a complete table whose functions live as long as the process (VTABLE-1).
        unsafe { (tables.set)(RAW, &table.into()) };
    }
}

/// Puts the library's table into the host's domains MEM and OBJ: both or none. Does nothing if it is
/// in both.
///
/// Called before the host runs other threads, or under its GIL.
pub(crate) fn install(host: &Host) -> Result<(), Reason> {
    install_in(host, &[MEM, OBJ])
}

/// Puts the library's table into the domain MEM of a host without a GIL. Its collector walks the pages
/// of its own allocator to find objects, so OBJ stays as it is; blocks of MEM that a thread may read
/// without a lock are freed by the host when no thread can (`_PyMem_FreeDelayed`).
///
/// Called before the host runs.
pub(crate) fn install_in_mem(host: &Host) -> Result<(), Reason> {
    install_in(host, &[MEM])
}

fn install_in(host: &Host, domains: &[c_int]) -> Result<(), Reason> {
    let tables = Tables::of(host).ok_or(Reason::NoTables)?;
    if are_installed(tables.get, domains) {
        return Ok(());
    }
    // A foreign table may be restored later, over the library's, while the library's blocks live.
    let is_the_hosts = |domain| {
        let malloc = current(tables.get, domain).malloc;
        malloc.is_some_and(|malloc| host.defines(malloc as *const c_void))
    };
    if !domains.iter().copied().all(is_the_hosts) {
        return Err(Reason::OtherAllocator);
    }
    let before = [MEM, OBJ].map(|domain| current(tables.get, domain));
    let hooked = tables.under_hooks(host);
    if hooked.iter().all(Option::is_none) && !tables.check(host, domains, &before) {
        tables.set_all(domains, &before);
        return Err(Reason::SelfCheck);
    }
    object::set_fallbacks(BELOW_MEM.0.get(), BELOW_OBJ.0.get());
    tables.install(host, MEM, &BELOW_MEM, alignment::mem());
    if domains.contains(&OBJ) {
        tables.install(host, OBJ, &BELOW_OBJ, alignment::obj());
    }
    if hooked.iter().any(Option::is_some) {
        put_hooks_over(host);
        let ours = tables.under_hooks(host);
        if !ours.iter().all(|under| under.as_ref().is_some_and(is_ours)) {
            tables.set_all(domains, &before);
            hooks::are([PyMemAllocatorEx::NONE; 2]);
            return Err(Reason::DebugHooks);
        }
    }
    if !are_installed(tables.get, domains) {
        tables.set_all(domains, &before);
        return Err(Reason::SelfCheck);
    }
    Ok(())
}
