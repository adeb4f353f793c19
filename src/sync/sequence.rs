//! A sequence lock with one writer: a number that is odd while what it guards changes.
//!
//! ```text
//!    the writer                              a reader
//!      number = odd        (Relaxed)           before = number     (Acquire)
//!      fence               (Release)           copies
//!      changes                                 fence               (Acquire)
//!      number = even       (Release)           number == before?   (Relaxed)
//! ```
//!
//! The last store pairs with the first load: a reader that sees the even number sees all changes
//! before it. The two fences pair with each other: a reader that has copied a part of a change finds
//! the odd number, or a later one, in its second load. (On x86-64 neither fence is an instruction. On
//! aarch64 both are: without the reader's, its second load may be done before the copy; an Acquire
//! of that load orders only what follows it.)

use super::{
    AtomicU32,
    Ordering::{Relaxed, Release},
    fence,
};

/// Calls `write`, which changes what `sequence` guards. One thread at a time may call this. (An odd
/// number was left by a writer that is gone.)
pub(crate) fn write<T>(sequence: &AtomicU32, write: impl FnOnce() -> T) -> T {
    let before = sequence.load(Relaxed) & !1;
    sequence.store(before + 1, Relaxed);
    fence(Release); // pairs with the reader's fence
    let result = write();
    sequence.store(before.wrapping_add(2), Release); // pairs with the reader's first load
    result
}

/// Calls `read`. `None` if what it read was changing meanwhile. (The command's reader in
/// `cli/src/live.rs` does the same steps.)
#[cfg(test)]
pub(crate) fn read<T>(sequence: &AtomicU32, read: impl FnOnce() -> T) -> Option<T> {
    let before = sequence.load(super::Ordering::Acquire);
    let result = read();
    fence(super::Ordering::Acquire);
    (before.is_multiple_of(2) && sequence.load(Relaxed) == before).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_nothing_while_it_changes() {
        let sequence = AtomicU32::new(u32::MAX); // its writer is gone
        assert_eq!(read(&sequence, || 1), None);
        write(&sequence, || {
            assert_eq!(sequence.load(Relaxed), u32::MAX);
            assert_eq!(read(&sequence, || 2), None);
        });
        assert_eq!(sequence.load(Relaxed), 0);
        assert_eq!(read(&sequence, || 3), Some(3));
        assert_eq!(read(&sequence, || write(&sequence, || 4)), None);
    }
}
