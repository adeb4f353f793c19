//! The verdict: active only if the library's own counters prove it; else the first reason that
//! explains why not, with advice.

use std::path::Path;

use format::options::HARD_LIMIT;
use format::status::{self, Line, Reason};

use super::probe::{self, Answer, FATAL};
use crate::elf::{self, Kind, Libc};
use crate::library;
use crate::program::{self, Obstacle};
use crate::settings;

/// The result of an examination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The library serves the interpreter; its counters prove it.
    Active,
    /// It does not.
    NotActive,
    /// The interpreter gave no answer.
    Unknown,
}

/// A verdict with its reason and advice.
pub struct Finding {
    /// The result.
    pub verdict: Verdict,
    /// The reason's code, for programs: of the library's own reasons that of `format::status`.
    pub code: &'static str,
    /// The reason in words; for an active library the proof.
    pub reason: String,
    /// How to make the library active.
    pub advice: Option<String>,
}

impl Finding {
    /// A library that is not active.
    pub fn not(
        code: &'static str,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            verdict: Verdict::NotActive,
            code,
            reason: reason.into(),
            advice: Some(advice.into()),
        }
    }
}

/// The finding that the files of the interpreter and of the library allow before one is started, if
/// any.
pub fn from_files(path: &Path, library: Option<&Path>) -> Option<Finding> {
    let why = program::cannot_have_us(path, library)?;
    let reason = format!("{} {why}", path.display());
    let advice = match why {
        Obstacle::Static => {
            "use an interpreter that is linked with the C library dynamically (its own libpython may be static)"
        }
        Obstacle::Libc {
            library: Libc::Glibc,
            ..
        } => "use the library's build for musl (the wheel for musllinux)",
        Obstacle::Libc {
            library: Libc::Musl,
            ..
        } => "use the library's build for glibc (the wheel for manylinux)",
        Obstacle::Machine(_) => {
            "use an interpreter for the library's machine, or a library for the interpreter's"
        }
    };
    let code = match why {
        Obstacle::Static => "static",
        Obstacle::Libc {
            program: Libc::Musl,
            ..
        } => "musl",
        Obstacle::Libc {
            program: Libc::Glibc,
            ..
        } => "glibc",
        Obstacle::Machine(_) => "other_machine",
    };
    Some(Finding::not(code, reason, advice))
}

/// The variable that limits an interpreter's memory, if one does: it may need more to start.
fn hard_limit() -> Option<String> {
    let mut names = std::env::vars_os().map(|(name, _)| name);
    let name = names.find(|name| settings::is_name_of(&HARD_LIMIT, name))?;
    Some(name.display().to_string())
}

