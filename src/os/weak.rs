//! Names of others that may be there or not.
//!
//! The linker, and the loader for the shared library, put null where nobody
//! defines such a name: a process without CPython is told in two instructions,
//! without a look-up. Linked into CPython, names that it hides from the
//! outside are found, too.

use core::ffi::c_void;
use core::ptr::NonNull;

/// The address of the symbol `$name`, if something defines it.
#[cfg(not(miri))]
macro_rules! weak_symbol {
    ($name:literal) => {{
        let address: *mut core::ffi::c_void;
        // SAFETY: reads an entry of the GOT, which the linker or the loader
        // has filled.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {address}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                address = out(reg) address,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        core::ptr::NonNull::new(address)
    }};
}
/// Miri has no symbols but the sources' own.
#[cfg(miri)]
macro_rules! weak_symbol {
    ($name:literal) => {
        None::<core::ptr::NonNull<core::ffi::c_void>>
    };
}
pub(crate) use weak_symbol;

/// Whether the process has a debug build of CPython, which counts references.
pub(crate) fn is_debug_build() -> bool {
    // The one up to 3.11, the other later.
    weak_symbol!("_Py_GetRefTotal").is_some() || weak_symbol!("_Py_GetLegacyRefTotal").is_some()
}

/// A function of the type that the caller gives it, from its address.
///
/// # Safety
/// `F` is the function's own type.
pub(crate) unsafe fn function<F: Copy>(address: NonNull<c_void>) -> F {
    const { assert!(size_of::<F>() == size_of::<NonNull<c_void>>()) };
    // SAFETY: the caller's promise; a function pointer is an address.
    unsafe { core::mem::transmute_copy(&address) }
}
