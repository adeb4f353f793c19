//! The groups of a profile as a table, and as JSON.

use format::profile::SAMPLE_TYPES;
use serde_json::{Map, Value as Json, json};

use super::group::{self, By, Row};
use super::model::Values;
use super::value::{Value, amount};
use super::{Shown, View};
use crate::output::Table;
use crate::units;

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// Rows of the table, unless -n gives their number.
const ROWS: usize = 20;

/// The most characters of a type beside a line.
const MOSTLY: usize = 40;

/// A heading, and a row for each of the largest groups.
pub fn text(shown: &Shown<'_>, view: &View) -> String {
    let rows = group::rows(shown, view);
    let mut out = heading(shown, view);
    if rows.is_empty() {
        out.push_str(match (shown.before, shown.minutes) {
            (_, Some(_)) => "Nothing has grown.\n",
            (Some(_), None) => "Nothing has changed.\n",
            (None, None) => "Nothing is in it.\n",
        });
        return out;
    }
    let most = view.rows.unwrap_or(ROWS);
    let (value, other) = (view.value, view.value.counterpart());
    let noun = |value: Value| if value.is_bytes() { "bytes" } else { "objects" };
    let kind = if view.by == By::Type {
        "mostly at"
    } else {
        "mostly"
    };
    let what = view.by.name();
    let head: Vec<String> = match (shown.before, shown.minutes) {
        (_, Some(_)) => {
            let minute = |value| format!("{}/min", noun(value));
            vec![
                minute(value),
                minute(other),
                "now".into(),
                kind.into(),
                what,
            ]
        }
        (Some(_), None) => {
            let words = ["change", noun(other), "before", "after", kind];
            words.map(String::from).into_iter().chain([what]).collect()
        }
        (None, None) => {
            let words = [noun(value), "share", noun(other), kind];
            words.map(String::from).into_iter().chain([what]).collect()
        }
    };
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::with_numbers_first(head.len() - 2, &head);
    let total = total(shown)[value.at()];
    for row in rows.iter().take(most) {
        let change = row.change();
        let mut cells = match (shown.before, shown.minutes) {
            (_, Some(minutes)) => {
                let minute = |of: Value| amount(per_minute(change[of.at()], minutes), of, true);
                vec![
                    minute(value),
                    minute(other),
                    amount(row.after[value.at()], value, false),
                ]
            }
            (Some(_), None) => vec![
                amount(change[value.at()], value, true),
                amount(change[other.at()], other, true),
                amount(row.before[value.at()], value, false),
                amount(row.after[value.at()], value, false),
            ],
            (None, None) => vec![
                amount(row.after[value.at()], value, false),
                share(row.after[value.at()], total),
                amount(row.after[other.at()], other, false),
            ],
        };
        cells.push(mostly(row, change[value.at()]));
        cells.push(row.what.clone());
        table.row(cells);
    }
    for line in table.lines() {
        out.push_str(&line);
        out.push('\n');
    }
    let hidden = rows.len().saturating_sub(most);
    if hidden > 0 {
        out.push_str(&format!("and {} more (-n)\n", units::count(hidden as u64)));
    }
    out
}

/// The type that holds most of a row, and its share if that is not all.
fn mostly(row: &Row, all: i64) -> String {
    let Some((name, value)) = &row.mostly else {
        return "-".into();
    };
    let hidden = name.chars().count().saturating_sub(MOSTLY);
    let mut short: String = name.chars().skip(hidden).collect();
    if hidden > 0 {
        short.insert_str(0, "...");
    }
    let value = *value;
    if value == all || (value < 0) != (all < 0) || value.unsigned_abs() > all.unsigned_abs() {
        short
    } else {
        format!("{short} {}", share(value, all))
    }
}

fn share(part: i64, whole: i64) -> String {
    units::percent(part.unsigned_abs(), whole.unsigned_abs())
}

