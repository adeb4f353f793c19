//! `obmalloc settings`: the library's options with the values that an environment gives them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use clap::Args;
use format::options::{ALL, NOT_UNDERSTOOD, Opt, PREFIX, SYSCALLS, Value, split};
use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::library;
use crate::output::{self, Table};

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// Show the settings of the library, with their values and where each comes from
///
/// Of this command's environment, which a program would inherit, or of the one that a running
/// program was started with. The library reads it once, at start.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A running program
    pid: Option<u32>,

    /// The values that each setting takes, and its meaning
    #[arg(short, long)]
    long: bool,

    /// As JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  obmalloc settings 1234                           of a running program
  OBMALLOC_DECAY_MS=250 obmalloc settings --long   of a program that starts here";

/// Prints them.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let environment = match options.pid {
        None => own_environment(),
        Some(pid) => environment_of(pid)?,
    };
    let settings = Settings::of(&environment);
    output::print(&if options.json {
        settings.json(options.pid)
    } else {
        settings.text(options.long)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Entries `NAME=VALUE`.
pub type Environment = Vec<Vec<u8>>;

/// This command's environment, which a program inherits.
pub fn own_environment() -> Environment {
    let entry =
        |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b'=');
    env::vars_os().map(entry).collect()
}

/// The environment that a process was started with.
pub fn environment_of(pid: u32) -> Result<Environment, Failure> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).map_err(|error| {
        let why = library::reason(&error);
        Failure::new(
            format!("cannot read the environment of process {pid}: {why}"),
            "name a running program of yours, or run this command as its user",
        )
    })?;
    let entries = bytes.split(|&byte| byte == 0);
    Ok(entries.map(<[u8]>::to_vec).collect())
}

/// All options, as an environment sets them.
struct Settings<'a> {
    settings: Vec<Setting<'a>>,
    /// Variables with the library's prefix that are no option.
    unknown: Vec<String>,
}

/// An option, as an environment sets it.
struct Setting<'a> {
    option: &'static Opt,
    value: Value<'a>,
    origin: Origin,
    /// `OBMALLOC_SYSCALLS=stock` leaves it without effect.
    no_effect: bool,
}

/// Where a value comes from.
enum Origin {
    /// The environment has none, or an empty one.
    Default,
    /// A variable.
    Variable { name: String, is_deprecated: bool },
    /// A variable that is ignored, since its value is not of the option's kind.
    Ignored { name: String, text: String },
}

impl<'a> Settings<'a> {
    fn of(environment: &'a Environment) -> Settings<'a> {
        let entries = || environment.iter().map(Vec::as_slice);
        let is_stock = SYSCALLS.key.value(entries()) == Some(Value::Word("stock"));
        let settings = ALL.iter().map(|&option| {
            let entry = option.key.entry(entries());
            let entry = entry.filter(|(_, text)| !text.is_empty());
            let value = option.key.value(entries());
            let origin = match (entry, value) {
                (None, _) => Origin::Default,
                (Some((name, _)), Some(_)) => Origin::Variable {
                    name: full_name(name),
                    is_deprecated: name != option.key.name.as_bytes(),
                },
                (Some((name, text)), None) => Origin::Ignored {
                    name: full_name(name),
                    text: String::from_utf8_lossy(text).into_owned(),
                },
            };
            let value = value.unwrap_or(option.default);
            Setting {
                option,
                value,
                origin,
                no_effect: is_stock && option.key.not_in_stock && value.is_asked_for(),
            }
        });
        let unknown = entries()
            .filter_map(split)
            .map(|(name, _)| name)
            .filter(|name| Opt::find(name).is_none())
            .map(full_name)
            .filter(|name| name != library::VARIABLE);
        Settings {
            settings: settings.collect(),
            unknown: unknown.collect(),
        }
    }

    fn text(&self, with_help: bool) -> String {
        let mut table = Table::new(3, &["setting", "value", "from"]);
        for Setting {
            option,
            value,
            origin,
            no_effect,
        } in &self.settings
        {
            let mut from = origin.text();
            if *no_effect {
                from += ", without effect under OBMALLOC_SYSCALLS=stock";
            }
            let name = full_name(option.key.name.as_bytes());
            table.row(vec![name, value.to_string(), from]);
        }
        let mut lines = table.lines().into_iter();
        let mut text = format!("{}\n", lines.next().unwrap_or_default());
        for (line, Setting { option, .. }) in lines.zip(&self.settings) {
            text += &format!("{line}\n");
            if with_help {
                text += &help_of(option);
            }
        }
        for name in &self.unknown {
            text += &format!("{name}{NOT_UNDERSTOOD}\n");
        }
        text
    }

    fn json(&self, pid: Option<u32>) -> String {
        let settings = self.settings.iter().map(|setting| {
            let Setting { option, value, .. } = setting;
            let (source, variable, ignored) = match &setting.origin {
                Origin::Default => ("default", None, None),
                Origin::Variable { name, .. } => ("environment", Some(name), None),
                Origin::Ignored { name, text } => ("default", Some(name), Some(text)),
            };
            json!({
                "name": full_name(option.key.name.as_bytes()),
                "deprecated_name": option.key.alias.map(|alias| full_name(alias.as_bytes())),
                "since": option.since,
                "renamed": option.renamed,
                "values": option.key.kind.to_string(),
                "default": option.default.to_string(),
                "meaning": option.help,
                "value": value.to_string(),
                "source": source,
                "variable": variable,
                "ignored_value": ignored,
                "has_effect": !setting.no_effect,
            })
        });
        let value = json!({
            "schema": SCHEMA,
            "pid": pid,
            "settings": settings.collect::<Vec<Json>>(),
            "unknown": self.unknown,
        });
        format!("{value}\n")
    }
}

impl Origin {
    fn text(&self) -> String {
        match self {
            Origin::Default => "default".into(),
            Origin::Variable {
                name,
                is_deprecated: true,
            } => format!("{name}, its deprecated name"),
            Origin::Variable { .. } => "environment".into(),
            Origin::Ignored { name, text } => format!("default; {name}={text}{NOT_UNDERSTOOD}"),
        }
    }
}

fn full_name(name: &[u8]) -> String {
    format!("{PREFIX}{}", String::from_utf8_lossy(name))
}

/// The values that an option takes, its default and its meaning.
fn help_of(option: &Opt) -> String {
    let Opt {
        key, default, help, ..
    } = option;
    format!("      {}; {default}\n      {help}\n", key.kind)
}

/// The option of this name, present or deprecated, with or without `OBMALLOC_`, in any case.
pub fn named(name: &str) -> Option<&'static Opt> {
    let name = name.to_ascii_uppercase();
    Opt::find(name.strip_prefix(PREFIX).unwrap_or(&name).as_bytes())
}

