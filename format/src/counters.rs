//! The schema of the counters: each has its name, unit, type, help text and place written down
//! here, once.
//!
//! ```text
//!   counters!  ->  Counters    what the library measures and the command shows
//!              ->  PATHS       the keys of the library's JSON
//!              ->  SLOTS       the places on the stats page
//!              ->  COUNTERS    unit, type and help text: the command's JSON, table, and the
//!                              schema that the Python package gets
//!   FAMILIES   ->  Prometheus and OpenMetrics, of the command and of the Python package
//! ```
//!
//! # Add a counter
//!
//! Add its line to its section in `counters!` below, with the next free slot and `optional`, because
//! older pages, snapshots and JSON lack it; measure it in `HeapStats::counters`
//! (`src/stats/mod.rs`); describe it in `docs/metrics.md`, which a test demands. A counter that is a
//! metric gets a line in [`FAMILIES`] and a row of its own in `docs/metrics.md`, too.

/// The value of a counter that is not known.
pub const UNKNOWN: u64 = u64::MAX;

/// The unit of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Count,
}

/// How a counter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It rises and falls.
    Gauge,
    /// It only rises while the process lives.
    Counter,
}

/// One counter's line of the schema.
pub struct Counter {
    /// The JSON object that the counter is in; empty at the top level.
    pub section: &'static str,
    pub name: &'static str,
    pub unit: Unit,
    pub kind: Kind,
    pub help: &'static str,
    /// Whether the value may be [`UNKNOWN`], which JSON shows as null.
    pub optional: bool,
}

impl Counter {
    /// The value of a word of [`Counters::values`].
    pub fn known(&self, word: u64) -> Option<i64> {
        (!self.optional || word != UNKNOWN).then(|| word.cast_signed())
    }
}

/// The integer types of counters. On the stats page each is a u64.
trait Word {
    fn to_word(self) -> u64;
    fn of_word(word: u64) -> Self;
}

impl Word for u64 {
    fn to_word(self) -> u64 {
        self
    }

    fn of_word(word: u64) -> u64 {
        word
    }
}

impl Word for i64 {
    fn to_word(self) -> u64 {
        self.cast_unsigned()
    }

    fn of_word(word: u64) -> i64 {
        word.cast_signed()
    }
}

macro_rules! has {
    ($($word:ident)?) => {{
        let words: &[&str] = &[$(stringify!($word))?];
        !words.is_empty()
    }};
}

macro_rules! counters {
    ($(
        $field:ident: $Section:ident = $section:literal {
            $($name:ident: $type:ident = $slot:literal,
                $unit:ident, $kind:ident $($optional:ident)?, $help:literal;)*
        }
    )*) => {
        $(
            #[doc = concat!("The counters of section `", $section, "`.")]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $Section {
                $(#[doc = $help] pub $name: $type,)*
            }
        )*

        /// All counters, by section.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(pub $field: $Section,)*
        }

        /// How many counters there are.
        pub const COUNT: usize = { let slots: &[u8] = &[$($($slot,)*)*]; slots.len() };

        /// The schema, in the order of the JSON.
        pub const COUNTERS: [Counter; COUNT] = [$($(Counter {
            section: $section,
            name: stringify!($name),
            unit: Unit::$unit,
            kind: Kind::$kind,
            help: $help,
            optional: has!($($optional)?),
        },)*)*];

        /// `section.name` of each counter, separated by spaces: one string, so that the library
        /// has no table of pointers to relocate.
        const PATHS: &str = concat!($($($section, ".", stringify!($name), " ",)*)*);

        /// The place of each counter on the stats page.
        pub(crate) const SLOTS: [u8; COUNT] = [$($($slot,)*)*];

        impl Counters {
            /// The values, in the order of the schema.
            pub fn values(&self) -> [u64; COUNT] {
                [$($(self.$field.$name.to_word(),)*)*]
            }

            /// The counters of the values of [`Counters::values`].
            pub fn of_values(values: &[u64; COUNT]) -> Counters {
                let mut values = values.iter().copied();
                let mut next = || values.next().unwrap_or(UNKNOWN);
                Counters { $($field: $Section { $($name: Word::of_word(next()),)* },)* }
            }
        }
    };
}

