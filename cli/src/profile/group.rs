//! Samples in groups: by line, type, size and so on.

use std::cmp::Reverse;
use std::collections::HashMap;

use clap::ValueEnum;
use indexmap::{IndexMap, IndexSet};

use super::model::{self, Frame, Profile, Sample, Values, describe};
use super::{Shown, View};
use crate::units;

/// How the name of the group of blocks without a type begins: most are buffers of objects, as the
/// items of a list.
const UNTYPED: &str = "(untyped";

/// The property that all samples of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The innermost line of Python
    Line,
    /// Its function
    Function,
    /// Its module
    Module,
    /// The type of the object
    Type,
    /// The size of the block
    Size,
    /// The thread that allocated it
    Thread,
    /// The time since its allocation
    Age,
    /// The domain of CPython's allocator
    Domain,
    /// Whether gc.freeze has moved the object out of the collector's sight
    Frozen,
    /// The process, in a profile of several
    Process,
}

impl By {
    #[cfg(test)]
    pub const ALL: [By; 10] = [
        By::Line,
        By::Function,
        By::Module,
        By::Type,
        By::Size,
        By::Thread,
        By::Age,
        By::Domain,
        By::Frozen,
        By::Process,
    ];

    /// The word on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or(String::new(), |value| value.get_name().to_string())
    }

    /// Whether frames have it, rather than labels.
    pub fn is_of_frames(self) -> bool {
        matches!(self, By::Line | By::Function | By::Module)
    }

    /// A frame, as precisely as its group.
    pub fn frame(self, profile: &Profile, frame: Option<&Frame>) -> String {
        match (self, frame) {
            (By::Module, Some(frame)) => {
                let file = profile.text_of(frame.file);
                if file.is_empty() {
                    profile.text_of(frame.function).into()
                } else {
                    module(file)
                }
            }
            (By::Function, Some(frame)) => describe(profile, Some(&Frame { line: 0, ..*frame })),
            _ => describe(profile, frame),
        }
    }

    /// The group of a sample.
    pub fn group(self, profile: &Profile, sample: &Sample) -> String {
        let labels = &sample.labels;
        let text = |text: Option<u32>| text.map(|text| profile.text_of(text));
        match self {
            By::Line | By::Function | By::Module => self.frame(profile, profile.line(sample)),
            By::Type => match (text(labels.kind), text(labels.domain)) {
                (Some(kind), _) => kind.into(),
                (None, Some(domain)) => format!("{UNTYPED}, {domain})"),
                (None, None) => format!("{UNTYPED})"),
            },
            By::Domain => text(labels.domain).unwrap_or("(no domain)").into(),
            By::Frozen if labels.frozen => "frozen".into(),
            By::Frozen => "(not frozen)".into(),
            By::Size => labels.bytes.map_or("(no size)".into(), size),
            By::Age => labels.age.map_or("(no age)".into(), age),
            By::Thread => match (text(labels.thread), labels.tid) {
                (Some(name), Some(tid)) => format!("{name} ({tid})"),
                (Some(name), None) => name.into(),
                (None, Some(tid)) => format!("thread {tid}"),
                (None, None) => "(no thread)".into(),
            },
            By::Process => match labels.pid {
                Some(pid) => format!("process {pid}"),
                None => profile
                    .process()
                    .first()
                    .map_or("(no process)".into(), String::clone),
            },
        }
    }
}

/// The name of the module in a file; of a file outside Python's folders the path.
fn module(file: &str) -> String {
    let Some(path) = file.strip_suffix(".py") else {
        return file.into();
    };
    let after = |folder: &str| path.rfind(folder).map(|at| &path[at + folder.len()..]);
    let library = || {
        // .../lib/python3.13/json/decoder
        let (version, rest) = after("/lib/python")?.split_once('/')?;
        let is_version =
            !version.is_empty() && version.chars().all(|c| c.is_ascii_digit() || c == '.');
        is_version.then_some(rest)
    };
    let inside = after("/site-packages/")
        .or_else(|| after("/dist-packages/"))
        .or_else(library);
    match inside {
        Some(name) => name.trim_end_matches("/__init__").replace('/', "."),
        None => file.into(),
    }
}

