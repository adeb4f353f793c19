//! Scratch memory, in place of the stack: threads that start programs may have small stacks.
//!
//! The memory of a slot is mapped once and used again. A call that returns releases its slot. A child
//! of `vfork` does not return: it shares its parent's memory until `execve`. So the kernel releases its
//! slot (`set_tid_address`): when the child leaves the shared memory, by `execve` or by its end, the
//! kernel writes a zero there.
//!
//! ```text
//!   0 --take--> pid --drop--> 0                   the call has returned
//!                |----kernel-> 0                  a child of vfork has called execve
//!                +----take---> another's pid      the process has ended without either
//! ```
//!
//! Without a free slot the program is started with the caller's environment, unserved.

use core::ffi::{c_char, c_int};
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{AcqRel, Acquire, Release},
};

/// Maximum entries of an environment that is restored, with NULL.
pub(crate) const ENTRIES: usize = 2048;
/// Maximum bytes of an LD_PRELOAD that is restored.
pub(crate) const TEXT: usize = 4096;
/// Maximum bytes of a path that is opened.
pub(crate) const PATH: usize = 4096;
/// Bytes of one read.
pub(crate) const CHUNK: usize = 4096;
const SLOTS: usize = 64;

/// The scratch memory of one call.
#[repr(C)]
pub(crate) struct Scratch {
    /// An environment.
    pub(crate) entries: [*const c_char; ENTRIES],
    /// Its LD_PRELOAD.
    pub(crate) text: [u8; TEXT],
    /// A path.
    pub(crate) path: [u8; PATH],
    /// A part of a file.
    pub(crate) chunk: [u8; CHUNK],
}

struct Slot {
    /// The process that has it; 0: none.
    owner: AtomicU32,
    memory: AtomicPtr<Scratch>,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        owner: AtomicU32::new(0),
        memory: AtomicPtr::new(ptr::null_mut()),
    }
}; SLOTS];

/// The process whose memory this is; a child of `vfork` is another process.
static PROCESS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn note_process() {
    PROCESS.store(process(), Release);
}

/// Notes the process, and each forked one. The library's constructor calls it.
pub(crate) fn begin() {
    // SAFETY: a function that lives as long as the process.
    unsafe {
        note_process();
        libc::pthread_atfork(None, None, Some(note_process));
    }
}

/// A taken slot, released when it is dropped.
pub(crate) struct Taken {
    slot: &'static Slot,
    by_kernel: bool,
}

/// Takes a slot.
pub(crate) fn take() -> Option<Taken> {
    let own = process();
    let slot = TABLE.iter().find(|slot| {
        let owner = slot.owner.load(Acquire);
        let is_free = owner == 0 || (owner != own && has_ended(owner));
        is_free
            && slot
                .owner
                .compare_exchange(owner, own, AcqRel, Acquire)
                .is_ok()
            && slot.has_memory()
    })?;
    let by_kernel = own != PROCESS.load(Acquire);
    if by_kernel {
        give_back_by_kernel(slot.owner.as_ptr());
    }
    Some(Taken { slot, by_kernel })
}

/// Makes the kernel write a zero there when this process leaves its parent's memory. (A child of
/// `vfork` has no such address before.)
fn give_back_by_kernel(place: *mut u32) {
    // SAFETY: NULL, or a word that lives as long as the process.
    unsafe { libc::syscall(libc::SYS_set_tid_address, place) };
}

fn process() -> u32 {
    // By number: old C libraries cache the result, and a child of vfork would get its parent's.
    // SAFETY: getpid has no preconditions.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

fn has_ended(process: u32) -> bool {
    // SAFETY: signal 0 is not sent.
    let error = unsafe { libc::kill(process.cast_signed(), 0) };
    // SAFETY: this thread's errno.
    error != 0 && unsafe { *libc::__errno_location() } == libc::ESRCH
}

impl Slot {
    /// Whether this call's slot has memory; else the slot is released.
    fn has_memory(&self) -> bool {
        if !self.memory.load(Acquire).is_null() {
            return true;
        }
        const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;
        const FLAGS: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Scratch>(),
                READ_WRITE,
                FLAGS,
                -1,
                0,
            )
        };
        let is_mapped = memory != libc::MAP_FAILED;
        if is_mapped {
            self.memory.store(memory.cast(), Release);
        } else {
            self.owner.store(0, Release);
        }
        is_mapped
    }
}

impl Taken {
    /// Its memory.
    pub(crate) fn scratch(&mut self) -> &mut Scratch {
        // SAFETY: `has_memory` was true: a mapping of that size, with zeros or the bytes of an earlier
        // call, which are all valid; only this call has the slot.
        unsafe { &mut *self.slot.memory.load(Acquire) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.by_kernel {
            give_back_by_kernel(ptr::null_mut());
        }
        self.slot.owner.store(0, Release);
    }
}
