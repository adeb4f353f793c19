//! The destination of a snapshot: a file, or memory that readers map.

use core::ffi::c_int;
use core::ptr::NonNull;
use core::slice;

use crate::os::output::Output;

/// The destination of a snapshot.
pub(crate) enum Writer<'a> {
    /// A file.
    File(&'a Output),
    /// Memory of this many bytes.
    Memory(NonNull<u8>, usize),
}

impl Writer<'_> {
    /// Writes `what` at offset `at`.
    pub(crate) fn put<T: Copy>(&self, at: u64, what: &[T]) -> Result<(), c_int> {
        // SAFETY: every `T` is a struct of `format::layout`, which has no padding.
        let bytes = unsafe { slice::from_raw_parts(what.as_ptr().cast(), size_of_val(what)) };
        match self {
            Writer::File(file) => file.put(at, bytes),
            Writer::Memory(start, size) => {
                let at = usize::try_from(at).map_err(|_| libc::EFBIG)?;
                if at.checked_add(bytes.len()).is_none_or(|end| end > *size) {
                    return Err(libc::EFBIG);
                }
                // SAFETY: `end <= size`, so the bytes are inside the memory, which only this
                // writer writes; `what` is not in it.
                unsafe {
                    let to = start.as_ptr().add(at);
                    to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_memory_is_refused() {
        let mut bytes = [0u8; 16];
        let start = NonNull::new(bytes.as_mut_ptr()).unwrap();
        let writer = Writer::Memory(start, 12);
        assert_eq!(writer.put(4, &[7u64]), Ok(()));
        assert_eq!(writer.put(5, &[7u64]), Err(libc::EFBIG));
        assert_eq!(writer.put(u64::MAX, &[7u64]), Err(libc::EFBIG));
        assert_eq!(bytes[4], 7);
        assert_eq!(bytes[12..], [0; 4]);
    }
}
