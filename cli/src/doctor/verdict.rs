//! From what is known to a verdict: active only if the library's own count proves it;
//! and if it is not, the first reason that explains it, with what to change.

use std::path::Path;

use super::probe::{self, Answer, FATAL};
use crate::elf::{self, Kind};
use crate::library;
use crate::program::{self, Obstacle};

/// The setting that an interpreter may need more of to start.
const HARD: &str = "OBMALLOC_LIMIT_HARD";

/// What can be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The library serves the interpreter, and has proved it.
    Active,
    /// It does not.
    NotActive,
    /// The interpreter gave no answer.
    Unknown,
}

/// A verdict with its reason and what to do about it.
pub struct Finding {
    /// What can be said.
    pub verdict: Verdict,
    /// Why; for an active library the proof.
    pub reason: String,
    /// What to change.
    pub advice: Option<String>,
}

impl Finding {
    /// A library that is not active.
    pub fn not(reason: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::NotActive,
            reason: reason.into(),
            advice: Some(advice.into()),
        }
    }
}

/// What the file of the interpreter says already, before it is started.
pub fn from_file(path: &Path) -> Option<Finding> {
    let why = program::cannot_have_us(path)?;
    let reason = format!("{} {why}", path.display());
    let advice = match why {
        Obstacle::Static => {
            "use an interpreter that is linked with the C library dynamically (its own libpython may be static)"
        }
        Obstacle::Musl => "use an interpreter that is linked with glibc; on Alpine there is none",
        Obstacle::Machine(_) => {
            "use an interpreter for the library's machine, or a library for the interpreter's"
        }
    };
    Some(Finding::not(reason, advice))
}

/// What the interpreter and the library in it have said.
pub fn from_answer(path: &Path, answer: &Answer) -> Finding {
    if let Some(counted) = &answer.counted {
        return Finding {
            verdict: Verdict::Active,
            reason: counted.clone(),
            advice: None,
        };
    }
    let refused = loader_refused(&answer.stderr);
    if let Some(silence) = &answer.silence {
        let fatal = probe::own_error(&answer.stderr).filter(|line| line.starts_with(FATAL));
        if let Some(fatal) = fatal {
            return Finding {
                verdict: Verdict::Unknown,
                reason: format!("the interpreter does not start: {fatal}"),
                advice: Some(
                    if fatal.contains("emory") && std::env::var_os(HARD).is_some() {
                        format!("raise {HARD}, or unset it")
                    } else {
                        let path = path.display();
                        format!("make it start without the library first: {path} -c pass")
                    },
                ),
            };
        }
        if answer.fact("pid").is_none() {
            return Finding {
                verdict: Verdict::Unknown,
                reason: format!("{} does not answer as a Python does: {silence}", path.display()),
                advice: Some(
                    "name a Python interpreter; in a program that is none, the library does nothing"
                        .into(),
                ),
            };
        }
        return Finding {
            verdict: Verdict::Unknown,
            reason: silence.clone(),
            advice: Some(format!(
                "see whether it runs without the library: {} -c pass",
                path.display()
            )),
        };
    }
    if let Some(finding) = refused {
        return finding;
    }
    if let Some(line) = answer.line("standing aside") {
        return Finding::not(line, advice_for(line));
    }
    let is_mapped = answer
        .files
        .iter()
        .any(|file| file.file_name().is_some_and(library::is_named_by));
    if !is_mapped {
        return not_loaded(path, answer);
    }
    if let Some(name) = answer
        .fact("implementation")
        .filter(|name| *name != "cpython")
    {
        return Finding::not(
            format!("{name} is another Python than CPython and has an allocator of its own"),
            "use CPython",
        );
    }
    if answer.line("active").is_some() {
        return Finding::not(
            "the library says that it is active, but has not counted what the interpreter allocated",
            "look for what has replaced the allocator since: a module that calls PyMem_SetAllocator",
        );
    }
    Finding::not(
        "the library is loaded, but has found no CPython to serve",
        "use CPython 2.7 or 3.6 to 3.14",
    )
}

