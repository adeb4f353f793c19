//! The breakdown as metrics, in Prometheus' text format: one text with equal samples for the
//! parsers of both of its versions.
//!
//! ```text
//!                          classic (0.0.4)            OpenMetrics 1.0
//!   a counter's family     x_total                    x, whose sample is x_total
//!   # EOF                  a comment                  the end, which must be there
//! ```
//!
//! The families are OpenMetrics', because its parsers refuse classic ones; a classic parser
//! gives the counters no type then. A file for node_exporter, which has a classic parser, has
//! classic families.

use std::fmt::{Display, Write};

use format::counters::{CLASS_COUNTERS, COUNTERS, FAMILIES, PROCESS_PARTS, Source};

use crate::rss::Breakdown;
use crate::schema;

/// The labels of the metrics, which a user's label may not replace.
pub const LABELS: [&str; 5] = ["part", "state", "size", "version", "host"];

/// The form of the families in a text.
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
    /// Begins a family; `kind` is gauge or counter.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let name = match self.families {
            Families::OpenMetrics if kind == "counter" => {
                name.strip_suffix("_total").unwrap_or(name)
            }
            _ => name,
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
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
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

/// All metrics of the schema, with `labels` on each sample.
pub fn text(breakdown: &Breakdown, labels: &[(String, String)], families: Families) -> String {
    let mut all = Metrics {
        text: String::new(),
        labels,
        families,
    };
    let words = breakdown.counters.values();
    let parts = breakdown.parts();
    for family in &FAMILIES {
        let known = match &family.source {
            Source::Counters(samples) => samples
                .iter()
                .all(|&(_, i)| COUNTERS[i].known(words[i]).is_some()),
            Source::Classes(samples) => samples.iter().all(|&(_, i)| {
                let mut classes = breakdown.classes.iter();
                classes.all(|(_, class)| CLASS_COUNTERS[i].known(class.values()[i]).is_some())
            }),
            Source::Process => parts.is_some(),
            Source::Info | Source::Age => true,
        };
        if !known {
            continue;
        }
        all.begin(family.name, schema::kind(family.kind), family.help);
        let label = (!family.label.is_empty()).then_some(family.label);
        let mut sample = |labels: &[(&str, &str)], value: &dyn Display| {
            all.value(family.name, labels, value);
        };
        match &family.source {
            Source::Info => {
                let host = breakdown.host.as_deref().unwrap_or_default();
                sample(&[("version", &breakdown.version), ("host", host)], &1);
            }
            Source::Counters(samples) => {
                for &(value, i) in *samples {
                    let labels: Vec<_> = label.map(|label| (label, value)).into_iter().collect();
                    sample(&labels, &words[i].cast_signed());
                }
            }
            Source::Process => {
                let parts = parts.map(|parts| parts.values()).unwrap_or_default();
                for (value, bytes) in PROCESS_PARTS.into_iter().zip(parts) {
                    sample(&[(family.label, value)], &bytes);
                }
            }
            Source::Age => sample(&[], &(breakdown.age_ms as f64 / 1000.0)),
            Source::Classes(samples) => {
                for (_, class) in &breakdown.classes {
                    let size = class.size.to_string();
                    for &(value, i) in *samples {
                        let size = [("size", size.as_str())].into_iter();
                        let labels: Vec<_> =
                            size.chain(label.map(|label| (label, value))).collect();
                        sample(&labels, &class.values()[i]);
                    }
                }
            }
        }
    }
    all.text.push_str("# EOF\n");
    all.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rss::tests::some;

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
