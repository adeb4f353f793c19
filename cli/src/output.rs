//! Text for stdout, and lines for stderr.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::mem::MaybeUninit;
use std::ptr;

use crate::failure::Failure;

/// Writes it. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
            format!("cannot write to stdout: {error}"),
            "look where it leads to",
        )),
        _ => Ok(()),
    }
}

/// Milliseconds that a line waits for room in a full pipe.
const PATIENCE: i32 = 1000;

/// Writes a line to stderr, if that takes it: the command goes on as it would without it. No
/// signal ends it, be stderr a pipe without a reader or a file at its limit, and none is
/// left ignored for a program that the command becomes.
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
    // SAFETY: the sets are made before they are used, and each place is there during the
    // call; the text is readable over its length.
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
        // What the write has raised is taken back.
        while libc::sigtimedwait(quiet.as_ptr(), ptr::null_mut(), &raw const none) > 0 {}
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
}

/// The columns of a table: texts to the left of their column, numbers to the right.
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// How many of the first columns are texts.
    texts: usize,
}

impl Table {
    /// One without rows, whose first `texts` columns are texts.
    pub fn new(texts: usize, head: &[&str]) -> Table {
        Table {
            head: head.iter().map(|&word| word.into()).collect(),
            rows: Vec::new(),
            texts,
        }
    }

    /// One more row.
    pub fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Its lines, the head first; each without a line's end.
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
                    if n < self.texts {
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
