//! One domain's table, which can be called while another thread changes it.
//!
//! A change is five stores, as in CPython: a call during a change may get the new function with the
//! old context. CPython requires that tables change before threads run, or to wrappers that tolerate
//! it.

use core::ffi::c_void;
use core::mem;
use core::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

use crate::base::vtable::{Allocator, Calloc, Free, Malloc, Realloc};

/// A table that can change. Release publishes what a new context points to.
pub(crate) struct Table {
    ctx: AtomicPtr<c_void>,
    malloc: AtomicPtr<()>,
    calloc: AtomicPtr<()>,
    realloc: AtomicPtr<()>,
    free: AtomicPtr<()>,
}

/// A function of one of the four types, from the word that holds it.
macro_rules! load {
    ($from:expr, $type:ty) => {{
        let function = $from.load(Acquire);
        // SAFETY: the word holds functions of this type only.
        unsafe { mem::transmute::<*mut (), $type>(function) }
    }};
}

impl Table {
    pub(crate) const fn new(table: Allocator) -> Table {
        Table {
            ctx: AtomicPtr::new(table.ctx),
            malloc: AtomicPtr::new(table.malloc as *mut ()),
            calloc: AtomicPtr::new(table.calloc as *mut ()),
            realloc: AtomicPtr::new(table.realloc as *mut ()),
            free: AtomicPtr::new(table.free as *mut ()),
        }
    }

    /// The present table.
    #[inline]
    pub(crate) fn get(&self) -> Allocator {
        Allocator {
            malloc: load!(self.malloc, Malloc),
            calloc: load!(self.calloc, Calloc),
            realloc: load!(self.realloc, Realloc),
            free: load!(self.free, Free),
            ctx: self.ctx.load(Acquire),
        }
    }

    /// # Safety
    /// The contract of the table's functions (VTABLE-1).
    #[inline]
    pub(crate) unsafe fn malloc(&self, n: usize) -> *mut c_void {
        let malloc = load!(self.malloc, Malloc);
        // SAFETY: the contract of the table's functions, by the contract above.
        unsafe { malloc(self.ctx.load(Acquire), n) }
    }

    /// # Safety
    /// The contract of the table's functions (VTABLE-1).
    #[inline]
    pub(crate) unsafe fn calloc(&self, nelem: usize, elsize: usize) -> *mut c_void {
        let calloc = load!(self.calloc, Calloc);
        // SAFETY: the contract of the table's functions, by the contract above.
        unsafe { calloc(self.ctx.load(Acquire), nelem, elsize) }
    }

    /// # Safety
    /// The contract of the table's functions (VTABLE-1).
    #[inline]
    pub(crate) unsafe fn realloc(&self, p: *mut c_void, n: usize) -> *mut c_void {
        let realloc = load!(self.realloc, Realloc);
        // SAFETY: the contract of the table's functions, by the contract above.
        unsafe { realloc(self.ctx.load(Acquire), p, n) }
    }

    /// # Safety
    /// The contract of the table's functions (VTABLE-1).
    #[inline]
    pub(crate) unsafe fn free(&self, p: *mut c_void) {
        let free = load!(self.free, Free);
        // SAFETY: the contract of the table's functions, by the contract above.
        unsafe { free(self.ctx.load(Acquire), p) }
    }

    /// Sets the table.
    pub(crate) fn set(&self, table: &Allocator) {
        self.ctx.store(table.ctx, Release);
        self.malloc.store(table.malloc as *mut (), Release);
        self.calloc.store(table.calloc as *mut (), Release);
        self.realloc.store(table.realloc as *mut (), Release);
        self.free.store(table.free as *mut (), Release);
    }
}

/// Whether two tables have the same functions and context.
pub(crate) fn same(one: &Allocator, other: &Allocator) -> bool {
    let parts = |table: &Allocator| {
        [
            table.ctx.addr(),
            (table.malloc as *const ()).addr(),
            (table.calloc as *const ()).addr(),
            (table.realloc as *const ()).addr(),
            (table.free as *const ()).addr(),
        ]
    };
    parts(one) == parts(other)
}
