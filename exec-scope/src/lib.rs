//! Keeps the preload of libobmalloc.so among Pythons (`obmalloc run --pythons-only`).
//!
//! What a program starts inherits LD_PRELOAD. This library, preloaded beside the
//! allocator, takes both of them out of the environment when it is loaded, so that
//! nothing inherits them; and it stands before `execve` and the like, and puts them back
//! into the environment of a program that is linked with a CPython.
//!
//! ```text
//!   obmalloc run:  LD_PRELOAD=libobmalloc.so:libobmalloc_pythons.so:theirs
//!                  LIBOBMALLOC_PYTHONS=libobmalloc.so:libobmalloc_pythons.so
//!        |
//!        v
//!   python, at start:  LD_PRELOAD=theirs
//!        |
//!        +-- execve(python)   both put back before "theirs"
//!        +-- execve(chrome)   as it is
//!        +-- system(), popen(), execl(): the C library's own way, as it is
//! ```
//!
//! An environment without LIBOBMALLOC_PYTHONS is one that its program has made itself,
//! and stays as it is. Nothing here allocates or locks: a child of `fork` or `vfork` calls
//! it. It uses little of the stack, which may be a small one (`scratch`).
#![no_std]

mod calls;
mod environment;
mod kind;
mod scratch;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort has no conditions.
    unsafe { libc::abort() }
}

unsafe extern "C" fn constructor() {
    calls::find_next();
    scratch::begin();
    environment::clean_own();
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: unsafe extern "C" fn() = constructor;
