//! The tables of the debug hooks.
//!
//! # Invariants
//!
//! HOOKS-1  `INNER` of a domain is written before the hooks stand in its table,
//!     with what stood there.

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
// SAFETY: HOOKS-1.
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
    /// The context of a call of the hooks.
    unsafe fn of<'a>(ctx: *mut c_void) -> &'a Hooked {
        // SAFETY: the caller's promise: only `put_over` makes such a context.
        unsafe { &*ctx.cast::<Hooked>() }
    }

    fn inner(&self) -> Allocator {
        // SAFETY: HOOKS-1.
        unsafe { *self.inner.get() }
    }
}

/// Puts the hooks over what is in the domain's table, unless they stand there.
pub(crate) fn put_over(domain: Domain) {
    let (inner, hooked) = (domain.get(), &HOOKED[domain as usize]);
    if is_hooked(&inner) {
        return;
    }
    // SAFETY: the hooks do not stand in the table now. (A thread that is in
    // the midst of a call by them, after they were taken out, reads what its
    // call was made for, or what takes its place: CPython's own risk.)
    unsafe { *hooked.inner.get() = inner };
    let functions = if domain == Domain::Raw {
        FREELY
    } else {
        WITH_THE_GIL
    };
    let ctx = ptr::from_ref(hooked).cast_mut().cast();
    domain.set(&Allocator { ctx, ..functions });
}

/// What is in the domain's table, or under the hooks that are.
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
/// Those of the domains MEM and OBJ, which are called with the GIL.
pub(crate) struct WithGil;

const FREELY: Allocator = Allocator::of::<Freely>(ptr::null_mut());
const WITH_THE_GIL: Allocator = Allocator::of::<WithGil>(ptr::null_mut());

/// Calls of the hooks that made or changed a block, in versions that number
/// them.
static SERIAL: AtomicUsize = AtomicUsize::new(0);

/// So many calls have made or changed a block; `None` in a version that does
/// not number them, or without the hooks.
pub(crate) fn calls() -> Option<usize> {
    let counted = compat::debug_style().serial && under(Domain::Obj).1;
    counted.then(|| SERIAL.load(Relaxed))
}

unsafe fn allocate(
    ctx: *mut c_void,
    n: usize,
    ask: impl FnOnce(&Allocator, usize) -> *mut c_void,
) -> Option<Block> {
    // SAFETY: the context of a call of the hooks.
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
    // SAFETY: made with room for it just now.
    unsafe { block.surround(hooked.id, n, serial) };
    Some(block)
}

fn address(block: Option<Block>) -> *mut c_void {
    block.map_or_else(errno::no_memory, |block| block.data().cast())
}

impl Backend for Freely {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: our context; VTABLE-1.
        let block = unsafe { allocate(ctx, n, |inner, all| (inner.malloc)(inner.ctx, all)) };
        if let Some(block) = block {
            // SAFETY: its own bytes.
            unsafe { block.clean(0, n) };
        }
        address(block)
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        // A product that is too large does not get here by the exported names.
        let Some(n) = nelem.checked_mul(elsize) else {
            return errno::no_memory();
        };
        // SAFETY: our context; VTABLE-1.
        address(unsafe { allocate(ctx, n, |inner, all| (inner.calloc)(inner.ctx, 1, all)) })
    }

    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        if p.is_null() {
            // SAFETY: the caller's own promises.
            return unsafe { Freely::malloc(ctx, n) };
        }
        // SAFETY: our context.
        let hooked = unsafe { Hooked::of(ctx) };
        let old = Block::at(p.cast());
        check(old, hooked.id, c"_PyMem_DebugRawRealloc");
        let overhead = overhead(old.style());
        if n > REQUEST_MAX - overhead {
            return errno::no_memory();
        }
        let size = old.size();
        let old_serial = if old.style().serial { old.serial() } else { 0 };
        // SAFETY: whole, as was just seen.
        let ends = unsafe { Ends::put_aside(old) };
        let inner = hooked.inner();
        // SAFETY: VTABLE-1.
        let raw = unsafe { (inner.realloc)(inner.ctx, old.raw().cast(), n + overhead) };
        let (block, now, serial) = if raw.is_null() {
            (old, size, old_serial)
        } else {
            let serial = SERIAL.fetch_add(1, Relaxed) + 1;
            (Block::within(raw.cast()), n, serial)
        };
        // SAFETY: there is room for it, new or as it was.
        unsafe { block.surround(hooked.id, now, serial) };
        // SAFETY: as above.
        unsafe { ends.put_back(block, now) };
        if raw.is_null() {
            return errno::no_memory();
        }
        if n > size {
            // SAFETY: its own bytes.
            unsafe { block.clean(size, n) };
        }
        block.data().cast()
    }

    unsafe fn free(ctx: *mut c_void, p: *mut c_void) {
        if p.is_null() {
            return;
        }
        // SAFETY: our context.
        let hooked = unsafe { Hooked::of(ctx) };
        let block = Block::at(p.cast());
        check(block, hooked.id, c"_PyMem_DebugRawFree");
        // SAFETY: whole, as was just seen, and given up by the caller.
        unsafe { block.kill() };
        let inner = hooked.inner();
        // SAFETY: VTABLE-1.
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

/// Ends the process if the block is not as it must be.
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
