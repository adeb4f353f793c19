//! A failure of the command: one line with the error and the next step.

use std::fmt;
use std::process::ExitCode;

use crate::output::say;

/// The exit status of wrong usage.
pub const USAGE: u8 = 2;

/// A failure, which ends the command with one line and an exit status.
#[derive(Debug)]
pub struct Failure {
    what: String,
    next: String,
    status: u8,
}

impl Failure {
    /// A failure from the error and the next step. The exit status is 1.
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure {
            what: what.into(),
            next: next.into(),
            status: 1,
        }
    }

    /// Sets the exit status.
    pub fn status(mut self, status: u8) -> Failure {
        self.status = status;
        self
    }

    /// The error.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The next step.
    pub fn next(&self) -> &str {
        &self.next
    }

    /// Writes the line to stderr, if possible; returns the exit status.
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
