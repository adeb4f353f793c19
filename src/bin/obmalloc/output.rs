//! Text for stdout.

use std::io::{self, ErrorKind, Write};

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
