//! What is open beside a block is filled when the block is given out, and looked
//! at when it comes back: writes that stayed within the open pages are seen then.
//!
//! ```text
//!     page                block              block + n         page + size
//!     |b5 b5 b5 b5 b5 b5 b5|  the program's   |b5 b5 b5 b5 b5 b5|
//!      nearest to the block ^                  ^ nearest
//! ```

use core::ptr;
use core::slice;

/// What the slack is filled with.
const PATTERN: u8 = 0xb5;

/// The open pages of a block.
#[derive(Clone, Copy)]
pub(super) struct Slack {
    /// Where they start, and how many bytes they have.
    pub(super) pages: (usize, usize),
    /// Where the block starts, and how many bytes were asked for.
    pub(super) block: (usize, usize),
}

/// What has been written beside a block, at its nearest to the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Corruption {
    /// So many bytes before its start; 1 is the byte before it.
    Before(usize),
    /// So many bytes after its end; 0 is the byte there.
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

    /// Fills it.
    ///
    /// # Safety
    /// The pages are open and the caller's.
    pub(super) unsafe fn fill(&self) {
        for (start, len) in [self.before(), self.after()] {
            let start: *mut u8 = ptr::with_exposed_provenance_mut(start);
            // SAFETY: the caller's promise; within the pages.
            unsafe { start.write_bytes(PATTERN, len) };
        }
    }

    /// What has been written there since; an overflow before an underflow.
    ///
    /// # Safety
    /// As for [`Slack::fill`].
    pub(super) unsafe fn corruption(&self) -> Option<Corruption> {
        let is_damaged = |&byte: &u8| byte != PATTERN;
        let bytes = |(start, len)| {
            // SAFETY: the caller's promise; within the pages.
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
            // SAFETY: the array, here and below.
            unsafe { slack.fill() };
            for at in 0..256 {
                let byte: *mut u8 = ptr::with_exposed_provenance_mut(start + at);
                // SAFETY: as above.
                let was = unsafe { byte.replace(7) };
                let expected = if at < offset {
                    Some(Corruption::Before(offset - at))
                } else if at >= offset + n {
                    Some(Corruption::After(at - offset - n))
                } else {
                    None
                };
                // SAFETY: as above.
                assert_eq!(unsafe { slack.corruption() }, expected, "{offset} {n} {at}");
                // SAFETY: as above.
                unsafe { byte.write(was) };
            }
        }
    }
}
