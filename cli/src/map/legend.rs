//! The text around a picture: the memory of the heap by use and by class.

use crate::open::Named;
use crate::snapshot::{PAGE, Snapshot};
use crate::summary::{Class, Summary};
use crate::units;

/// Bytes of a heap's pages, by use. All but `away` are resident.
pub struct Parts {
    /// Taken blocks: live, or cached in a magazine or depot.
    pub taken: u64,
    /// Free, on pages that cannot be purged because they have taken blocks.
    pub pinned: u64,
    /// Free pages of used pools, which the decay purges.
    pub idle: u64,
    /// Pages of empty pools.
    pub empty: u64,
    /// Returned to the kernel, or never touched.
    pub away: u64,
}

impl Parts {
    /// The parts of these sums.
    pub fn of(summary: &Summary) -> Parts {
        let (total, page) = (summary.total(), u64::from(PAGE));
        Parts {
            taken: total.taken_bytes,
            pinned: total.pinned,
            idle: total.idle * page,
            empty: summary.empty_here * page,
            away: (total.away + summary.empty_away) * page,
        }
    }

    /// Resident bytes.
    pub fn here(&self) -> u64 {
        self.taken + self.pinned + self.idle + self.empty
    }
}

/// The process, its host and its library.
pub fn process(heap: &Snapshot) -> String {
    let Snapshot {
        pid, host, version, ..
    } = heap;
    let host = match host.as_str() {
        "" => "no CPython".into(),
        host if host.starts_with(|c: char| c.is_ascii_digit()) => format!("CPython {host}"),
        host => host.to_string(),
    };
    format!("process {pid}, {host}, obmalloc {version}")
}

/// [`process`], after the snapshot's name.
pub fn title(named: &Named) -> String {
    format!("{}: {}", named.name, process(&named.heap))
}

/// The memory of the heap by use, in some lines.
pub fn memory(heap: &Snapshot, parts: &Parts) -> String {
    let rss = heap.rss.map_or(String::new(), |rss| {
        format!(" (the whole process: {})", units::bytes(rss))
    });
    format!(
        "{} in memory{rss}:\n  \
         {} in taken blocks, {} of that free in magazines\n  \
         {} pinned: free, but on pages that have taken blocks\n  \
         {} in free pages, {} in empty pools\n\
         Not in memory: {}. Returned so far: {}.",
        units::bytes(parts.here()),
        units::bytes(parts.taken),
        units::bytes(heap.in_magazines),
        units::bytes(parts.pinned),
        units::bytes(parts.idle),
        units::bytes(parts.empty),
        units::bytes(parts.away),
        units::bytes(heap.returned_total),
    )
}

/// The nearly empty pages and their memory, in a sentence.
pub fn nearly_empty(total: &Class, below: f64) -> String {
    if total.nearly_empty == 0 {
        return format!("No page is nearly empty (less than {below} % taken).");
    }
    format!(
        "{} of {} in memory {} nearly empty (less than {below} % taken): {} on them keep {}.",
        units::count(total.nearly_empty),
        units::of(total.here, "page"),
        if total.nearly_empty == 1 { "is" } else { "are" },
        units::of(total.survivors, "block"),
        units::bytes(total.nearly_empty * u64::from(PAGE)),
    )
}

/// The head of the table of classes.
pub const HEAD: [&str; 7] = [
    "block size",
    "blocks",
    "bytes",
    "in memory",
    "taken",
    "nearly empty",
    "pinned",
];

/// A class's row in the table.
pub fn row(class: &Class, size: String) -> Vec<String> {
    let memory = class.here * u64::from(PAGE);
    vec![
        size,
        units::count(class.blocks),
        units::bytes(class.bytes()),
        units::bytes(memory),
        units::percent(class.taken_bytes, memory),
        units::of(class.nearly_empty, "page"),
        units::bytes(class.pinned),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Heap;
    use crate::summary::Below;

    #[test]
    fn the_parts_make_up_the_heap() {
        let heap = Heap::example().read();
        let parts = Parts::of(&Summary::of(&heap, Below::USUAL));
        let page = u64::from(PAGE);
        assert_eq!(parts.here() + parts.away, heap.pages.len() as u64 * page);
        assert_eq!(parts.empty, 65536);
        let taken: u64 = heap
            .pages
            .iter()
            .map(|page| u64::from(page.taken_bytes))
            .sum();
        assert_eq!(parts.taken, taken);
    }

    #[test]
    fn sentences_count_right() {
        let heap = Heap::example().read();
        let total = Summary::of(&heap, Below::USUAL).total();
        let said = nearly_empty(&total, 25.0);
        // Blocks of 64 on four pages with 63, 319, 575, 831, and what they reach into;
        // of 512, 8 pages with one each.
        assert!(said.contains(" of "), "{said}");
        assert!(nearly_empty(&Class::default(), 5.0).contains("No page"));
        assert_eq!(row(&total, "64".into()).len(), HEAD.len());
    }
}
