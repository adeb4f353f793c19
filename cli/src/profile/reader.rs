//! The reader of a gzipped `profile.proto`.
//!
//! It decodes the fields of a profile one by one, samples last, because small messages take several
//! times their bytes in memory. Each error is one phrase.

use std::collections::HashMap;
use std::io::Read;

use format::profile as names;
use prost::Message;

use super::gzip;
use super::model::{Frame, Labels, Profile, Sample, Text, Values};
use super::proto::{self, field};

/// The most samples, and the most entries of another kind: locations, functions, texts, frames.
const SAMPLES: usize = 4 << 20;
const MOST: usize = 1 << 18;
/// The most frames of a stack.
const DEEPEST: usize = 1 << 16;
/// The most frames of all stacks that differ, and of all samples.
const FRAMES: usize = 64 << 20;
const SAMPLED_FRAMES: usize = 1 << 30;
/// The most characters of a text; later ones are dropped.
const LONGEST: usize = 512;

/// Reads a profile. At most [`gzip::LIMIT`] bytes are decompressed.
pub fn read(file: impl Read) -> Result<Profile, String> {
    of_bytes(&gzip::unpack(file, gzip::LIMIT)?)
}

/// The content of a field.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order. Ends with an error at the first byte that is wrong.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Content<'a>)> {
        let key = self.number()?;
        let content = match key & 7 {
            0 => Content::Number(self.number()?),
            1 => Content::Bytes(self.take(8)?),
            2 => {
                let len = self.number()?;
                Content::Bytes(self.take(len)?)
            }
            5 => Content::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Content<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| cut_off("a field"));
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn cut_off(what: &str) -> String {
    format!("it is no profile, or it is damaged: {what} is not whole")
}

fn message<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M, String> {
    M::decode(bytes).map_err(|_| cut_off(what))
}

/// A text for a terminal: without control characters.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}

/// What samples refer to.
#[derive(Default)]
struct Tables {
    profile: Profile,
    /// The number in the profile of each text of the file.
    texts: Vec<Text>,
    /// For each value of a sample, its place in [`Values`].
    columns: Vec<Option<usize>>,
    /// The frames of a location, the innermost first.
    locations: HashMap<u64, Box<[u32]>>,
}

impl Tables {
    /// The number in the profile of a text of the file.
    fn text(&self, index: i64) -> Result<Text, String> {
        let text = usize::try_from(index)
            .ok()
            .and_then(|index| self.texts.get(index));
        let damaged = || format!("it is damaged: it has no text {index}");
        text.copied().ok_or_else(damaged)
    }

    fn str(&self, index: i64) -> Result<&str, String> {
        Ok(self.profile.text_of(self.text(index)?))
    }

    fn sample(&self, of: &proto::Sample) -> Result<(Box<[u32]>, Values, Labels), String> {
        if of.values.len() != self.columns.len() {
            let (has, all) = (of.values.len(), self.columns.len());
            return Err(format!("it is damaged: a sample has {has} of {all} values"));
        }
        let mut values = Values::default();
        for (&value, column) in of.values.iter().zip(&self.columns) {
            if let Some(place) = column.and_then(|column| values.get_mut(column)) {
                *place = value;
            }
        }
        let mut stack = Vec::new();
        for location in &of.locations {
            let frames = self.locations.get(location);
            let damaged = || format!("it is damaged: it has no location {location}");
            stack.extend_from_slice(frames.ok_or_else(damaged)?);
            if stack.len() > DEEPEST {
                return Err(format!(
                    "it is damaged: a stack has more than {DEEPEST} frames"
                ));
            }
        }
        let mut labels = Labels::default();
        for label in &of.labels {
            let is_yes = || Ok::<_, String>(self.str(label.text)? == "yes");
            match self.str(label.key)? {
                names::LABEL_TYPE => labels.kind = Some(self.text(label.text)?),
                names::LABEL_DOMAIN => labels.domain = Some(self.text(label.text)?),
                names::LABEL_THREAD => labels.thread = Some(self.text(label.text)?),
                names::LABEL_BYTES => labels.bytes = Some(label.number),
                names::LABEL_TID => labels.tid = Some(label.number),
                names::LABEL_AGE => labels.age = Some(label.number),
                super::LABEL_PID => labels.pid = Some(label.number),
                names::LABEL_INHERITED => labels.inherited = is_yes()?,
                names::LABEL_FROZEN => labels.frozen = is_yes()?,
                _ => {}
            }
        }
        Ok((stack.into(), values, labels))
    }
}

