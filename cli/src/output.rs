//! Text for stdout, and lines for stderr.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;

use crate::failure::Failure;

/// Writes it. A closed pipe (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// [`print`] for a file.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
            format!("cannot write to stdout: {error}"),
            "look where it leads to",
        )),
        _ => Ok(()),
    }
}

/// Milliseconds that a line waits for room in a full pipe.
const PATIENCE: i32 = 1000;

/// Writes a line to stderr, if possible: the command continues in any case. No signal ends it,
/// even if stderr is a pipe without a reader or a file at its limit, and none is left ignored
/// for a program that the command executes.
pub fn say(line: &dyn Display) {
    let text = format!("{line}\n");
    let signals = [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGTTOU];
    let [mut quiet, mut before, mut pending] = [MaybeUninit::<libc::sigset_t>::zeroed(); 3];
    let none = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut stderr = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: `quiet` is initialised before its use, `before` and `pending` are written by the
    // calls; the text has `text.len()` bytes.
    unsafe {
        libc::sigpending(pending.as_mut_ptr());
        libc::sigemptyset(quiet.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(quiet.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, quiet.as_ptr(), before.as_mut_ptr());
        if libc::poll(&raw mut stderr, 1, PATIENCE) > 0 {
            libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        }
        for signal in signals {
            if libc::sigismember(pending.as_ptr(), signal) == 1 {
                libc::sigdelset(quiet.as_mut_ptr(), signal);
            }
        }
        // Signals that the write has raised are consumed.
        while libc::sigtimedwait(quiet.as_ptr(), ptr::null_mut(), &raw const none) > 0 {}
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
}

/// A table: texts are aligned to the left of their column, numbers to the right.
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The columns of texts; the others are numbers.
    texts: Range<usize>,
}

impl Table {
    /// A table without rows; its first columns are texts.
    pub fn new(texts: usize, head: &[&str]) -> Table {
        Table {
            head: head.iter().map(|&word| word.into()).collect(),
            rows: Vec::new(),
            texts: 0..texts,
        }
    }

    /// A table without rows; its first columns are numbers, the others texts.
    pub fn with_numbers_first(numbers: usize, head: &[&str]) -> Table {
        Table {
            texts: numbers..head.len(),
            ..Table::new(0, head)
        }
    }

    /// Appends a row.
    pub fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Its lines, the head first, without newlines.
    pub fn lines(&self) -> Vec<String> {
        let rows = || [&self.head].into_iter().chain(&self.rows);
        let width = |n: usize| {
            let cells = rows().filter_map(|row| row.get(n));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(n, (cell, width))| {
                    if self.texts.contains(&n) {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        rows().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(1, &["type", "blocks"]);
        table.row(vec!["a long one".into(), "7".into()]);
        table.row(vec!["x".into(), "1 000 000".into()]);
        let expected = [
            "type           blocks",
            "a long one          7",
            "x           1 000 000",
        ];
        assert_eq!(table.lines(), expected);
    }
}
