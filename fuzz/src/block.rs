//! A block with its expected contents.
//!
//! ```text
//!    full       every byte has the pattern
//!    sparse     the first, the middle and the last word have it: enough to find another
//!               block over it, or a truncated copy
//! ```
//!
//! The pattern follows from the block's serial number, so no two blocks have the same.

use crate::domain::Domain;

/// A live block.
pub struct Block {
    pub p: *mut u8,
    /// The requested size in bytes.
    pub len: usize,
    pub serial: u32,
    pub domain: Domain,
    /// Its alignment in bytes.
    pub align: u8,
    /// Whether every byte was written.
    pub full: bool,
}

// SAFETY: a block belongs to the owner of its `Block`.
unsafe impl Send for Block {}

/// Word `n` of the pattern.
#[inline]
fn word(serial: u32, n: usize) -> u64 {
    let key = (u64::from(serial) << 32 | n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key ^ (key >> 29)
}

/// Asserts that these bytes are zero, after calloc.
pub fn are_zero(bytes: &[u8]) {
    // SAFETY: any bytes are valid words.
    let (before, words, behind) = unsafe { bytes.align_to::<u64>() };
    let bytes = before.iter().chain(behind).fold(0, |all, byte| all | byte);
    let words = words.iter().fold(0, |all, word| all | word);
    assert!(bytes == 0 && words == 0, "calloc's bytes are zero");
}

impl Block {
    /// Whether every byte has the pattern. (A small block always has.)
    #[inline]
    fn is_full(&self) -> bool {
        self.full || self.len < 32
    }

    /// The offsets of the middle and last words of a sparse block of `len` bytes.
    #[inline]
    fn places(len: usize) -> [usize; 2] {
        [(len / 2) & !7, len - 8]
    }

    #[inline]
    fn write(&self, at: usize, n: usize) {
        // SAFETY: within the block.
        unsafe {
            self.p
                .add(at)
                .cast::<u64>()
                .write_unaligned(word(self.serial, n))
        };
    }

    #[inline]
    fn stands(&self, at: usize, n: usize) {
        // SAFETY: within the block.
        let found = unsafe { self.p.add(at).cast::<u64>().read_unaligned() };
        if found != word(self.serial, n) {
            self.damaged(at, found, word(self.serial, n));
        }
    }

    #[cold]
    #[inline(never)]
    fn damaged(&self, at: usize, found: u64, expected: u64) -> ! {
        panic!(
            "{:p} ({} bytes, {:?}, serial {}): at {at} stands {found:#x} instead of {expected:#x}",
            self.p, self.len, self.domain, self.serial
        );
    }

    fn write_bytes(&self, from: usize, to: usize) {
        for i in from..to {
            let byte = word(self.serial, i / 8).to_le_bytes()[i % 8];
            // SAFETY: within the block.
            unsafe { self.p.add(i).write(byte) };
        }
    }

    fn bytes_stand(&self, from: usize, to: usize) {
        for i in from..to {
            let byte = word(self.serial, i / 8).to_le_bytes()[i % 8];
            // SAFETY: within the block.
            let found = unsafe { self.p.add(i).read() };
            if found != byte {
                self.damaged(i, found.into(), byte.into());
            }
        }
    }

    /// Writes the pattern.
    #[inline]
    pub fn fill(&self) {
        if self.is_full() {
            let words = self.len / 8;
            (0..words).for_each(|n| self.write(8 * n, n));
            return self.write_bytes(8 * words, self.len);
        }
        let [middle, last] = Block::places(self.len);
        self.write(middle, middle);
        self.write(last, last);
        self.write(0, 0);
    }

    /// Asserts that the pattern is intact.
    #[inline]
    pub fn verify(&self) {
        self.verify_up_to(self.len);
    }

    /// Asserts that the pattern of its first `kept` bytes is intact.
    #[inline]
    pub fn verify_up_to(&self, kept: usize) {
        let kept = kept.min(self.len);
        if self.is_full() {
            let words = kept / 8;
            (0..words).for_each(|n| self.stands(8 * n, n));
            return self.bytes_stand(8 * words, kept);
        }
        if kept >= 8 {
            self.stands(0, 0);
        }
        let [middle, last] = Block::places(self.len);
        if middle + 8 <= kept {
            self.stands(middle, middle);
        }
        if last + 8 <= kept {
            self.stands(last, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_not_zero_is_seen() {
        for at in 0..100 {
            let mut memory = [0u8; 100];
            are_zero(&memory);
            memory[at] = 1;
            are_zero(&memory[..at]);
            let found = std::panic::catch_unwind(move || are_zero(&memory));
            assert!(found.is_err(), "{at}");
        }
    }

    #[test]
    fn every_word_that_is_written_is_verified() {
        for len in (0..100).chain([1000, 1001, 4096]) {
            for full in [false, true] {
                let mut memory = vec![0u8; len];
                let block = Block {
                    p: memory.as_mut_ptr(),
                    len,
                    serial: 77,
                    domain: Domain::Mem,
                    align: 8,
                    full,
                };
                block.fill();
                block.verify();
                for kept in 0..=len {
                    block.verify_up_to(kept);
                }
                let written: Vec<_> = match block.is_full() {
                    true => (0..len).collect(),
                    false => vec![0, len / 2, len - 1],
                };
                for at in written {
                    memory[at] ^= 1;
                    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        block.verify();
                    }));
                    assert!(found.is_err(), "{len} {full} {at}");
                    memory[at] ^= 1;
                }
            }
        }
    }
}
