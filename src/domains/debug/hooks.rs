//! The tables of the debug hooks.
//!
//! # Invariants
//!
//! HOOKS-1  `inner` of a domain is written before the hooks are in its table, with the table that was
//!     there.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_void};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::super::domain::Domain;
use super::super::{compat, python};
use super::block::{BEFORE, Block, Corruption, Ends, overhead};
use super::dump;
use crate::base::layout::REQUEST_MAX;
use crate::base::vtable::{Allocator, Backend, LIBC};
use crate::os::errno;

/// A domain under the hooks. Its address is the hooks' context.
struct Hooked {
    id: u8,
    inner: UnsafeCell<Allocator>,
}
// SAFETY: `inner` is written before it is read through the hooks (HOOKS-1).
unsafe impl Sync for Hooked {}

static HOOKED: [Hooked; 3] = [Hooked::new(b'r'), Hooked::new(b'm'), Hooked::new(b'o')];

impl Hooked {
    const fn new(id: u8) -> Hooked {
        Hooked {
            id,
            inner: UnsafeCell::new(LIBC),
        }
    }

    /// # Safety
    /// `ctx` is the context of a call of the hooks.
    unsafe fn of<'a>(ctx: *mut c_void) -> &'a Hooked {
        // SAFETY: the context of the hooks is a `Hooked` (`put_over`).
        unsafe { &*ctx.cast::<Hooked>() }
    }

    fn inner(&self) -> Allocator {
        // SAFETY: written before the hooks are in the table (HOOKS-1).
        unsafe { *self.inner.get() }
    }
}

/// Puts the hooks over the domain's table, unless they are there.
pub(crate) fn put_over(domain: Domain) {
    let (inner, hooked) = (domain.get(), &HOOKED[domain as usize]);
    if is_hooked(&inner) {
        return;
    }
    // SAFETY: the hooks are not in the table now. (A thread in a call of the hooks from before they
    // were removed reads the old table or the new one, as in CPython.)
    unsafe { *hooked.inner.get() = inner };
    let functions = if domain == Domain::Raw {
        FREELY
    } else {
        WITH_THE_GIL
    };
    let ctx = ptr::from_ref(hooked).cast_mut().cast();
    domain.set(&Allocator { ctx, ..functions });
}

/// The domain's table, or the one under the hooks in it; and whether the hooks are.
pub(crate) fn under(domain: Domain) -> (Allocator, bool) {
    let table = domain.get();
    if is_hooked(&table) {
        (HOOKED[domain as usize].inner(), true)
    } else {
        (table, false)
    }
}

fn is_hooked(table: &Allocator) -> bool {
    let hooks = [FREELY, WITH_THE_GIL];
    hooks
        .iter()
        .any(|hooks| table.malloc as *const () == hooks.malloc as *const ())
}

/// The hooks of the domain RAW.
pub(crate) struct Freely;
/// The hooks of the domains MEM and OBJ, which are called with the GIL.
pub(crate) struct WithGil;

const FREELY: Allocator = Allocator::of::<Freely>(ptr::null_mut());
const WITH_THE_GIL: Allocator = Allocator::of::<WithGil>(ptr::null_mut());

/// Calls of the hooks that allocated or reallocated a block, in versions that number them.
static SERIAL: AtomicUsize = AtomicUsize::new(0);

/// The number of calls that allocated or reallocated a block; `None` in a version that does not
/// number them, or without the hooks.
pub(crate) fn calls() -> Option<usize> {
    let counted = compat::debug_style().serial && under(Domain::Obj).1;
    counted.then(|| SERIAL.load(Relaxed))
}

unsafe fn allocate(
    ctx: *mut c_void,
    n: usize,
    ask: impl FnOnce(&Allocator, usize) -> *mut c_void,
) -> Option<Block> {
    // SAFETY: `ctx` is the context of a call of the hooks.
    let hooked = unsafe { Hooked::of(ctx) };
    let serial = SERIAL.fetch_add(1, Relaxed) + 1;
    let overhead = overhead(compat::debug_style());
    if n > REQUEST_MAX - overhead {
        return None;
    }
    let raw = ask(&hooked.inner(), n + overhead);
    if raw.is_null() {
        return None;
    }
    let block = Block::within(raw.cast());
    // SAFETY: a new block with room for the surroundings.
    unsafe { block.surround(hooked.id, n, serial) };
    Some(block)
}

fn address(block: Option<Block>) -> *mut c_void {
    block.map_or_else(errno::no_memory, |block| block.data().cast())
}

