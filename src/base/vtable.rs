//! The ABI types of CPython's tables: a domain's four functions and the
//! context they are called with (`PyMemAllocatorEx`, 40 bytes, since 3.5), and
//! the two functions that arenas come from.
//!
//! A table from outside may have holes; inside it has none. One such table
//! stands *below* us wherever we serve: whatever is not ours,
//! or is too large for a pool, goes there. In a CPython host it is the table
//! that was in the domain when we came; elsewhere it is the C library's.
//!
//! # Invariants
//!
//! VTABLE-1  The functions of a table accept what the same table handed out, keep to
//!     malloc's contract for it, and live as long as the process.

use core::ffi::c_void;

/// `malloc(ctx, n)`
pub(crate) type Malloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
/// `calloc(ctx, nelem, elsize)`
pub(crate) type Calloc = unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void;
/// `realloc(ctx, p, n)`
pub(crate) type Realloc = unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void;
/// `free(ctx, p)`
pub(crate) type Free = unsafe extern "C" fn(*mut c_void, *mut c_void);
/// `alloc(ctx, size)` of an arena
pub(crate) type ArenaAlloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
/// `free(ctx, p, size)` of an arena
pub(crate) type ArenaFree = unsafe extern "C" fn(*mut c_void, *mut c_void, usize);

/// A domain's table (`PyMemAllocatorEx`) without holes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Allocator {
    /// Handed to the functions as their first argument.
    pub ctx: *mut c_void,
    /// `malloc(ctx, n)`
    pub malloc: Malloc,
    /// `calloc(ctx, nelem, elsize)`
    pub calloc: Calloc,
    /// `realloc(ctx, p, n)`
    pub realloc: Realloc,
    /// `free(ctx, p)`
    pub free: Free,
}

/// The table that arenas come from (`PyObjectArenaAllocator`), without holes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ArenaAllocator {
    /// Handed to the functions as their first argument.
    pub ctx: *mut c_void,
    /// `alloc(ctx, size)`: NULL, or `size` bytes.
    pub alloc: ArenaAlloc,
    /// `free(ctx, p, size)`
    pub free: ArenaFree,
}

// SAFETY: VTABLE-1; a table is only numbers, and who writes one says when.
unsafe impl Sync for Allocator {}
// SAFETY: as above.
unsafe impl Send for Allocator {}

/// The C library's allocator, layer 0, as such a table.
///
/// As CPython's RAW domain has it: a request for nothing asks for one byte, so
/// that the answer is a pointer like any other; sizes above `PY_SSIZE_T_MAX`
/// never get here.
pub(crate) static LIBC: Allocator = Allocator {
    ctx: core::ptr::null_mut(),
    malloc: libc_malloc,
    calloc: libc_calloc,
    realloc: libc_realloc,
    free: libc_free,
};

unsafe extern "C" fn libc_malloc(_: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: malloc takes any size.
    unsafe { libc::malloc(n.max(1)) }
}

unsafe extern "C" fn libc_calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
    let (nelem, elsize) = if nelem == 0 || elsize == 0 {
        (1, 1)
    } else {
        (nelem, elsize)
    };
    // SAFETY: calloc takes any sizes and sees an overflow itself.
    unsafe { libc::calloc(nelem, elsize) }
}

unsafe extern "C" fn libc_realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the caller's pointer is NULL or the C library's.
    unsafe { libc::realloc(p, n.max(1)) }
}

unsafe extern "C" fn libc_free(_: *mut c_void, p: *mut c_void) {
    // SAFETY: the caller's pointer is NULL or the C library's.
    unsafe { libc::free(p) }
}

const _: () = assert!(size_of::<Allocator>() == 40);
const _: () = assert!(size_of::<ArenaAllocator>() == 24);
