//! The rules of the sources: a folder names only folders that `lib.rs` lists before it, a
//! type's methods are in the file that defines the type, every file belongs to a module,
//! every invariant that is cited is defined once, and `docs/ARCHITECTURE.md` lists the files and
//! functions of a block's way, at most 18 down and 15 back.
//!
//! The first two rules together leave no way up: a method can be called without naming its
//! folder, but only on a value whose type an earlier folder defines, and that type has no
//! methods elsewhere. Callbacks (`base/callback.rs`) and trait objects remain; `lib.rs` lists
//! the callbacks.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The names in the `mod NAME;` lines of a file, in order.
fn submodules(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let name = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
        let line = line.strip_prefix("pub(super) ").unwrap_or(line);
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
        (name != "tests").then(|| name.to_string())
    };
    text.lines().filter_map(name).collect()
}

/// Every file of the library with the folder (or single file) of `src/` that it is in, in the
/// order of `lib.rs`.
fn files() -> Vec<(String, PathBuf)> {
    fn visit(top: &str, module: &Path, files: &mut Vec<(String, PathBuf)>) {
        let plain = module.with_extension("rs");
        let file = if plain.exists() {
            plain
        } else {
            module.join("mod.rs")
        };
        for inner in submodules(&file) {
            visit(top, &module.join(inner), files);
        }
        files.push((top.to_string(), file));
    }
    let mut files = Vec::new();
    for top in submodules(&source().join("lib.rs")) {
        visit(&top, &source().join(&top), &mut files);
    }
    files
}

/// The code of a file: without its tests and without comments.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let tests = [
        "\n#[cfg(test)]\nmod tests",
        "\n#[cfg(all(test, not(loom)))]\nmod tests",
        "\n#[cfg(test)]\npub(crate) mod tests",
        "\n#[cfg(test)]\npub(super) mod tests",
    ];
    let end = tests.iter().filter_map(|tests| text.find(tests)).min();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code = text[..end.unwrap_or(text.len())].lines().filter(is_code);
    code.collect::<Vec<_>>().join("\n")
}

/// The first identifier in `text`.
fn identifier(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).next().unwrap().to_string()
}

#[test]
fn a_folder_names_only_folders_before_it() {
    let order: Vec<String> = submodules(&source().join("lib.rs"));
    assert!(order.len() > 15, "{order:?}");
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut uses = 0;
    for (top, file) in files() {
        let code = code_of(&file);
        for (at, marker) in code.match_indices("crate::") {
            let named = identifier(&code[at + marker.len()..]);
            let Some(named_at) = place(&named) else {
                continue;
            };
            uses += 1;
            assert!(
                Some(named_at) <= place(&top),
                "{file:?} names {named}, which lib.rs lists after {top}"
            );
        }
    }
    assert!(uses > 100, "only {uses} uses were seen");
}

#[test]
fn methods_are_in_the_file_that_defines_the_type() {
    let mut seen = 0;
    for (_, file) in files() {
        let code = code_of(&file);
        let kinds = ["struct ", "enum ", "union ", "trait "];
        let defined: BTreeSet<String> = kinds
            .iter()
            .flat_map(|kind| code.match_indices(kind).map(move |found| (kind, found.0)))
            .map(|(kind, at)| identifier(&code[at + kind.len()..]))
            .collect();
        for line in code.lines().filter(|line| line.starts_with("impl")) {
            let mut rest = &line["impl".len()..];
            if rest.starts_with('<') {
                let mut depth = 0;
                let end = rest.find(|c: char| {
                    depth += i32::from(c == '<') - i32::from(c == '>');
                    depth == 0
                });
                rest = &rest[end.unwrap() + 1..];
            }
            if line.contains(" for ") {
                continue; // a trait's methods, which callers reach through the trait
            }
            let name = identifier(rest.trim_start());
            seen += 1;
            assert!(
                defined.contains(&name),
                "{file:?} has methods of {name}, which another file defines"
            );
        }
    }
    assert!(seen > 40, "only {seen} types with methods were seen");
}

/// Whether `code` defines or calls `name`.
fn has(code: &str, name: &str) -> bool {
    let kinds = ["fn ", "struct ", "libc::"];
    kinds.iter().any(|kind| {
        let mut places = code.match_indices(kind);
        places.any(|(at, _)| identifier(&code[at + kind.len()..]) == name)
    })
}

#[test]
fn the_ways_of_a_block_in_the_architecture_are_true_and_short() {
    let page = source().with_file_name("docs").join("ARCHITECTURE.md");
    let text = fs::read_to_string(page).unwrap();
    for (heading, bound) in [
        ("## The way of `PyObject_Malloc(48)`\n", 18),
        ("## The way of `PyObject_Free` to `madvise`\n", 15),
    ] {
        let (_, rest) = text.split_once(heading).unwrap();
        let section = rest.split("\n## ").next().unwrap();
        let is_row = |line: &&str| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit();
        let rows: Vec<&str> = section.lines().filter(is_row).collect();
        assert!(rows.len() > 10 && rows.len() <= bound, "{}", rows.len());
        for row in rows {
            let quoted = row.split('`').skip(1).step_by(2);
            let (files, names): (Vec<&str>, Vec<&str>) =
                quoted.partition(|word| word.ends_with(".rs"));
            let code: String = files
                .iter()
                .map(|file| fs::read_to_string(source().join(file)).unwrap())
                .collect();
            for name in names {
                let name = name.rsplit("::").next().unwrap();
                assert!(has(&code, name), "{name} is not in {files:?}");
            }
        }
    }
}

