//! The ledger as metrics, in Prometheus' text form: one text that the parsers of both of its
//! forms read, with the same samples.
//!
//! ```text
//!                          classic (0.0.4)            OpenMetrics 1.0
//!   a counter's family     x_total                    x, whose sample is x_total
//!   # EOF                  a comment                  the end, which must be there
//! ```
//!
//! The families are OpenMetrics', which refuses the others; a classic parser takes a counter
//! for a sample of no type then. So a file for node_exporter, which has a classic one, has
//! the classic families.

use std::fmt::Write;

use crate::ledger::{Ledger, known};

/// Names of labels that metrics have.
pub const LABELS: [&str; 5] = ["part", "state", "size", "version", "host"];

/// Whose families a text has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// For any parser.
    OpenMetrics,
    /// For parsers of the classic form only.
    Classic,
}

/// A metric under construction.
struct Metrics<'a> {
    text: String,
    labels: &'a [(String, String)],
    families: Families,
}

impl Metrics<'_> {
    /// Says what follows. `kind` is gauge or counter.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let name = match self.families {
            Families::OpenMetrics if kind == "counter" => {
                name.strip_suffix("_total").unwrap_or(name)
            }
            _ => name,
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let given = self.labels.iter();
        let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
        let all: Vec<_> = given
            .chain(labels.iter().copied())
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let braced = if all.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", all.join(","))
        };
        let _ = writeln!(self.text, "{name}{braced} {value}");
    }

    /// A metric of one value.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.begin(name, kind, help);
        self.value(name, &[], value);
    }

    /// A metric whose values a label tells apart.
    fn by(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.begin(name, "gauge", help);
        for (value, number) in values {
            self.value(name, &[(label, value)], number);
        }
    }
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

/// All of it; each metric has these labels, too.
pub fn text(ledger: &Ledger, labels: &[(String, String)], families: Families) -> String {
    let s = &ledger.statistics;
    let mut all = Metrics {
        text: String::new(),
        labels,
        families,
    };
    all.begin(
        "obmalloc_info",
        "gauge",
        "The library and its host; always 1.",
    );
    let (version, host) = (ledger.version(), ledger.host().unwrap_or_default());
    all.value(
        "obmalloc_info",
        &[("version", &version), ("host", &host)],
        1,
    );
    let resident = &s.resident;
    all.by(
        "obmalloc_resident_bytes",
        "Memory of the library's that is with the process, by what it is for. The parts sum to \
         part ours of obmalloc_process_resident_bytes.",
        "part",
        &[
            ("live", resident.live),
            ("in_magazines", resident.in_magazines),
            ("free_in_pools", resident.free_in_pools),
            ("empty_pools", resident.empty_pools),
            ("metadata", resident.metadata),
        ],
    );
    if let Some(parts) = ledger.parts() {
        all.by(
            "obmalloc_process_resident_bytes",
            "Memory of the process, by whose it is. The parts sum to its RSS.",
            "part",
            &[
                ("ours", parts.ours),
                ("libc_in_use", parts.libc_in_use),
                ("libc_kept", parts.libc_kept),
                ("files", parts.files),
                ("other", parts.other),
            ],
        );
    }
    all.one(
        "obmalloc_live_requested_bytes",
        "gauge",
        "What the program asked for of part live of obmalloc_resident_bytes, by estimate; the \
         rest is rounding.",
        s.bytes.live_requested_estimate,
    );
    all.one(
        "obmalloc_returned_bytes_total",
        "counter",
        "Memory that was free and has gone back to the kernel.",
        resident.returned_total,
    );
    all.one(
        "obmalloc_address_space_bytes",
        "gauge",
        "Address space from the kernel, in memory or not.",
        s.bytes.from_os,
    );
    all.by(
        "obmalloc_arenas",
        "Arenas that the library has.",
        "state",
        &[("in_use", s.arenas.in_use), ("empty", s.arenas.empty)],
    );
    all.one(
        "obmalloc_arenas_highwater",
        "gauge",
        "The most arenas that there were at once.",
        s.arenas.highwater,
    );
    all.one(
        "obmalloc_arenas_mapped_total",
        "counter",
        "Arenas that have come from the kernel.",
        s.arenas.mapped_total,
    );
    all.one(
        "obmalloc_arenas_unmapped_total",
        "counter",
        "Arenas that have gone back to the kernel.",
        s.arenas.unmapped_total,
    );
    all.by(
        "obmalloc_pools",
        "Pools in the arenas: with some free blocks, without, and of no size class.",
        "state",
        &[
            ("used", s.pools.used),
            ("full", s.pools.full),
            ("free", s.pools.free),
        ],
    );
    all.one(
        "obmalloc_large_requests_total",
        "counter",
        "Requests that no pool serves and that the C library got.",
        s.large.served_below_total,
    );
    all.one(
        "obmalloc_large_blocks",
        "gauge",
        "Blocks of the C library's that such requests have got and that are not freed yet.",
        s.large.blocks_live,
    );
    if let Some(in_use) = known(s.libc_in_use) {
        all.by(
            "obmalloc_libc_bytes",
            "What the C library's malloc has, in memory or not.",
            "state",
            &[("in_use", in_use), ("kept", s.libc_kept)],
        );
    }
    if let Some(threads) = known(s.threads) {
        all.one(
            "obmalloc_threads",
            "gauge",
            "Threads that have magazines of free blocks, or had some and have ended.",
            threads,
        );
    }
    if let Some(misses) = known(s.misses) {
        all.one(
            "obmalloc_misses_total",
            "counter",
            "Requests for which a thread had no block at hand and went to the heap.",
            misses,
        );
    }
    all.one(
        "obmalloc_page_age_seconds",
        "gauge",
        "How old these numbers are.",
        ledger.age_ms as f64 / 1000.0,
    );
    classes(ledger, &mut all);
    all.text.push_str("# EOF\n");
    all.text
}

