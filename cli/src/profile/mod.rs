//! Heap profiles: `obmalloc profile`, `report` and `diff`.
//!
//! ```text
//!   command    of a process    report    of a file     diff   of two files
//!   options    of all three    process   the profiles of a process, and of its descendants
//!   server     the page on a port of this machine
//!   table  flame  speedscope  folded     the outputs
//!   group      samples by line, type ...
//!   reader  writer   proto  gzip         the file
//!   model      a profile in memory       value   which of a sample's values
//! ```

pub mod command;
pub mod diff;
#[cfg(test)]
mod fixtures;
mod flame;
mod folded;
mod group;
mod gzip;
mod model;
mod options;
mod process;
mod proto;
mod reader;
pub mod report;
mod server;
mod speedscope;
mod table;
mod value;
mod writer;

use group::By;
use model::Profile;
use value::Value;

/// A number: the process, in a profile of several, which this command writes.
const LABEL_PID: &str = "pid";

/// The subject of an output: a profile, or the difference of two.
pub struct Shown<'a> {
    pub title: String,
    /// The profile that is subtracted.
    pub before: Option<&'a Profile>,
    pub after: &'a Profile,
    /// The time between them, if growth by time is shown.
    pub minutes: Option<f64>,
}

impl<'a> Shown<'a> {
    /// One profile.
    pub fn one(title: &str, profile: &'a Profile) -> Shown<'a> {
        Shown {
            title: title.into(),
            before: None,
            after: profile,
            minutes: None,
        }
    }

    /// The process, its host and its library, as far as the title does not name them.
    fn whose(&self) -> String {
        let mut parts = self.after.process();
        parts.retain(|part| !self.title.starts_with(part.as_str()));
        parts.join(", ")
    }
}

/// How it is shown.
pub struct View {
    pub by: By,
    pub value: Value,
    /// The most rows of the table.
    pub rows: Option<usize>,
}
