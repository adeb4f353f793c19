//! The cells of the picture, for every form of output.
//!
//! ```text
//!    an arena is a tile              pages merged, 4 in a cell
//!    +-- pool 0, its first page      +--
//!    |#  #  #  .                     |#  #  #  .
//!    |#  #  .  .   a pool a column,  |#  .  #  .
//!    |#  .  #  .   16 pages high
//!    |...     32 pools
//! ```
//!
//! Where not all pages fit, neighbours in a pool are merged, then neighbouring pools: cells of
//! [`FACTORS`] pages each, in tiles of a shape of their own.

use crate::map::colours::{self, Rgb};
use crate::snapshot::{Cut, PAGE, Page, Pool, Snapshot};

/// Pages of a pool.
const HEIGHT: usize = 16;
/// Pools of an arena.
const WIDTH: usize = 32;

/// The possible numbers of pages in a cell.
pub const FACTORS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// The content of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cell {
    /// No page.
    #[default]
    None,
    /// Pages that are not resident: returned, or never touched.
    Away,
    /// Resident pages of empty pools.
    Empty,
    /// Resident pages with blocks of `size` bytes, of which `fill` of 255 parts are taken.
    Used { size: u32, fill: u8 },
}

impl Cell {
    /// Its colour.
    pub fn colour(self) -> Rgb {
        match self {
            Cell::None => Rgb::GROUND,
            Cell::Away => Rgb::RETURNED,
            Cell::Empty => Rgb::EMPTY,
            Cell::Used { size, fill } => colours::of_page(size, f64::from(fill) / 255.0),
        }
    }
}

/// The cell of several pages: of the size that most of the resident ones have.
fn merged<'a>(pages: impl Iterator<Item = (Option<Cut>, &'a Page)>) -> Cell {
    let mut sums = Vec::<(Option<u32>, u32)>::new();
    let (mut any, mut resident, mut taken) = (false, 0, 0);
    for (cut, page) in pages {
        any = true;
        if !page.is_here() {
            continue;
        }
        resident += 1;
        taken += u32::from(page.taken_bytes);
        let size = cut.map(|cut| cut.size);
        match sums.iter_mut().find(|(of, _)| *of == size) {
            Some((_, count)) => *count += 1,
            None => sums.push((size, 1)),
        }
    }
    match sums.iter().max_by_key(|(_, count)| *count) {
        None if any => Cell::Away,
        None => Cell::None,
        Some((None, _)) => Cell::Empty,
        Some(&(Some(size), _)) => Cell::Used {
            size,
            fill: (taken * 255).div_ceil(resident * PAGE).min(255) as u8,
        },
    }
}

impl Page {
    /// Whether it is resident.
    pub fn is_here(&self) -> bool {
        self.resident || self.blocks > 0
    }
}

/// Cells of one arena, line by line.
pub struct Tile {
    /// The arena's address.
    pub address: u64,
    /// The taken part of its resident pages, in percent; `None` if no page is resident.
    pub percent: Option<u32>,
    /// Cells of a line.
    pub width: usize,
    pub cells: Vec<Cell>,
}

impl Tile {
    /// The cell in a line.
    pub fn at(&self, column: usize, line: usize) -> Cell {
        let cell = self.cells.get(line * self.width + column);
        cell.copied().unwrap_or_default()
    }
}

/// Columns and lines of a tile whose cells have `factor` pages.
pub fn shape(factor: usize) -> (usize, usize) {
    if factor < HEIGHT {
        (WIDTH, HEIGHT / factor)
    } else {
        // Two lines of pools: a text line shows two cells above each other.
        ((WIDTH / 2 / (factor / HEIGHT)).max(1), 2)
    }
}

/// The number of tiles of a heap.
pub fn count(heap: &Snapshot) -> usize {
    let arenas = heap.arenas.iter();
    arenas.map(|arena| arena.pools.len().div_ceil(WIDTH)).sum()
}