fn per_minute(change: i64, minutes: f64) -> i64 {
    (change as f64 / minutes).round() as i64
}

/// The whole whose parts the rows are: the sums of the later profile, or the changes.
fn total(shown: &Shown<'_>) -> Values {
    let mut total = shown.after.total();
    if let Some(before) = shown.before {
        super::model::add(&mut total, &before.total().map(i64::saturating_neg));
    }
    total
}

/// The lines above the table.
fn heading(shown: &Shown<'_>, view: &View) -> String {
    let (value, other) = (view.value, view.value.counterpart());
    let after = shown.after.total();
    let mut whose = shown.whose();
    if !whose.is_empty() {
        whose.insert_str(0, ": ");
    }
    let number = |n: i64, value: Value, is_change| match value.is_bytes() {
        true => amount(n, value, is_change),
        false => format!("{} objects", amount(n, value, is_change)),
    };
    let sum = match shown.before {
        None => {
            let (bytes, count) = (after[value.at()], after[other.at()]);
            format!(
                "{}: {}, {}",
                value.name(),
                number(bytes, value, false),
                number(count, other, false)
            )
        }
        Some(before) => {
            let before = before.total()[value.at()];
            let change = after[value.at()].saturating_sub(before);
            format!(
                "{}: {} before, {} after, {}",
                value.name(),
                number(before, value, false),
                number(after[value.at()], value, false),
                number(change, value, true)
            )
        }
    };
    format!(
        "{}{whose}\n{sum}{}\n\n",
        shown.title,
        sampled(shown.after.period)
    )
}

/// How the numbers were found.
pub fn sampled(period: i64) -> String {
    match u64::try_from(period) {
        Ok(0) | Err(_) => String::new(),
        Ok(1) => "; every allocation".into(),
        Ok(period) => format!("; estimates, from a sample each {}", units::bytes(period)),
    }
}

