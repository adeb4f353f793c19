//! Sums over the pages of a heap, by class, and its nearly empty pages.

use std::collections::BTreeMap;

use crate::snapshot::{Cut, PAGE, Page, Snapshot};

/// The fill, in percent, below which a page counts as nearly empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Below(pub(crate) f64);

impl Below {
    /// The default of the options.
    #[cfg(test)]
    pub const USUAL: Below = Below(25.0);

    /// Whether the page is part of a nearly empty OS page: it has taken blocks, with fewer bytes
    /// than the limit.
    pub fn has(self, page: &Page, in_os_page: usize) -> bool {
        let limit = self.0 / 100.0 * f64::from(PAGE) * in_os_page as f64;
        page.os_has_blocks && f64::from(page.os_taken) < limit
    }
}

/// A percentage on the command line.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(n) if (0.0..=100.0).contains(&n) => Ok(n),
        _ => Err("a number from 0 to 100 is expected".into()),
    }
}

/// Sums over the pools of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Class {
    /// Bytes of a block.
    pub size: u32,
    pub pools: u64,
    /// Taken blocks.
    pub blocks: u64,
    /// Pages that are resident, and that are not.
    pub here: u64,
    pub away: u64,
    /// Bytes of resident pages in taken blocks.
    pub taken_bytes: u64,
    /// Resident pages of OS pages without a taken block.
    pub idle: u64,
    /// Free bytes on resident OS pages that have taken blocks.
    pub pinned: u64,
    /// Nearly empty pages, their taken bytes, and the taken blocks on them.
    pub nearly_empty: u64,
    pub surviving_bytes: u64,
    pub survivors: u64,
    /// Free bytes on the other pages with taken blocks.
    pub room: u64,
    /// Pages of an OS page.
    pub in_os_page: u64,
}

impl Class {
    /// Bytes in taken blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.size)
    }

    /// Free bytes on the nearly empty pages.
    pub fn held_back(&self) -> u64 {
        self.nearly_empty * u64::from(PAGE) - self.surviving_bytes
    }

    /// Bytes of pages that would be free if the survivors moved: to free blocks of fuller pages,
    /// and the rest to as few pages as possible.
    pub fn would_be_freed(&self) -> u64 {
        let (pages, in_os_page) = (self.nearly_empty, self.in_os_page.max(1));
        let page = u64::from(PAGE) * in_os_page;
        let rest = self.surviving_bytes.saturating_sub(self.room);
        (pages / in_os_page).saturating_sub(rest.div_ceil(page)) * page
    }

    /// Adds the sums of another class.
    pub fn add(&mut self, other: &Class) {
        self.pools += other.pools;
        self.blocks += other.blocks;
        self.here += other.here;
        self.away += other.away;
        self.taken_bytes += other.taken_bytes;
        self.idle += other.idle;
        self.pinned += other.pinned;
        self.nearly_empty += other.nearly_empty;
        self.surviving_bytes += other.surviving_bytes;
        self.survivors += other.survivors;
        self.room += other.room;
        self.in_os_page = other.in_os_page;
    }
}

/// Sums over a heap.
#[derive(Debug)]
pub struct Summary {
    /// The classes that have pools, by size.
    pub classes: Vec<Class>,
    /// Pages of empty pools that are resident, and that are not.
    pub empty_here: u64,
    pub empty_away: u64,
}

impl Summary {
    /// The sums over a heap.
    pub fn of(heap: &Snapshot, below: Below) -> Summary {
        let mut classes = BTreeMap::<u32, Class>::new();
        let (mut empty_here, mut empty_away) = (0, 0);
        for pool in &heap.pools {
            let pages = &heap.pages[pool.pages.clone()];
            let Some(cut) = pool.cut else {
                let here = pages.iter().filter(|page| page.is_here()).count() as u64;
                empty_here += here;
                empty_away += pages.len() as u64 - here;
                continue;
            };
            let class = classes.entry(cut.size).or_default();
            class.size = cut.size;
            class.in_os_page = heap.in_os_page as u64;
            class.pools += 1;
            class.blocks += u64::from(cut.taken);
            let is_low = |page: &Page| below.has(page, heap.in_os_page);
            for page in pages {
                count(class, page, is_low(page));
            }
            class.survivors += survivors(cut, pages, is_low);
        }
        Summary {
            classes: classes.into_values().collect(),
            empty_here,
            empty_away,
        }
    }