/// The tiles of a heap, with `factor` pages in a cell. An arena with more than 32 pools has
/// several tiles.
pub fn tiles(heap: &Snapshot, factor: usize) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for arena in &heap.arenas {
        let pools = &heap.pools[arena.pools.clone()];
        for part in pools.chunks(WIDTH) {
            tiles.push(tile(heap, part, factor));
        }
    }
    tiles
}

fn tile(heap: &Snapshot, pools: &[Pool], factor: usize) -> Tile {
    let (width, height) = shape(factor);
    let page_of = |pool: &Pool, page: usize| {
        let range = pool.pages.clone();
        let at = range.start + page;
        (page < range.len()).then(|| (pool.cut, &heap.pages[at]))
    };
    let mut cells = Vec::with_capacity(width * height);
    for line in 0..height {
        for column in 0..width {
            cells.push(if factor < HEIGHT {
                let pages = line * factor..(line + 1) * factor;
                let pool = pools.get(column);
                merged(pages.filter_map(|page| page_of(pool?, page)))
            } else {
                let together = factor / HEIGHT;
                let first = (line * width + column) * together;
                let own = pools.iter().skip(first).take(together);
                merged(own.flat_map(|pool| (0..HEIGHT).filter_map(|page| page_of(pool, page))))
            });
        }
    }
    let here = pools
        .iter()
        .flat_map(|pool| &heap.pages[pool.pages.clone()]);
    let (count, taken) = here
        .filter(|page| page.is_here())
        .fold((0u64, 0u64), |(count, taken), page| {
            (count + 1, taken + u64::from(page.taken_bytes))
        });
    Tile {
        address: pools.first().map_or(0, |pool| pool.address),
        percent: (taken * 100)
            .checked_div(count * u64::from(PAGE))
            .map(|percent| percent as u32),
        width,
        cells,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, Heap};

    #[test]
    fn a_pool_is_a_column_and_a_page_a_cell() {
        let heap = Heap::example().read();
        let tiles = tiles(&heap, 1);
        assert_eq!(tiles.len(), 2);
        let tile = &tiles[0];
        assert_eq!((tile.width, tile.cells.len()), (32, 512));
        assert_eq!(
            tile.at(0, 5),
            Cell::Used {
                size: 64,
                fill: 255
            }
        );
        // Block 63 is on page 0 and, with its last bytes, on page 1.
        let Cell::Used { size: 64, fill } = tile.at(1, 0) else {
            panic!("{:?}", tile.at(1, 0));
        };
        assert!((1..10).contains(&fill));
        assert_eq!(tile.at(1, 3), Cell::Away);
        assert_eq!(tile.at(2, 15), Cell::Empty);
        assert_eq!(tile.at(4, 0), Cell::None);
        assert_eq!(tiles[1].at(1, 0), Cell::Away);
        assert_eq!(tiles[1].percent, Some(50));
    }

    #[test]
    fn every_factor_shows_every_page_once() {
        for factor in FACTORS {
            let (width, height) = shape(factor);
            let own = (WIDTH * HEIGHT / factor).max(2);
            assert_eq!(width * height, own, "{factor}");
            for pool in 0..32 {
                let pools = (0..32).map(|n| fixtures::Pool::empty(n == pool));
                let heap = Heap {
                    arenas: vec![(0x7000_0000, pools.collect())],
                    ..Heap::default()
                };
                let tile = &tiles(&heap.read(), factor)[0];
                let seen = tile.cells.iter().filter(|&&cell| cell == Cell::Empty);
                let expected = (16 / factor).max(1);
                assert_eq!(seen.count(), expected, "{factor} {pool}");
            }
        }
    }

    #[test]
    fn merged_cells_show_what_most_of_their_pages_are() {
        let heap = Heap::example().read();
        let tile = &tiles(&heap, 16)[0];
        assert_eq!(tile.width, 16);
        assert_eq!(
            tile.at(0, 0),
            Cell::Used {
                size: 64,
                fill: 255
            }
        );
        assert_eq!(tile.at(2, 0), Cell::Empty);
    }
}