fn of_bytes(bytes: &[u8]) -> Result<Profile, String> {
    let mut tables = Tables::default();
    tables.profile.text("");
    let (mut functions, mut mappings) = (HashMap::new(), HashMap::new());
    let (mut types, mut locations, mut comments) = (Vec::new(), Vec::new(), Vec::new());
    let mut samples = 0;
    for each in Fields(bytes) {
        match each? {
            (field::SAMPLE_TYPE, Content::Bytes(part)) if types.len() < 64 => {
                types.push(message::<proto::ValueType>(part, "a type of values")?);
            }
            (field::SAMPLE, Content::Bytes(_)) => samples += 1,
            (field::MAPPING, Content::Bytes(part)) => {
                let mapping: proto::Mapping = message(part, "a mapping")?;
                mappings.insert(mapping.id, mapping);
            }
            // Their functions may come later.
            (field::LOCATION, Content::Bytes(part)) => locations.push(part),
            (field::FUNCTION, Content::Bytes(part)) => {
                let function: proto::Function = message(part, "a function")?;
                functions.insert(function.id, function);
            }
            (field::STRING, Content::Bytes(part)) => {
                let number = tables.profile.text(&printable(part));
                tables.texts.push(number);
            }
            (field::TIME, Content::Number(time)) => {
                tables.profile.time_nanos = time.cast_signed();
            }
            (field::PERIOD, Content::Number(period)) => {
                tables.profile.period = period.cast_signed();
            }
            (field::COMMENT, Content::Number(comment)) => comments.push(comment),
            (field::COMMENT, Content::Bytes(part)) => {
                let mut packed = Fields(part);
                while !packed.0.is_empty() {
                    comments.push(packed.number().ok_or_else(|| cut_off("a comment"))?);
                }
            }
            _ => {}
        }
        let counts = [
            (samples, SAMPLES, "samples"),
            (mappings.len(), MOST, "mappings"),
            (locations.len(), MOST, "locations"),
            (functions.len(), MOST, "functions"),
            (tables.texts.len(), MOST, "texts"),
            (comments.len(), MOST, "comments"),
        ];
        if let Some((_, most, what)) = counts.into_iter().find(|&(count, most, _)| count > most) {
            return Err(format!("it has more than {most} {what}"));
        }
    }
    if types.is_empty() {
        return Err("it is no profile: it has no types of values".into());
    }
    for kind in types {
        let column = names::SAMPLE_TYPES.iter().position(|&(name, unit)| {
            (Ok(name), Ok(unit)) == (tables.str(kind.kind), tables.str(kind.unit))
        });
        if let Some(column) = column {
            tables.profile.has[column] = true;
        }
        tables.columns.push(column);
    }
    for part in locations {
        let location: proto::Location = message(part, "a location")?;
        let frames = frames(&mut tables, &location, &functions, &mappings)?;
        tables.locations.insert(location.id, frames);
        if tables.profile.frames.len() > MOST {
            return Err(format!("it has more than {MOST} frames"));
        }
    }
    for comment in comments {
        let line = tables.str(comment.cast_signed())?.to_string();
        tables.profile.comments.push(line);
    }
    let (mut sampled, mut kept) = (0, 0);
    for each in Fields(bytes) {
        if let (field::SAMPLE, Content::Bytes(part)) = each? {
            let (stack, values, labels) = tables.sample(&message(part, "a sample")?)?;
            let len = stack.len();
            let (stack, is_new) = tables.profile.stacks.insert_full(stack);
            sampled += len;
            kept += if is_new { len } else { 0 };
            if kept > FRAMES || sampled > SAMPLED_FRAMES {
                return Err("its stacks have too many frames".into());
            }
            tables.profile.samples.push(Sample {
                stack: stack as u32,
                values,
                labels,
            });
        }
    }
    Ok(tables.profile)
}

