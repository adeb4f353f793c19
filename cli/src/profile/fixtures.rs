//! Profiles for tests.

use format::profile as names;
use prost::Message;

use super::model::Profile;
use super::proto::{self, Function, Label, Line, Location, Mapping, Sample, ValueType};
use super::value::Value;
use super::{Shown, View, gzip, reader};

/// Builds a profile as the library writes it.
#[derive(Default)]
pub struct Heap {
    profile: proto::Profile,
}

impl Heap {
    pub fn new() -> Heap {
        let mut heap = Heap::default();
        heap.text("");
        for (kind, unit) in names::SAMPLE_TYPES {
            let of = ValueType {
                kind: heap.text(kind),
                unit: heap.text(unit),
            };
            heap.profile.sample_types.push(of);
        }
        heap.profile.period = 524_288;
        heap.profile.time_nanos = 1_700_000_000_000_000_000;
        for line in ["obmalloc=0.1.0", "pid=4711", "python=3.13.5"] {
            let comment = heap.text(line);
            heap.profile.comments.push(comment);
        }
        let file = heap.text("/lib/libc.so.6");
        heap.profile.mappings.push(Mapping {
            id: 1,
            start: 0x7f00_0000_0000,
            limit: 0x7f00_0020_0000,
            file,
            ..Mapping::default()
        });
        heap
    }

    fn text(&mut self, text: &str) -> i64 {
        let strings = &mut self.profile.strings;
        let at = strings.iter().position(|known| known == text.as_bytes());
        let at = at.unwrap_or_else(|| {
            strings.push(text.into());
            strings.len() - 1
        });
        at as i64
    }

    /// A location: `function file line` of Python, or `@offset` of C.
    fn location(&mut self, frame: &str) -> u64 {
        let id = self.profile.locations.len() as u64 + 1;
        let mut location = Location {
            id,
            ..Location::default()
        };
        if let Some(offset) = frame.strip_prefix('@') {
            location.mapping = 1;
            location.address = 0x7f00_0000_0000 + u64::from_str_radix(offset, 16).unwrap();
        } else {
            let words: Vec<&str> = frame.split(' ').collect();
            let function = Function {
                id,
                name: self.text(words[0]),
                system_name: 0,
                file: self.text(words[1]),
                start_line: 0,
            };
            self.profile.functions.push(function);
            let line = words[2].parse().unwrap();
            location.lines = vec![Line { function: id, line }];
        }
        self.profile.locations.push(location);
        id
    }

    /// A sample, with a stack from the innermost frame on.
    pub fn sample(mut self, stack: &[&str], values: [i64; 5], labels: &[(&str, &str)]) -> Heap {
        let locations = stack.iter().map(|frame| self.location(frame)).collect();
        let labels = labels.iter().map(|&(key, value)| {
            let key = self.text(key);
            match value.parse() {
                Ok(number) => Label {
                    key,
                    number,
                    ..Label::default()
                },
                Err(_) => Label {
                    key,
                    text: self.text(value),
                    ..Label::default()
                },
            }
        });
        let labels = labels.collect();
        self.profile.samples.push(Sample {
            locations,
            values: values.into(),
            labels,
        });
        self
    }

    /// The bytes of its file.
    pub fn bytes(&self) -> Vec<u8> {
        gzip::pack(&self.profile.encode_to_vec())
    }

    pub fn read(&self) -> Profile {
        reader::read(&self.bytes()[..]).unwrap()
    }
}

const MAIN: &str = "<module> /srv/app/main.py 3";
const REMEMBER: &str = "remember /srv/app/sessions.py 41";

fn example(sessions: i64, parsed: i64) -> Heap {
    let worker = ("thread", "worker-1");
    let obj = ("domain", "obj");
    let old = ("age", "120000");
    Heap::new()
        .sample(
            &[REMEMBER, MAIN],
            [0, 0, sessions, 64 * sessions, 8 * sessions],
            &[
                ("type", "dict"),
                obj,
                ("bytes", "64"),
                worker,
                ("tid", "7"),
                old,
            ],
        )
        .sample(
            &[REMEMBER, MAIN],
            [0, 0, 10, 1000, 0],
            &[
                ("type", "str"),
                obj,
                ("bytes", "100"),
                worker,
                ("tid", "7"),
                ("age", "5"),
            ],
        )
        .sample(
            &["parse /usr/lib/python3.13/json/decoder.py 350", MAIN],
            [0, 0, parsed, 48 * parsed, 0],
            &[
                ("type", "list"),
                obj,
                ("bytes", "48"),
                ("tid", "4711"),
                ("frozen", "yes"),
            ],
        )
        .sample(
            &[
                "@1234",
                "load /venv/lib/python3.13/site-packages/numpy/core/multi.py 9",
                MAIN,
            ],
            [0, 0, 1, 4096, 0],
            &[("domain", "raw"), ("bytes", "4000")],
        )
        .sample(&[], [500, 90_000, 0, 0, 0], &[])
}

/// A profile. In the later one, [`after`], one line has grown and another has shrunk.
pub fn before() -> Profile {
    example(100, 50).read()
}

pub fn after() -> Profile {
    example(300, 20).read()
}

/// The bytes of a file with the example.
pub fn file(sessions: i64, parsed: i64) -> Vec<u8> {
    example(sessions, parsed).bytes()
}

/// The message of a profile.
pub fn proto(profile: &Profile) -> proto::Profile {
    let bytes = if profile.total() == before().total() {
        file(100, 50)
    } else {
        file(300, 20)
    };
    proto::Profile::decode(&gzip::unpack(&bytes[..], 1 << 20).unwrap()[..]).unwrap()
}

/// Makes each output of a profile.
pub fn use_all_of(profile: &Profile) {
    let empty = Profile::default();
    for before in [None, Some(&empty), Some(profile)] {
        let shown = Shown {
            title: "x".into(),
            before,
            after: profile,
            minutes: None,
        };
        for by in super::group::By::ALL {
            for value in [Value::InuseSpace, Value::AllocObjects] {
                let view = View {
                    by,
                    value,
                    rows: Some(3),
                };
                super::table::text(&shown, &view);
                super::table::json(&shown, &view);
                super::flame::page(&shown, &view);
                super::speedscope::json(&shown, &view);
                super::folded::text(&shown, &view);
            }
        }
    }
}
