//! The statistics in the form of the stats page and of heap snapshots.

use super::host;
use crate::base::size_class::{LAST, SizeClass};
use crate::os::process::LibcMemory;
use crate::os::{clock, memory, text};
use crate::stats::HeapStats;
use format::counters::Class;
use format::layout::{CLASSES, Statistics};

const _: () = assert!(CLASSES == LAST, "an entry for each class");

/// Writes the statistics of now to `to`, which stays as it is if there is no memory for a
/// snapshot.
#[cold]
#[inline(never)]
pub(crate) fn encode(to: &mut Statistics, libc: &dyn Fn() -> Option<LibcMemory>) {
    let Some(now) = HeapStats::now() else {
        return;
    };
    for (entry, class) in to.classes.iter_mut().zip(SizeClass::all()) {
        *entry = Class {
            size: class.size() as u64,
            ..Class::default()
        };
    }
    for class in now.classes() {
        to.classes[class.class.index() - 1] = class.counters();
    }
    to.set_counters(&now.counters(libc()));
    to.pid = text::pid().cast_unsigned();
    to.os_page_bytes = memory::page_size() as u32;
    to.version = name(env!("CARGO_PKG_VERSION"));
    to.host = name(host().unwrap_or_default());
    to.made_ms = clock::now();
}

/// The first N - 1 bytes of a text, ended by NUL.
fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes[..N - 1].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}