/// A list of them for a help text.
pub fn help() -> String {
    let mut text = String::from("Settings (for --set):\n");
    for option in ALL {
        text += &format!("  {PREFIX}{}\n{}", option.key.name, help_of(option));
    }
    text
}

/// The value of an option in an environment.
pub fn value<'a>(option: &Opt, environment: &'a Environment) -> Value<'a> {
    let value = option.key.value(environment.iter().map(Vec::as_slice));
    value.unwrap_or(option.default)
}

/// Whether a variable sets this option.
pub fn is_name_of(option: &Opt, variable: &std::ffi::OsStr) -> bool {
    let name = variable.as_bytes().strip_prefix(PREFIX.as_bytes());
    name.is_some_and(|name| option.key.has_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(line: &str) -> Environment {
        let entries = line.split(' ');
        entries.map(|entry| entry.as_bytes().to_vec()).collect()
    }

    /// The row of a setting in the text, its columns one blank apart.
    fn row(line: &str, name: &str) -> String {
        let environment = environment(line);
        let text = Settings::of(&environment).text(false);
        let row = text.lines().find(|line| line.starts_with(name)).unwrap();
        row.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_origin_is_named() {
        for (line, name, expected) in [
            ("", "OBMALLOC_DECAY_MS", "1000 default"),
            ("OBMALLOC_DECAY_MS=", "OBMALLOC_DECAY_MS", "1000 default"),
            ("OBMALLOC_DECAY_MS=5", "OBMALLOC_DECAY_MS", "5 environment"),
            (
                "OBMALLOC_DECAY_MS=soon",
                "OBMALLOC_DECAY_MS",
                "1000 default; OBMALLOC_DECAY_MS=soon: not understood, ignored",
            ),
            (
                "OBMALLOC_LIMIT=1K",
                "OBMALLOC_SOFT_LIMIT",
                "1024 OBMALLOC_LIMIT, its deprecated name",
            ),
            (
                "OBMALLOC_LIMIT=1K OBMALLOC_SOFT_LIMIT=auto",
                "OBMALLOC_SOFT_LIMIT",
                "auto environment",
            ),
            (
                "OBMALLOC_LIVE=1 OBMALLOC_SYSCALLS=stock",
                "OBMALLOC_STATS_PAGE",
                "1 OBMALLOC_LIVE, its deprecated name, without effect under \
                 OBMALLOC_SYSCALLS=stock",
            ),
        ] {
            assert_eq!(row(line, name), format!("{name} {expected}"), "{line}");
        }
        assert_eq!(
            row("OBMALLOC_LIBRARY=/x OBMALLOC_NO=1", "OBMALLOC_NO"),
            "OBMALLOC_NO: not understood, ignored"
        );
    }

    #[test]
    fn json_has_all_of_them() {
        let environment = environment("OBMALLOC_GUARD=10 OBMALLOC_ALIGN=7");
        let json: Json = serde_json::from_str(&Settings::of(&environment).json(Some(7))).unwrap();
        let settings = json["settings"].as_array().unwrap();
        assert_eq!((settings.len(), &json["pid"]), (ALL.len(), &json!(7)));
        let of = |name: &str| settings.iter().find(|each| each["name"] == name).unwrap();
        let guard = of("OBMALLOC_GUARD_SAMPLE_RATE");
        assert_eq!(guard["value"], "10");
        assert_eq!(guard["variable"], "OBMALLOC_GUARD");
        let align = of("OBMALLOC_ALIGN");
        assert_eq!(
            (&align["value"], &align["ignored_value"]),
            (&json!("16"), &json!("7"))
        );
    }

    #[test]
    fn names_are_found_in_each_spelling() {
        for name in ["VERBOSE", "verbose", "OBMALLOC_VERBOSE", "obmalloc_verbose"] {
            assert_eq!(named(name).unwrap().key.name, "VERBOSE");
        }
        assert_eq!(named("limit").unwrap().key.name, "SOFT_LIMIT");
        assert!(named("OBMALLOC_").is_none());
        assert!(named("VERBOS").is_none());
    }
}
