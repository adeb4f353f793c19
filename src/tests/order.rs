//! The rules of the sources: a file names only files that stand above it in
//! `lib.rs`, none is long, and every invariant that is cited is defined once.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};

const LINES_MAX: usize = 500;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules in the order in which `lib.rs` and the folders' `mod.rs` name
/// them, as paths such as `host::table`. A folder stands before its files.
fn modules() -> Vec<String> {
    fn visit(file: &Path, folder: &Path, prefix: &str, modules: &mut Vec<String>) {
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines() {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let Some(name) = line
                .strip_prefix("mod ")
                .and_then(|rest| rest.strip_suffix(';'))
            else {
                continue;
            };
            if name == "tests" {
                continue;
            }
            modules.push(format!("{prefix}{name}"));
            let inner = folder.join(name);
            if inner.join("mod.rs").exists() {
                visit(
                    &inner.join("mod.rs"),
                    &inner,
                    &format!("{prefix}{name}::"),
                    modules,
                );
            }
        }
    }
    let mut modules = Vec::new();
    visit(&source().join("lib.rs"), &source(), "", &mut modules);
    modules
}

fn file_of(module: &str) -> PathBuf {
    let path = source().join(module.replace("::", "/"));
    let file = path.with_extension("rs");
    if file.exists() {
        file
    } else {
        path.join("mod.rs")
    }
}

/// The text of a file without its tests.
fn text_of(module: &str) -> String {
    let text = fs::read_to_string(file_of(module)).unwrap();
    let tests = [
        "\n#[cfg(test)]\nmod tests",
        "\n#[cfg(test)]\npub(crate) mod tests",
    ];
    let end = tests.iter().filter_map(|tests| text.find(tests)).min();
    text[..end.unwrap_or(text.len())].to_string()
}

/// The code of a file: without tests and comments.
fn code_of(module: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text_of(module)
        .lines()
        .filter(is_code)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What follows each `marker` in `code`, as far as it is a path of modules; a
/// brace is opened into its parts.
fn named_after(code: &str, marker: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices(marker) {
        let rest = &code[at + marker.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap();
                named.extend(list.split(',').map(|part| part.trim().to_string()));
            }
            None => {
                let is_path =
                    |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
                named.push(rest.split(|c| !is_path(c)).next().unwrap().to_string());
            }
        }
    }
    named
}

#[test]
fn a_file_names_only_files_above_it() {
    let modules = modules();
    assert!(modules.len() > 30, "{modules:?}");
    let place = |path: &str| {
        let is_in = |module: &&String| path == **module || path.starts_with(&format!("{module}::"));
        let longest = modules
            .iter()
            .filter(is_in)
            .max_by_key(|module| module.len());
        longest.map(|found| modules.iter().position(|module| module == found).unwrap())
    };
    let mut uses = 0;
    for (own, module) in modules.iter().enumerate() {
        let code = code_of(module);
        let folder = module.rsplit_once("::").map_or("", |(folder, _)| folder);
        let absolute = named_after(&code, "crate::").into_iter();
        let relative = named_after(&code, "super::")
            .into_iter()
            .map(|path| format!("{folder}::{path}"));
        for path in absolute.chain(relative) {
            let Some(named) = place(path.trim_end_matches(':')) else {
                continue;
            };
            uses += 1;
            assert!(
                named <= own,
                "{module} names {}, which stands below it",
                modules[named]
            );
        }
    }
    assert!(uses > 100, "only {uses} uses were seen");
}

#[test]
fn every_file_is_in_the_map_and_none_is_long() {
    let modules = modules();
    let lib = source().join("lib.rs");
    for module in &modules {
        let lines = text_of(module).lines().count();
        assert!(lines <= LINES_MAX, "{module}: {lines} lines");
    }
    let mut files = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // The command is not of the library.
                if path != source().join("tests") && path != source().join("bin") {
                    folders.push(path);
                }
            } else if path != lib {
                files.push(path);
            }
        }
    }
    for file in files {
        assert!(
            modules.iter().any(|module| file_of(module) == file),
            "{file:?} is in no mod line"
        );
    }
}

/// Labels such as `POOL-4` in a text, with whether they are defined there.
fn labels(text: &str) -> Vec<(String, bool)> {
    let mut labels = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        for word in words {
            let [letter, digits @ ..] = word.as_bytes() else {
                continue;
            };
            let is_label = letter.is_ascii_uppercase()
                && !digits.is_empty()
                && digits.len() <= 2
                && digits.iter().all(u8::is_ascii_digit);
            let is_comment = line.contains("//") || line.contains("assert");
            if is_label && is_comment {
                let defined = line.starts_with(&format!("//! {word}  "));
                labels.push((word.to_string(), defined));
            }
        }
    }
    labels
}

#[test]
fn every_invariant_that_is_cited_is_defined_once() {
    let mut defined: BTreeMap<String, usize> = BTreeMap::new();
    let mut cited = Vec::new();
    for module in modules() {
        let text = fs::read_to_string(file_of(&module)).unwrap();
        for (label, is_definition) in labels(&text) {
            if is_definition {
                *defined.entry(label).or_default() += 1;
            } else {
                cited.push((label, module.clone()));
            }
        }
    }
    for (label, times) in &defined {
        assert_eq!(*times, 1, "{label} is defined {times} times");
    }
    assert!(
        defined.len() > 20 && cited.len() > 40,
        "{} {}",
        defined.len(),
        cited.len()
    );
    for (label, module) in cited {
        assert!(
            defined.contains_key(&label),
            "{module} cites {label}, which is not defined"
        );
    }
}