    /// All classes together.
    pub fn total(&self) -> Class {
        let mut total = Class::default();
        for class in &self.classes {
            total.add(class);
        }
        total
    }

    /// Bytes of pages that would be free if the survivors of each class moved.
    pub fn would_be_freed(&self) -> u64 {
        self.classes.iter().map(Class::would_be_freed).sum()
    }
}

fn count(class: &mut Class, page: &Page, is_low: bool) {
    let taken = u64::from(page.taken_bytes);
    if !page.is_here() {
        class.away += 1;
        return;
    }
    class.here += 1;
    class.taken_bytes += taken;
    if !page.os_has_blocks {
        class.idle += 1;
        return;
    }
    class.pinned += u64::from(PAGE) - taken;
    if is_low {
        class.nearly_empty += 1;
        class.surviving_bytes += taken;
    } else {
        class.room += u64::from(PAGE) - taken;
    }
}

/// The number of different blocks on the nearly empty pages of a pool: a block on two of them
/// counts once.
fn survivors(cut: Cut, pages: &[Page], is_low: impl Fn(&Page) -> bool) -> u64 {
    let (mut sum, mut before) = (0, None);
    for (n, page) in pages.iter().enumerate() {
        if !is_low(page) {
            before = None;
            continue;
        }
        let [head, tail] = edges_taken(cut, n as u32, page);
        sum += u64::from(page.blocks);
        // The figures of either page may show the block that is on both.
        if before.is_some_and(|tail_before: Option<bool>| head.or(tail_before) == Some(true)) {
            sum -= 1;
        }
        before = Some(tail);
    }
    sum
}