/// Everything, for programs.
pub fn json(shown: &Shown<'_>, view: &View) -> Json {
    let value = view.value;
    let values = |values: &Values| -> Map<String, Json> {
        let named = SAMPLE_TYPES.iter().zip(values);
        named
            .map(|(&(name, _), &value)| (name.into(), value.into()))
            .collect()
    };
    let total = total(shown)[value.at()];
    let rows = group::rows(shown, view);
    let rows = rows
        .iter()
        .take(view.rows.unwrap_or(usize::MAX))
        .map(|row| {
            let change = row.change();
            let mut of = json!({ "what": row.what, "values": values(&row.after) });
            if let Some((function, file, line)) = &row.frame {
                of["function"] = function.as_str().into();
                of["file"] = file.as_str().into();
                of["line"] = (*line).into();
            }
            if let Some((name, value)) = &row.mostly {
                let key = if view.by == By::Type {
                    "mostly_line"
                } else {
                    "mostly_type"
                };
                of[key] = json!({ "what": name, "value": value });
            }
            match (shown.before, shown.minutes) {
                (None, _) if total != 0 => {
                    of["share"] = json!(row.after[value.at()] as f64 / total as f64);
                }
                (None, _) => {}
                (Some(_), minutes) => {
                    of["before"] = values(&row.before).into();
                    of["change"] = values(&change).into();
                    if let Some(minutes) = minutes {
                        of["per_minute"] = values(&change.map(|of| per_minute(of, minutes))).into();
                    }
                }
            }
            of
        });
    let rows: Vec<Json> = rows.collect();
    let profile = shown.after;
    let mut all = json!({
        "schema": SCHEMA,
        "title": shown.title,
        "by": view.by.name(),
        "value": value.name(),
        "period": profile.period,
        "time_ms": profile.time_nanos / 1_000_000,
        "comments": profile.comments,
        "total": values(&profile.total()),
        "rows": rows,
    });
    if let Some(before) = shown.before {
        all["total_before"] = values(&before.total()).into();
    }
    if let Some(minutes) = shown.minutes {
        all["minutes"] = minutes.into();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fixtures;

    const VIEW: View = View {
        by: By::Line,
        value: Value::InuseSpace,
        rows: None,
    };

    #[test]
    fn the_table_has_lines_and_their_types() {
        let profile = fixtures::before();
        let text = text(&Shown::one("heap", &profile), &VIEW);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "heap: process 4711, CPython 3.13.5, obmalloc 0.1.0"
        );
        assert_eq!(
            lines[1],
            "inuse_space: 13.6 KiB, 161 objects; estimates, from a sample each 512 KiB"
        );
        assert_eq!(lines[3], "  bytes  share  objects  mostly          line");
        assert_eq!(
            lines[4],
            "7.2 KiB   53 %      110  dict 86 %       /srv/app/sessions.py:41 remember"
        );
        assert!(lines[5].contains("(untyped, raw)  /venv"), "{text}");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn fewer_rows_and_other_groups() {
        let profile = fixtures::before();
        let view = View {
            by: By::Type,
            rows: Some(1),
            value: Value::InuseObjects,
        };
        let text = text(&Shown::one("heap", &profile), &view);
        assert!(
            text.contains("objects  share    bytes  mostly at                         type\n"),
            "{text}"
        );
        assert!(
            text.contains("100   62 %  6.2 KiB  /srv/app/sessions.py:41 remember  dict\n"),
            "{text}"
        );
        assert!(text.ends_with("and 3 more (-n)\n"));
    }

    #[test]
    fn changes_and_growth() {
        let (before, after) = (fixtures::before(), fixtures::after());
        let mut shown = Shown {
            before: Some(&before),
            ..Shown::one("a to b", &after)
        };
        let table = text(&shown, &VIEW);
        assert!(
            table.contains("inuse_space: 13.6 KiB before, 24.7 KiB after, +11.1 KiB;"),
            "{table}"
        );
        assert!(
            table.contains("+12.5 KiB     +200  7.2 KiB  19.7 KiB  dict"),
            "{table}"
        );
        assert!(table.contains("-1.4 KiB      -30"), "{table}");
        shown.minutes = Some(0.5);
        let table = text(&shown, &VIEW);
        assert!(
            table.contains("bytes/min  objects/min       now  mostly  line"),
            "{table}"
        );
        assert!(
            table.contains("+25.0 KiB         +400  19.7 KiB  dict    /srv"),
            "{table}"
        );
        assert!(!table.contains("json"), "it shrank");
        let same = Shown {
            before: Some(&after),
            ..Shown::one("a to a", &after)
        };
        assert!(text(&same, &VIEW).ends_with("\nNothing has changed.\n"));
    }

    #[test]
    fn json_has_the_same_sums() {
        let (before, after) = (fixtures::before(), fixtures::after());
        let one = json(&Shown::one("heap", &before), &VIEW);
        let rows = one["rows"].as_array().unwrap();
        let sum: i64 = rows
            .iter()
            .map(|row| row["values"]["inuse_space"].as_i64().unwrap())
            .sum();
        assert_eq!(one["total"]["inuse_space"], sum);
        assert_eq!(rows[0]["file"], "/srv/app/sessions.py");
        assert_eq!(
            (&rows[0]["line"], &rows[0]["function"]),
            (&json!(41), &json!("remember"))
        );
        assert_eq!(
            rows[0]["mostly_type"],
            json!({"what": "dict", "value": 6400})
        );
        let shares: f64 = rows.iter().map(|row| row["share"].as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-9);
        let shown = Shown {
            before: Some(&before),
            minutes: Some(2.0),
            ..Shown::one("growth", &after)
        };
        let growth = json(&shown, &VIEW);
        assert_eq!(growth["rows"][0]["per_minute"]["inuse_objects"], 100);
        assert_eq!(growth["rows"][0]["before"]["inuse_space"], 7400);
        assert_eq!(growth["total_before"]["inuse_space"], sum);
    }
}
