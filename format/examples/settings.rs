//! The tables of settings in docs/settings.md and README.md, written from the options.
//!
//! ```text
//! cargo run -p obmalloc-format --example settings              writes them
//! cargo run -p obmalloc-format --example settings -- --check   fails if they differ
//! ```
#![allow(
    clippy::std_instead_of_core,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people, with the standard library"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use obmalloc_format::options::{ALL, Opt, PREFIX};

fn main() -> ExitCode {
    let is_check = std::env::args().any(|argument| argument == "--check");
    let mut status = ExitCode::SUCCESS;
    for (path, written) in pages() {
        let name = path.file_name().unwrap_or_default().display();
        if fs::read_to_string(&path).is_ok_and(|text| text == written) {
            println!("ok: the settings in {name} are those of the library");
        } else if is_check {
            eprintln!(
                "the settings in {name} are not those of the library: write them by this program without --check"
            );
            status = ExitCode::FAILURE;
        } else {
            fs::write(&path, written).expect("the page is writable");
            println!("{name} is written");
        }
    }
    status
}

/// Both pages, with the text that they should have.
fn pages() -> [(PathBuf, String); 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is in a folder of the tree");
    let read = |name: &str| {
        let path = root.join(name);
        let text = fs::read_to_string(&path).expect("the page is there");
        (path, text)
    };
    let (readme, some) = read("README.md");
    let (page, text) = read("docs/settings.md");
    let text = between(&text, "settings", &table());
    let text = between(&text, "deprecated names", &deprecated());
    [(readme, with_rows(&some)), (page, text)]
}

/// A page with `table` between the two comments of this name.
fn between(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the page has the comment");
    let (_, after) = rest.split_once(&end).expect("the page has both comments");
    format!("{before}{begin}{table}{end}{after}")
}

/// A page that has rows of some settings, with these rows replaced.
fn with_rows(text: &str) -> String {
    let lines = text.split('\n').map(|line| match named_in(line) {
        Some(option) => option.to_string(),
        None => line.into(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The option whose row a line is.
fn named_in(line: &str) -> Option<&'static Opt> {
    let name = line.strip_prefix("| `")?.split('`').next()?;
    Opt::find(name.strip_prefix(PREFIX)?.as_bytes())
}

fn table() -> String {
    let rows = ALL.iter().map(|option| format!("{option}\n"));
    format!(
        "| variable | values; default | meaning |\n|---|---|---|\n{}",
        rows.collect::<String>()
    )
}

fn deprecated() -> String {
    let row = |option: &&Opt| {
        let (name, release) = (option.key.name, option.renamed?);
        let alias = option.key.alias?;
        Some(format!(
            "| `{PREFIX}{name}` | `{PREFIX}{alias}` | {release} |\n"
        ))
    };
    format!(
        "| variable | deprecated name | renamed in |\n|---|---|---|\n{}",
        ALL.iter().filter_map(row).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_have_the_tables() {
        for (path, written) in pages() {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text == written, "{}", path.display());
        }
    }

    #[test]
    fn each_option_has_a_row_in_the_page_and_some_in_the_readme() {
        let [(_, readme), (_, page)] = pages();
        let rows = |text: &str| text.lines().filter_map(named_in).count();
        assert_eq!(
            rows(&page),
            ALL.len() + ALL.iter().filter(|each| each.renamed.is_some()).count()
        );
        assert!(rows(&readme) > 3);
    }

    #[test]
    fn rows_of_other_tables_stay() {
        let text = "| `PATH` | 1 |\n| OBMALLOC_VERBOSE | 2 |\n| `OBMALLOC_NO` | 3 |\n";
        assert_eq!(with_rows(text), text);
        let changed = with_rows("a\n| `OBMALLOC_LIMIT` | old |\nb\n");
        assert!(changed.starts_with("a\n| `OBMALLOC_SOFT_LIMIT` | bytes "));
        assert!(changed.ends_with(" |\nb\n"));
    }
}
