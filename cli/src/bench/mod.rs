//! `obmalloc bench`: runs a program without and with the library, in pairs.
//!
//! ```text
//!   measure   one run: the kernel's account, and memory over time
//!   compare   pairs of numbers: medians, ratios, spread
//! ```
//!
//! The two sides of a pair run one right after the other, and the one that is first
//! changes from pair to pair: what else the machine does hits both.

mod compare;
mod measure;

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::preload;
use crate::run;
use crate::start;
use crate::words::{For, Words};
use compare::{Comparison, compare};
use measure::{QUANTITIES, Run};

/// The version of the JSON's form.
const SCHEMA: u32 = 1;
/// Names of the sides, and of the quantities, in JSON.
const SIDES: [&str; 2] = ["without", "with"];
const KEYS: [&str; QUANTITIES.len()] = ["time", "cpu", "peak_rss", "rss_time", "page_faults"];

/// Run a program without and with the library, in pairs, and compare.
///
/// Prints medians of time, processor time, peak RSS, RSS by time and page faults, the
/// ratio, and its spread over the pairs. The program's output is thrown away. Peak RSS is
/// that of the largest process, RSS by time the sum over the program and its children.
#[derive(Args)]
#[command(after_help = "Example: obmalloc bench -n 7 -- python3 my_app.py")]
pub struct Options {
    /// How many pairs
    #[arg(short = 'n', long, value_name = "ROUNDS", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Runs before the first pair that are not counted: they read the files in
    #[arg(long, value_name = "N", default_value_t = 1)]
    warm_up: u32,

    /// The result as JSON, with the numbers of each run
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    with: run::With,

    #[command(flatten)]
    words: Words,
}

/// Measures, and prints the comparison.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    start::wait_for_children();
    let command = options
        .words
        .command(&For("bench", "measure", "python3 my_app.py"))?;
    let library = run::library_for(&command[0])?;
    let given = env::var_os(preload::VARIABLE).unwrap_or_default();
    let mut settings = options.with.variables()?;
    // Its line on stderr is the proof that the right side has it.
    settings.push(("OBMALLOC_VERBOSE".into(), "1".into()));
    settings.push((
        preload::VARIABLE.into(),
        preload::with_first(&[library], &given),
    ));
    let without = vec![(preload::VARIABLE.into(), preload::without(&given))];
    let bench = Bench {
        options,
        command,
        environments: [run::environment(without), run::environment(settings)],
        is_terminal: stderr().is_terminal(),
        shown: Cell::new(false),
    };
    let pairs = bench.pairs()?;
    let of = |quantity: usize| -> Vec<(f64, f64)> {
        pairs
            .iter()
            .map(|pair| (pair[0][quantity], pair[1][quantity]))
            .collect()
    };
    let quantities = std::array::from_fn(of);
    output::print(&if options.json {
        format!("{}\n", in_json(&bench, &quantities))
    } else {
        in_words(&bench, &quantities)
    })?;
    Ok(ExitCode::SUCCESS)
}

type Numbers = [f64; QUANTITIES.len()];
type Pairs = [Vec<(f64, f64)>; QUANTITIES.len()];

struct Bench<'a> {
    options: &'a Options,
    command: Vec<OsString>,
    /// Of both sides.
    environments: [Vec<(OsString, OsString)>; 2],
    is_terminal: bool,
    /// Whether a line of progress stands on the terminal.
    shown: Cell<bool>,
}