/// The loader's line that it has not taken the library: all that it does about it.
fn loader_refused(stderr: &str) -> Option<Finding> {
    let (path, why) = stderr.lines().find_map(|line| {
        let rest = line.split_once("ERROR: ld.so: object '")?.1;
        let (path, rest) = rest.split_once('\'')?;
        let why = rest.split_once('(')?.1.rsplit_once(')')?.0;
        library::is_named_by(path.as_ref()).then_some((path, why))
    })?;
    // Of a file for another machine it says only that it cannot be opened.
    let other = match elf::look(Path::new(path)) {
        Ok(Kind::Elf(_)) => library::check(Path::new(path)).err(),
        _ => None,
    };
    Some(match other {
        Some(other) => Finding::not(
            format!("the loader has not taken {path}: it {other}"),
            "build or install the library for this machine",
        ),
        None => Finding::not(
            format!("the loader has not taken {path}: {why}"),
            "correct the path in LD_PRELOAD, or leave it to `obmalloc run`",
        ),
    })
}

fn not_loaded(path: &Path, answer: &Answer) -> Finding {
    let behind = answer.fact("executable").map(Path::new);
    let by_file = [Some(path), behind].into_iter().flatten();
    let by_file = by_file.into_iter().find_map(program::gives_rights);
    if answer.is("secure") || by_file.is_some() {
        let by = by_file.unwrap_or("setuid, setgid or capabilities");
        return Finding::not(
            format!(
                "it has more rights than its user ({by}), and the loader ignores the preload then"
            ),
            "use an interpreter without these rights",
        );
    }
    if let Some(finding) = behind.and_then(from_file) {
        return finding;
    }
    if matches!(elf::look(path), Ok(Kind::Script(_))) {
        return Finding::not(
            format!(
                "the script {} starts the interpreter without LD_PRELOAD",
                path.display()
            ),
            format!(
                "name the interpreter itself: obmalloc doctor {}",
                behind.unwrap_or(path).display()
            ),
        );
    }
    Finding::not(
        "the library is not in the process, and nothing says why",
        "run it with LD_DEBUG=libs to see what the loader does",
    )
}

/// What to change, for the library's own reasons (`src/cpython/attach.rs`).
fn advice_for(line: &str) -> &'static str {
    let table = [
        ("PYTHONMALLOC=", "unset PYTHONMALLOC"),
        (
            "-X dev",
            "leave -X dev out; OBMALLOC_DEBUG=1 has debug hooks over the library",
        ),
        (
            "PYTHONDEVMODE",
            "unset PYTHONDEVMODE; OBMALLOC_DEBUG=1 has debug hooks over the library",
        ),
        ("not one of those served", "use CPython 2.7 or 3.6 to 3.14"),
        (
            "free-threaded",
            "use the build with a GIL of the same version",
        ),
        ("another allocator is installed", "leave the other one out"),
        (
            "no tables",
            "use a CPython that was not built --without-pymalloc",
        ),
        (
            "go by name",
            "use a 2.7 with a shared libpython, or link it with the archive: make relink",
        ),
        (
            "not there from the start",
            "preload the library: obmalloc run",
        ),
        (
            "linked into",
            "nothing: the library is in this interpreter already, without the preload",
        ),
        ("tracemalloc", "stop tracemalloc first"),
    ];
    let row = table.iter().find(|(part, _)| line.contains(part));
    row.map_or(
        "see the table in the README: what it replaces, and what not",
        |row| row.1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_line_is_understood() {
        let line = "ERROR: ld.so: object '/no/libobmalloc.so' from LD_PRELOAD cannot be preloaded (cannot open shared object file): ignored.\n";
        let finding = loader_refused(line).unwrap();
        assert_eq!(finding.verdict, Verdict::NotActive);
        assert!(finding.reason.contains("/no/libobmalloc.so: cannot open"));
        assert!(loader_refused(&line.replace("obmalloc", "other")).is_none());
    }

    #[test]
    fn each_reason_of_the_library_has_its_advice() {
        let source = include_str!("../../../src/cpython/attach.rs");
        let reasons = source.matches("Reason::").count();
        assert!(reasons > 10);
        for line in [
            "PYTHONMALLOC=debug chooses the allocator",
            "-X dev chooses the allocator",
            "PYTHONDEVMODE chooses the allocator",
            "is not one of those served",
            "is free-threaded, its collector",
            "another allocator is installed already",
            "this CPython has no tables to install in",
            "this CPython's own calls cannot be proved to go by name",
            "not there from the start",
            "the library is linked into this CPython",
            "tracemalloc is tracing",
        ] {
            assert!(
                source.contains(line.split('=').next().unwrap()),
                "{line} is said no more"
            );
            assert!(!advice_for(line).starts_with("see the table"), "{line}");
        }
    }
}
