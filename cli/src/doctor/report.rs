//! The finding as text, and as JSON with the same contents.

use std::path::Path;

use format::options::{NOT_UNDERSTOOD, POOL_MAX};
use format::status;
use serde_json::{Value, json};

use super::verdict::Verdict;
use super::{Case, Way};
use crate::elf::{self, Kind};
use crate::library;
use crate::settings;

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// Other replacements of malloc, by a part of their file's name.
const OTHERS: [&str; 8] = [
    "jemalloc", "mimalloc", "tcmalloc", "snmalloc", "hoard", "rpmalloc", "libasan", "libtsan",
];

/// As text.
pub fn text(case: &Case) -> String {
    let (finding, answer) = (&case.finding, &case.answer);
    let interpreter = case.interpreter.display();
    let verdict = match finding.verdict {
        Verdict::Active => format!("obmalloc is active in {interpreter}"),
        Verdict::NotActive => format!(
            "obmalloc is NOT active in {interpreter}: {}",
            finding.reason
        ),
        Verdict::Unknown => format!("obmalloc: it could not be told: {}", finding.reason),
    };
    let mut lines = vec![verdict, String::new()];
    let mut row = |name: &str, value: String| lines.push(format!("  {name:<13}{value}"));
    if let Some(advice) = &finding.advice {
        row("what to do", advice.clone());
    }
    if finding.verdict == Verdict::Active {
        row("proof", finding.reason.clone());
    }
    if answer.fact("version").is_some() {
        row("interpreter", described(case));
    }
    if let Some(path) = library_in(case) {
        let version = answer
            .library_version()
            .map_or(String::new(), |version| format!(", version {version}"));
        row("library", format!("{}{version}", path.display()));
    }
    let way = match case.way {
        Way::Run => "as `obmalloc run` sets it",
        Way::Environment => "from the environment",
    };
    let value = case.preload.display();
    row(
        "LD_PRELOAD",
        if case.preload.is_empty() {
            "empty".into()
        } else {
            format!("{value} ({way})")
        },
    );
    if let Some(domains) = domains(case) {
        row("domains", domains.into());
    }
    row("page size", format!("{} bytes", page_size()));
    for note in notes(case) {
        row("note", note);
    }
    lines.join("\n") + "\n"
}

/// As JSON, on one line.
pub fn json(case: &Case) -> String {
    let (finding, answer) = (&case.finding, &case.answer);
    let verdict = match finding.verdict {
        Verdict::Active => "active",
        Verdict::NotActive => "not active",
        Verdict::Unknown => "unknown",
    };
    let path = |path: &Path| Value::from(path.to_string_lossy());
    let value = json!({
        "schema": SCHEMA,
        "verdict": verdict,
        "active": finding.verdict == Verdict::Active,
        "code": finding.code,
        "reason": finding.reason,
        "advice": finding.advice,
        "interpreter": {
            "path": path(&case.interpreter),
            "executable": answer.fact("executable"),
            "implementation": answer.fact("implementation"),
            "version": answer.fact("version"),
            "libpython": libpython(case).map(path),
            "free_threaded": answer.is("free_threaded"),
            "dev_mode": answer.is("dev_mode"),
        },
        "library": {
            "path": library_in(case).map(path),
            "version": answer.library_version(),
        },
        "ld_preload": case.preload.to_string_lossy(),
        "preloaded_by": match case.way { Way::Run => "run", Way::Environment => "environment" },
        "domains": domains(case),
        "page_size": page_size(),
        "other_allocators": others(case),
        "notes": notes(case),
    });
    format!("{value}\n")
}

/// The interpreter in one line.
fn described(case: &Case) -> String {
    let answer = &case.answer;
    let fact = |name| answer.fact(name).unwrap_or("unknown");
    let name = match fact("implementation") {
        "cpython" => "CPython",
        other => other,
    };
    let build = if answer.is("free_threaded") {
        ", free-threaded"
    } else {
        ""
    };
    let linked = if libpython(case).is_some() {
        "shared"
    } else {
        "static"
    };
    let executable = fact("executable");
    format!(
        "{name} {}, {linked} libpython{build}: {executable}",
        fact("version")
    )
}

/// Notes on other parts of the process that matter to the library.
fn notes(case: &Case) -> Vec<String> {
    let answer = &case.answer;
    let mut notes = Vec::new();
    if let Ok(Kind::Script(line)) = elf::look(&case.interpreter) {
        let behind = answer.fact("executable").unwrap_or("nothing that answers");
        notes.push(format!(
            "{} is a script (#!{line}); behind it is {behind}",
            case.interpreter.display()
        ));
    }
    for other in others(case) {
        notes.push(format!(
            "{other} is in the process, too: it serves requests that are too large for pools"
        ));
    }
    if answer.is("free_threaded") {
        notes.push("a free-threaded build keeps its own allocator for objects; OBMALLOC_FREE_THREADED=mem, an experiment, serves the domain MEM".into());
    }
    let is_active = case.finding.verdict == Verdict::Active;
    if is_active
        && answer
            .fact("version")
            .is_some_and(|version| version.starts_with("2."))
    {
        notes.push("2.7: objects only, PyMem_* stays the C library's".into());
    } else if is_active && libpython(case).is_none() {
        notes.push(
            "static libpython: sys._debugmallocstats() has CPython's numbers, OBMALLOC_STATS ours"
                .into(),
        );
    }
    if is_active && std::env::var_os("PYTHONMALLOC").is_some_and(|value| !value.is_empty()) {
        notes.push("PYTHONMALLOC is set, and this interpreter ignores it".into());
    }
    let has_hooks = answer.active().is_some_and(|line| line.is_under_hooks());
    if is_active && has_hooks {
        notes.push("debug hooks are over the library, and check each block".into());
    } else if is_active && serves_medium_blocks() {
        notes.push(
            "blocks of 513 bytes to 8 KiB come from pools once the heap is large: if C code \
             frees one by free(), OBMALLOC_POOL_MAX=512 leaves them to malloc"
                .into(),
        );
    }
    for line in answer.stderr.lines() {
        if let Some(what) = line
            .strip_prefix(status::PREFIX)
            .filter(|line| line.ends_with(NOT_UNDERSTOOD))
        {
            notes.push(format!("{what} (obmalloc settings has a list)"));
        }
    }
    notes
}

/// Whether blocks that CPython would take from malloc may come from pools.
fn serves_medium_blocks() -> bool {
    let environment = settings::own_environment();
    settings::value(&POOL_MAX, &environment).number() != 512
}

fn file_named(case: &Case, wanted: impl Fn(&str) -> bool) -> Option<&Path> {
    let files = case.answer.files.iter().map(std::path::PathBuf::as_path);
    files.into_iter().find(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        wanted(&name)
    })
}

fn libpython(case: &Case) -> Option<&Path> {
    file_named(case, |name| name.starts_with("libpython"))
}

fn library_in(case: &Case) -> Option<&Path> {
    file_named(case, |name| library::is_named_by(name.as_ref()))
}

fn others(case: &Case) -> Vec<String> {
    let files = case.answer.files.iter().map(|file| file.to_string_lossy());
    let is_other = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        name.contains(".so") && OTHERS.iter().any(|other| name.contains(other))
    };
    files
        .filter(|name| is_other(name))
        .map(std::borrow::Cow::into_owned)
        .collect()
}

/// The domains, from the line of the library that is active.
fn domains(case: &Case) -> Option<&str> {
    case.answer.active()?.domains()
}

fn page_size() -> i64 {
    // SAFETY: sysconf takes a number and has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
}