// The number is the counter's slot on the stats page. It never changes: readers of another
// version find the counter there.
counters! {
    arenas: Arenas = "arenas" {
        size: u64 = 0, Bytes, Gauge, "Size of an arena that comes from the kernel.";
        in_use: u64 = 1, Count, Gauge, "Arenas with pools in use.";
        empty: u64 = 2, Count, Gauge, "Arenas without a pool in use, kept for the next peak.";
        mapped_total: u64 = 3, Count, Counter, "Arenas that have been mapped.";
        unmapped_total: u64 = 4, Count, Counter, "Arenas that have been unmapped.";
        highwater: u64 = 5, Count, Gauge, "The most arenas at one time.";
    }
    pools: Pools = "pools" {
        size: u64 = 6, Bytes, Gauge, "Size of a pool.";
        used: u64 = 7, Count, Gauge, "Pools with free and taken blocks.";
        full: u64 = 8, Count, Gauge, "Pools without a free block.";
        free: u64 = 9, Count, Gauge, "Empty pools, of no size class.";
        lanes: u64 = 10, Count, Gauge, "Shards that threads take blocks from.";
    }
    bytes: Bytes = "bytes" {
        from_os: u64 = 11, Bytes, Gauge, "Address space from the kernel, resident or not.";
        metadata: u64 = 12, Bytes, Gauge, "Address space for metadata, a part of from_os.";
        live: u64 = 13, Bytes, Gauge, "Blocks that the program has.";
        live_requested_estimate: u64 = 14, Bytes, Gauge,
            "What the program requested for its live blocks, by sampling; the rest is rounding.";
        in_magazines: u64 = 15, Bytes, Gauge, "Free blocks in magazines and depots.";
        free_in_pools: u64 = 16, Bytes, Gauge, "Free blocks in used pools, resident or not.";
    }
    resident: Resident = "resident" {
        total: u64 = 17, Bytes, Gauge, "Resident memory of the library: the sum of the next five.";
        live: u64 = 18, Bytes, Gauge, "Blocks that the program has.";
        in_magazines: u64 = 19, Bytes, Gauge, "Free blocks in magazines and depots.";
        free_in_pools: u64 = 20, Bytes, Gauge, "Free blocks on resident pages of used pools.";
        empty_pools: u64 = 21, Bytes, Gauge, "Resident pages of empty pools.";
        metadata: u64 = 22, Bytes, Gauge, "Records, depots and the page map, as far as touched.";
        returned_total: u64 = 23, Bytes, Counter, "Free memory that was returned to the kernel.";
    }
    large: Large = "large" {
        served_below_total: u64 = 24, Count, Counter,
            "Requests that no pool serves and the C library got.";
        blocks_live: i64 = 25, Count, Gauge, "Blocks from these requests that are not freed yet.";
    }
    libc: Libc = "libc" {
        in_use: u64 = 26, Bytes, Gauge optional, "What the C library's malloc has handed out.";
        kept: u64 = 27, Bytes, Gauge optional, "What the C library's malloc keeps free.";
    }
    process: Process = "" {
        rss: u64 = 28, Bytes, Gauge optional, "RSS of the process, by the kernel.";
        threads: u64 = 29, Count, Gauge optional, "Threads that have, or had, magazines.";
        misses: u64 = 30, Count, Counter optional,
            "Requests that found an empty magazine and went to the heap.";
    }
}

/// A bit for each counter that may be unknown.
const OPTIONAL: u64 = {
    let (mut bits, mut i) = (0, 0);
    while i < COUNT {
        bits |= (COUNTERS[i].optional as u64) << i;
        i += 1;
    }
    bits
};

/// Counters of the first release. Pages and JSON of that release lack later ones.
const FIRST: u8 = 31;

// Each slot is one counter's, and later counters are optional.
const _: () = {
    let (mut seen, mut i) = (0u64, 0);
    while i < COUNT {
        assert!((SLOTS[i] as usize) < COUNT && seen >> SLOTS[i] & 1 == 0);
        assert!(SLOTS[i] < FIRST || COUNTERS[i].optional);
        seen |= 1 << SLOTS[i];
        i += 1;
    }
};

