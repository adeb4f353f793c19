//! Keeps the preload of libobmalloc.so among Pythons (`obmalloc run --pythons-only`).
//!
//! Child processes inherit LD_PRELOAD. This library, preloaded beside the allocator, removes both from
//! the environment when it is loaded, so that no child inherits them. It interposes `execve` and its
//! variants, and restores them in the environment of a program that is linked with a CPython.
//!
//! ```text
//!   obmalloc run:  LD_PRELOAD=libobmalloc.so:libobmalloc_pythons.so:theirs
//!                  LIBOBMALLOC_PYTHONS=libobmalloc.so:libobmalloc_pythons.so
//!        |
//!        v
//!   python, at start:  LD_PRELOAD=theirs
//!        |
//!        +-- execve(python)   both restored before "theirs"
//!        +-- execve(chrome)   unchanged
//!        +-- system(), popen(), execl(): the C library's own call, unchanged
//! ```
//!
//! An environment without LIBOBMALLOC_PYTHONS was made by the program itself and is not changed. No
//! function allocates or locks, because a child of `fork` or `vfork` may call it, and none needs much
//! of the stack, which may be small (`scratch`).
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
