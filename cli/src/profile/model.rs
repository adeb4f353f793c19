//! A heap profile in memory: samples, each with a stack, values and labels.

use format::profile::{COMMENT_HOST, COMMENT_PID, COMMENT_VERSION, NO_PYTHON, SAMPLE_TYPES};
use indexmap::{IndexMap, IndexSet};

/// The values of a sample, in the order of [`SAMPLE_TYPES`].
pub type Values = [i64; SAMPLE_TYPES.len()];

/// Adds `values` to `sum`. Sums of hostile values stay at their limit.
pub fn add(sum: &mut Values, values: &Values) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum = sum.saturating_add(*value);
    }
}

/// The index of a text in [`Profile::texts`].
pub type Text = u32;

/// A frame of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    pub function: Text,
    pub file: Text,
    pub line: i64,
    /// A frame of C: by its address.
    pub is_native: bool,
}

/// The labels of a sample; those that are absent are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    pub kind: Option<Text>,
    pub domain: Option<Text>,
    pub thread: Option<Text>,
    /// Bytes of the block.
    pub bytes: Option<i64>,
    pub tid: Option<i64>,
    /// Milliseconds since the allocation.
    pub age: Option<i64>,
    /// The process, in a profile of several.
    pub pid: Option<i64>,
    pub inherited: bool,
    pub frozen: bool,
}

/// A live block, or the sums of a stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The index of a stack.
    pub stack: u32,
    pub values: Values,
    pub labels: Labels,
}

/// A heap profile.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Printable texts, the empty one first.
    pub texts: IndexSet<String>,
    pub frames: IndexSet<Frame>,
    /// Indices of frames, the innermost first.
    pub stacks: IndexSet<Box<[u32]>>,
    pub samples: Vec<Sample>,
    /// Which values the samples have.
    pub has: [bool; SAMPLE_TYPES.len()],
    /// Mean bytes between two samples.
    pub period: i64,
    /// Nanoseconds since 1970.
    pub time_nanos: i64,
    /// `key=value`.
    pub comments: Vec<String>,
}

impl Profile {
    /// The number of a text, which is entered if it is new.
    pub fn text(&mut self, text: &str) -> Text {
        match self.texts.get_index_of(text) {
            Some(number) => number as u32,
            None => self.texts.insert_full(text.into()).0 as u32,
        }
    }

    /// The text with a number.
    pub fn text_of(&self, text: Text) -> &str {
        self.texts
            .get_index(text as usize)
            .map_or("", String::as_str)
    }

    /// The frames of a sample, the innermost first.
    pub fn stack(&self, sample: &Sample) -> impl DoubleEndedIterator<Item = &Frame> + Clone {
        let stack = self.stacks.get_index(sample.stack as usize);
        let numbers = stack.map_or(&[][..], |stack| stack);
        numbers
            .iter()
            .filter_map(|&number| self.frames.get_index(number as usize))
    }

    /// The innermost frame of Python; of C in a stack without Python.
    pub fn line(&self, sample: &Sample) -> Option<&Frame> {
        let python = self.stack(sample).find(|frame| !frame.is_native);
        python.or_else(|| self.stack(sample).next())
    }

    /// The value of a comment.
    pub fn comment(&self, key: &str) -> Option<&str> {
        let values = self.comments.iter().filter_map(|line| line.split_once('='));
        values
            .into_iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }

    /// The process, its host and its library, as far as the comments name them.
    pub fn process(&self) -> Vec<String> {
        let known = |key, word: &str| self.comment(key).map(|value| format!("{word} {value}"));
        let parts = [
            known(COMMENT_PID, "process"),
            known(COMMENT_HOST, "CPython"),
            known(COMMENT_VERSION, "obmalloc"),
        ];
        parts.into_iter().flatten().collect()
    }

    /// The sums of all samples.
    pub fn total(&self) -> Values {
        let mut total = Values::default();
        self.samples
            .iter()
            .for_each(|sample| add(&mut total, &sample.values));
        total
    }