impl Bench<'_> {
    fn pairs(&self) -> Result<Vec<[Numbers; 2]>, Failure> {
        for n in 1..=self.options.warm_up {
            self.one(0, &format!("warm-up {n}"))?;
        }
        let rounds = self.options.rounds;
        let mut pairs = Vec::new();
        for round in 1..=rounds {
            let mut pair = [[0.0; QUANTITIES.len()]; 2];
            let first = usize::from(round % 2 == 0);
            for side in [first, 1 - first] {
                let name = format!("pair {round} of {rounds}, {} the library", SIDES[side]);
                pair[side] = self.one(side, &name)?.numbers;
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }

    /// One run of a side, which must succeed.
    fn one(&self, side: usize, name: &str) -> Result<Run, Failure> {
        self.show(name);
        let show = self.is_terminal;
        let progress = move |seconds: f64, rss: f64| {
            if show {
                eprint!("\r{name}: {seconds:.1} s, {rss:.0} MiB\x1b[K");
            }
        };
        let command = &self.command;
        let run = measure::run(command, &self.environments[side], progress);
        self.clear();
        let run = run.map_err(|error| run::cannot_start(&command[0], &error))?;
        let status = run.status;
        if !status.success() {
            let how = match (status.signal(), status.code()) {
                (Some(signal), _) => format!("signal {signal} ended it"),
                (None, code) => format!("it ended with status {}", code.unwrap_or(-1)),
            };
            let mut lines = run.stderr.lines().filter(|line| !line.trim().is_empty());
            let last = lines
                .next_back()
                .map_or(String::new(), |line| format!(", its last line: {line}"));
            let next = if side == 1 {
                "run it by `obmalloc run --verbose`, and if it fails only there, report a bug"
            } else {
                "make it succeed first: a program that fails cannot be compared"
            };
            return Err(Failure::new(
                format!("the command failed ({name}): {how}{last}"),
                next,
            ));
        }
        let is_active = run
            .stderr
            .lines()
            .any(|line| line.starts_with("obmalloc: active in pid"));
        if side == 1 && !is_active {
            return Err(Failure::new(
                "no process of the command has said that the library is active in it",
                "ask `obmalloc doctor` about its interpreter",
            ));
        }
        Ok(run)
    }

    /// What is done now, on a terminal only.
    fn show(&self, name: &str) {
        if self.is_terminal {
            eprint!("\r{name}\x1b[K");
            self.shown.set(true);
        }
    }

    fn clear(&self) {
        if self.shown.replace(false) {
            eprint!("\r\x1b[K");
            // What a terminal does not take is lost.
            let _ = stderr().flush();
        }
    }
}

fn in_words(bench: &Bench<'_>, quantities: &Pairs) -> String {
    let mut text = format!(
        "{:<18} {:>11} {:>11} {:>7}   spread\n",
        "medians", SIDES[0], SIDES[1], "ratio"
    );
    for (name, pairs) in QUANTITIES.iter().zip(quantities) {
        let Comparison {
            medians,
            ratio,
            outcome,
        } = compare(pairs);
        let [least, middle, greatest] = ratio;
        let digits = if medians[0] >= 1000.0 { 0 } else { 3 };
        text += &format!(
            "{name:<18} {:>11.digits$} {:>11.digits$} {middle:>7.3}   {least:.3} to {greatest:.3}  {}\n",
            medians[0],
            medians[1],
            outcome.words()
        );
    }
    let rounds = bench.options.rounds;
    let plural = if rounds == 1 { "pair" } else { "pairs" };
    let words: Vec<_> = bench
        .command
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    text + &format!("{rounds} {plural} of: {}\n", words.join(" "))
}

fn in_json(bench: &Bench<'_>, quantities: &Pairs) -> Value {
    let mut object = serde_json::Map::new();
    for (key, pairs) in KEYS.iter().zip(quantities) {
        let Comparison {
            medians,
            ratio,
            outcome,
        } = compare(pairs);
        let side =
            |side: usize| -> Vec<f64> { pairs.iter().map(|pair| [pair.0, pair.1][side]).collect() };
        let value = json!({
            SIDES[0]: side(0),
            SIDES[1]: side(1),
            "medians": medians,
            "ratio": ratio[1],
            "spread": [ratio[0], ratio[2]],
            "outcome": outcome.words(),
        });
        object.insert((*key).into(), value);
    }
    let words: Vec<_> = bench
        .command
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    json!({
        "schema": SCHEMA,
        "command": words,
        "rounds": bench.options.rounds,
        "units": {"time": "s", "cpu": "s", "peak_rss": "MiB", "rss_time": "MiB s", "page_faults": "1"},
        "quantities": object,
    })
}
