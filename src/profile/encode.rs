//! A profile in pprof's format: `profile.proto`, gzipped. The names in it are those of
//! `format::profile`.
//!
//! ```text
//!    strings      fixed names | the stacks' strings | names of C functions | types
//!    functions    1: without Python frames     n + 1: code n
//!    locations    1: without Python frames     n + 1: node n
//!    samples      the sums of each node with allocations, then each live sample
//! ```

use core::ffi::c_int;
use core::fmt::Write;
use core::ptr::NonNull;

use format::profile::{
    COMMENT_CUT, COMMENT_DOUBLED, COMMENT_HOST, COMMENT_NO_FRAMES, COMMENT_PID, COMMENT_VERSION,
    DEFAULT_SAMPLE_TYPE, LABEL_AGE, LABEL_BYTES, LABEL_DOMAIN, LABEL_FROZEN, LABEL_INHERITED,
    LABEL_THREAD, LABEL_TID, LABEL_TYPE, NO_PYTHON, PERIOD_TYPE, SAMPLE_TYPES,
};

use super::gzip::{self, Put};
use super::live::{self, Domain, Live, Record, Twin};
use super::proto::Proto;
use super::sampler;
use super::stacks::ROOT;
use crate::base::layout::MIN_PAGE;
use crate::guard::native;
use crate::inspect::frozen;
use crate::inspect::objects::Types;
use crate::inspect::readable;
use crate::os::text::{self, Buffer};
use crate::os::{clock, memory};

/// Fields of the messages.
mod profile {
    pub(super) const SAMPLE_TYPE: u64 = 1;
    pub(super) const SAMPLE: u64 = 2;
    pub(super) const LOCATION: u64 = 4;
    pub(super) const FUNCTION: u64 = 5;
    pub(super) const STRING: u64 = 6;
    pub(super) const TIME_NANOS: u64 = 9;
    pub(super) const DURATION_NANOS: u64 = 10;
    pub(super) const PERIOD_TYPE: u64 = 11;
    pub(super) const PERIOD: u64 = 12;
    pub(super) const COMMENT: u64 = 13;
    pub(super) const DEFAULT_SAMPLE_TYPE: u64 = 14;
}
mod value_type {
    pub(super) const TYPE: u64 = 1;
    pub(super) const UNIT: u64 = 2;
}
mod sample {
    pub(super) const LOCATION_IDS: u64 = 1;
    pub(super) const VALUES: u64 = 2;
    pub(super) const LABEL: u64 = 3;
}
mod label {
    pub(super) const KEY: u64 = 1;
    pub(super) const STRING: u64 = 2;
    pub(super) const NUMBER: u64 = 3;
    pub(super) const UNIT: u64 = 4;
}
mod location {
    pub(super) const ID: u64 = 1;
    pub(super) const ADDRESS: u64 = 3;
    pub(super) const LINE: u64 = 4;
}
mod line {
    pub(super) const FUNCTION: u64 = 1;
    pub(super) const LINE: u64 = 2;
}
mod function {
    pub(super) const ID: u64 = 1;
    pub(super) const NAME: u64 = 2;
    pub(super) const SYSTEM_NAME: u64 = 3;
    pub(super) const FILE: u64 = 4;
}

/// Strings that every profile has, by number.
const FIXED: [&str; 23] = [
    "",
    SAMPLE_TYPES[0].0,
    SAMPLE_TYPES[1].0,
    SAMPLE_TYPES[2].0,
    SAMPLE_TYPES[3].0,
    SAMPLE_TYPES[4].0,
    "count",
    "bytes",
    PERIOD_TYPE.0,
    LABEL_TYPE,
    LABEL_DOMAIN,
    LABEL_THREAD,
    LABEL_TID,
    LABEL_AGE,
    "milliseconds",
    LABEL_INHERITED,
    "yes",
    "raw",
    "mem",
    "obj",
    NO_PYTHON,
    LABEL_BYTES,
    LABEL_FROZEN,
];

/// The number of a fixed string.
const fn fixed(text: &str) -> u64 {
    let mut number = 0;
    while number < FIXED.len() {
        if same(FIXED[number], text) {
            return number as u64;
        }
        number += 1;
    }
    panic!("no fixed string")
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut i = 0;
    while i < one.len() && i < other.len() && one[i] == other[i] {
        i += 1;
    }
    i == one.len() && i == other.len()
}

/// Bytes of a type's name.
const NAME_MAX: usize = 120;
/// Bytes of a sample, at most: 64 frames of three bytes each, values and labels; and its share of the
/// types' names.
const SAMPLE_BYTES: usize = 400;
/// Samples that may be added before a profile of now is written.
const MORE: usize = 1000;

