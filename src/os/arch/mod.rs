//! What each architecture has of its own: registers, instructions, relocation types and the
//! kernel's frame of a signal. A file for each architecture, with the items below; everything
//! outside this folder is the same for all of them.
//!
//! | item | meaning |
//! |---|---|
//! | `thread_word`, `set_thread_word` | the thread-local word `obmalloc_thread_word`; for musl `set_by_descriptor` |
//! | `control_block` | the address of the thread's control block |
//! | `syscall`, `run_apart` | system calls without errno; a thread without the C library |
//! | `load_u16` | an entry of the page map's near table |
//! | `tool_request` | a client request to Valgrind |
//! | `page_fault` | a fault, by the registers that the kernel saved |
//! | `relocation` | relocation types of the dynamic linker |
//! | `jump_through!`, `jump_by!` | bodies of exported functions |
//! | `pass_return_address!` | the body of a function that calls another one with its caller |
//! | `load_got_entry!`, `jump!`, `trap!` | text for `asm!` and `global_asm!` |
//!
//! Two constants are not here, because `base/layout.rs` forbids unsafe code and comes before: the
//! bits of an address, and the smallest page.

#[cfg(target_env = "musl")]
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;

#[cfg(not(all(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    target_endian = "little",
    target_os = "linux"
)))]
compile_error!("obmalloc is for Linux on x86-64 and little-endian aarch64");

/// The thread word's offset from the thread pointer, if it is known to be the same in all threads;
/// else 0.
#[cfg(target_env = "musl")]
static OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Sets the thread word.
///
/// Where the loader has reserved the word in every thread, the descriptor's second word is the
/// offset, which its function returns. Where the library was opened late the second word is a
/// pointer, which is never the difference of a thread pointer and an address: the offset may be
/// another one in each thread.
///
/// # Safety
/// The value is valid for the readers of [`thread_word`].
#[cfg(target_env = "musl")]
pub(crate) unsafe fn set_thread_word(word: *mut ()) {
    // SAFETY: the value is valid by the contract above.
    let (offset, descriptor) = unsafe { set_by_descriptor(word) };
    // SAFETY: the loader's descriptor, which is two words, unless the linker has put the offset in
    // its place.
    if descriptor.addr() == offset || unsafe { (*descriptor)[1] } == offset {
        OFFSET.store(offset, Relaxed);
    }
}

/// The access that is the cause of a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    /// The fetch of an instruction.
    Run,
    #[cfg_attr(
        target_arch = "x86_64",
        expect(dead_code, reason = "every x86-64 fault has its kind")
    )]
    Unknown,
}

/// A page fault.
pub(crate) struct PageFault {
    pub(crate) access: Access,
    /// The address that was read, written or executed.
    pub(crate) address: usize,
    /// The address of the instruction.
    pub(crate) instruction: usize,
}