#[test]
fn every_file_belongs_to_a_module() {
    let known: BTreeSet<PathBuf> = files().into_iter().map(|(_, file)| file).collect();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path != source().join("tests") {
                    folders.push(path);
                }
            } else if path != source().join("lib.rs") {
                assert!(known.contains(&path), "{path:?} is in no mod line");
            }
        }
    }
}

/// Invariant labels such as `POOL-4` in a text, with whether they are defined there.
fn labels(text: &str) -> Vec<(String, bool)> {
    let mut labels = Vec::new();
    for line in text.lines() {
        if !line.contains("//") && !line.contains("assert") {
            continue;
        }
        let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
        for word in line.split(|c| !is_part(c)) {
            let Some((name, number)) = word.split_once('-') else {
                continue;
            };
            let is_label = name.len() > 2
                && name.bytes().all(|c| c.is_ascii_uppercase())
                && (1..=2).contains(&number.len())
                && number.bytes().all(|c| c.is_ascii_digit());
            if is_label && !["UTF", "PEP", "ISO", "RFC", "SHA"].contains(&name) {
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
    for (_, file) in files() {
        let text = fs::read_to_string(&file).unwrap();
        for (label, is_definition) in labels(&text) {
            if is_definition {
                *defined.entry(label).or_default() += 1;
            } else {
                cited.push((label, file.clone()));
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
    for (label, file) in cited {
        assert!(
            defined.contains_key(&label),
            "{file:?} cites {label}, which is not defined"
        );
    }
}

/// The names of the statics in some code.
fn statics(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let (visibility, rest) = line.trim_start().split_once("static ")?;
        let name = rest.split(':').next()?;
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let is_item = visibility.is_empty() || visibility.starts_with("pub");
        (is_item && name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(is_name))
            .then_some(name)
    })
}

#[test]
fn the_page_of_the_architecture_has_every_static() {
    let page = source().join("../docs/ARCHITECTURE.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, state) = page.split_once("\n## State\n").unwrap();
    let state = state.split("\n## ").next().unwrap();
    // Files of test builds only.
    let is_for_tests = |file: &Path| {
        let parts = ["sync", "tests", "faults.rs", "interpreted.rs"];
        file.components()
            .any(|part| parts.iter().any(|&name| part.as_os_str() == name))
    };
    let mut seen = 0;
    for (_, file) in files().into_iter().filter(|(_, file)| !is_for_tests(file)) {
        for name in statics(&code_of(&file)).filter(|&name| !["AHEAD", "SLEEPS"].contains(&name)) {
            seen += 1;
            assert!(state.contains(&format!("`{name}`")), "{file:?}: {name}");
        }
    }
    assert!(seen > 100, "only {seen} statics were seen");
}

/// The names of the atomics that some code declares: statics, fields, and structs of one.
fn atomics(code: &str) -> impl Iterator<Item = String> {
    code.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("pub(crate) ");
        let line = line
            .trim_start_matches("pub(super) ")
            .trim_start_matches("pub ");
        let (name, kind) = match line.strip_prefix("struct ") {
            Some(rest) => rest.split_once('(')?,
            None => line.trim_start_matches("static ").split_once(": ")?,
        };
        let is_atomic = kind.trim_start_matches('[').starts_with("Atomic");
        is_atomic.then(|| identifier(name))
    })
}

#[test]
fn the_page_of_memory_ordering_has_every_atomic() {
    let page = fs::read_to_string(source().join("../docs/memory-order.md")).unwrap();
    // The names of a row, and its files.
    let mut rows: Vec<(BTreeSet<&str>, Vec<&str>)> = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let files: Vec<&str> = cells[2]
            .split(", ")
            .filter(|file| file.ends_with(".rs"))
            .collect();
        let names: BTreeSet<&str> = cells[1].split('`').skip(1).step_by(2).collect();
        if files.is_empty() {
            continue;
        }
        let code: String = files
            .iter()
            .map(|file| code_of(&source().join(file)))
            .collect();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words: BTreeSet<&str> = code.split(|c| !is_part(c)).collect();
        for name in &names {
            assert!(words.contains(name), "{name} is not in {files:?}");
        }
        for model in cells.iter().filter_map(|cell| cell.split_once("loom: ")) {
            for model in model.1.split(';').next().unwrap().split(", ") {
                let file = source().join("tests/loom").join(model).with_extension("rs");
                assert!(file.exists(), "{file:?}");
            }
        }
        rows.push((names, files));
    }
    let mut seen = 0;
    for (_, file) in files() {
        let place = file.strip_prefix(source()).unwrap().to_str().unwrap();
        if place.starts_with("tests/")
            || ["sync/modelled.rs", "sync/threads.rs", "sync/execution.rs"].contains(&place)
        {
            continue;
        }
        for name in atomics(&code_of(&file)).filter(|name| name != "AHEAD") {
            seen += 1;
            let has = |row: &(BTreeSet<&str>, Vec<&str>)| {
                row.0.contains(name.as_str()) && row.1.contains(&place)
            };
            assert!(
                rows.iter().any(has),
                "{name} of {place} is not in docs/memory-order.md"
            );
        }
    }
    assert!(seen > 120, "only {seen} atomics were seen");
}