/// The frames of a location: a Python frame has no address.
fn frames(
    tables: &mut Tables,
    location: &proto::Location,
    functions: &HashMap<u64, proto::Function>,
    mappings: &HashMap<u64, proto::Mapping>,
) -> Result<Box<[u32]>, String> {
    let is_native = location.address != 0;
    if location.lines.len() > DEEPEST {
        return Err(format!(
            "it is damaged: a location has more than {DEEPEST} frames"
        ));
    }
    let mut found = Vec::with_capacity(location.lines.len());
    for line in &location.lines {
        let function = functions.get(&line.function);
        let damaged = || format!("it is damaged: it has no function {}", line.function);
        let function = function.ok_or_else(damaged)?;
        found.push(Frame {
            function: tables.text(function.name)?,
            file: tables.text(function.file)?,
            line: line.line,
            is_native,
        });
    }
    if found.is_empty() {
        // A frame of C without a symbol: its place in the object.
        let mapping = mappings.get(&location.mapping).copied().unwrap_or_default();
        let path = match mapping.file {
            0 => String::new(),
            file => tables.str(file)?.to_string(),
        };
        let object = path.rsplit('/').next().unwrap_or_default();
        let base = mapping.start.wrapping_sub(mapping.offset);
        let place = location.address.wrapping_sub(base);
        let function = tables.profile.text(&format!("{object}+{place:#x}"));
        let file = tables.profile.text("");
        found.push(Frame {
            function,
            file,
            line: 0,
            is_native: true,
        });
    }
    let frames = &mut tables.profile.frames;
    Ok(found
        .into_iter()
        .map(|frame| frames.insert_full(frame).0 as u32)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::random;
    use crate::profile::{fixtures, model, value::Value, writer};

    fn told(profile: &proto::Profile) -> String {
        let said = of_bytes(&profile.encode_to_vec()).unwrap_err();
        assert!(said.starts_with("it ") && !said.contains('\n'), "{said}");
        said
    }

    #[test]
    fn what_was_written_is_read() {
        let profile = fixtures::before();
        assert_eq!(profile.has, [true; 5]);
        assert_eq!(profile.samples.len(), 5);
        let sample = &profile.samples[0];
        assert_eq!(sample.values, [0, 0, 100, 6400, 800]);
        let line = model::describe(&profile, profile.line(sample));
        assert_eq!(line, "/srv/app/sessions.py:41 remember");
        assert_eq!(profile.text_of(sample.labels.kind.unwrap()), "dict");
        assert_eq!(
            (sample.labels.bytes, sample.labels.age),
            (Some(64), Some(120_000))
        );
        assert!(profile.samples[2].labels.frozen && !sample.labels.frozen);
        assert_eq!(
            profile.process(),
            ["process 4711", "CPython 3.13.5", "obmalloc 0.1.0"]
        );
        assert_eq!(profile.period, 524_288);
        let native = profile.stack(&profile.samples[3]).next().unwrap();
        assert!(native.is_native);
        assert_eq!(profile.text_of(native.function), "libc.so.6+0x1234");
        assert_eq!(
            model::describe(&profile, profile.line(&profile.samples[4])),
            "(no Python frames)"
        );
    }

    #[test]
    fn a_profile_of_another_program_is_read() {
        // Go's: four values, in another order, and a value of its own.
        let texts = [
            "",
            "inuse_space",
            "bytes",
            "inuse_objects",
            "count",
            "other",
            "main.main",
            "m.go",
        ];
        let kind = |kind, unit| proto::ValueType { kind, unit };
        let profile = proto::Profile {
            sample_types: vec![kind(1, 2), kind(5, 4), kind(3, 4)],
            strings: texts.map(|text| text.as_bytes().to_vec()).into(),
            functions: vec![proto::Function {
                id: 9,
                name: 6,
                file: 7,
                ..proto::Function::default()
            }],
            locations: vec![proto::Location {
                id: 7,
                address: 4096,
                lines: vec![proto::Line {
                    function: 9,
                    line: 3,
                }],
                ..proto::Location::default()
            }],
            samples: vec![proto::Sample {
                locations: vec![7],
                values: vec![64, 5, 2],
                labels: vec![],
            }],
            ..proto::Profile::default()
        };
        let read = of_bytes(&profile.encode_to_vec()).unwrap();
        assert_eq!(read.samples[0].values, [0, 0, 2, 64, 0]);
        assert!(read.has[Value::InuseSpace.at()] && !read.has[Value::PinnedSpace.at()]);
        assert_eq!(
            model::describe(&read, read.line(&read.samples[0])),
            "m.go:3 main.main"
        );
    }

    #[test]
    fn damaged_profiles_are_told() {
        let whole = fixtures::proto(&fixtures::before());
        let damaged = |damage: fn(&mut proto::Profile)| {
            let mut profile = whole.clone();
            damage(&mut profile);
            told(&profile)
        };
        assert!(damaged(|p| p.samples[0].locations[0] = 99).ends_with("no location 99"));
        assert!(damaged(|p| p.locations[0].lines[0].function = 98).ends_with("no function 98"));
        assert!(damaged(|p| p.functions[0].name = -1).ends_with("no text -1"));
        assert!(damaged(|p| p.samples[0].labels[0].key = 1 << 40).contains("no text"));
        assert!(damaged(|p| p.samples[0].values.truncate(2)).ends_with("has 2 of 5 values"));
        assert!(damaged(|p| p.sample_types.clear()).starts_with("it is no profile"));
        assert!(damaged(|p| p.comments = vec![1 << 50]).contains("no text"));
        let deep = |p: &mut proto::Profile| {
            p.samples[0].locations = vec![p.locations[0].id; DEEPEST + 1];
        };
        assert!(damaged(deep).contains("more than 65536 frames"));
        assert!(of_bytes(b"").unwrap_err().starts_with("it is no profile"));
        assert!(of_bytes(b"\xff\xff\xff").unwrap_err().contains("not whole"));
    }

    #[test]
    fn entries_with_the_same_id_and_texts_of_any_bytes_are_read() {
        let mut profile = fixtures::proto(&fixtures::before());
        let twice = profile.locations[0].clone();
        profile.locations.push(twice);
        let at = profile.functions[0].name as usize;
        profile.strings[at] = b"caf\xe9\x1b[31m\n<b>".to_vec();
        let read = of_bytes(&profile.encode_to_vec()).unwrap();
        assert!(read.texts.contains("caf\u{fffd}[31m<b>"));
        profile.strings[at] = vec![b'x'; 100_000];
        let read = of_bytes(&profile.encode_to_vec()).unwrap();
        assert_eq!(read.texts.iter().map(String::len).max(), Some(LONGEST));
    }

    #[test]
    fn mutated_profiles_never_end_in_a_panic() {
        let whole = fixtures::proto(&fixtures::after()).encode_to_vec();
        let mut next = random(11);
        let (mut refused, mut taken) = (0, 0);
        for _ in 0..4_000 {
            let mut bytes = whole.clone();
            for _ in 0..=next() % 4 {
                let at = next() as usize % bytes.len();
                match next() % 4 {
                    0 => bytes[at] ^= 1 << (next() % 8),
                    1 => bytes[at] = 0xff,
                    2 => bytes[at] = next() as u8,
                    _ => bytes.truncate(at.max(1)),
                }
            }
            match of_bytes(&bytes) {
                Err(said) => {
                    assert!(said.starts_with("it ") && !said.contains('\n'));
                    refused += 1;
                }
                Ok(read) => {
                    fixtures::use_all_of(&read);
                    if read.has.contains(&true) {
                        let again = read_again(&read);
                        assert_eq!(again.samples.len(), read.samples.len());
                    }
                    taken += 1;
                }
            }
        }
        assert!(refused > 500 && taken > 500, "{refused} {taken}");
    }

    fn read_again(profile: &Profile) -> Profile {
        read(&writer::write(profile)[..]).unwrap()
    }

    #[test]
    fn a_million_samples_are_read() {
        let mut profile = fixtures::before();
        let sample = profile.samples[0];
        profile.samples = vec![sample; 1_000_000];
        let read = read_again(&profile);
        assert_eq!(read.samples.len(), 1_000_000);
        assert_eq!(read.total()[3], 6_400_000_000);
    }
}
