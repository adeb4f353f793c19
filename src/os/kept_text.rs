//! A copy of a text of the environment: programs that change their title overwrite the original.

use core::cell::UnsafeCell;

use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// A text of at most `MAX` bytes.
pub(crate) struct KeptText<const MAX: usize> {
    bytes: UnsafeCell<[u8; MAX]>,
    len: AtomicUsize,
}

// SAFETY: the bytes are written while settings are read, which happens once, before any thread
// that needs a setting continues (`os/once.rs`).
unsafe impl<const MAX: usize> Sync for KeptText<MAX> {}

impl<const MAX: usize> KeptText<MAX> {
    pub(crate) const fn new() -> KeptText<MAX> {
        KeptText {
            bytes: UnsafeCell::new([0; MAX]),
            len: AtomicUsize::new(0),
        }
    }

    /// Keeps a copy of at most `MAX` bytes. Called while settings are read.
    pub(crate) fn keep(&self, text: &[u8]) {
        if text.len() <= MAX && self.get() != text {
            let to = self.bytes.get().cast::<u8>();
            // SAFETY: `bytes` has room for `MAX` bytes, and no other thread reads them
            // before settings are read.
            unsafe { to.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
            self.len.store(text.len(), Relaxed);
        }
    }

    /// The text; empty before [`keep`](KeptText::keep).
    pub(crate) fn get(&self) -> &[u8] {
        let bytes = self.bytes.get().cast::<u8>();
        // SAFETY: `keep` has written `len` bytes, at most `MAX`.
        unsafe { core::slice::from_raw_parts(bytes, self.len.load(Relaxed)) }
    }
}
