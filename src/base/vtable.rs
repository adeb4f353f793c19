//! The ABI types of CPython's allocator tables: a domain's four functions with their context
//! (`PyMemAllocatorEx`, 40 bytes, since 3.5), and the two functions that arenas come from.
//!
//! A table from outside may have null functions; inside the library none has. Each call of the
//! object allocator brings one table along, the *fallback*, for foreign pointers and for requests
//! that are too large for a pool. In a CPython host it is the table that was in the domain before
//! the library was installed; elsewhere it is the C library's.
//!
//! # Invariants
//!
//! VTABLE-1  The functions of a table accept the table's context and the blocks that the same table
//!     allocated, keep malloc's contract, and live as long as the process.

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

/// A domain's table (`PyMemAllocatorEx`) without null functions.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Allocator {
    /// The first argument of the functions.
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

/// The table that arenas come from (`PyObjectArenaAllocator`), without null functions.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ArenaAllocator {
    /// The first argument of the functions.
    pub ctx: *mut c_void,
    /// `alloc(ctx, size)`: NULL, or `size` bytes.
    pub alloc: ArenaAlloc,
    /// `free(ctx, p, size)`
    pub free: ArenaFree,
}

// SAFETY: a table is five words that are not written after the table is shared; VTABLE-1.
unsafe impl Sync for Allocator {}
// SAFETY: no word of a table belongs to a thread.
unsafe impl Send for Allocator {}

/// The four functions of an allocator, as a type. [`Allocator::of`] makes a table of them.
///
/// # Safety
///
/// VTABLE-1 holds for the functions of one type. They are called with a context that the type
/// works with, and with `p` NULL or a live block of the same allocator.
pub(crate) trait Backend {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void;
    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void;
    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void;
    unsafe fn free(ctx: *mut c_void, p: *mut c_void);
}

/// The C functions of a [`Backend`], in a module, with the attribute that says where the linker
/// puts them.
macro_rules! c_functions {
    ($(#[$place:meta])? $module:ident) => {
        /// The C functions of a `Backend`.
        pub(crate) mod $module {
            use super::Backend;
            use core::ffi::c_void;

            $(#[$place])?
            pub(crate) unsafe extern "C" fn malloc<B: Backend>(
                ctx: *mut c_void,
                n: usize,
            ) -> *mut c_void {
                // SAFETY: the contract of `Backend` is that of the C function.
                unsafe { B::malloc(ctx, n) }
            }
            $(#[$place])?
            pub(crate) unsafe extern "C" fn calloc<B: Backend>(
                ctx: *mut c_void,
                nelem: usize,
                elsize: usize,
            ) -> *mut c_void {
                // SAFETY: the contract of `Backend` is that of the C function.
                unsafe { B::calloc(ctx, nelem, elsize) }
            }
            $(#[$place])?
            pub(crate) unsafe extern "C" fn realloc<B: Backend>(
                ctx: *mut c_void,
                p: *mut c_void,
                n: usize,
            ) -> *mut c_void {
                // SAFETY: the contract of `Backend` is that of the C function.
                unsafe { B::realloc(ctx, p, n) }
            }
            $(#[$place])?
            pub(crate) unsafe extern "C" fn free<B: Backend>(ctx: *mut c_void, p: *mut c_void) {
                // SAFETY: the contract of `Backend` is that of the C function.
                unsafe { B::free(ctx, p) }
            }
        }
    };
}
c_functions!(
    #[unsafe(link_section = ".text.hot.rest")]
    hot
);
c_functions!(plain);

impl Allocator {
    /// The table of `B` with this context.
    pub(crate) const fn of<B: Backend>(ctx: *mut c_void) -> Allocator {
        Allocator {
            ctx,
            malloc: plain::malloc::<B>,
            calloc: plain::calloc::<B>,
            realloc: plain::realloc::<B>,
            free: plain::free::<B>,
        }
    }

    /// As [`of`](Allocator::of), with the functions among the code that programs call often
    /// (`base/hot.rs`).
    pub(crate) const fn hot_of<B: Backend>(ctx: *mut c_void) -> Allocator {
        Allocator {
            ctx,
            malloc: hot::malloc::<B>,
            calloc: hot::calloc::<B>,
            realloc: hot::realloc::<B>,
            free: hot::free::<B>,
        }
    }
}

/// The C library's allocator, layer 0.
///
/// As in CPython's domain RAW, a request for nothing is one for one byte, so that the result is
/// a pointer like any other. Callers refuse sizes above `PY_SSIZE_T_MAX`.
pub(crate) struct Libc;

/// Its table.
pub(crate) static LIBC: Allocator = Allocator::of::<Libc>(core::ptr::null_mut());

impl Backend for Libc {
    unsafe fn malloc(_: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: malloc takes any size.
        unsafe { libc::malloc(n.max(1)) }
    }

    unsafe fn calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        let (nelem, elsize) = if nelem == 0 || elsize == 0 {
            (1, 1)
        } else {
            (nelem, elsize)
        };
        // SAFETY: calloc takes any sizes and detects an overflow.
        unsafe { libc::calloc(nelem, elsize) }
    }

    unsafe fn realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: by the contract of `Backend`, `p` is NULL or the C library's.
        unsafe { libc::realloc(p, n.max(1)) }
    }

    unsafe fn free(_: *mut c_void, p: *mut c_void) {
        // SAFETY: by the contract of `Backend`, `p` is NULL or the C library's.
        unsafe { libc::free(p) }
    }
}

const _: () = assert!(size_of::<Allocator>() == 40);
const _: () = assert!(size_of::<ArenaAllocator>() == 24);