/// The finding from the report of a started interpreter.
pub fn from_answer(path: &Path, library: Option<&Path>, answer: &Answer) -> Finding {
    if let Some(counted) = &answer.counted {
        return Finding {
            verdict: Verdict::Active,
            code: "active",
            reason: counted.clone(),
            advice: None,
        };
    }
    if let Some(finding) = loader_gave_up(&answer.stderr) {
        return finding;
    }
    let refused = loader_refused(&answer.stderr);
    if let Some(silence) = &answer.silence {
        let fatal = probe::own_error(&answer.stderr).filter(|line| line.starts_with(FATAL));
        if let Some(fatal) = fatal {
            return Finding {
                verdict: Verdict::Unknown,
                code: "does_not_start",
                reason: format!("the interpreter does not start: {fatal}"),
                advice: Some(
                    if let Some(hard) = fatal.contains("emory").then(hard_limit).flatten() {
                        format!("raise {hard}, or unset it")
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
                code: "not_python",
                reason: format!("{} does not answer as a Python does: {silence}", path.display()),
                advice: Some(
                    "name a Python interpreter; in a program that is none, the library does nothing"
                        .into(),
                ),
            };
        }
        return Finding {
            verdict: Verdict::Unknown,
            code: "no_answer",
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
    if let Some(line) = answer.aside() {
        return aside(line);
    }
    let is_mapped = answer
        .files
        .iter()
        .any(|file| file.file_name().is_some_and(library::is_named_by));
    if !is_mapped {
        return not_loaded(path, library, answer);
    }
    if let Some(name) = answer
        .fact("implementation")
        .filter(|name| *name != "cpython")
    {
        return Finding::not(
            "other_python",
            format!("{name} is another Python than CPython and has an allocator of its own"),
            "use CPython",
        );
    }
    if answer.active().is_some() {
        return Finding::not(
            "not_counted",
            "the library says that it is active, but has not counted what the interpreter allocated",
            "look for what has replaced the allocator since: a module that calls PyMem_SetAllocator",
        );
    }
    Finding::not(
        "no_host_found",
        "the library is loaded, but has found no CPython to serve",
        "use CPython 2.7, or 3.6 or later",
    )
}

/// The finding from the loader's line that it has not loaded the library: the process runs on
/// without it.
fn loader_refused(stderr: &str) -> Option<Finding> {
    let (path, why) = stderr.lines().find_map(|line| {
        let rest = line.split_once("ERROR: ld.so: object '")?.1;
        let (path, rest) = rest.split_once('\'')?;
        let why = rest.split_once('(')?.1.rsplit_once(')')?.0;
        library::is_named_by(path.as_ref()).then_some((path, why))
    })?;
    // For a file for another machine the line is that it cannot be opened.
    let other = match elf::look(Path::new(path)) {
        Ok(Kind::Elf(_)) => library::check(Path::new(path)).err(),
        _ => None,
    };
    Some(match other {
        Some(other) => Finding::not(
            "wrong_library",
            format!("the loader has not taken {path}: it {other}"),
            "build or install the library for this machine",
        ),
        None => Finding::not(
            "loader_refused",
            format!("the loader has not taken {path}: {why}"),
            "correct the path in LD_PRELOAD, or leave it to `obmalloc run`",
        ),
    })
}

/// The finding from a line of musl's loader, which ends the process if the library cannot be
/// loaded.
fn loader_gave_up(stderr: &str) -> Option<Finding> {
    let is_ours = |path: &str| library::is_named_by(path.as_ref());
    let (path, why) = stderr.lines().find_map(|line| {
        if let Some(rest) = line.strip_prefix("Error relocating ") {
            return rest.split_once(": ").filter(|(path, _)| is_ours(path));
        }
        let rest = line.strip_prefix("Error loading shared library ")?;
        let (why, path) = rest.strip_suffix(')')?.split_once(" (needed by ")?;
        is_ours(path).then_some((path, why))
    })?;
    Some(Finding::not(
        "loader_refused",
        format!("the loader has not taken {path}: {why}"),
        "build or install the library for this C library",
    ))
}

fn not_loaded(path: &Path, library: Option<&Path>, answer: &Answer) -> Finding {
    let behind = answer.fact("executable").map(Path::new);
    let by_file = [Some(path), behind].into_iter().flatten();
    let by_file = by_file.into_iter().find_map(program::gives_rights);
    if answer.is("secure") || by_file.is_some() {
        let by = by_file.unwrap_or("setuid, setgid or capabilities");
        return Finding::not(
            "secure",
            format!(
                "it has more rights than its user ({by}), and the loader ignores the preload then"
            ),
            "use an interpreter without these rights",
        );
    }
    if let Some(finding) = behind.and_then(|path| from_files(path, library)) {
        return finding;
    }
    // musl's loader writes nothing.
    if let Some(absent) = library.filter(|library| !library.exists()) {
        return Finding::not(
            "loader_refused",
            format!(
                "LD_PRELOAD names {}, which does not exist",
                absent.display()
            ),
            "correct the path in LD_PRELOAD, or leave it to `obmalloc run`",
        );
    }
    if matches!(elf::look(path), Ok(Kind::Script(_))) {
        return Finding::not(
            "script",
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
        "not_loaded",
        "the library is not in the process, and nothing says why",
        "run it with LD_DEBUG=libs to see what the loader does",
    )
}

/// A library that is in the process and does not serve it.
fn aside(line: Line<'_>) -> Finding {
    let reason = match line.verdict {
        status::Verdict::Aside(reason) => reason,
        status::Verdict::Active => None,
    };
    let code = reason.map_or("other", Reason::code);
    let advice = reason.map_or(
        "see the table in the README: what it replaces, and what not",
        advice_for,
    );
    Finding::not(code, line.text, advice)
}

/// The advice for each of the library's own reasons.
fn advice_for(reason: Reason) -> &'static str {
    match reason {
        Reason::PythonMalloc => "unset PYTHONMALLOC",
        Reason::DevOption => "leave -X dev out; OBMALLOC_DEBUG=1 has debug hooks over the library",
        Reason::DevVariable => {
            "unset PYTHONDEVMODE; OBMALLOC_DEBUG=1 has debug hooks over the library"
        }
        Reason::NoHost | Reason::Unsupported => "use CPython 2.7, or 3.6 or later",
        Reason::FreeThreaded => {
            "set MIMALLOC_PURGE_DELAY=0, which makes this build's own allocator return whole free \
             pages at once (docs/free-threading.md), or use the build with a GIL"
        }
        Reason::OtherAllocator => "leave the other one out",
        Reason::NoTables => "use a CPython that was not built --without-pymalloc",
        Reason::SelfCheck => "report this version of CPython, its maker and its build options",
        Reason::NotInterposable => {
            "use a 2.7 with a shared libpython, or link it with the archive: make relink"
        }
        Reason::LoadedLate | Reason::TooLate => "preload the library: obmalloc run",
        Reason::LinkedIn => {
            "nothing: the library is in this interpreter already, without the preload"
        }
        Reason::Tracing => "stop tracemalloc first",
        Reason::NoGil => "call obmalloc_install() with the GIL: ctypes.PyDLL, not CDLL",
        Reason::DebugHooks => "unset OBMALLOC_DEBUG",
        Reason::ServesAnother => "use one CPython in a process",
        Reason::Replaced => {
            "look for what has replaced the allocator since: a module that calls \
             PyMem_SetAllocator"
        }
    }
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
    fn a_reason_that_is_not_known_has_no_advice_of_its_own() {
        let read = |line| aside(Line::read(line).unwrap());
        let finding = read("obmalloc: standing aside in pid 3: -X dev chooses the allocator");
        assert_eq!(finding.code, "dev_option");
        assert!(finding.advice.unwrap().starts_with("leave -X dev out"));
        let finding = read("obmalloc: standing aside in pid 3: a reason of 2031");
        assert_eq!(finding.code, "other");
        assert_eq!(finding.reason, "a reason of 2031");
    }
}
