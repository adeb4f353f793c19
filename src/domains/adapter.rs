//! Allocators as types ([`Backend`]), from which tables and exported functions are made: every
//! quadruple of malloc, calloc, realloc and free that only passes a call on is here.
//!
//! CPython's tables on the hit path are written out in `cpython/install.rs`, because each of their
//! functions has a section of its own (`base/hot.rs`).

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr;

use super::table::Table;
use crate::base::layout::{ALIGNMENT, REQUEST_MAX};
use crate::base::vtable::{Allocator, Backend};
use crate::object;
use crate::os::errno;
use crate::tools;

/// `malloc(n)`
pub(crate) type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
/// `calloc(nelem, elsize)`
pub(crate) type Calloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
/// `realloc(p, n)`
pub(crate) type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
/// `free(p)`
pub(crate) type Free = unsafe extern "C" fn(*mut c_void);

/// The four functions of a domain as exported names call them, without a context.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    pub malloc: Malloc,
    pub calloc: Calloc,
    pub realloc: Realloc,
    pub free: Free,
}

/// The functions of a [`Backend`] with a null context, in a module, with the attribute that says
/// where the linker puts them.
macro_rules! exported_functions {
    ($(#[$place:meta])? $module:ident) => {
        /// The functions of a [`Backend`] without a context.
        pub(crate) mod $module {
            use super::{Backend, c_void, ptr};

            $(#[$place])?
            pub(crate) unsafe extern "C" fn malloc<B: Backend>(n: usize) -> *mut c_void {
                // SAFETY: the exported function's contract is that of `Backend`.
                unsafe { B::malloc(ptr::null_mut(), n) }
            }
            $(#[$place])?
            pub(crate) unsafe extern "C" fn calloc<B: Backend>(
                nelem: usize,
                elsize: usize,
            ) -> *mut c_void {
                // SAFETY: the exported function's contract is that of `Backend`.
                unsafe { B::calloc(ptr::null_mut(), nelem, elsize) }
            }
            $(#[$place])?
            pub(crate) unsafe extern "C" fn realloc<B: Backend>(
                p: *mut c_void,
                n: usize,
            ) -> *mut c_void {
                // SAFETY: the exported function's contract is that of `Backend`.
                unsafe { B::realloc(ptr::null_mut(), p, n) }
            }
            $(#[$place])?
            pub(crate) unsafe extern "C" fn free<B: Backend>(p: *mut c_void) {
                // SAFETY: the exported function's contract is that of `Backend`.
                unsafe { B::free(ptr::null_mut(), p) }
            }
        }
    };
}
exported_functions!(
    #[unsafe(link_section = ".text.hot.rest")]
    hot
);
exported_functions!(plain);

impl Functions {
    /// The functions of `B`, which refuses too large requests itself.
    pub(crate) const fn hot_of<B: Backend>() -> Functions {
        Functions {
            malloc: hot::malloc::<B>,
            calloc: hot::calloc::<B>,
            realloc: hot::realloc::<B>,
            free: hot::free::<B>,
        }
    }

    /// The functions of `B`, which requests above `PY_SSIZE_T_MAX` do not reach.
    pub(crate) const fn checked<B: Backend>() -> Functions {
        Functions {
            malloc: plain::malloc::<Checked<B>>,
            calloc: plain::calloc::<Checked<B>>,
            realloc: plain::realloc::<Checked<B>>,
            free: plain::free::<B>,
        }
    }
}

/// `B`, which requests above `PY_SSIZE_T_MAX` do not reach.
pub(crate) struct Checked<B>(PhantomData<B>);

impl<B: Backend> Backend for Checked<B> {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
        if n > REQUEST_MAX {
            return errno::no_memory();
        }
        // SAFETY: the caller keeps to the contract of `B`.
        unsafe { B::malloc(ctx, n) }
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        match nelem.checked_mul(elsize) {
            // SAFETY: the caller keeps to the contract of `B`.
            Some(n) if n <= REQUEST_MAX => unsafe { B::calloc(ctx, nelem, elsize) },
            _ => errno::no_memory(),
        }
    }

    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        if n > REQUEST_MAX {
            return errno::no_memory();
        }
        // SAFETY: the caller keeps to the contract of `B`.
        unsafe { B::realloc(ctx, p, n) }
    }

    unsafe fn free(ctx: *mut c_void, p: *mut c_void) {
        // SAFETY: the caller keeps to the contract of `B`.
        unsafe { B::free(ctx, p) }
    }
}

/// Where a backend finds its fallback allocator.
pub(crate) trait Fallback {
    /// # Safety
    /// `ctx` is the context of a table of a backend with this fallback.
    unsafe fn of<'a>(ctx: *mut c_void) -> &'a Allocator;
}

/// The context is the fallback's address.
pub(crate) struct InContext;

impl Fallback for InContext {
    unsafe fn of<'a>(ctx: *mut c_void) -> &'a Allocator {
        // SAFETY: the context of such a table is an `Allocator` that lives as long as the table.
        unsafe { &*ctx.cast() }
    }
}

/// The object allocator, with blocks aligned to `ALIGN` bytes.
pub(crate) struct Object<F, const ALIGN: usize>(PhantomData<F>);

impl<F: Fallback, const ALIGN: usize> Backend for Object<F, ALIGN> {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for the fallback.
        unsafe { object::malloc::<ALIGN>(F::of(ctx), n) }
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for the fallback.
        unsafe { object::calloc::<ALIGN>(F::of(ctx), nelem, elsize) }
    }

    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for the fallback; `p` is NULL, a block of a pool, or the fallback's.
        unsafe { object::realloc::<ALIGN>(F::of(ctx), p, n) }
    }

    unsafe fn free(ctx: *mut c_void, p: *mut c_void) {
        // SAFETY: VTABLE-1 holds for the fallback; `p` is NULL, a block of a pool, or the fallback's.
        unsafe { object::free(F::of(ctx), p) }
    }
}

/// The object allocator where guard sampling, memcheck or AddressSanitizer see each block.
pub(crate) struct Instrumented<F>(PhantomData<F>);

impl<F: Fallback> Backend for Instrumented<F> {
    unsafe fn malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for the fallback.
        unsafe { tools::malloc::<ALIGNMENT>(F::of(ctx), n) }
    }

    unsafe fn calloc(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for the fallback.
        unsafe { tools::calloc::<ALIGNMENT>(F::of(ctx), nelem, elsize) }
    }

    unsafe fn realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for the fallback; `p` is NULL, a block of a pool, or the fallback's.
        unsafe { tools::realloc::<ALIGNMENT>(F::of(ctx), p, n) }
    }

    unsafe fn free(ctx: *mut c_void, p: *mut c_void) {
        // SAFETY: VTABLE-1 holds for the fallback; `p` is NULL, a block of a pool, or the fallback's.
        unsafe { tools::free(F::of(ctx), p) }
    }
}

/// The table of the instrumented object allocator, but for its context, which is the address of
/// the fallback.
pub(crate) const INSTRUMENTED: Allocator =
    Allocator::of::<Instrumented<InContext>>(ptr::null_mut());

/// A domain's table in a static.
pub(crate) trait StaticTable {
    fn table() -> &'static Table;
}

/// Whatever is in a domain's table at each call.
pub(crate) struct Forward<T>(PhantomData<T>);

impl<T: StaticTable> Backend for Forward<T> {
    unsafe fn malloc(_: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for what is in the table.
        unsafe { T::table().malloc(n) }
    }

    unsafe fn calloc(_: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for what is in the table.
        unsafe { T::table().calloc(nelem, elsize) }
    }

    unsafe fn realloc(_: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
        // SAFETY: VTABLE-1 holds for what is in the table.
        unsafe { T::table().realloc(p, n) }
    }

    unsafe fn free(_: *mut c_void, p: *mut c_void) {
        // SAFETY: VTABLE-1 holds for what is in the table.
        unsafe { T::table().free(p) }
    }
}