    /// Adds the samples of another profile, each of its values times `sign`, and its `pid` as a
    /// label if it is given.
    pub fn merge(&mut self, other: &Profile, sign: i64, pid: Option<i64>) {
        let texts: Vec<Text> = other.texts.iter().map(|text| self.text(text)).collect();
        let text = |number: Text| texts.get(number as usize).copied().unwrap_or(0);
        let frame = |frame: &Frame| Frame {
            function: text(frame.function),
            file: text(frame.file),
            ..*frame
        };
        let frames: Vec<u32> = other
            .frames
            .iter()
            .map(|from| self.frames.insert_full(frame(from)).0 as u32)
            .collect();
        let stack = |stack: &[u32]| -> Box<[u32]> {
            stack
                .iter()
                .filter_map(|&number| frames.get(number as usize).copied())
                .collect()
        };
        let stacks: Vec<u32> = other
            .stacks
            .iter()
            .map(|from| self.stacks.insert_full(stack(from)).0 as u32)
            .collect();
        for sample in &other.samples {
            let labels = sample.labels;
            self.samples.push(Sample {
                stack: stacks.get(sample.stack as usize).copied().unwrap_or(0),
                values: sample.values.map(|value| value.saturating_mul(sign)),
                labels: Labels {
                    kind: labels.kind.map(text),
                    domain: labels.domain.map(text),
                    thread: labels.thread.map(text),
                    pid: pid.or(labels.pid),
                    ..labels
                },
            });
        }
        for (has, others) in self.has.iter_mut().zip(other.has) {
            *has |= others;
        }
        self.period = self.period.max(other.period);
        self.time_nanos = self.time_nanos.max(other.time_nanos);
    }

    /// `after` minus `before`: a sample for each stack, type and process with a value that
    /// has changed.
    pub fn difference(before: &Profile, after: &Profile) -> Profile {
        let mut all = Profile::default();
        all.merge(before, -1, None);
        all.merge(after, 1, None);
        let mut sums: IndexMap<(u32, Labels), Values> = IndexMap::new();
        for sample in &all.samples {
            let Labels { kind, pid, .. } = sample.labels;
            let labels = Labels {
                kind,
                pid,
                ..Labels::default()
            };
            add(
                sums.entry((sample.stack, labels)).or_default(),
                &sample.values,
            );
        }
        let changed = sums
            .into_iter()
            .filter(|(_, values)| values.iter().any(|&value| value != 0));
        all.samples = changed
            .map(|((stack, labels), values)| Sample {
                stack,
                values,
                labels,
            })
            .collect();
        all.comments.clone_from(&after.comments);
        (all.period, all.time_nanos) = (after.period, after.time_nanos);
        all
    }
}

/// A frame for people: `file:line function`, or the function alone.
pub fn describe(profile: &Profile, frame: Option<&Frame>) -> String {
    let Some(frame) = frame else {
        return NO_PYTHON.into();
    };
    let (function, file) = (profile.text_of(frame.function), profile.text_of(frame.file));
    match (file, frame.line) {
        ("", _) => function.into(),
        (file, 0) => format!("{file} {function}"),
        (file, line) => format!("{file}:{line} {function}"),
    }
}

/// A frame for a picture, in which long names are cut off: `function (file:line)`.
pub fn label(profile: &Profile, frame: &Frame) -> String {
    let (function, file) = (profile.text_of(frame.function), profile.text_of(frame.file));
    match (file, frame.line) {
        ("", _) => function.into(),
        (file, 0) => format!("{function} ({file})"),
        (file, line) => format!("{function} ({file}:{line})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fixtures;

    #[test]
    fn a_difference_has_what_changed() {
        let (a, b) = (fixtures::before(), fixtures::after());
        let change = Profile::difference(&a, &b);
        let (was, is, became) = (a.total(), b.total(), change.total());
        for n in 0..was.len() {
            assert_eq!(became[n], is[n] - was[n], "{n}");
        }
        assert!(change.samples.iter().any(|sample| sample.values[3] < 0));
        assert!(Profile::difference(&a, &a).samples.is_empty());
    }

    #[test]
    fn merged_samples_keep_their_texts() {
        let (a, b) = (fixtures::before(), fixtures::after());
        let mut all = Profile::default();
        all.merge(&a, 1, Some(1));
        all.merge(&b, 1, Some(2));
        let of = |profile: &Profile, at: usize| {
            let sample = &profile.samples[at];
            let kind = sample
                .labels
                .kind
                .map(|kind| profile.text_of(kind).to_string());
            (describe(profile, profile.line(sample)), kind, sample.values)
        };
        for n in 0..b.samples.len() {
            assert_eq!(of(&all, a.samples.len() + n), of(&b, n));
        }
        assert_eq!(all.samples.last().unwrap().labels.pid, Some(2));
    }

    #[test]
    fn sums_of_hostile_values_do_not_overflow() {
        let mut sum = [i64::MAX; 5];
        add(&mut sum, &[1; 5]);
        assert_eq!(sum, [i64::MAX; 5]);
        let mut profile = fixtures::before();
        profile.samples[0].values = [i64::MIN; 5];
        assert_eq!(
            Profile::difference(&profile, &profile).total(),
            [i64::MAX; 5].map(|_| -1)
        );
    }
}