impl Counters {
    /// Calls `visit` with section, name and value of each counter, in the order of the schema,
    /// until it fails. The value is `None` if it is unknown.
    pub fn each<E>(
        &self,
        visit: &mut dyn FnMut(&'static str, &'static str, Option<i64>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (i, (path, value)) in PATHS.split(' ').zip(self.values()).enumerate() {
            let is_unknown = OPTIONAL >> i & 1 == 1 && value == UNKNOWN;
            if let Some((section, name)) = path.split_once('.') {
                visit(section, name, (!is_unknown).then(|| value.cast_signed()))?;
            }
        }
        Ok(())
    }
}

macro_rules! class_counters {
    ($($name:ident, $unit:ident $($optional:ident)?, $help:literal;)*) => {
        /// A size class.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Class {
            $(#[doc = $help] pub $name: u64,)*
        }

        /// How many counters a class has.
        pub const CLASS_COUNT: usize = { let names: &[&str] = &[$(stringify!($name),)*]; names.len() };

        /// The schema of a class.
        pub const CLASS_COUNTERS: [Counter; CLASS_COUNT] = [$(Counter {
            section: "classes",
            name: stringify!($name),
            unit: Unit::$unit,
            kind: Kind::Gauge,
            help: $help,
            optional: has!($($optional)?),
        },)*];

        /// The names of a class's counters, separated by spaces.
        pub const CLASS_NAMES: &str = concat!($(stringify!($name), " ",)*);

        impl Class {
            /// The values, in the order of the schema.
            pub fn values(&self) -> [u64; CLASS_COUNT] {
                [$(self.$name,)*]
            }

            /// The class of the values of [`Class::values`].
            pub fn of_values(values: &[u64; CLASS_COUNT]) -> Class {
                let mut values = values.iter().copied();
                let mut next = || values.next().unwrap_or(UNKNOWN);
                Class { $($name: next(),)* }
            }
        }
    };
}

// In the order of the stats page, where the classes are an array: a new counter changes the
// version of the page.
class_counters! {
    size, Bytes, "Size of a block.";
    pools, Count, "Pools of the class.";
    pools_full, Count optional, "Pools of the class without a free block.";
    blocks_live, Count, "Blocks that the program has.";
    blocks_in_magazines, Count, "Free blocks in magazines and in the depot.";
    blocks_free, Count, "Free blocks in the pools.";
    resident, Bytes optional, "Resident memory of the pools.";
}

/// The source of a metric's samples, each after the value of the metric's label.
pub enum Source {
    /// Always 1, with the versions of library and host as labels.
    Info,
    /// Counters, by their index in [`COUNTERS`].
    Counters(&'static [(&'static str, usize)]),
    /// The parts of the process's RSS: [`PROCESS_PARTS`].
    Process,
    /// Seconds since the counters were read.
    Age,
    /// Counters of each class, by their index in [`CLASS_COUNTERS`]; the size is a label, too.
    Classes(&'static [(&'static str, usize)]),
}

/// The parts of the process's RSS. A reader computes them: the last two are the kernel's
/// figures, and the C library has what is left of the RSS.
pub const PROCESS_PARTS: [&str; 5] = ["ours", "libc_in_use", "libc_kept", "files", "other"];

/// A metric of Prometheus and OpenMetrics.
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// The label that tells the samples apart; empty if there is one sample.
    pub label: &'static str,
    pub source: Source,
}

/// The index of a counter in its schema; a name that is not there does not compile.
const fn index(schema: &[Counter], section: &str, name: &str) -> usize {
    const fn equal(a: &str, b: &str) -> bool {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        let mut i = 0;
        while i < a.len() && i < b.len() && a[i] == b[i] {
            i += 1;
        }
        i == a.len() && i == b.len()
    }
    let mut i = 0;
    while !(equal(schema[i].section, section) && equal(schema[i].name, name)) {
        i += 1;
    }
    i
}

macro_rules! family {
    // One counter.
    ($name:literal, $kind:ident, $section:literal $counter:literal, $help:literal) => {
        Family {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            label: "",
            source: Source::Counters(&[("", index(&COUNTERS, $section, $counter))]),
        }
    };
    // Several of a section: the label's value is the counter's name.
    ($name:literal, $section:literal by $label:literal [$($counter:literal),*], $help:literal) => {
        Family {
            name: $name,
            kind: Kind::Gauge,
            help: $help,
            label: $label,
            source: Source::Counters(&[$(($counter, index(&COUNTERS, $section, $counter)),)*]),
        }
    };
    // Of each class.
    ($name:literal, classes by $label:literal [$($value:literal = $counter:literal),*], $help:literal) => {
        Family {
            name: $name,
            kind: Kind::Gauge,
            help: $help,
            label: $label,
            source: Source::Classes(&[$(($value, index(&CLASS_COUNTERS, "classes", $counter)),)*]),
        }
    };
}

