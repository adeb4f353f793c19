//! `obmalloc doctor`: whether the library is active in an interpreter, and why not.
//!
//! ```text
//!   probe    starts the interpreter with a program that reports on it and on the library (probe.py)
//!   verdict  derives from the report a verdict, a reason, and advice
//!   report   prints them as text, or as JSON
//! ```
//!
//! A verdict of "active" needs a proof: the library in that process has counted the blocks
//! that the process allocated. A mapped library, or its own status line, is not enough.

mod probe;
mod report;
mod verdict;

use std::env;
use std::ffi::OsString;
use std::path::{self, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::exec;
use crate::failure::Failure;
use crate::library;
use crate::output;
use crate::preload;
use crate::program;
use crate::run;
use verdict::{Finding, Verdict};

/// Say whether the library is active in an interpreter, and why not.
///
/// Starts the interpreter as `obmalloc run` would, lets it allocate, and reads the counters
/// of the library in that process. If LD_PRELOAD names the library already, it stays
/// unchanged, so that a wrong path there is found.
///
/// Exit status: 0 active, 1 not active, 2 unknown.
#[derive(Args)]
#[command(after_help = "Example: obmalloc doctor /usr/bin/python3 -- -X dev")]
pub struct Options {
    /// The interpreter: a path, or a name on PATH [default: that of the virtual environment
    /// in which this command is called by its path, else $VIRTUAL_ENV's, else python3]
    #[arg(value_name = "PYTHON")]
    interpreter: Option<OsString>,

    /// The answer as JSON
    #[arg(long)]
    json: bool,

    /// With LD_PRELOAD as it is in the environment, even if the library is not in it
    #[arg(long)]
    as_is: bool,

    /// How long to wait for the interpreter's answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,

    /// Options of the interpreter
    #[arg(last = true, value_name = "OPTIONS")]
    arguments: Vec<OsString>,
}

/// How the library gets into the process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As `obmalloc run` does it.
    Run,
    /// By this command's environment.
    Environment,
}

/// An interpreter and all that was found out about it.
struct Case {
    /// The interpreter's path.
    interpreter: PathBuf,
    way: Way,
    /// LD_PRELOAD, as the interpreter gets it.
    preload: OsString,
    answer: probe::Answer,
    finding: Finding,
}

/// Examines the interpreter and prints the verdict.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    exec::wait_for_children();
    let interpreter = interpreter(options)?;
    let case = examine(interpreter, options);
    output::print(&if options.json {
        report::json(&case)
    } else {
        report::text(&case)
    })?;
    Ok(ExitCode::from(match case.finding.verdict {
        Verdict::Active => 0,
        Verdict::NotActive => 1,
        Verdict::Unknown => 2,
    }))
}

fn interpreter(options: &Options) -> Result<PathBuf, Failure> {
    if let Some(name) = &options.interpreter {
        return program::find(name).ok_or_else(|| {
            let name = name.display();
            Failure::new(
                format!("{name} is no program that can be started"),
                "name an interpreter: a path, or a name on PATH",
            )
            .status(2)
        });
    }
    let own = environments().map(|folder| folder.join("bin/python").into_os_string());
    own.chain(["python3".into(), "python".into()])
        .find_map(|name| program::find(&name))
        .ok_or_else(|| {
            Failure::new(
                "there is no python3 on PATH",
                "name an interpreter: obmalloc doctor /path/to/python3",
            )
            .status(2)
        })
}

/// The virtual environments whose interpreter is examined if none is named: the one that
/// contains this command, if it was called by its path, then the active one.
fn environments() -> impl Iterator<Item = PathBuf> {
    let called = env::args_os().next().map(PathBuf::from);
    let by_path = called.filter(|name| name.components().count() > 1);
    let around = by_path
        .and_then(|path| path::absolute(path).ok())
        .and_then(|path| Some(path.parent()?.parent()?.to_path_buf()))
        .filter(|folder| folder.join("pyvenv.cfg").is_file());
    let active = env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    around.into_iter().chain(active)
}

fn examine(interpreter: PathBuf, options: &Options) -> Case {
    let given = env::var_os(preload::VARIABLE).unwrap_or_default();
    let named = preload::words(&given).find(|word| library::is_named_by(word));
    let named = named.map(PathBuf::from);
    let names_us = named.is_some();
    let mut case = Case {
        interpreter,
        way: if names_us || options.as_is {
            Way::Environment
        } else {
            Way::Run
        },
        preload: given,
        answer: probe::Answer::default(),
        finding: Finding::not(
            "not_in_preload",
            "LD_PRELOAD does not name the library",
            "start programs with `obmalloc run`, or put what `obmalloc path` prints into LD_PRELOAD",
        ),
    };
    let mut library = named;
    let mut found = Ok(());
    if case.way == Way::Run {
        found = library::find().map(|path| library = Some(path));
    }
    if let Some(finding) = verdict::from_files(&case.interpreter, library.as_deref()) {
        case.finding = finding;
        return case;
    }
    if let Some(path) = library.as_ref().filter(|_| case.way == Way::Run) {
        case.preload = preload::with_first(std::slice::from_ref(path), &case.preload);
    }
    let variables = vec![(preload::VARIABLE.into(), case.preload.clone())];
    let environment = run::environment(variables);
    case.answer = probe::ask(
        &case.interpreter,
        &options.arguments,
        environment,
        Duration::from_secs(options.timeout),
    );
    let finding = verdict::from_answer(&case.interpreter, library.as_deref(), &case.answer);
    let is_absent = case.way == Way::Environment && !names_us;
    match found {
        // The interpreter may be linked with the library, or load it in another way.
        _ if finding.verdict != Verdict::NotActive => case.finding = finding,
        Err(failure) => case.finding = Finding::not("no_library", failure.what(), failure.next()),
        Ok(()) if is_absent => {}
        Ok(()) => case.finding = finding,
    }
    case
}
