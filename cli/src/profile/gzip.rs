//! gzip, with a limit of the bytes that a file may grow to.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// The most bytes that are decompressed. A profile with every allocation of a large heap, a million
/// samples, has about 50 MiB.
pub const LIMIT: u64 = 256 << 20;

/// The bytes of a gzipped file; the error is one phrase.
pub fn unpack(file: impl Read, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut packed = MultiGzDecoder::new(file);
    let read = packed.by_ref().take(limit + 1).read_to_end(&mut bytes);
    match read {
        _ if packed.header().is_none() => Err("it is not gzipped".into()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err("it is cut off".into()),
        Err(error) => Err(format!("it is damaged: {}", crate::library::reason(&error))),
        Ok(_) if bytes.len() as u64 > limit => {
            Err(format!("it has more than {}", crate::units::bytes(limit)))
        }
        Ok(_) => Ok(bytes),
    }
}

/// The bytes, gzipped.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let whole = packed.write_all(bytes).and_then(|()| packed.finish());
    whole.unwrap_or_default() // a Vec takes everything
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_after_both() {
        for bytes in [&b""[..], b"some", &[7; 100_000]] {
            assert_eq!(unpack(&pack(bytes)[..], 100_000).unwrap(), bytes);
        }
        let two = [pack(b"in two "), pack(b"members")].concat();
        assert_eq!(unpack(&two[..], 99).unwrap(), b"in two members");
    }

    #[test]
    fn a_bomb_is_not_decompressed() {
        let bomb = pack(&vec![0; 3 << 20]);
        assert!(bomb.len() < 30_000);
        let said = unpack(&bomb[..], 1 << 20).unwrap_err();
        assert_eq!(said, "it has more than 1.0 MiB");
    }

    #[test]
    fn truncated_and_foreign_files_are_told() {
        let whole = pack(b"some bytes, and some more bytes");
        for len in 0..whole.len() {
            let said = unpack(&whole[..len], 1 << 20).unwrap_err();
            assert!(
                said == "it is not gzipped" || said == "it is cut off",
                "{len}: {said}"
            );
        }
        assert_eq!(
            unpack(&b"\x7fELF and so on"[..], 99).unwrap_err(),
            "it is not gzipped"
        );
        let mut damaged = whole;
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        assert!(
            unpack(&damaged[..], 1 << 20)
                .unwrap_err()
                .starts_with("it is damaged")
        );
    }
}