/// Whether the blocks across the begin and the end of page `n` are taken; `None` if the page's
/// figures fit both. The snapshot has the number of taken blocks on the page and their bytes
/// there, and mostly only one combination fits both.
fn edges_taken(cut: Cut, n: u32, page: &Page) -> [Option<bool>; 2] {
    let (start, end) = (n * PAGE, (n + 1) * PAGE);
    // Bytes before an edge of the block across it.
    let over = |edge: u32| {
        let behind = edge.saturating_sub(cut.first);
        let is_block = behind / cut.size < cut.blocks;
        if is_block { behind % cut.size } else { 0 }
    };
    let head = match over(start) {
        0 => 0,
        before => (cut.size - before).min(PAGE),
    };
    let tail = over(end).min(PAGE);
    let (taken, blocks) = (u32::from(page.taken_bytes), u32::from(page.blocks));
    let fits = |has_head: bool, has_tail: bool| {
        let possible = (head > 0 || !has_head) && (tail > 0 || !has_tail);
        let edges = u32::from(has_head) + u32::from(has_tail);
        let bytes = if has_head { head } else { 0 } + if has_tail { tail } else { 0 };
        let inner = blocks.checked_sub(edges).map(u64::from);
        let sum = inner.map(|inner| inner * u64::from(cut.size) + u64::from(bytes));
        possible && sum == Some(u64::from(taken))
    };
    let decided = |with: bool, without: bool| (with != without).then_some(with);
    [
        decided(
            fits(true, false) || fits(true, true),
            fits(false, false) || fits(false, true),
        ),
        decided(
            fits(false, true) || fits(true, true),
            fits(false, false) || fits(true, false),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Heap, Pool, random};

    fn one(pool: Pool) -> Summary {
        let heap = Heap {
            arenas: vec![(0x7000_0000, vec![pool])],
            ..Heap::default()
        };
        Summary::of(&heap.read(), Below::USUAL)
    }

    #[test]
    fn a_block_pins_its_whole_os_page() {
        // Block 96 is on page 1; blocks 768 to 1000 are on pages 12 to 15.
        let pool = Pool::of(8, 64, |n| n == 96 || (768..1000).contains(&n)).on_os_pages(4);
        let heap = Heap {
            arenas: vec![(0x7000_0000, vec![pool])],
            os_page: 16384,
            ..Heap::default()
        };
        let summary = Summary::of(&heap.read(), Below::USUAL);
        let class = summary.classes[0];
        assert_eq!((class.here, class.away, class.idle), (8, 8, 0));
        assert_eq!((class.nearly_empty, class.survivors), (4, 1));
        assert_eq!(class.held_back(), 16384 - 64);
        assert_eq!(class.pinned, 2 * 16384 - 233 * 64);
        // The survivor fits on the other OS page.
        assert_eq!(class.would_be_freed(), 16384);
    }

    #[test]
    fn a_full_pool_pins_nothing() {
        let tally = one(Pool::of(8, 64, |_| true));
        let class = tally.classes[0];
        assert_eq!((class.blocks, class.here, class.away), (1023, 16, 0));
        assert_eq!(class.bytes(), 1023 * 64);
        assert_eq!((class.nearly_empty, class.survivors), (0, 0));
        assert_eq!(class.pinned, 48 + 16);
        assert_eq!(class.would_be_freed(), 0);
    }

    #[test]
    fn one_block_on_each_page_pins_them_all() {
        // Blocks 32, 96, ...: in the middle of their pages.
        let tally = one(Pool::of(8, 64, |n| n % 64 == 32));
        let class = tally.classes[0];
        assert_eq!(
            (class.here, class.nearly_empty, class.survivors),
            (16, 16, 16)
        );
        assert_eq!(class.held_back(), 16 * (4096 - 64));
        assert_eq!(class.pinned, class.held_back());
        // Close together they would need one page.
        assert_eq!(class.would_be_freed(), 15 * 4096);
    }

    #[test]
    fn room_on_fuller_pages_is_used() {
        // The first half is full but for one block a page: 8 blocks; 8 survive behind.
        let half = 511;
        let tally = one(Pool::of(8, 64, |n| {
            if n < half { n % 64 != 32 } else { n % 64 == 32 }
        }));
        let class = tally.classes[0];
        assert_eq!((class.nearly_empty, class.survivors), (8, 8));
        assert_eq!(class.would_be_freed(), 8 * 4096);
    }

    #[test]
    fn blocks_on_two_pages_count_once() {
        let mut next = random(3);
        let sizes = [(1, 8), (3, 24), (6, 48), (9, 72), (10, 80), (64, 512)];
        let medium = [
            (65, 576),
            (72, 1024),
            (80, 2048),
            (81, 2304),
            (91, 5632),
            (112, 32768),
        ];
        let (mut all, mut wrong, mut doubles) = (0, 0, 0);
        for (class, size) in sizes.into_iter().chain(medium) {
            for _ in 0..200 {
                let keep: Vec<bool> = (0..65536 / size)
                    .map(|_| next() % 8192 < u64::from(size))
                    .collect();
                let pool = Pool::of(class, size, |n| keep[n as usize]);
                let tally = one(pool);
                // By definition.
                let first = if size <= 512 { 48 } else { 0 };
                let mut bytes = [0u32; 16];
                let mut on = Vec::new();
                let blocks = (65536 - first) / size;
                for n in (0..blocks).filter(|&n| keep[n as usize]) {
                    let (start, end) = (first + n * size, first + (n + 1) * size);
                    let pages = start / PAGE..=(end - 1) / PAGE;
                    for page in pages.clone() {
                        bytes[page as usize] += end.min((page + 1) * PAGE) - start.max(page * PAGE);
                    }
                    on.push(pages);
                }
                let low = |page: u32| bytes[page as usize] < PAGE / 4;
                let expected = on.iter().filter(|pages| (*pages).clone().any(low)).count();
                let touching: usize = on
                    .iter()
                    .map(|pages| pages.clone().filter(|&p| low(p)).count())
                    .sum();
                doubles += touching - expected;
                all += expected;
                let found = tally.classes[0].survivors as usize;
                wrong += found.abs_diff(expected);
            }
        }
        assert!(all > 10_000 && doubles > 100, "{all} {doubles}");
        // Where both edges of both pages have as many bytes, the numbers fit both.
        assert!(wrong * 1000 < all, "{wrong} of {all}, {doubles} are on two");
    }
}
