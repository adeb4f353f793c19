//! The library's functions, by their C names.

use core::ffi::c_void;

use obmalloc::capi::{mem, object, raw};

/// The allocator of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Domain {
    Raw,
    Mem,
    Obj,
    /// The C library itself, whose blocks MEM and OBJ accept.
    Foreign,
}

impl Domain {
    /// # Safety
    /// None.
    #[inline]
    pub unsafe fn malloc(self, n: usize) -> *mut u8 {
        // SAFETY: any size is valid.
        let p = unsafe {
            match self {
                Domain::Raw => raw::PyMem_RawMalloc(n),
                Domain::Mem => mem::PyMem_Malloc(n),
                Domain::Obj => object::PyObject_Malloc(n),
                Domain::Foreign => libc::malloc(n.max(1)),
            }
        };
        p.cast()
    }

    /// # Safety
    /// None.
    #[inline]
    pub unsafe fn calloc(self, nelem: usize, elsize: usize) -> *mut u8 {
        // SAFETY: any sizes are valid.
        let p = unsafe {
            match self {
                Domain::Raw => raw::PyMem_RawCalloc(nelem, elsize),
                Domain::Mem => mem::PyMem_Calloc(nelem, elsize),
                Domain::Obj => object::PyObject_Calloc(nelem, elsize),
                Domain::Foreign => libc::calloc(nelem.max(1), elsize.max(1)),
            }
        };
        p.cast()
    }

    /// # Safety
    /// The contract of the C function. A foreign block is passed to MEM.
    #[inline]
    pub unsafe fn realloc(self, p: *mut u8, n: usize) -> *mut u8 {
        let p: *mut c_void = p.cast();
        // SAFETY: the contract of the C function, by the contract above.
        let p = unsafe {
            match self {
                Domain::Raw => raw::PyMem_RawRealloc(p, n),
                Domain::Mem | Domain::Foreign => mem::PyMem_Realloc(p, n),
                Domain::Obj => object::PyObject_Realloc(p, n),
            }
        };
        p.cast()
    }

    /// # Safety
    /// The contract of the C function. A foreign block is passed to MEM.
    #[inline]
    pub unsafe fn free(self, p: *mut u8) {
        let p: *mut c_void = p.cast();
        // SAFETY: the contract of the C function, by the contract above.
        unsafe {
            match self {
                Domain::Raw => raw::PyMem_RawFree(p),
                Domain::Mem | Domain::Foreign => mem::PyMem_Free(p),
                Domain::Obj => object::PyObject_Free(p),
            }
        }
    }

    /// Whether the library counts its blocks.
    #[inline]
    pub fn is_counted(self) -> bool {
        matches!(self, Domain::Mem | Domain::Obj)
    }
}

/// The size of the pool's blocks at `p`; `None` if it is in no pool.
#[inline]
pub fn pool_block(p: *mut u8) -> Option<usize> {
    obmalloc::tests::model::size_of_class_at(p.addr())
}