/// The metrics, in the order of the text. Names and meanings are promises; help texts may
/// change.
pub const FAMILIES: [Family; 20] = [
    Family {
        name: "obmalloc_info",
        kind: Kind::Gauge,
        help: "The library and its host; always 1.",
        label: "",
        source: Source::Info,
    },
    family!(
        "obmalloc_resident_bytes",
        "resident" by "part" ["live", "in_magazines", "free_in_pools", "empty_pools", "metadata"],
        "Memory of the library's that is with the process, by what it is for. The parts sum to \
         part ours of obmalloc_process_resident_bytes."
    ),
    Family {
        name: "obmalloc_process_resident_bytes",
        kind: Kind::Gauge,
        help: "Memory of the process, by whose it is. The parts sum to its RSS.",
        label: "part",
        source: Source::Process,
    },
    family!(
        "obmalloc_live_requested_bytes", Gauge, "bytes" "live_requested_estimate",
        "What the program asked for of part live of obmalloc_resident_bytes, by estimate; the \
         rest is rounding."
    ),
    family!(
        "obmalloc_returned_bytes_total", Counter, "resident" "returned_total",
        "Free memory that was returned to the kernel."
    ),
    family!(
        "obmalloc_address_space_bytes", Gauge, "bytes" "from_os",
        "Address space from the kernel, in memory or not."
    ),
    family!(
        "obmalloc_arenas", "arenas" by "state" ["in_use", "empty"],
        "Arenas that the library has."
    ),
    family!(
        "obmalloc_arenas_highwater", Gauge, "arenas" "highwater",
        "The most arenas that there were at once."
    ),
    family!(
        "obmalloc_arenas_mapped_total", Counter, "arenas" "mapped_total",
        "Arenas that have come from the kernel."
    ),
    family!(
        "obmalloc_arenas_unmapped_total", Counter, "arenas" "unmapped_total",
        "Arenas that were returned to the kernel."
    ),
    family!(
        "obmalloc_pools", "pools" by "state" ["used", "full", "free"],
        "Pools in the arenas: with some free blocks, without, and of no size class."
    ),
    family!(
        "obmalloc_large_requests_total", Counter, "large" "served_below_total",
        "Requests that no pool serves and that the C library got."
    ),
    family!(
        "obmalloc_large_blocks", Gauge, "large" "blocks_live",
        "Blocks of the C library's that such requests have got and that are not freed yet."
    ),
    family!(
        "obmalloc_libc_bytes", "libc" by "state" ["in_use", "kept"],
        "What the C library's malloc has, in memory or not."
    ),
    family!(
        "obmalloc_threads", Gauge, "" "threads",
        "Threads that have magazines of free blocks, or had some and have ended."
    ),
    family!(
        "obmalloc_misses_total", Counter, "" "misses",
        "Requests for which a thread had no block at hand and went to the heap."
    ),
    Family {
        name: "obmalloc_page_age_seconds",
        kind: Kind::Gauge,
        help: "How old these numbers are.",
        label: "",
        source: Source::Age,
    },
    family!(
        "obmalloc_class_blocks",
        classes by "state" ["live" = "blocks_live", "in_magazines" = "blocks_in_magazines",
                            "free" = "blocks_free"],
        "Blocks of each size in bytes. Times the size, state live sums to part live of \
         obmalloc_resident_bytes, in_magazines to its own."
    ),
    family!(
        "obmalloc_class_pools", classes by "" ["" = "pools"],
        "Pools of each size class."
    ),
    family!(
        "obmalloc_class_resident_bytes", classes by "" ["" = "resident"],
        "Memory in the pools of each size class: sums to the parts live, in_magazines and \
         free_in_pools of obmalloc_resident_bytes."
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_counters_in_the_order_of_the_schema() {
        let mut values = [0; COUNT];
        for (i, value) in values.iter_mut().enumerate() {
            *value = 100 + i as u64;
        }
        let counters = Counters::of_values(&values);
        assert_eq!(counters.values(), values);
        assert_eq!(
            (counters.arenas.size, counters.process.misses),
            (100, 99 + COUNT as u64)
        );
        let mut seen = 0;
        let done = counters.each::<()>(&mut |section, name, value| {
            assert_eq!(
                (COUNTERS[seen].section, COUNTERS[seen].name),
                (section, name)
            );
            assert_eq!(value, Some(100 + seen as i64));
            seen += 1;
            Ok(())
        });
        assert_eq!((done, seen), (Ok(()), COUNT));
    }

    #[test]
    fn only_an_optional_counter_is_unknown() {
        let counters = Counters::of_values(&[UNKNOWN; COUNT]);
        let mut i = 0;
        let done = counters.each::<()>(&mut |_, _, value| {
            assert_eq!(value.is_none(), COUNTERS[i].optional);
            i += 1;
            Ok(())
        });
        assert_eq!(done, Ok(()));
    }
}
