//! `obmalloc run`: starts a program with the library.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use format::options::{self, Opt, PREFIX};

use crate::exec;
use crate::failure::{Failure, USAGE};
use crate::library;
use crate::output::say;
use crate::preload;
use crate::program;
use crate::settings;
use crate::words::Words;

/// Start a program with the library.
///
/// Puts libobmalloc.so first in LD_PRELOAD, sets the variables of the options, and executes the
/// program in this process: exit status, signals and pid are the program's own. Other entries of
/// LD_PRELOAD stay, after the library; runtimes of sanitizers (libasan.so), which must be first,
/// stay before it. If the library is missing or for another machine, the program runs without
/// it, after a line on stderr. A Python file, `-m` or `-c` runs under the interpreter.
#[derive(Args)]
#[command(after_help = EXAMPLE, after_long_help = format!("{EXAMPLE}\n\n{}", settings::help()))]
pub struct Options {
    #[command(flatten)]
    pub with: With,

    /// Do not preload into child processes that are not Python
    ///
    /// The preload is removed from the environment, and restored when the program, or a Python
    /// that it has started in this way, executes a program that is linked with a CPython, or a
    /// script for one. Pythons that a shell starts do not get it.
    #[arg(long)]
    pythons_only: bool,

    #[command(flatten)]
    words: Words,
}

const EXAMPLE: &str = "Examples:
  obmalloc run --verbose --soft-limit auto -- python3 app.py
  obmalloc run app.py
  obmalloc run --profile app.py
  obmalloc run -m http.server
  obmalloc run gunicorn app:app";

/// Settings of the library, for a program that is started with it.
#[derive(Args, Default)]
pub struct With {
    /// Print one line on stderr: whether the library is active, and why not
    #[arg(short, long)]
    verbose: bool,

    /// Write statistics at exit, as JSON to FILE (%p in its name is the pid); `-`: as text to stderr
    #[arg(long, value_name = "FILE")]
    stats: Option<OsString>,

    /// Publish statistics for `obmalloc stats` and `obmalloc top` while the program runs
    #[arg(long, alias = "live")]
    stats_page: bool,

    /// Profile the heap, for `obmalloc profile`: which lines hold the memory. One allocation in INTERVAL
    /// bytes is sampled, 512K by default; 1: each. Publishes statistics, too
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true,
          default_missing_value = "512K")]
    profile: Option<OsString>,

    /// Soft limit to the program's memory: 512M, 2G, or auto for the cgroup's
    #[arg(long, alias = "limit", value_name = "SIZE")]
    soft_limit: Option<OsString>,

    /// Hard limit: requests beyond it raise MemoryError
    #[arg(long, alias = "limit-hard", value_name = "SIZE")]
    hard_limit: Option<OsString>,

    /// Time until a free page is returned to the kernel; 0: at once, -1: never
    #[arg(long, value_name = "MILLISECONDS", allow_hyphen_values = true)]
    decay: Option<OsString>,

    /// Round blocks up to 8 bytes instead of 16 (in one domain only: --packed=obj or mem)
    #[arg(long, value_name = "DOMAIN", num_args = 0..=1, require_equals = true,
          default_missing_value = "all", value_parser = ["all", "obj", "mem"])]
    packed: Option<String>,

    /// Find memory bugs: one allocation in N gets a page of its own
    #[arg(long, alias = "guard", value_name = "N")]
    guard_sample_rate: Option<OsString>,

    /// CPython's debug hooks over the library
    #[arg(long)]
    debug: bool,

    /// Without the helper thread
    #[arg(long, alias = "no-thread")]
    no_background_thread: bool,

    /// Any setting of the library, with or without OBMALLOC_ in front (see --help)
    #[arg(short, long = "set", value_name = "NAME=VALUE")]
    set: Vec<OsString>,
}

/// Executes the program.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let command = options.words.command()?;
    let program = &command[0];
    let mut variables = options.with.variables()?;
    // The program runs in any case, without the library if necessary.
    match to_preload(program, options.pythons_only) {
        Ok(libraries) => {
            let value = env::var_os(preload::VARIABLE).unwrap_or_default();
            let value = preload::with_first(&libraries, &value);
            variables.push((preload::VARIABLE.into(), value));
            if options.pythons_only {
                let value = preload::joined(&libraries);
                variables.push((preload::PYTHONS_VARIABLE.into(), value));
            }
        }
        Err(failure) => say(&format_args!("{failure} (running without the library)")),
    }
    let error = exec::execute(&command, &environment(variables));
    Err(cannot_start(program, &error))
}

fn to_preload(program: &OsStr, pythons_only: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut libraries = vec![library_for(program)?];
    if pythons_only {
        libraries.push(library::beside(&libraries[0], library::PYTHONS)?);
    }
    Ok(libraries)
}

/// The library, if it can be preloaded into this program, or into those that it starts.
pub fn library_for(program: &OsStr) -> Result<PathBuf, Failure> {
    let library = library::find()?;
    match program::find(program).and_then(|path| program::cannot_have_us(&path, Some(&library))) {
        None => Ok(library),
        Some(program::Obstacle::Static) => {
            say(&format_args!(
                "obmalloc: {} {}; programs that it starts have the library",
                program.display(),
                program::Obstacle::Static
            ));
            Ok(library)
        }
        Some(why) => Err(Failure::new(
            format!("{} {why}", program.display()),
            "another build of it is needed",
        )),
    }
}

