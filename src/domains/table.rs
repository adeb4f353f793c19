//! One domain's table, which can be called while another thread changes it.
//!
//! A change is five stores, as in CPython: who calls during one may get the
//! new function with the old context. CPython's rule is that tables change
//! before threads run, or by wrappers that can bear it.

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

/// A function of one of the four types, from where it was kept.
macro_rules! load {
    ($from:expr, $type:ty) => {{
        let function = $from.load(Acquire);
        // SAFETY: only functions of this type are kept there.
        unsafe { mem::transmute::<*mut (), $type>(function) }
    }};
}

impl Table {
    /// A table that starts as `table`.
    pub(crate) const fn new(table: Allocator) -> Table {
        Table {
            ctx: AtomicPtr::new(table.ctx),
            malloc: AtomicPtr::new(table.malloc as *mut ()),
            calloc: AtomicPtr::new(table.calloc as *mut ()),
            realloc: AtomicPtr::new(table.realloc as *mut ()),
            free: AtomicPtr::new(table.free as *mut ()),
        }
    }

    /// What it holds now.
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

    /// Calls its malloc.
    ///
    /// # Safety
    /// What the table's functions ask of their callers (VTABLE-1), as in the three
    /// that follow.
    #[inline]
    pub(crate) unsafe fn malloc(&self, n: usize) -> *mut c_void {
        let malloc = load!(self.malloc, Malloc);
        // SAFETY: the caller's promise.
        unsafe { malloc(self.ctx.load(Acquire), n) }
    }

    /// Calls its calloc.
    ///
    /// # Safety
    /// As for `malloc`.
    #[inline]
    pub(crate) unsafe fn calloc(&self, nelem: usize, elsize: usize) -> *mut c_void {
        let calloc = load!(self.calloc, Calloc);
        // SAFETY: the caller's promise.
        unsafe { calloc(self.ctx.load(Acquire), nelem, elsize) }
    }

    /// Calls its realloc.
    ///
    /// # Safety
    /// As for `malloc`.
    #[inline]
    pub(crate) unsafe fn realloc(&self, p: *mut c_void, n: usize) -> *mut c_void {
        let realloc = load!(self.realloc, Realloc);
        // SAFETY: the caller's promise.
        unsafe { realloc(self.ctx.load(Acquire), p, n) }
    }

    /// Calls its free.
    ///
    /// # Safety
    /// As for `malloc`.
    #[inline]
    pub(crate) unsafe fn free(&self, p: *mut c_void) {
        let free = load!(self.free, Free);
        // SAFETY: the caller's promise.
        unsafe { free(self.ctx.load(Acquire), p) }
    }

    /// Changes it.
    pub(crate) fn set(&self, table: &Allocator) {
        self.ctx.store(table.ctx, Release);
        self.malloc.store(table.malloc as *mut (), Release);
        self.calloc.store(table.calloc as *mut (), Release);
        self.realloc.store(table.realloc as *mut (), Release);
        self.free.store(table.free as *mut (), Release);
    }
}

/// Whether two tables are the same: their functions and their context.
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