/// The parts of a profile that the samples do not have.
pub(crate) struct Context<'a> {
    /// The host's version.
    pub host: Option<&'a str>,
    /// Bytes of the page of a twin that its block pins: free bytes of a nearly empty page, divided by
    /// its blocks. Called with the samples' lock held.
    pub pinned: &'a dyn Fn(Twin) -> u64,
}

/// A profile in memory.
pub(crate) struct Encoded {
    memory: NonNull<u8>,
    room: usize,
    len: usize,
}

impl Encoded {
    /// Memory for a profile of now. `None` if the profiler never ran, or without memory.
    pub(crate) fn reserve() -> Option<Encoded> {
        Encoded::with_room(|live| live.counted() + MORE)
    }

    /// Memory for the longest profile, which is resident afterwards.
    pub(crate) fn reserve_all() -> Option<Encoded> {
        let encoded = Encoded::with_room(|live| live.counted_max)?;
        for at in (0..encoded.room).step_by(MIN_PAGE) {
            // SAFETY: inside the mapping, which this value owns.
            unsafe { encoded.memory.add(at).write_volatile(0) };
        }
        Some(encoded)
    }

    fn with_room(samples: impl FnOnce(&Live) -> usize) -> Option<Encoded> {
        let room = live::with(|live| {
            (live.bytes > 0).then(|| live.stacks_bytes() + SAMPLE_BYTES * samples(live))
        })?;
        let room = room.next_multiple_of(memory::page_size());
        let memory = memory::map(room)?;
        Some(Encoded {
            memory,
            room,
            len: 0,
        })
    }

    /// Encodes the samples of now. `Err` with an error number if there is no room.
    pub(crate) fn fill(&mut self, context: &Context<'_>) -> Result<(), c_int> {
        // SAFETY: mapped zeroed with this size, and owned by this value.
        let bytes = unsafe { core::slice::from_raw_parts_mut(self.memory.as_ptr(), self.room) };
        let mut types = Types::new();
        let frozen = frozen_samples();
        self.len = live::with(|live| encode(live, bytes, types.as_mut(), frozen.as_ref(), context))
            .ok_or(libc::ENOSPC)?;
        Ok(())
    }

    /// Bytes of the file.
    pub(crate) fn file_len(&self) -> usize {
        gzip::len_for(self.len)
    }

    /// Passes the file to `put` in pieces with their offsets. Returns its length.
    pub(crate) fn write(&self, put: &mut Put<'_>) -> Result<u64, c_int> {
        // SAFETY: `fill` has written `len` bytes of the mapping.
        let bytes = unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), self.len) };
        gzip::write(bytes, put)
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        // SAFETY: mapped by `reserve` with this size; no reference into it is left.
        unsafe { memory::unmap(self.memory, self.room) };
    }
}

/// The samples of now and which of them have frozen objects; `None` if no object is frozen. The walk over
/// the frozen objects, perhaps millions, does not hold the samples' lock.
fn frozen_samples() -> Option<frozen::Blocks> {
    let list = frozen::List::find()?;
    let mut blocks = frozen::Blocks::with_room(live::with(|live| live.counted()) + MORE)?;
    live::with(|live| {
        let samples = live.samples();
        let objects = samples.filter(|record| record.domain() != Domain::Raw);
        objects.for_each(|record| blocks.add(record.address));
    });
    blocks.look(&list);
    Some(blocks)
}

fn encode(
    live: &Live,
    bytes: &mut [u8],
    mut types: Option<&mut Types>,
    frozen: Option<&frozen::Blocks>,
    context: &Context<'_>,
) -> Option<usize> {
    readable::begin();
    let (now, mut to) = (clock::now(), Proto::new(bytes));
    for (name, unit) in SAMPLE_TYPES {
        to.message(profile::SAMPLE_TYPE, |to| value_type(to, name, unit));
    }
    to.message(profile::PERIOD_TYPE, |to| {
        value_type(to, PERIOD_TYPE.0, PERIOD_TYPE.1);
    });
    to.number(profile::PERIOD, sampler::last_interval() as u64);
    to.number(profile::DEFAULT_SAMPLE_TYPE, fixed(DEFAULT_SAMPLE_TYPE));
    to.number(profile::TIME_NANOS, clock::real_time() * 1_000_000);
    let duration = now.saturating_sub(live.started);
    to.number(profile::DURATION_NANOS, duration * 1_000_000);
    let strings = write_strings(live, &mut to);
    let strings = write_functions(live, &mut to, strings);
    let strings = write_comments(live, &mut to, strings, context.host);
    write_locations(live, &mut to);
    write_allocations(live, &mut to);
    for record in live.samples() {
        let about = About {
            now,
            generation: live.generation,
            kind: types.as_mut().and_then(|types| type_of(types, record)),
            first_type: strings,
            // A younger block may be where another was when the list was walked.
            is_frozen: frozen.is_some_and(|blocks| {
                record.time <= blocks.time && blocks.is_frozen(record.address)
            }),
            pinned: record.twin().map_or(0, context.pinned),
        };
        write_sample(live, &mut to, record, &about);
    }
    let mut name = [0; NAME_MAX];
    for &kind in types.iter().flat_map(|types| types.addresses()) {
        let len = Types::name(kind, &mut name);
        to.text(profile::STRING, utf8(&name[..len]));
    }
    to.finish()
}

