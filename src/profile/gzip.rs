//! The gzip format with stored blocks: bytes as they are, between a header and a checksum. pprof's
//! readers expect it; a compressor needs more memory than a program at its limit has.

use core::ffi::c_int;

/// Takes a piece of a file and its offset.
pub(crate) type Put<'a> = dyn FnMut(u64, &[u8]) -> Result<(), c_int> + 'a;

/// Bytes of a stored block, at most.
const BLOCK: usize = 0xffff;
/// Deflate, no name, no time, unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Checksums of all bytes.
static TABLE: [u32; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let (mut value, mut bit) = (byte as u32, 0);
        while bit < 8 {
            value = value >> 1 ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32, &byte: &u8| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ byte)];
    !bytes.iter().fold(!0, step)
}

/// Bytes of the file for `len` bytes.
pub(super) const fn len_for(len: usize) -> usize {
    HEAD.len() + 5 * (len.div_ceil(BLOCK) + 1) + len + 8
}

/// Passes `bytes`, packed, to `put` in pieces with their offsets. Returns the length of the file.
pub(super) fn write(bytes: &[u8], put: &mut Put<'_>) -> Result<u64, c_int> {
    let mut at = 0;
    let mut next = |piece: &[u8]| {
        put(at, piece)?;
        at += piece.len() as u64;
        Ok(at)
    };
    next(&HEAD)?;
    for block in bytes.chunks(BLOCK) {
        let [low, high] = (block.len() as u16).to_le_bytes();
        next(&[0, low, high, !low, !high])?;
        next(block)?;
    }
    next(&[1, 0, 0, 0xff, 0xff])?;
    next(&checksum(bytes).to_le_bytes())?;
    next(&(bytes.len() as u32).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn the_checksum_is_that_of_the_format() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    #[cfg(not(miri))]
    fn gzip_unpacks_it() {
        for len in [0, 1, 65535, 65536, 200_000] {
            let bytes: Vec<u8> = (0..len).map(|i: usize| ((i * i) >> 3) as u8).collect();
            let mut packed = Vec::new();
            let end = write(&bytes, &mut |at, piece| {
                assert_eq!(at, packed.len() as u64);
                packed.extend_from_slice(piece);
                Ok(())
            });
            assert_eq!(end, Ok(packed.len() as u64));
            assert!(packed.len() <= len_for(len));
            let gzip = Command::new("gzip")
                .arg("-dc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn();
            let mut gzip = gzip.unwrap();
            let mut stdin = gzip.stdin.take().unwrap();
            let feed = std::thread::spawn(move || stdin.write_all(&packed));
            let output = gzip.wait_with_output().unwrap();
            feed.join().unwrap().unwrap();
            assert!(output.status.success() && output.stdout == bytes, "{len}");
        }
    }
}