fn classes(ledger: &Ledger, all: &mut Metrics<'_>) {
    all.begin(
        "obmalloc_class_blocks",
        "gauge",
        "Blocks of each size in bytes. Times the size, state live sums to part live of \
         obmalloc_resident_bytes, in_magazines to its own.",
    );
    for (_, class) in ledger.classes() {
        let size = class.size.to_string();
        for (state, number) in [
            ("live", class.blocks_live),
            ("in_magazines", class.blocks_in_magazines),
            ("free", class.blocks_free),
        ] {
            let labels = [("size", size.as_str()), ("state", state)];
            all.value("obmalloc_class_blocks", &labels, number);
        }
    }
    all.begin("obmalloc_class_pools", "gauge", "Pools of each size class.");
    for (_, class) in ledger.classes() {
        let size = class.size.to_string();
        all.value("obmalloc_class_pools", &[("size", &size)], class.pools);
    }
    if !ledger.has_all {
        return;
    }
    all.begin(
        "obmalloc_class_resident_bytes",
        "gauge",
        "Memory in the pools of each size class: sums to the parts live, in_magazines and \
         free_in_pools of obmalloc_resident_bytes.",
    );
    for (_, class) in ledger.classes() {
        let size = class.size.to_string();
        all.value(
            "obmalloc_class_resident_bytes",
            &[("size", &size)],
            class.resident,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::some;

    #[test]
    fn labels_are_escaped_and_on_each_line() {
        let labels = [("app".to_string(), "a \"b\" \\ c\nd".to_string())];
        let text = text(&some(), &labels, Families::OpenMetrics);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("{app=\"a \\\"b\\\" \\\\ c\\nd\""), "{line}");
        }
        assert!(text.contains("part=\"live\"} 1000\n"));
    }

    #[test]
    fn samples_are_the_same_in_both_forms() {
        let [ours, classic] =
            [Families::OpenMetrics, Families::Classic].map(|families| text(&some(), &[], families));
        let samples = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_string).collect()
        };
        assert_eq!(samples(&ours), samples(&classic));
        for line in ours.lines().filter(|line| line.starts_with("# TYPE")) {
            assert!(!line.contains("_total "), "{line}");
        }
        assert!(classic.contains("# TYPE obmalloc_returned_bytes_total counter\n"));
        assert!(
            ours.contains("# TYPE obmalloc_returned_bytes counter\nobmalloc_returned_bytes_total ")
        );
        assert!(ours.ends_with("\n# EOF\n") && !ours.contains("\n\n"));
    }
}