/// The valid beginning of a text.
fn utf8(text: &[u8]) -> &[u8] {
    text::printable(text).as_bytes()
}

fn value_type(to: &mut Proto<'_>, name: &str, unit: &str) {
    to.number(value_type::TYPE, fixed(name));
    to.number(value_type::UNIT, fixed(unit));
}

/// Writes the fixed strings and those of the stacks. Returns the number of the next string.
fn write_strings(live: &Live, to: &mut Proto<'_>) -> u64 {
    for text in FIXED {
        to.text(profile::STRING, text.as_bytes());
    }
    for number in live.stacks.strings() {
        to.text(profile::STRING, live.stacks.string(number));
    }
    u64::from(live.stacks.strings().end) - 1 + FIXED.len() as u64
}

/// The number of a string of the stacks; 0 for none.
fn string(number: u32) -> u64 {
    match number {
        0 => 0,
        number => u64::from(number) - 1 + FIXED.len() as u64,
    }
}

/// Writes the functions, and the names of those of C, from string `strings` on. Returns the number of the
/// next string.
fn write_functions(live: &Live, to: &mut Proto<'_>, mut strings: u64) -> u64 {
    to.message(profile::FUNCTION, |to| {
        to.number(function::ID, 1);
        to.number(function::NAME, fixed(NO_PYTHON));
        to.number(function::SYSTEM_NAME, fixed(NO_PYTHON));
    });
    for number in live.stacks.codes() {
        let code = live.stacks.code(number);
        let (mut name, mut file) = (string(code.name), string(code.file));
        if let Some(address) = live.stacks.address(number).filter(|_| code.name == 0) {
            write_native(to, address as usize);
            (name, file, strings) = (strings, strings + 1, strings + 2);
        }
        to.message(profile::FUNCTION, |to| {
            to.number(function::ID, u64::from(number) + 1);
            to.number(function::NAME, name);
            to.number(function::SYSTEM_NAME, name);
            to.number(function::FILE, file);
        });
    }
    strings
}

/// Writes two strings: the name of the function of C at an address, or if it has none its object and the
/// offset there; and the path of the object.
fn write_native(to: &mut Proto<'_>, address: usize) {
    let mut bytes = [0; 100];
    let mut text = Buffer::new(&mut bytes);
    let mut object = "";
    let mut name = "";
    if let Some(origin) = native::Origin::of(address) {
        (object, name) = (origin.object, origin.function);
        let file = object.rsplit('/').next().unwrap_or(object);
        let _ = write!(text, "{file}+{:#x}", origin.offset);
    } else {
        let _ = write!(text, "{address:#x}");
    }
    let len = text.end().min(bytes.len() - 1);
    to.text(
        profile::STRING,
        match name {
            "" => utf8(&bytes[..len]),
            name => name.as_bytes(),
        },
    );
    to.text(profile::STRING, object.as_bytes());
}

/// Writes the comments, from string `strings` on. Returns the number of the next string.
fn write_comments(live: &Live, to: &mut Proto<'_>, strings: u64, host: Option<&str>) -> u64 {
    let mut next = strings;
    let mut comment = |key: &str, value: &dyn core::fmt::Display| {
        let mut bytes = [0; 100];
        let mut text = Buffer::new(&mut bytes);
        let _ = write!(text, "{key}={value}");
        let len = text.end().min(bytes.len() - 1);
        to.text(profile::STRING, &bytes[..len]);
        to.number(profile::COMMENT, next);
        next += 1;
    };
    comment(COMMENT_VERSION, &env!("CARGO_PKG_VERSION"));
    comment(COMMENT_PID, &text::pid());
    if let Some(host) = host {
        comment(COMMENT_HOST, &host);
    }
    comment(COMMENT_NO_FRAMES, &live.without_frames);
    comment(COMMENT_DOUBLED, &live.doubled);
    comment(COMMENT_CUT, &live.stacks.cut);
    next
}

