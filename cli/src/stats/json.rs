//! The breakdown as JSON: the keys of `obmalloc_stats_json`, and more.

use format::counters::{CLASS_COUNTERS, PROCESS_PARTS};
use serde_json::{Value, json};

use crate::rss::Breakdown;
use crate::stale::Stale;

/// The version of the form. Keys may be added within a version; none is removed or changes its
/// meaning.
const SCHEMA: u32 = 1;

/// All of it.
pub fn of(breakdown: &Breakdown) -> Value {
    let classes = breakdown.classes.iter().map(|(index, class)| {
        let mut entry = json!({ "class": index });
        for (counter, word) in CLASS_COUNTERS.iter().zip(class.values()) {
            if let Some(value) = counter.known(word) {
                entry[counter.name] = json!(value);
            }
        }
        entry
    });
    let parts = breakdown.parts().map(|parts| {
        let mut all = json!({ "total": parts.rss });
        for (name, bytes) in PROCESS_PARTS.into_iter().zip(parts.values()) {
            all[name] = json!(bytes);
        }
        all
    });
    let mut all = json!({
        "version": breakdown.version,
        "schema": SCHEMA,
        "pid": breakdown.pid,
        "host": breakdown.host,
        "age_ms": breakdown.age_ms,
        "stale": breakdown.stale.as_ref().map(Stale::json),
        "process": parts,
        "classes": classes.collect::<Vec<_>>(),
    });
    let Ok(()) =
        breakdown
            .counters
            .each::<std::convert::Infallible>(&mut |section, name, value| {
                if section.is_empty() {
                    all[name] = json!(value);
                } else {
                    // A section whose counters are all unknown is null.
                    let section = &mut all[section];
                    if value.is_some() || !section.is_null() {
                        section[name] = json!(value);
                    }
                }
                Ok(())
            });
    all
}