impl Backend for Freely {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: the hooks' context; VTABLE-1 holds for the table under them.
        let block = unsafe { allocate(ctx, n, |inner, all| (inner.malloc)(inner.ctx, all)) };
        if let Some(block) = block {
            // SAFETY: within the block.
            unsafe { block.clean(0, n) };
        }
        address(block)
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        // Exported functions refuse too large products before.
        let Some(n) = nelem.checked_mul(elsize) else {
            return errno::no_memory();
        };
        // SAFETY: the hooks' context; VTABLE-1 holds for the table under them.
        address(unsafe { allocate(ctx, n, |inner, all| (inner.calloc)(inner.ctx, 1, all)) })
    }

    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        if p.is_null() {
            // SAFETY: `ctx` is the hooks' context, which malloc needs only.
            return unsafe { Freely::malloc(ctx, n) };
        }
        // SAFETY: the hooks' context.
        let hooked = unsafe { Hooked::of(ctx) };
        let old = Block::at(p.cast());
        check(old, hooked.id, c"_PyMem_DebugRawRealloc");
        let overhead = overhead(old.style());
        if n > REQUEST_MAX - overhead {
            return errno::no_memory();
        }
        let size = old.size();
        let old_serial = if old.style().serial { old.serial() } else { 0 };
        // SAFETY: an intact block, by the check above.
        let ends = unsafe { Ends::put_aside(old) };
        let inner = hooked.inner();
        // SAFETY: VTABLE-1 holds for the table under the hooks.
        let raw = unsafe { (inner.realloc)(inner.ctx, old.raw().cast(), n + overhead) };
        let (block, now, serial) = if raw.is_null() {
            (old, size, old_serial)
        } else {
            let serial = SERIAL.fetch_add(1, Relaxed) + 1;
            (Block::within(raw.cast()), n, serial)
        };
        // SAFETY: the block, new or old, has room for the surroundings.
        unsafe { block.surround(hooked.id, now, serial) };
        // SAFETY: the block has room for the ends.
        unsafe { ends.put_back(block, now) };
        if raw.is_null() {
            return errno::no_memory();
        }
        if n > size {
            // SAFETY: within the block.
            unsafe { block.clean(size, n) };
        }
        block.data().cast()
    }

    unsafe fn free(ctx: *mut c_void, p: *mut c_void) {
        if p.is_null() {
            return;
        }
        // SAFETY: the hooks' context.
        let hooked = unsafe { Hooked::of(ctx) };
        let block = Block::at(p.cast());
        check(block, hooked.id, c"_PyMem_DebugRawFree");
        // SAFETY: an intact block, by the check above, which the caller frees.
        unsafe { block.kill() };
        let inner = hooked.inner();
        // SAFETY: VTABLE-1 holds for the table under the hooks.
        unsafe { (inner.free)(inner.ctx, block.raw().cast()) };
    }
}

impl Backend for WithGil {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
        check_gil(c"_PyMem_DebugMalloc");
        // SAFETY: the contract of `Backend` is the same for both.
        unsafe { Freely::malloc(ctx, n) }
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        check_gil(c"_PyMem_DebugCalloc");
        // SAFETY: the contract of `Backend` is the same for both.
        unsafe { Freely::calloc(ctx, nelem, elsize) }
    }

    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        check_gil(c"_PyMem_DebugRealloc");
        // SAFETY: the contract of `Backend` is the same for both.
        unsafe { Freely::realloc(ctx, p, n) }
    }

    unsafe fn free(ctx: *mut c_void, p: *mut c_void) {
        check_gil(c"_PyMem_DebugFree");
        // SAFETY: the contract of `Backend` is the same for both.
        unsafe { Freely::free(ctx, p) };
    }
}

fn check_gil(function: &CStr) {
    if !python::may_allocate() {
        python::fatal(
            function,
            c"Python memory allocator called without holding the GIL",
        );
    }
}

/// Ends the process if the block is corrupted.
fn check(block: Block, id: u8, function: &CStr) {
    let Some(damage) = block.corruption(id) else {
        return;
    };
    dump::describe(block);
    let mut text = *b"bad ID: Allocated using API '?', verified using API '?'\0";
    let message = match damage {
        Corruption::Leading => c"bad leading pad byte",
        Corruption::Trailing => c"bad trailing pad byte",
        Corruption::OtherId(other) => {
            let mut ids = [other, id].into_iter();
            for place in text.iter_mut().filter(|byte| **byte == b'?') {
                *place = ids.next().unwrap_or_default();
            }
            CStr::from_bytes_until_nul(&text).unwrap_or(c"bad ID")
        }
    };
    python::fatal(function, message);
}

const _: () = assert!(BEFORE == 16, "blocks stay aligned to 16");
