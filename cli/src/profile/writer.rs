//! The writer of a gzipped `profile.proto`, for differences and profiles of several processes.

use format::profile as names;
use prost::Message;

use super::gzip;
use super::model::{Frame, Labels, Profile};
use super::proto;

/// The bytes of a file with this profile.
pub fn write(profile: &Profile) -> Vec<u8> {
    gzip::pack(&encode(profile).encode_to_vec())
}

/// The texts of a file: text 0 is the empty one.
struct Texts<'a>(&'a mut Profile);

impl Texts<'_> {
    fn add(&mut self, text: &str) -> i64 {
        i64::from(self.0.text(text))
    }
}

fn encode(profile: &Profile) -> proto::Profile {
    // Its texts are those of the file, with the names that are added here.
    let mut named = Profile {
        texts: profile.texts.clone(),
        ..Profile::default()
    };
    if named.texts.is_empty() {
        named.text("");
    }
    let mut texts = Texts(&mut named);
    let mut kind = |(kind, unit): (&str, &str)| proto::ValueType {
        kind: texts.add(kind),
        unit: texts.add(unit),
    };
    let columns = names::SAMPLE_TYPES.into_iter().zip(profile.has).enumerate();
    let columns: Vec<_> = columns.filter(|(_, (_, has))| *has).collect();
    let sample_types = columns.iter().map(|(_, (of, _))| kind(*of)).collect();
    let period_type = Some(kind(names::PERIOD_TYPE));
    let default_sample_type = texts.add(names::DEFAULT_SAMPLE_TYPE);
    let comments = profile
        .comments
        .iter()
        .map(|line| texts.add(line))
        .collect();
    let mut samples = Vec::with_capacity(profile.samples.len());
    for sample in &profile.samples {
        let stack = profile.stacks.get_index(sample.stack as usize);
        let frames = stack.map_or(&[][..], |stack| stack).iter();
        samples.push(proto::Sample {
            locations: frames.map(|&frame| u64::from(frame) + 1).collect(),
            values: columns.iter().map(|&(at, _)| sample.values[at]).collect(),
            labels: labels(&sample.labels, &mut texts),
        });
    }
    let id = |number: usize| number as u64 + 1;
    let functions = profile
        .frames
        .iter()
        .enumerate()
        .map(|(number, frame)| proto::Function {
            id: id(number),
            name: frame.function.into(),
            system_name: frame.function.into(),
            file: frame.file.into(),
            start_line: 0,
        });
    let locations = profile
        .frames
        .iter()
        .enumerate()
        .map(|(number, frame)| proto::Location {
            id: id(number),
            mapping: 1,
            // Frames of C are those with an address; any number will do, as each has its function.
            address: if frame.is_native { id(number) } else { 0 },
            lines: vec![line(id(number), frame)],
        });
    proto::Profile {
        sample_types,
        samples,
        // Without a mapping that has its names, pprof searches for a program.
        mappings: vec![proto::Mapping {
            id: 1,
            limit: u64::MAX,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            ..proto::Mapping::default()
        }],
        locations: locations.collect(),
        functions: functions.collect(),
        strings: named
            .texts
            .iter()
            .map(|text| text.clone().into_bytes())
            .collect(),
        time_nanos: profile.time_nanos,
        period_type,
        period: profile.period,
        comments,
        default_sample_type,
    }
}

fn line(function: u64, frame: &Frame) -> proto::Line {
    proto::Line {
        function,
        line: frame.line,
    }
}

fn labels(labels: &Labels, texts: &mut Texts<'_>) -> Vec<proto::Label> {
    let mut all = Vec::new();
    let yes = |is: bool| is.then_some("yes");
    for (key, text) in [
        (names::LABEL_TYPE, labels.kind),
        (names::LABEL_DOMAIN, labels.domain),
        (names::LABEL_THREAD, labels.thread),
    ] {
        all.extend(text.map(|text| proto::Label {
            key: texts.add(key),
            text: text.into(),
            ..proto::Label::default()
        }));
    }
    for (key, is) in [
        (names::LABEL_INHERITED, yes(labels.inherited)),
        (names::LABEL_FROZEN, yes(labels.frozen)),
    ] {
        all.extend(is.map(|text| proto::Label {
            key: texts.add(key),
            text: texts.add(text),
            ..proto::Label::default()
        }));
    }
    for (key, number, unit) in [
        (names::LABEL_BYTES, labels.bytes, "bytes"),
        (names::LABEL_TID, labels.tid, ""),
        (names::LABEL_AGE, labels.age, "milliseconds"),
        (super::LABEL_PID, labels.pid, ""),
    ] {
        all.extend(number.map(|number| proto::Label {
            key: texts.add(key),
            number,
            unit: texts.add(unit),
            ..proto::Label::default()
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{fixtures, reader};

    #[test]
    fn a_profile_is_the_same_after_both() {
        let change = Profile::difference(&fixtures::before(), &fixtures::after());
        for profile in [fixtures::before(), fixtures::after(), change] {
            let read = reader::read(&write(&profile)[..]).unwrap();
            let all = |profile: &Profile| -> Vec<_> {
                let samples = profile.samples.iter().map(|sample| {
                    let stack = profile.stack(sample);
                    let stack: Vec<_> = stack
                        .map(|frame| {
                            let text = |text| profile.text_of(text).to_string();
                            (
                                text(frame.function),
                                text(frame.file),
                                frame.line,
                                frame.is_native,
                            )
                        })
                        .collect();
                    let kind = sample
                        .labels
                        .kind
                        .map(|kind| profile.text_of(kind).to_string());
                    let labels = Labels {
                        kind: None,
                        domain: None,
                        thread: None,
                        ..sample.labels
                    };
                    (stack, kind, labels, sample.values)
                });
                samples.collect()
            };
            assert_eq!(all(&read), all(&profile));
            assert_eq!(
                (read.period, read.time_nanos),
                (profile.period, profile.time_nanos)
            );
            assert_eq!(read.comments, profile.comments);
        }
    }
}
