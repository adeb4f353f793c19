//! The bytes from which operations are drawn.

/// A source of bytes.
pub trait Source: Send + 'static {
    /// Whether there are more bytes.
    fn has_more(&self) -> bool;
    /// The next `bytes` bytes, at most four, as a number; 0 after the end.
    fn draw(&mut self, bytes: u32) -> u32;
    /// Another source, for a child.
    fn branch(&mut self) -> Self;
}

/// Endless bytes from a seed (wyrand).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    #[inline]
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// A number below `n`.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }
}

impl Source for Random {
    fn has_more(&self) -> bool {
        true
    }

    #[inline]
    fn draw(&mut self, bytes: u32) -> u32 {
        (self.word() >> (64 - 8 * bytes)) as u32
    }

    fn branch(&mut self) -> Random {
        Random(self.word())
    }
}

/// Given bytes.
pub struct Given {
    bytes: Vec<u8>,
    at: usize,
}

impl Given {
    pub fn new(bytes: &[u8]) -> Given {
        Given {
            bytes: bytes.to_vec(),
            at: 0,
        }
    }
}

impl Source for Given {
    fn has_more(&self) -> bool {
        self.at < self.bytes.len()
    }

    fn draw(&mut self, bytes: u32) -> u32 {
        let mut number = 0;
        for i in 0..bytes {
            let byte = self.bytes.get(self.at).copied().unwrap_or(0);
            number |= u32::from(byte) << (8 * i);
            self.at += 1;
        }
        number
    }

    fn branch(&mut self) -> Given {
        Given {
            bytes: self.bytes.clone(),
            at: self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.draw(3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(9).iter().all(|&n| n < 1 << 24));
        assert!(draw(9).iter().any(|&n| n >= 1 << 23));
    }

    #[test]
    fn given_bytes_end() {
        let mut given = Given::new(&[1, 2, 3]);
        assert_eq!((given.draw(2), given.has_more()), (0x0201, true));
        assert_eq!((given.draw(2), given.has_more()), (3, false));
        assert_eq!(given.draw(4), 0);
    }
}
