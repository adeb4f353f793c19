//! What the command could not do, in one line that says what to do next.

use std::fmt;
use std::process::ExitCode;

use crate::output::say;

/// The command was used wrongly.
pub const USAGE: u8 = 2;

/// What could not be done. Ends the command with one line and a status.
#[derive(Debug)]
pub struct Failure {
    what: String,
    next: String,
    status: u8,
}

impl Failure {
    /// What went wrong, and what to do next. The exit status is 1.
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure {
            what: what.into(),
            next: next.into(),
            status: 1,
        }
    }

    /// With another exit status.
    pub fn status(mut self, status: u8) -> Failure {
        self.status = status;
        self
    }

    /// What went wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do next.
    pub fn next(&self) -> &str {
        &self.next
    }

    /// Says it on stderr; the exit status, also where nobody reads that.
    pub fn report(self) -> ExitCode {
        say(&self);
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "obmalloc: {}; {}", self.what, self.next)
    }
}
