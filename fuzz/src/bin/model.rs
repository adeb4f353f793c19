//! The model as a program.
//!
//! ```text
//!    model --seed S --ops N [--profile plain|paranoid] [--set "NAME=VALUE ..."] [--aslr]
//!          one run; it prints first how to repeat it
//!    model --runs --ops N [--seed S] [--profile ...] [--jobs J] [--each N]
//!          N operations in runs of EACH, under all sets of settings in turn
//! ```

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obmalloc_fuzz::engine::{Care, Engine};
use obmalloc_fuzz::rare_ops::Profile;
use obmalloc_fuzz::settings::{SETS, Settings};
use obmalloc_fuzz::source::Random;
use obmalloc_fuzz::{history, turns};

#[derive(Clone)]
struct Arguments {
    runs: bool,
    seed: u64,
    ops: u64,
    each: u64,
    jobs: usize,
    profile: String,
    set: Option<String>,
    aslr: bool,
}

/// Seconds after which a run counts as hanging.
const HANGS: u32 = 3600;

/// The profile of this build.
const BUILT_FOR: &str = if cfg!(debug_assertions) {
    "paranoid"
} else {
    "plain"
};

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        runs: false,
        seed: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos() as u64),
        ops: 100_000,
        each: 20_000_000,
        jobs: 2,
        profile: BUILT_FOR.into(),
        set: None,
        aslr: false,
    };
    let mut words = std::env::args().skip(1);
    let number = |text: String| {
        let scientific = text.parse::<f64>().ok().map(|n| n as u64);
        let plain = text.parse::<u64>().ok().or(scientific);
        let hex = text
            .strip_prefix("0x")
            .map(|hex| u64::from_str_radix(hex, 16));
        hex.map_or(plain, Result::ok)
            .ok_or(format!("{text}: a number?"))
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} takes a value"));
        match word.as_str() {
            "--runs" => arguments.runs = true,
            "--aslr" => arguments.aslr = true,
            "--seed" => arguments.seed = number(value()?)?,
            "--ops" => arguments.ops = number(value()?)?,
            "--each" => arguments.each = number(value()?)?.max(1),
            "--jobs" => arguments.jobs = number(value()?)?.max(1) as usize,
            "--profile" => arguments.profile = value()?,
            "--set" => arguments.set = Some(value()?),
            _ => return Err(format!("{word}: what is that?")),
        }
    }
    Profile::named(&arguments.profile).ok_or(format!("{}: no such profile", arguments.profile))?;
    Ok(arguments)
}

impl Arguments {
    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--profile", &self.profile]);
        command.args([
            "--seed",
            &self.seed.to_string(),
            "--ops",
            &self.ops.to_string(),
        ]);
        command.args(["--set", self.set.as_deref().unwrap_or_default()]);
        if self.aslr {
            command.arg("--aslr");
        }
        command
    }

    fn text(&self) -> String {
        format!(
            "model --profile {} --seed {} --ops {} --set \"{}\"{}",
            self.profile,
            self.seed,
            self.ops,
            self.set.as_deref().unwrap_or_default(),
            if self.aslr { " --aslr" } else { "" }
        )
    }
}

/// Executes this program again, unless its environment and address space are as required.
fn be_set(arguments: &Arguments) {
    const MARK: &str = "MODEL_IS_SET";
    let Some(set) = &arguments.set else {
        return;
    };
    if std::env::var(MARK).is_ok() {
        return;
    }
    if !arguments.aslr {
        // SAFETY: no memory is touched.
        unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    }
    let mut command = arguments.command();
    for (name, _) in std::env::vars() {
        if name.starts_with("OBMALLOC_") || name.starts_with("MODEL_") {
            command.env_remove(name);
        }
    }
    command.env(MARK, "1").envs(Settings::pairs(set));
    let error = command.exec();
    panic!("this program again: {error}");
}

fn run(arguments: &Arguments) {
    be_set(arguments);
    println!("{}", arguments.text());
    history::keep_replay(arguments.text());
    history::watch();
    // SAFETY: no preconditions; the alarm ends a run that hangs.
    unsafe { libc::alarm(HANGS) };
    obmalloc_fuzz::start();
    let profile = Profile::named(&arguments.profile).expect("checked by the arguments' parser");
    let care = match arguments.profile.as_str() {
        "paranoid" => Care::Paranoid,
        _ => Care::Plain,
    };
    let begun = Instant::now();
    let engine = Engine::new(Random::new(arguments.seed), profile, care, arguments.ops);
    let mut engine = turns::drive(engine);
    engine.finish();
    let seconds = begun.elapsed().as_secs_f64();
    let calls = engine.calls as f64;
    println!("{calls:.3e} operations, {:.2e} per second", calls / seconds);
}

/// Does all runs. Returns whether all succeeded.
fn runs(arguments: &Arguments) -> bool {
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let count = arguments.ops.div_ceil(arguments.each);
    let failed = Mutex::new(Vec::new());
    println!(
        "{:.1e} operations in {count} runs ({}), from seed {} on",
        arguments.ops as f64, arguments.profile, arguments.seed
    );
    let work = || {
        loop {
            let n = next.fetch_add(1, Relaxed);
            if n >= count || !failed.lock().unwrap().is_empty() {
                return;
            }
            let one = Arguments {
                seed: arguments.seed.wrapping_add(n),
                ops: arguments.each.min(arguments.ops - n * arguments.each),
                set: Some(match &arguments.set {
                    Some(set) => set.clone(),
                    None => SETS[n as usize % SETS.len()].into(),
                }),
                aslr: n % 4 == 3,
                ..arguments.clone()
            };
            let output = one.command().output().expect("this program again");
            if !output.status.success() {
                failed.lock().unwrap().push((one, output));
            }
        }
    };
    std::thread::scope(|scope| {
        (0..arguments.jobs).for_each(|_| drop(scope.spawn(work)));
    });
    for (one, output) in failed.lock().unwrap().iter() {
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        print!("{}", String::from_utf8_lossy(stdout));
        eprint!("{}", String::from_utf8_lossy(stderr));
        println!("FAILED ({status}); again: {}", one.text());
    }
    let went_well = failed.lock().unwrap().is_empty();
    println!(
        "{} in {:.1} s",
        if went_well { "well" } else { "FAILED" },
        begun.elapsed().as_secs_f64()
    );
    went_well
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if !arguments.runs {
        run(&arguments);
        return ExitCode::SUCCESS;
    }
    ExitCode::from(u8::from(!runs(&arguments)))
}
