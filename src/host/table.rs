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
//! K1  `BELOW` holds what was in a domain before us, from before our table is
//!     in it. It is written again only with the same.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::{self, MaybeUninit};

use super::reason::Reason;
use super::symbols::Host;
use crate::allocator::{Allocator, LIBC};
use crate::object;

/// The numbers that CPython gives the two domains.
const MEM: c_int = 1;
const OBJ: c_int = 2;

/// What was in a domain before us. Its address is our table's context.
struct Below(UnsafeCell<Allocator>);
// SAFETY: K1: written before anyone can read it through our table.
unsafe impl Sync for Below {}

static BELOW_MEM: Below = Below(UnsafeCell::new(LIBC));
static BELOW_OBJ: Below = Below(UnsafeCell::new(LIBC));

unsafe extern "C" fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: our table's context is a `Below`; K1, T1.
    unsafe { object::malloc(&*ctx.cast(), n) }
}

unsafe extern "C" fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    // SAFETY: as in `malloc`.
    unsafe { object::calloc(&*ctx.cast(), nelem, elsize) }
}

unsafe extern "C" fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: as in `malloc`; the pointer's contract is the host's.
    unsafe { object::realloc(&*ctx.cast(), p, n) }
}

unsafe extern "C" fn free(ctx: *mut c_void, p: *mut c_void) {
    // SAFETY: as in `realloc`.
    unsafe { object::free(&*ctx.cast(), p) }
}

type Get = unsafe extern "C" fn(c_int, *mut Allocator);
type Set = unsafe extern "C" fn(c_int, *const Allocator);

/// The host's tables, and its functions to read and write them.
struct Tables {
    get: Get,
    set: Set,
}

impl Tables {
    fn of(host: &Host) -> Option<Tables> {
        // 3.4 has tables of four functions, and no PyMem_RawCalloc.
        host.symbol(c"PyMem_RawCalloc")?;
        let get = host.symbol(c"PyMem_GetAllocator")?;
        let set = host.symbol(c"PyMem_SetAllocator")?;
        // SAFETY: the signatures that these names have since 3.5.
        let get = unsafe { mem::transmute::<*mut c_void, Get>(get.as_ptr()) };
        // SAFETY: as above.
        let set = unsafe { mem::transmute::<*mut c_void, Set>(set.as_ptr()) };
        Some(Tables { get, set })
    }

    fn get(&self, domain: c_int) -> Allocator {
        let mut table = MaybeUninit::uninit();
        // SAFETY: fills the table for the two domains asked here.
        unsafe { (self.get)(domain, table.as_mut_ptr()) };
        // SAFETY: as above.
        unsafe { table.assume_init() }
    }

    fn install(&self, domain: c_int, below: &'static Below) {
        // SAFETY: K1. Nobody reads it yet, or it is as it was.
        unsafe { *below.0.get() = self.get(domain) };
        let ours = Allocator {
            ctx: below.0.get().cast(),
            malloc,
            calloc,
            realloc,
            free,
        };
        // SAFETY: a whole table that lives as long as the process (T1). The
        // host copies it.
        unsafe { (self.set)(domain, &raw const ours) };
    }
}

fn is_ours(table: &Allocator) -> bool {
    table.malloc as usize == malloc as *const () as usize
}

/// Puts our table into the host's domains MEM and OBJ: both or none.
///
/// To be called before the host runs other threads, or under its GIL. Where
/// ours is in both already, nothing changes.
pub fn install(host: &Host) -> Result<(), Reason> {
    let tables = Tables::of(host).ok_or(Reason::NoTables)?;
    let current = [tables.get(MEM), tables.get(OBJ)];
    if current.iter().all(is_ours) {
        return Ok(());
    }
    // What somebody else has put there may be put back some day, over ours,
    // with blocks of ours alive.
    let is_the_hosts = |table: &Allocator| host.defines(table.malloc as *const c_void);
    if !current.iter().all(is_the_hosts) {
        return Err(Reason::OtherAllocator);
    }
    tables.install(MEM, &BELOW_MEM);
    tables.install(OBJ, &BELOW_OBJ);
    Ok(())
}
