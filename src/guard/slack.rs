//! Slack: the open bytes beside a block. They are filled when the block is allocated and checked
//! when it is freed, which finds writes that stayed within the open pages.
//!
//! ```text
//!     page                block              block + n         page + size
//!     |b5 b5 b5 b5 b5 b5 b5|  the program's   |b5 b5 b5 b5 b5 b5|
//!      nearest to the block ^                  ^ nearest
//! ```

use core::ptr;
use core::slice;

/// The byte that the slack is filled with.
const PATTERN: u8 = 0xb5;

/// The open pages of a block.
#[derive(Clone, Copy)]
pub(super) struct Slack {
    /// Their start and their size in bytes.
    pub(super) pages: (usize, usize),
    /// The start of the block and its requested size.
    pub(super) block: (usize, usize),
}

/// A write beside a block: the changed byte that is nearest to the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Corruption {
    /// Bytes before its start; 1 is the byte before it.
    Before(usize),
    /// Bytes after its end; 0 is the first byte after it.
    After(usize),
}

impl Slack {
    fn before(&self) -> (usize, usize) {
        (self.pages.0, self.block.0 - self.pages.0)
    }

    fn after(&self) -> (usize, usize) {
        let end = self.block.0 + self.block.1;
        (end, self.pages.0 + self.pages.1 - end)
    }

    /// Fills the slack.
    ///
    /// # Safety
    /// The pages are open, and only the caller uses them.
    pub(super) unsafe fn fill(&self) {
        for (start, len) in [self.before(), self.after()] {
            let start: *mut u8 = ptr::with_exposed_provenance_mut(start);
            // SAFETY: within pages that are open and the caller's, by the contract above.
            unsafe { start.write_bytes(PATTERN, len) };
        }
    }

    /// The write that is found; an overflow before an underflow.
    ///
    /// # Safety
    /// The pages are open, and only the caller uses them.
    pub(super) unsafe fn corruption(&self) -> Option<Corruption> {
        let is_damaged = |&byte: &u8| byte != PATTERN;
        let bytes = |(start, len)| {
            // SAFETY: within pages that are open and the caller's, by the contract above.
            unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), len) }
        };
        let after = bytes(self.after()).iter().position(is_damaged);
        let before = bytes(self.before()).iter().rev().position(is_damaged);
        after
            .map(Corruption::After)
            .or(before.map(|at| Corruption::Before(at + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_beside_a_block_is_watched() {
        let mut page = [0u8; 256];
        let start = page.as_mut_ptr().expose_provenance();
        for (offset, n) in [(0, 40), (208, 40), (100, 1), (0, 0), (0, 256)] {
            let slack = Slack {
                pages: (start, 256),
                block: (start + offset, n),
            };
            // SAFETY: within the test's array.
            unsafe { slack.fill() };
            for at in 0..256 {
                let byte: *mut u8 = ptr::with_exposed_provenance_mut(start + at);
                // SAFETY: within the test's array.
                let was = unsafe { byte.replace(7) };
                let expected = if at < offset {
                    Some(Corruption::Before(offset - at))
                } else if at >= offset + n {
                    Some(Corruption::After(at - offset - n))
                } else {
                    None
                };
                // SAFETY: within the test's array.
                assert_eq!(unsafe { slack.corruption() }, expected, "{offset} {n} {at}");
                // SAFETY: within the test's array.
                unsafe { byte.write(was) };
            }
        }
    }
}
