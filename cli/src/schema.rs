//! `obmalloc schema`: the schema of the counters as JSON, which the Python package's exporter
//! reads.

use std::process::ExitCode;

use format::counters::{
    CLASS_COUNTERS, COUNTERS, Counter, FAMILIES, Family, Kind, PROCESS_PARTS, Source, Unit,
};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;

/// Prints it.
pub fn main() -> Result<ExitCode, Failure> {
    let schema = json!({
        "counters": COUNTERS.iter().chain(&CLASS_COUNTERS).map(counter).collect::<Vec<_>>(),
        "families": FAMILIES.iter().map(family).collect::<Vec<_>>(),
    });
    output::print(&format!("{schema:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn counter(counter: &Counter) -> Value {
    json!({
        "section": counter.section,
        "name": counter.name,
        "unit": match counter.unit { Unit::Bytes => "bytes", Unit::Count => "count" },
        "type": kind(counter.kind),
        "help": counter.help,
        "optional": counter.optional,
    })
}

/// The name of a type in Prometheus' text format.
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    }
}

/// A metric; `samples` are pairs of the label's value and the path in the JSON.
fn family(family: &Family) -> Value {
    let of = |counters: &[Counter], samples: &[(&str, usize)]| -> Value {
        let sample = |&(value, i): &(&str, usize)| {
            let path = [counters[i].section, counters[i].name];
            let path: Vec<_> = path.into_iter().filter(|word| !word.is_empty()).collect();
            json!([value, path])
        };
        samples.iter().map(sample).collect()
    };
    let (source, samples) = match &family.source {
        Source::Info => ("info", json!([])),
        Source::Process => ("process", json!(PROCESS_PARTS)),
        Source::Age => ("age", json!([])),
        Source::Counters(samples) => ("counters", of(&COUNTERS, samples)),
        Source::Classes(samples) => ("classes", of(&CLASS_COUNTERS, samples)),
    };
    json!({
        "name": family.name,
        "type": kind(family.kind),
        "help": family.help,
        "label": family.label,
        "source": source,
        "samples": samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every counter and metric is in docs/metrics.md.
    #[test]
    fn the_documentation_has_all_names() {
        let page = include_str!("../../docs/metrics.md");
        for counter in COUNTERS.iter().chain(&CLASS_COUNTERS) {
            let row = if counter.section.is_empty() {
                counter.name
            } else {
                counter.section
            };
            let mut rows = page.lines().filter(|line| {
                let first = line
                    .strip_prefix("| ")
                    .and_then(|line| line.split(" | ").next());
                first.is_some_and(|first| first.contains(&format!("`{row}`")))
            });
            let name = format!("`{}`", counter.name);
            assert!(
                rows.any(|line| line.contains(&name)),
                "no {name} in the row of `{row}`"
            );
        }
        for family in &FAMILIES {
            assert!(
                page.contains(&format!("`{}", family.name)),
                "no {}",
                family.name
            );
        }
    }

    /// A counter's metric is a counter, and its name ends as OpenMetrics demands.
    #[test]
    fn types_of_metrics_are_those_of_their_counters() {
        for family in &FAMILIES {
            assert_eq!(
                family.name.ends_with("_total"),
                family.kind == Kind::Counter
            );
            if let Source::Counters(samples) = &family.source {
                for &(_, i) in *samples {
                    assert_eq!(COUNTERS[i].kind, family.kind, "{}", family.name);
                }
            }
        }
    }
}
