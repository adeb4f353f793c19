//! The sizes of requests.

/// Sizes at boundaries: classes, the limit of pools, pages, the C library's thresholds.
const EDGES: &[usize] = &[
    0,
    1,
    2,
    7,
    8,
    9,
    15,
    16,
    17,
    24,
    25,
    31,
    32,
    33,
    40,
    47,
    48,
    49,
    63,
    64,
    65,
    128,
    129,
    255,
    256,
    257,
    383,
    384,
    385,
    488,
    495,
    496,
    497,
    503,
    504,
    505,
    511,
    512,
    513,
    514,
    575,
    576,
    577,
    640,
    769,
    1023,
    1024,
    1025,
    2047,
    2048,
    2049,
    4095,
    4096,
    4097,
    6144,
    8191,
    8192,
    8193,
    9216,
    9217,
    12288,
    16383,
    16384,
    16385,
    24577,
    28672,
    32767,
    32768,
    32769,
    65535,
    65536,
    65537,
    131_071,
    131_072,
    131_073,
    262_144,
    1 << 20,
    1 << 21,
];

/// Sizes of a Python program: objects, then tables of dicts and lists.
const PYTHON: &[usize] = &[
    56, 56, 56, 64, 64, 72, 48, 48, 40, 32, 32, 24, 28, 33, 50, 53, 57, 65, 80, 88, 88, 104, 104,
    120, 136, 152, 176, 184, 200, 208, 232, 232, 240, 264, 360, 416, 448, 504, 568, 640, 928, 1184,
    2272, 4704, 9312, 16, 8, 17, 100, 56,
];

/// Sizes that cannot be served.
pub const IMPOSSIBLE: &[usize] = &[
    usize::MAX,
    usize::MAX - 15,
    usize::MAX / 2 + 1,
    isize::MAX as usize,
    isize::MAX as usize - 7,
    isize::MAX as usize / 2,
    1 << 62,
    1 << 48,
];

/// A distribution of sizes.
#[derive(Clone, Copy, Debug)]
pub enum Sizes {
    Python,
    Edges,
    Small,
    Medium,
    /// Uniform by order of magnitude.
    Wide,
    /// One size, and some near it.
    One(usize),
}

impl Sizes {
    /// The distribution for 16 random bits.
    pub fn of(bits: u32) -> Sizes {
        match bits % 16 {
            0..6 => Sizes::Python,
            6 => Sizes::Edges,
            7..11 => Sizes::Small,
            11 => Sizes::Medium,
            12 => Sizes::Wide,
            _ => Sizes::One(Sizes::Edges.size(bits >> 4).min(9000)),
        }
    }

    /// The size for 16 random bits.
    #[inline]
    pub fn size(self, bits: u32) -> usize {
        let bits = bits as usize & 0xffff;
        let of = |list: &[usize]| list[(bits * list.len()) >> 16];
        match self {
            Sizes::Python => of(PYTHON),
            Sizes::Edges => of(EDGES),
            Sizes::Small => (bits * 600) >> 16,
            Sizes::Medium => (bits * 40_000) >> 16,
            Sizes::Wide => (1 << (bits % 18)) + (bits >> 5) % (1 << (bits % 18)),
            Sizes::One(size) if !bits.is_multiple_of(8) => size,
            Sizes::One(size) => (size + (bits >> 3) % 32).saturating_sub(16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_is_reached() {
        let mut seen = std::collections::BTreeSet::new();
        for bits in 0..1 << 16 {
            seen.insert(Sizes::Edges.size(bits));
            for way in 0..16 {
                assert!(Sizes::of(way).size(bits) <= 1 << 21);
            }
        }
        assert!(EDGES.iter().all(|edge| seen.contains(edge)));
    }
}