fn write_locations(live: &Live, to: &mut Proto<'_>) {
    to.message(profile::LOCATION, |to| {
        to.number(location::ID, 1);
        to.message(location::LINE, |to| to.number(line::FUNCTION, 1));
    });
    for number in live.stacks.nodes() {
        let node = live.stacks.node(number);
        if node.code == 0 {
            continue; // it was removed
        }
        let address = live.stacks.address(node.code).unwrap_or(0);
        to.message(profile::LOCATION, |to| {
            to.number(location::ID, u64::from(number) + 1);
            to.number(location::ADDRESS, address);
            to.message(location::LINE, |to| {
                to.number(line::FUNCTION, u64::from(node.code) + 1);
                to.number(line::LINE, u64::from(node.line.max(0).cast_unsigned()));
            });
        });
    }
}

/// Writes the sums of the nodes that have allocations.
fn write_allocations(live: &Live, to: &mut Proto<'_>) {
    let root = (ROOT, live.stacks.root_objects, live.stacks.root_bytes);
    let nodes = live.stacks.nodes().map(|number| {
        let node = live.stacks.node(number);
        (number, node.objects, node.bytes)
    });
    for (number, objects, bytes) in core::iter::once(root).chain(nodes) {
        if objects > 0.0 {
            to.message(profile::SAMPLE, |to| {
                write_stack(live, to, number);
                to.packed(sample::VALUES, [rounded(objects), rounded(bytes), 0, 0, 0]);
            });
        }
    }
}

fn rounded(value: f64) -> u64 {
    (value + 0.5) as u64
}

/// Writes the locations of a stack, innermost first.
fn write_stack(live: &Live, to: &mut Proto<'_>, innermost: u32) {
    let parent = |&number: &u32| match live.stacks.node(number).parent {
        ROOT => None,
        parent => Some(parent),
    };
    let first = (innermost != ROOT).then_some(innermost);
    let numbers = core::iter::successors(first, parent).map(|number| u64::from(number) + 1);
    let empty = (innermost == ROOT).then_some(1);
    to.packed(sample::LOCATION_IDS, numbers.chain(empty));
}

/// The parts of a sample's message that its record does not have.
struct About {
    /// Milliseconds of the clock, and the number of forks so far.
    now: u64,
    generation: u32,
    /// The number of its object's type.
    kind: Option<u32>,
    /// The number of the string of type 0.
    first_type: u64,
    is_frozen: bool,
    pinned: u64,
}

fn write_sample(live: &Live, to: &mut Proto<'_>, record: &Record, about: &About) {
    let weight = 1.0 / sampler::probability_now(record.size);
    let values = [
        0,
        0,
        rounded(weight),
        rounded(weight * record.size as f64),
        rounded(weight * about.pinned as f64),
    ];
    to.message(profile::SAMPLE, |to| {
        write_stack(live, to, record.node);
        to.packed(sample::VALUES, values);
        let mut text = |key, string| {
            to.message(sample::LABEL, |to| {
                to.number(label::KEY, fixed(key));
                to.number(label::STRING, string);
            });
        };
        if let Some(kind) = about.kind {
            text(LABEL_TYPE, about.first_type + u64::from(kind));
        }
        if let Some(domain) = record.domain().name() {
            text(LABEL_DOMAIN, fixed_domain(domain));
        }
        text(LABEL_THREAD, string(record.thread));
        if record.generation != about.generation {
            text(LABEL_INHERITED, fixed("yes"));
        }
        if about.is_frozen {
            text(LABEL_FROZEN, fixed("yes"));
        }
        let mut number = |key, value, unit| {
            to.message(sample::LABEL, |to| {
                to.number(label::KEY, fixed(key));
                to.number(label::NUMBER, value);
                to.number(label::UNIT, unit);
            });
        };
        number(LABEL_BYTES, record.size as u64, fixed("bytes"));
        number(LABEL_TID, u64::from(record.tid.cast_unsigned()), 0);
        let age = about.now.saturating_sub(record.time);
        number(LABEL_AGE, age, fixed("milliseconds"));
    });
}

fn fixed_domain(name: &str) -> u64 {
    match name {
        "raw" => fixed("raw"),
        "mem" => fixed("mem"),
        _ => fixed("obj"),
    }
}

/// The number of the type of the object in a sample's block.
fn type_of(types: &mut Types, record: &Record) -> Option<u32> {
    if record.domain() == Domain::Raw || !readable::can_read(record.address, record.size.min(64)) {
        return None;
    }
    // SAFETY: PROFILE-1: the block is live, and its free waits for the samples' lock, which is held; or
    // it was freed by another domain's functions, and was readable just now.
    let object = unsafe { types.object(record.address, record.size) }?;
    Some(object.number)
}