/// The size of a block: as small ones are rounded by the allocator, others by powers of two.
fn size(bytes: i64) -> String {
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let most = if bytes <= 512 {
        bytes.next_multiple_of(16).max(16)
    } else {
        bytes.next_power_of_two()
    };
    format!("up to {}", units::bytes(most))
}

fn age(milliseconds: i64) -> String {
    const LIMITS: [(i64, &str); 6] = [
        (1_000, "under 1 s"),
        (10_000, "1 to 10 s"),
        (60_000, "10 to 60 s"),
        (600_000, "1 to 10 min"),
        (3_600_000, "10 to 60 min"),
        (86_400_000, "1 to 24 h"),
    ];
    let limit = LIMITS.into_iter().find(|&(limit, _)| milliseconds < limit);
    limit.map_or("over 24 h", |(_, text)| text).into()
}

/// A group, with the sums of its samples.
#[derive(Debug, Default)]
pub struct Row {
    pub what: String,
    /// The sums of the earlier profile, if two are compared.
    pub before: Values,
    pub after: Values,
    /// Function, file and line, of a group by line.
    pub frame: Option<(String, String, i64)>,
    /// The type (in a group by type, the line) that holds most of it, with its value.
    pub mostly: Option<(String, i64)>,
}

impl Row {
    /// After minus before.
    pub fn change(&self) -> Values {
        let mut change = self.after;
        model::add(&mut change, &self.before.map(i64::saturating_neg));
        change
    }
}

/// Rows while samples are entered.
struct Rows<'a> {
    view: &'a View,
    /// With the shown value by the number of a type, or of a line in a group by type.
    rows: IndexMap<String, (Row, HashMap<usize, i64>)>,
    /// Names of types or lines.
    others: IndexSet<String>,
}

impl Rows<'_> {
    fn enter(&mut self, profile: &Profile, is_before: bool) {
        let View { by, value, .. } = *self.view;
        for sample in &profile.samples {
            let amount = sample.values[value.at()];
            let other = match by {
                By::Type => By::Line.group(profile, sample),
                _ => By::Type.group(profile, sample),
            };
            let other = self.others.insert_full(other).0;
            let entry = self.rows.entry(by.group(profile, sample));
            let (row, others) = entry.or_default();
            let (sums, change) = if is_before {
                (&mut row.before, amount.saturating_neg())
            } else {
                (&mut row.after, amount)
            };
            model::add(sums, &sample.values);
            let sum = others.entry(other).or_default();
            *sum = sum.saturating_add(change);
            if by == By::Line && row.frame.is_none() {
                let text = |text| profile.text_of(text).to_string();
                let frame = profile.line(sample);
                row.frame = frame.map(|of| (text(of.function), text(of.file), of.line));
            }
        }
    }

    /// The other that holds most of a row. Blocks without a type count only where there are no
    /// others.
    fn mostly(&self, others: &HashMap<usize, i64>) -> Option<(String, i64)> {
        let named = others.iter().filter(|(_, value)| **value != 0);
        let named =
            named.filter_map(|(number, value)| Some((self.others.get_index(*number)?, *value)));
        let most = named.max_by_key(|&(name, value)| {
            let has_type = !name.starts_with(UNTYPED);
            (has_type, value.unsigned_abs(), Reverse(name))
        });
        most.map(|(name, value)| (name.clone(), value))
    }
}

