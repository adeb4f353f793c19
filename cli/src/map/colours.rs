//! Colours: a hue for each size class, a shade for how full a page is.
//!
//! ```text
//!    block size   8 ... 32 ... 128 ... 512 ... 4 KiB ... 32 KiB
//!    hue          blue  teal  green  yellow  orange  red  magenta
//!    lightness    from nearly empty (dim) to full (bright), the same for all hues
//! ```
//!
//! The hues are steps in OKLCH: equal steps look equally far apart, and pages of different
//! classes that are equally full look equally bright.

/// A colour of the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Rgb {
    /// The background of the picture.
    pub const GROUND: Rgb = Rgb(13, 15, 20);
    /// A page that is not in memory.
    pub const RETURNED: Rgb = Rgb(30, 33, 41);
    /// A page in memory of a pool that has no class.
    pub const EMPTY: Rgb = Rgb(128, 132, 140);

    /// In the notation of style sheets.
    pub fn hex(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    /// The nearest of the 256 colours that terminals have: of the cube's 216, or of
    /// the 24 greys.
    pub fn of_256(self) -> u8 {
        const STEPS: [i32; 6] = [0, 95, 135, 175, 215, 255];
        let distance = |(r, g, b): (i32, i32, i32)| {
            let (dr, dg, db) = (
                r - i32::from(self.0),
                g - i32::from(self.1),
                b - i32::from(self.2),
            );
            // The eye is the most exact in green and the least in blue.
            3 * dr * dr + 6 * dg * dg + db * db
        };
        let nearest = |channel: u8| {
            let away = |n: &usize| (STEPS[*n] - i32::from(channel)).abs();
            (0..6).min_by_key(away).unwrap_or(0)
        };
        let (r, g, b) = (nearest(self.0), nearest(self.1), nearest(self.2));
        let cube = distance((STEPS[r], STEPS[g], STEPS[b]));
        let mean = (i32::from(self.0) + i32::from(self.1) + i32::from(self.2)) / 3;
        let grey = ((mean - 3) / 10).clamp(0, 23);
        let level = 8 + 10 * grey;
        if distance((level, level, level)) < cube {
            (232 + grey) as u8
        } else {
            (16 + 36 * r + 6 * g + b) as u8
        }
    }
}

/// The colours of an empty and a full page for each doubling of the block size, from 8 bytes
/// to 32 KiB. The hues are equal steps in OKLCH, with equal lightness: 0.42 for an empty page,
/// 0.82 for a full one.
#[rustfmt::skip]
const SHADES: [[Rgb; 2]; 13] = [
    [Rgb(61, 75, 116), Rgb(172, 195, 252)],
    [Rgb(32, 83, 110), Rgb(124, 207, 254)],
    [Rgb(5, 88, 93), Rgb(35, 221, 233)],
    [Rgb(29, 89, 70), Rgb(33, 228, 177)],
    [Rgb(60, 86, 46), Rgb(148, 219, 109)],
    [Rgb(84, 78, 28), Rgb(217, 199, 47)],
    [Rgb(102, 70, 30), Rgb(254, 178, 84)],
    [Rgb(107, 66, 39), Rgb(255, 175, 124)],
    [Rgb(110, 63, 50), Rgb(253, 173, 151)],
    [Rgb(110, 61, 61), Rgb(254, 170, 170)],
    [Rgb(109, 60, 73), Rgb(254, 167, 189)],
    [Rgb(105, 61, 85), Rgb(255, 162, 212)],
    [Rgb(99, 63, 95), Rgb(253, 156, 245)],
];

/// The colour of a page with blocks of `size` bytes that is `fill` full, from 0 to 1.
pub fn of_page(size: u32, fill: f64) -> Rgb {
    let doublings = f64::from(size.clamp(8, 32768)).log2() - 3.0;
    let at = (doublings as usize).min(SHADES.len() - 2);
    let between = |a: Rgb, b: Rgb, part: f64| {
        let mix =
            |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
        Rgb(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
    };
    let shade = |[empty, full]: [Rgb; 2]| between(empty, full, fill.clamp(0.0, 1.0));
    between(
        shade(SHADES[at]),
        shade(SHADES[at + 1]),
        doublings - at as f64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How bright the eye finds it, from 0 to 1.
    fn luminance(colour: Rgb) -> f64 {
        let linear = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(colour.0) + 0.7152 * linear(colour.1) + 0.0722 * linear(colour.2)
    }

    #[test]
    fn fuller_pages_are_brighter_and_all_are_brighter_than_returned_ones() {
        for size in [8, 16, 48, 64, 512, 576, 4096, 32768] {
            let shades: Vec<f64> = (0..=8)
                .map(|n| luminance(of_page(size, f64::from(n) / 8.0)))
                .collect();
            assert!(shades.is_sorted_by(|a, b| a < b), "{size}: {shades:?}");
            assert!(shades[0] > 1.5 * luminance(Rgb::RETURNED), "{size}");
        }
    }

    #[test]
    fn classes_that_are_equally_full_are_about_equally_bright() {
        let all: Vec<f64> = (3..=15)
            .map(|log| luminance(of_page(1 << log, 1.0)))
            .collect();
        let (low, high) = all.iter().fold((1.0f64, 0.0f64), |(low, high), &l| {
            (low.min(l), high.max(l))
        });
        assert!(high / low < 1.35, "{all:?}");
    }

    #[test]
    fn neighbouring_doublings_differ() {
        for log in 3..15 {
            let (a, b) = (of_page(1 << log, 1.0), of_page(2 << log, 1.0));
            let apart = |a: u8, b: u8| u32::from(a.abs_diff(b));
            let sum = apart(a.0, b.0) + apart(a.1, b.1) + apart(a.2, b.2);
            assert!(sum > 20, "{log}: {a:?} {b:?}");
        }
    }

    #[test]
    fn the_nearest_of_256_is_itself_for_colours_that_are_among_them() {
        assert_eq!(Rgb(0, 0, 0).of_256(), 16);
        assert_eq!(Rgb(255, 255, 255).of_256(), 231);
        assert_eq!(Rgb(95, 135, 175).of_256(), 16 + 36 + 12 + 3);
        assert_eq!(Rgb(128, 128, 128).of_256(), 244);
        assert_eq!(Rgb(8, 8, 8).of_256(), 232);
        // Grey and dark stay apart.
        assert_ne!(Rgb::EMPTY.of_256(), Rgb::RETURNED.of_256());
    }
}