impl With {
    /// The environment variables of the options.
    pub fn variables(&self) -> Result<Vec<(OsString, OsString)>, Failure> {
        let mut variables = Vec::new();
        let mut set = |option: &Opt, value: OsString| {
            variables.push((
                OsString::from(format!("{PREFIX}{}", option.key.name)),
                value,
            ));
        };
        let flags = [
            (&options::VERBOSE, self.verbose, "1"),
            (
                &options::STATS_PAGE,
                self.stats_page || self.profile.is_some(),
                "1",
            ),
            (&options::DEBUG, self.debug, "1"),
            (&options::BACKGROUND_THREAD, self.no_background_thread, "0"),
        ];
        for (option, asked, value) in flags {
            if asked {
                set(option, value.into());
            }
        }
        if let Some(file) = &self.stats {
            let is_text = file == "-";
            let value = if is_text { "1".into() } else { file.clone() };
            set(&options::STATS, value);
        }
        let values = [
            (&options::PROFILE, &self.profile, "profile", "512K"),
            (&options::SOFT_LIMIT, &self.soft_limit, "soft-limit", "512M"),
            (&options::HARD_LIMIT, &self.hard_limit, "hard-limit", "512M"),
            (&options::DECAY_MS, &self.decay, "decay", "250"),
            (
                &options::GUARD_SAMPLE_RATE,
                &self.guard_sample_rate,
                "guard-sample-rate",
                "1000",
            ),
        ];
        for (option, value, word, example) in values {
            if let Some(value) = value {
                check(option, value, word, example)?;
                set(option, value.clone());
            }
        }
        if let Some(domain) = &self.packed {
            let value = match domain.as_str() {
                "all" => "8".into(),
                one => format!("{one}:8"),
            };
            set(&options::ALIGN, value.into());
        }
        for word in &self.set {
            let (option, value) = setting(word)?;
            set(option, value);
        }
        Ok(variables)
    }
}

/// Refuses a value that the library would ignore.
fn check(option: &Opt, value: &OsStr, word: &str, example: &str) -> Result<(), Failure> {
    let kind = option.key.kind;
    match kind.parse(value.as_bytes()) {
        Some(_) => Ok(()),
        None => Err(Failure::new(
            format!("--{word} takes {kind}, not {}", value.display()),
            format!("write, for example, --{word}={example}"),
        )
        .status(USAGE)),
    }
}

/// Splits NAME=VALUE.
fn setting(word: &OsStr) -> Result<(&'static Opt, OsString), Failure> {
    let text = word.to_string_lossy();
    let Some((name, value)) = text.split_once('=') else {
        return Err(Failure::new(
            format!("{text} is no setting"),
            "write NAME=VALUE: --set decay_ms=250",
        )
        .status(USAGE));
    };
    match settings::named(name) {
        Some(option) => Ok((option, value.into())),
        None => {
            let names: Vec<_> = options::ALL.iter().map(|option| option.key.name).collect();
            Err(Failure::new(
                format!("{name} is no setting of the library"),
                format!("settings are {}", names.join(", ")),
            )
            .status(USAGE))
        }
    }
}

/// This process's environment with these variables replaced; and without the command's own
/// variable, which the library would report as unknown.
pub fn environment(variables: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = env::vars_os().collect();
    environment.retain(|(name, _)| name != library::VARIABLE);
    for (name, value) in variables {
        environment.retain(|(other, _)| *other != name);
        environment.push((name, value));
    }
    environment
}

/// The exit status is that of shells: 127 for a missing program, 126 for one that cannot be
/// executed.
pub fn cannot_start(program: &OsStr, error: &io::Error) -> Failure {
    let (status, next) = match error.kind() {
        io::ErrorKind::NotFound => (127, "is its name right, and is it on PATH?"),
        io::ErrorKind::PermissionDenied => (126, "is it executable?"),
        _ => (
            126,
            "start it without `obmalloc run` to see whether it runs at all",
        ),
    };
    let (program, why) = (program.display(), library::reason(error));
    Failure::new(format!("cannot start {program}: {why}"), next).status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_settings_of_the_library() {
        let with = With {
            verbose: true,
            stats: Some("-".into()),
            soft_limit: Some("512M".into()),
            decay: Some("-1".into()),
            packed: Some("obj".into()),
            profile: Some("1M".into()),
            no_background_thread: true,
            set: vec!["small_max=8K".into(), "OBMALLOC_FORK_COW=freeze".into()],
            ..With::default()
        };
        let mut variables = with.variables().unwrap();
        variables.sort();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        let expected = [
            "OBMALLOC_ALIGN=obj:8",
            "OBMALLOC_BACKGROUND_THREAD=0",
            "OBMALLOC_DECAY_MS=-1",
            "OBMALLOC_FORK_COW=freeze",
            "OBMALLOC_POOL_MAX=8K",
            "OBMALLOC_PROFILE=1M",
            "OBMALLOC_SOFT_LIMIT=512M",
            "OBMALLOC_STATS=1",
            "OBMALLOC_STATS_PAGE=1",
            "OBMALLOC_VERBOSE=1",
        ];
        assert_eq!(variables, expected);
    }

    #[test]
    fn other_words_are_refused() {
        for word in ["", "decay_ms", "=1", "decay=1"] {
            assert!(setting(OsStr::new(word)).is_err(), "{word:?}");
        }
        let with = |limit: &str| With {
            hard_limit: Some(limit.into()),
            ..With::default()
        };
        for limit in ["", "0", "M", "12x", "-1", "0K"] {
            assert!(with(limit).variables().is_err(), "{limit:?}");
        }
        for limit in ["1", "512M", "2g", "auto"] {
            assert!(with(limit).variables().is_ok(), "{limit:?}");
        }
    }
}