/// The groups of what is shown, the largest first; of two profiles, those that have changed.
pub fn rows(shown: &Shown<'_>, view: &View) -> Vec<Row> {
    let mut entered = Rows {
        view,
        rows: IndexMap::new(),
        others: IndexSet::new(),
    };
    if let Some(before) = shown.before {
        entered.enter(before, true);
    }
    entered.enter(shown.after, false);
    let at = view.value.at();
    let found = std::mem::take(&mut entered.rows).into_iter();
    let found = found.filter(|(_, (row, _))| match (shown.before, shown.minutes) {
        (_, Some(_)) => row.change()[at] > 0,
        (Some(_), None) => row.change()[at] != 0,
        (None, None) => row.after[at] != 0,
    });
    let rows = found.map(|(what, (row, others))| Row {
        what,
        mostly: entered.mostly(&others),
        ..row
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by_key(|row| Reverse(row.change()[at].unsigned_abs()));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fixtures;
    use crate::profile::value::Value;

    fn of(by: By) -> Vec<(String, i64)> {
        let profile = fixtures::before();
        let view = View {
            by,
            value: Value::InuseSpace,
            rows: None,
        };
        let rows = rows(&Shown::one("x", &profile), &view);
        rows.into_iter()
            .map(|row| (row.what, row.after[3]))
            .collect()
    }

    #[test]
    fn groups_have_the_sums_of_their_samples() {
        let expected = |rows: &[(&str, i64)]| -> Vec<(String, i64)> {
            rows.iter()
                .map(|&(what, bytes)| (what.to_string(), bytes))
                .collect()
        };
        let numpy = "/venv/lib/python3.13/site-packages/numpy/core/multi.py";
        let json = "/usr/lib/python3.13/json/decoder.py";
        assert_eq!(
            of(By::Line),
            expected(&[
                ("/srv/app/sessions.py:41 remember", 7400),
                (&format!("{numpy}:9 load"), 4096),
                (&format!("{json}:350 parse"), 2400),
            ])
        );
        assert_eq!(of(By::Function)[0].0, "/srv/app/sessions.py remember");
        assert_eq!(
            of(By::Module),
            expected(&[
                ("/srv/app/sessions.py", 7400),
                ("numpy.core.multi", 4096),
                ("json.decoder", 2400),
            ])
        );
        assert_eq!(
            of(By::Type),
            expected(&[
                ("dict", 6400),
                ("(untyped, raw)", 4096),
                ("list", 2400),
                ("str", 1000),
            ])
        );
        assert_eq!(
            of(By::Size),
            expected(&[
                ("up to 64 B", 6400),
                ("up to 4.0 KiB", 4096),
                ("up to 48 B", 2400),
                ("up to 112 B", 1000),
            ])
        );
        assert_eq!(of(By::Thread)[0], ("worker-1 (7)".into(), 7400));
        assert_eq!(of(By::Age)[1], ("1 to 10 min".into(), 6400));
        assert_eq!(of(By::Domain)[0], ("obj".into(), 9800));
        assert_eq!(
            of(By::Frozen),
            expected(&[("(not frozen)", 11_496), ("frozen", 2400)])
        );
        assert_eq!(of(By::Process), expected(&[("process 4711", 13_896)]));
    }

    #[test]
    fn allocations_are_a_group_without_a_stack() {
        let profile = fixtures::before();
        let view = View {
            by: By::Line,
            value: Value::AllocSpace,
            rows: None,
        };
        let rows = rows(&Shown::one("x", &profile), &view);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].what.as_str(), rows[0].after[1]),
            ("(no Python frames)", 90_000)
        );
    }

    #[test]
    fn groups_of_two_profiles_are_those_that_changed() {
        let (before, after) = (fixtures::before(), fixtures::after());
        let view = View {
            by: By::Line,
            value: Value::InuseSpace,
            rows: None,
        };
        let mut shown = Shown {
            before: Some(&before),
            ..Shown::one("x", &after)
        };
        let changed = rows(&shown, &view);
        let changes: Vec<_> = changed
            .iter()
            .map(|row| (row.change()[3], row.mostly.as_ref().unwrap().0.as_str()))
            .collect();
        assert_eq!(changes, [(12_800, "dict"), (-1440, "list")]);
        shown.minutes = Some(1.0);
        let grown = rows(&shown, &view);
        assert_eq!(grown.len(), 1);
        assert_eq!(grown[0].what, "/srv/app/sessions.py:41 remember");
    }

    #[test]
    fn modules_are_named_from_their_files() {
        assert_eq!(module("/v/lib/python3.9/site-packages/a/__init__.py"), "a");
        assert_eq!(module("/usr/lib/python3/dist-packages/a/b.py"), "a.b");
        assert_eq!(
            module("/usr/lib/python3.11/json/decoder.py"),
            "json.decoder"
        );
        assert_eq!(module("/home/lib/python/app.py"), "/home/lib/python/app.py");
        assert_eq!(
            module("<frozen importlib._bootstrap>"),
            "<frozen importlib._bootstrap>"
        );
        assert_eq!(size(i64::MAX), "up to 8192 PiB");
        assert_eq!(
            (size(-5), size(0)),
            ("up to 16 B".into(), "up to 16 B".into())
        );
        assert_eq!(
            (age(0), age(i64::MAX)),
            ("under 1 s".into(), "over 24 h".into())
        );
    }
}
