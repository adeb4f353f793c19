//! Weak symbols: names that other objects may define or not.
//!
//! The linker, and for the shared library the loader, put null for a name without a definition: a
//! process without CPython is recognised in two instructions, without a look-up. Linked into
//! CPython, the library finds names that CPython hides from other objects, too.

use core::ffi::c_void;
use core::ptr::NonNull;

/// The address of the symbol `$name`, if something defines it.
#[cfg(not(miri))]
macro_rules! weak_symbol {
    ($name:literal) => {{
        let address: *mut core::ffi::c_void;
        // SAFETY: reads an entry of the GOT that the linker or the loader has filled in.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                $crate::os::arch::load_got_entry!($name),
                address = out(reg) address,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        core::ptr::NonNull::new(address)
    }};
}
/// Miri has only the symbols of the sources.
#[cfg(miri)]
macro_rules! weak_symbol {
    ($name:literal) => {
        None::<core::ptr::NonNull<core::ffi::c_void>>
    };
}
pub(crate) use weak_symbol;

/// Whether the process has a debug build of CPython, which counts references.
pub(crate) fn is_debug_build() -> bool {
    // The first until 3.11, the second from 3.12 on.
    weak_symbol!("_Py_GetRefTotal").is_some() || weak_symbol!("_Py_GetLegacyRefTotal").is_some()
}

/// The function at `address`, of the caller's type.
///
/// # Safety
/// `F` is the function's own type.
pub(crate) unsafe fn function<F: Copy>(address: NonNull<c_void>) -> F {
    const { assert!(size_of::<F>() == size_of::<NonNull<c_void>>()) };
    // SAFETY: a function pointer is an address; by the contract above it has the type `F`.
    unsafe { core::mem::transmute_copy(&address) }
}
