//! `obmalloc doctor`: is the library active in this interpreter, and if not, why not?
//!
//! ```text
//!   probe    starts the interpreter and asks it and the library in it (probe.py)
//!   verdict  from what they say to a verdict, a reason, and what to change
//!   report   in words, or as JSON
//! ```
//!
//! A verdict of "active" needs a proof: the library in that process has counted blocks
//! that the process asked for. That it is loaded, or says so itself, is not enough.

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
/// Starts the interpreter as `obmalloc run` would, lets it allocate, and asks the library
/// in that process what it has counted. If LD_PRELOAD names the library already, it is
/// left as it is, so that a wrong path there is found.
///
/// Exit status: 0 active, 1 not active, 2 could not be told.
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
    /// By the environment that this command has.
    Environment,
}

/// What is known about the case.
struct Case {
    /// The interpreter's path.
    interpreter: PathBuf,
    way: Way,
    /// LD_PRELOAD, as the interpreter gets it.
    preload: OsString,
    answer: probe::Answer,
    finding: Finding,
}

/// Looks, and says what it has seen.
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

/// The virtual environments whose interpreter is meant where none is named: the one in
/// which this command lies, if it was called by its path, then the one that is active.
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
    let names_us = preload::words(&given).any(library::is_named_by);
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
    if let Some(finding) = verdict::from_file(&case.interpreter) {
        case.finding = finding;
        return case;
    }
    let mut found = Ok(());
    if case.way == Way::Run {
        found = library::find().map(|library| {
            case.preload = preload::with_first(&[library], &case.preload);
        });
    }
    let variables = vec![(preload::VARIABLE.into(), case.preload.clone())];
    let environment = run::environment(variables);
    case.answer = probe::ask(
        &case.interpreter,
        &options.arguments,
        environment,
        Duration::from_secs(options.timeout),
    );
    let finding = verdict::from_answer(&case.interpreter, &case.answer);
    let is_absent = case.way == Way::Environment && !names_us;
    match found {
        // The interpreter may be linked with the library, or have it otherwise.
        _ if finding.verdict != Verdict::NotActive => case.finding = finding,
        Err(failure) => case.finding = Finding::not("no_library", failure.what(), failure.next()),
        Ok(()) if is_absent => {}
        Ok(()) => case.finding = finding,
    }
    case
}
