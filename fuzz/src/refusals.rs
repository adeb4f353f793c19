//! Refusals by the kernel, by layer 0 and by a program's arena allocator, at chosen points.
//!
//! The kernel's refusals are simulated in the library (`os/faults.rs`). Layer 0 is the table of the
//! domain RAW; a hook on it forwards or refuses. A program's arenas have odd addresses, or are
//! refused.

use core::ffi::{c_int, c_void};
use core::ptr;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use obmalloc::capi::tables;
use obmalloc::capi::tables::{PyMemAllocatorEx, PyObjectArenaAllocator};
use obmalloc::tests::model::faults::{ADVISE, Fault, MAP, UNMAP};

/// Refusals of layer 0, and of a program's arena allocator.
pub static RAW: Fault = Fault::none();
pub static ARENA: Fault = Fault::none();

/// Calls that were refused so far and may have left a request without memory.
pub fn struck() -> usize {
    MAP.struck() + RAW.struck() + ARENA.struck()
}

/// Refuses calls of one kind.
pub fn arm(kind: u32, pass: usize, refuse: usize) {
    let faults = [&MAP, &RAW, &ARENA, &UNMAP, &ADVISE];
    faults[kind as usize % faults.len()].arm(pass, refuse);
}

/// Ends all refusals.
pub fn disarm() {
    for fault in [&MAP, &RAW, &ARENA, &UNMAP, &ADVISE] {
        fault.arm(0, 0);
    }
}

/// Which domains have a hook, and the tables that are under them.
static HOOKED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
static TABLES: [Place; 3] =
    [const { Place(core::cell::UnsafeCell::new(PyMemAllocatorEx::NONE)) }; 3];
struct Place(core::cell::UnsafeCell<PyMemAllocatorEx>);
// SAFETY: written before its hook is in the table, by the only thread that runs then.
unsafe impl Sync for Place {}

fn under(ctx: *mut c_void) -> &'static PyMemAllocatorEx {
    // SAFETY: see `TABLES`.
    unsafe { &*TABLES[ctx.addr()].0.get() }
}

fn refuses(ctx: *mut c_void) -> bool {
    ctx.is_null() && RAW.strikes()
}

unsafe extern "C" fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
    if refuses(ctx) {
        return ptr::null_mut();
    }
    let table = under(ctx);
    // SAFETY: the contract of the table's function is the same.
    unsafe { table.malloc.unwrap()(table.ctx, n) }
}

unsafe extern "C" fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    if refuses(ctx) {
        return ptr::null_mut();
    }
    let table = under(ctx);
    // SAFETY: the contract of the table's function is the same.
    unsafe { table.calloc.unwrap()(table.ctx, nelem, elsize) }
}

unsafe extern "C" fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    if refuses(ctx) {
        return ptr::null_mut();
    }
    let table = under(ctx);
    // SAFETY: the contract of the table's function is the same.
    unsafe { table.realloc.unwrap()(table.ctx, p, n) }
}

unsafe extern "C" fn free(ctx: *mut c_void, p: *mut c_void) {
    let table = under(ctx);
    // SAFETY: the contract of the table's function is the same.
    unsafe { table.free.unwrap()(table.ctx, p) }
}

/// Sets a hook over the table of a domain, or removes it. Returns whether it is set.
pub fn hook(domain: usize) -> bool {
    let number = domain as c_int;
    let kept = TABLES[domain].0.get();
    // SAFETY: valid tables; no other thread is in the library.
    unsafe {
        if HOOKED[domain].fetch_xor(true, Relaxed) {
            tables::PyMem_SetAllocator(number, kept);
            return false;
        }
        tables::PyMem_GetAllocator(number, kept);
        let mut hooked = PyMemAllocatorEx {
            ctx: ptr::without_provenance_mut(domain),
            malloc: Some(malloc),
            calloc: Some(calloc),
            realloc: Some(realloc),
            free: Some(free),
        };
        tables::PyMem_SetAllocator(number, &raw mut hooked);
    }
    true
}

/// Removes all hooks.
pub fn unhook_all() {
    for (domain, hooked) in HOOKED.iter().enumerate() {
        if hooked.load(Relaxed) {
            hook(domain);
        }
    }
}

/// The arenas of a program's allocator: mapping and size, by address.
static GIVEN: Mutex<BTreeMap<usize, (usize, usize, usize)>> = Mutex::new(BTreeMap::new());
static PROGRAMS: AtomicBool = AtomicBool::new(false);
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Offsets of a program's arenas from a multiple of the pool size, in turn.
const ODD: [usize; 6] = [0, 8, 16, 4096, 65_528, 40_000];

unsafe extern "C" fn alloc_arena(_: *mut c_void, size: usize) -> *mut c_void {
    if ARENA.strikes() {
        return ptr::null_mut();
    }
    let mut given = GIVEN.lock().unwrap();
    let len = size + (128 << 10);
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping.
    let map = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
    if map == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let first = map.addr().next_multiple_of(64 << 10) - map.addr();
    let odd = ODD[TURN.fetch_add(1, Relaxed) % ODD.len()];
    let start = map.wrapping_byte_add(first + odd.min(len - size - first));
    given.insert(start.addr(), (map.addr(), len, size));
    start
}

unsafe extern "C" fn free_arena(_: *mut c_void, p: *mut c_void, size: usize) {
    let known = GIVEN.lock().unwrap().remove(&p.addr());
    let (map, len, known) = known.expect("only an arena that was given is freed");
    assert_eq!(size, known, "an arena is freed with its size");
    // SAFETY: mapped above.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(map), len) };
}

/// Whether the program's allocator serves arenas.
pub fn arenas_are_programs() -> bool {
    PROGRAMS.load(Relaxed)
}

/// Sets the program's arena allocator, or the kernel's again if the program has no arena. Returns
/// whether something has changed.
pub fn change_arenas() -> bool {
    let mut table = PyObjectArenaAllocator {
        ctx: ptr::null_mut(),
        alloc: Some(alloc_arena),
        free: Some(free_arena),
    };
    if arenas_are_programs() {
        if !GIVEN.lock().unwrap().is_empty() {
            return false;
        }
        table = obmalloc::tests::model::standard_arenas();
    }
    // SAFETY: a valid table; no other thread is in the library.
    unsafe { tables::PyObject_SetArenaAllocator(&raw mut table) };
    PROGRAMS.fetch_xor(true, Relaxed);
    true
}

/// The number of the program's arenas.
pub fn programs_arenas() -> usize {
    GIVEN.lock().unwrap().len()
}
