//! Memory to work in, beside the stack: threads that start programs may have small ones.
//!
//! Memory is mapped once for a slot and used again. A call that returns gives its slot back.
//! A child of `vfork` does not return: it shares its parent's memory, and `execve` ends all
//! that it was. So it has the kernel give the slot back (`set_tid_address`): as soon as the
//! child leaves the shared memory, by `execve` or by its end, a zero is written there.
//!
//! ```text
//!   0 --take--> pid --drop--> 0                   the call has returned
//!                |----kernel-> 0                  a child of vfork has become a program
//!                +----take---> another's pid      should neither have happened: it has ended
//! ```
//!
//! Where no slot is to be had, the program is started as its caller wants it, unserved.

use core::ffi::{c_char, c_int};
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{AcqRel, Acquire, Release},
};

/// Entries of the largest environment that is restored, and NULL.
pub(crate) const ENTRIES: usize = 2048;
/// Bytes of the longest LD_PRELOAD that is restored.
pub(crate) const TEXT: usize = 4096;
/// Bytes of the longest path that is opened.
pub(crate) const PATH: usize = 4096;
/// Bytes that are read at a time.
pub(crate) const CHUNK: usize = 4096;
const SLOTS: usize = 64;

/// What one call works in.
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
    /// The process that has it, 0: none.
    owner: AtomicU32,
    memory: AtomicPtr<Scratch>,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        owner: AtomicU32::new(0),
        memory: AtomicPtr::new(ptr::null_mut()),
    }
}; SLOTS];

/// The process whose memory this is, as far as known: a child of `vfork` is another.
static PROCESS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn note_process() {
    PROCESS.store(process(), Release);
}

/// Notes the process, and each forked one. The library's constructor calls it.
pub(crate) fn begin() {
    // SAFETY: a function that is there as long as the process.
    unsafe {
        note_process();
        libc::pthread_atfork(None, None, Some(note_process));
    }
}

/// A slot that is taken: given back when it is dropped.
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

/// Has the kernel write a zero there when this process leaves its parent's memory. (What
/// stood there before, for a child of `vfork`, is nothing.)
fn give_back_by_kernel(place: *mut u32) {
    // SAFETY: NULL, or a word that is there as long as the process.
    unsafe { libc::syscall(libc::SYS_set_tid_address, place) };
}

fn process() -> u32 {
    // By number: old C libraries keep the answer, and a child of vfork has its parent's then.
    // SAFETY: getpid has no conditions.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

fn has_ended(process: u32) -> bool {
    // SAFETY: signal 0 only asks.
    let error = unsafe { libc::kill(process.cast_signed(), 0) };
    // SAFETY: this thread's errno.
    error != 0 && unsafe { *libc::__errno_location() } == libc::ESRCH
}

impl Slot {
    /// Whether the slot, which is this call's, has its memory by now; else it is free again.
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
        // SAFETY: `has_memory` was true: a mapping of that size, of zeros or what an earlier
        // call wrote, which any bytes are good for; nobody else has the slot.
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
