//! Asks the interpreter itself: starts it with the preload, lets it allocate, and
//! collects what it and the library in it say.
//!
//! Three witnesses: the library's count of blocks, taken in the process by ctypes (or,
//! where that is missing, the statistics that it leaves at exit); its line on stderr;
//! and the list of files that the process has mapped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = include_str!("probe.py");
/// Blocks that the program asks for, less what a few of its own may hide.
const BLOCKS: u64 = 19_000;
/// What it asks for where ctypes is missing.
const BYTES: u64 = 20 << 20;
/// More than this is no answer of an interpreter.
const TALK: u64 = 8 << 20;

/// What came back.
#[derive(Default)]
pub struct Answer {
    facts: BTreeMap<String, String>,
    /// Files that the process had mapped.
    pub files: Vec<PathBuf>,
    /// What was on stderr.
    pub stderr: String,
    /// What the library counted, if it counted what the interpreter allocated.
    pub counted: Option<String>,
    /// Why there is no answer.
    pub silence: Option<String>,
    /// The library's own statistics.
    statistics: Option<Value>,
}

impl Answer {
    /// One thing that the interpreter said.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// Whether it said yes to a question.
    pub fn is(&self, name: &str) -> bool {
        self.fact(name).is_some_and(|value| value != "0")
    }

    /// The library's version, from the library.
    pub fn library_version(&self) -> Option<&str> {
        self.statistics.as_ref()?["version"].as_str()
    }

    /// What the library in that process said on stderr: `active` or `standing aside`, and
    /// what follows its pid.
    pub fn line(&self, verdict: &str) -> Option<&str> {
        let start = format!("obmalloc: {verdict} in pid {}: ", self.fact("pid")?);
        self.stderr
            .lines()
            .find_map(|line| line.strip_prefix(&start))
    }
}

/// Starts the interpreter and listens.
pub fn ask(
    interpreter: &Path,
    arguments: &[OsString],
    environment: Vec<(OsString, OsString)>,
    patience: Duration,
) -> Answer {
    let own = std::process::id();
    let mark = format!("obmalloc-doctor-{own}-{:p}", &raw const environment);
    let folder = std::env::temp_dir().join(&mark);
    // A folder that is not this command's own is no witness, and then there is no OK
    // without ctypes.
    let is_own = fs::DirBuilder::new().mode(0o700).create(&folder).is_ok();
    let folder = is_own.then_some(folder);
    let mut command = Command::new(interpreter);
    command
        .args(arguments)
        .args(["-c", &PROGRAM.replace('@', &mark)])
        .env_clear()
        .envs(environment)
        .env("OBMALLOC_VERBOSE", "1")
        .env(
            "OBMALLOC_STATS",
            folder
                .as_ref()
                .map_or("".into(), |folder| folder.join("%p")),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let answer = match command.spawn() {
        Ok(child) => listen(child, &mark, folder.as_deref(), patience),
        Err(error) => Answer {
            silence: Some(format!(
                "it cannot be started: {}",
                crate::library::reason(&error)
            )),
            ..Answer::default()
        },
    };
    if let Some(folder) = folder {
        let _ = fs::remove_dir_all(folder);
    }
    answer
}

fn listen(mut child: Child, mark: &str, folder: Option<&Path>, patience: Duration) -> Answer {
    let group = child.id();
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What can be read before an error counts.
            let _ = pipe.map(|pipe| pipe.take(TALK).read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let ended = wait(&mut child, patience);
    if ended.is_none() {
        // SAFETY: the group that was made for the child; ends all that hold the pipes.
        unsafe { libc::kill(-(group as i32), libc::SIGKILL) };
        let _ = child.wait();
    }
    let mut answer = Answer {
        stderr: err.join().unwrap_or_default(),
        ..Answer::default()
    };
    for line in out.join().unwrap_or_default().lines() {
        let said = line.strip_prefix(mark).map(str::trim_start);
        match said.and_then(|said| said.split_once(' ')) {
            Some(("file", path)) => answer.files.push(path.into()),
            Some((key, value)) => {
                answer.facts.insert(key.into(), value.into());
            }
            None => {}
        }
    }
    answer.weigh(folder);
    if answer.fact("end").is_none() {
        answer.silence = Some(match ended {
            None => format!("it did not end within {} seconds", patience.as_secs()),
            Some(status) => how_it_ended(status, &answer.stderr),
        });
    }
    answer
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

fn how_it_ended(status: ExitStatus, stderr: &str) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal} ended it"),
        (None, Some(0)) => "it ended without a word".into(),
        (None, code) => format!("it ended with status {}", code.unwrap_or(-1)),
    };
    let mut lines = stderr.lines().filter(|line| !line.trim().is_empty());
    match lines.next_back() {
        Some(line) => format!("{how}, its last line: {line}"),
        None => how,
    }
}

impl Answer {
    /// Whether the library's own numbers follow what the interpreter did.
    fn weigh(&mut self, folder: Option<&Path>) {
        let parse = |text: Option<&str>| text.and_then(|text| serde_json::from_str(text).ok());
        let [before, during, after] =
            ["before", "during", "after"].map(|key| parse(self.fact(key)));
        if let (Some(before), Some(during), Some(after)) = (before, during, after) {
            let [first, second, third] = [&before, &during, &after].map(blocks_live);
            if second >= first + BLOCKS && second >= third + BLOCKS {
                let grown = second - first;
                self.counted = Some(format!(
                    "it counted {grown} blocks more while the interpreter held 20000 objects"
                ));
            }
            self.statistics = Some(during);
        } else if let (Some(pid), Some(folder)) = (self.fact("pid"), folder) {
            let text = fs::read_to_string(folder.join(pid)).ok();
            let Some(statistics) = parse(text.as_deref()) else {
                return;
            };
            let arenas = &statistics["arenas"];
            let number = |name: &str| arenas[name].as_u64().unwrap_or(0);
            let most = number("highwater") * number("size");
            if self.fact("ctypes") == Some("missing") && most >= BYTES {
                self.counted = Some(format!(
                    "without ctypes: its arenas grew to {} MiB while the interpreter held 400000 objects",
                    most >> 20
                ));
            }
            self.statistics = Some(statistics);
        }
    }
}

fn blocks_live(statistics: &Value) -> u64 {
    let classes = statistics["classes"].as_array();
    let blocks = classes
        .into_iter()
        .flatten()
        .map(|class| class["blocks_live"].as_u64());
    blocks.flatten().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(blocks: [u64; 3]) -> Answer {
        let mut answer = Answer::default();
        for (key, blocks) in ["before", "during", "after"].into_iter().zip(blocks) {
            let text = format!("{{\"version\":\"9\",\"classes\":[{{\"blocks_live\":{blocks}}}]}}");
            answer.facts.insert(key.into(), text);
        }
        answer.weigh(None);
        answer
    }

    #[test]
    fn only_a_count_that_rises_and_falls_is_a_proof() {
        assert!(answer([500, 20_510, 505]).counted.is_some());
        assert_eq!(answer([500, 20_510, 505]).library_version(), Some("9"));
        for blocks in [
            [0, 0, 0],
            [500, 510, 505],
            [500, 20_510, 20_510],
            [30_000, 20_000, 0],
        ] {
            assert!(answer(blocks).counted.is_none(), "{blocks:?}");
        }
    }

    #[test]
    fn a_line_counts_if_it_is_of_that_process() {
        let mut answer = Answer {
            stderr: "obmalloc: active in pid 7: CPython 3\nobmalloc: standing aside in pid 8: no\n"
                .into(),
            ..Answer::default()
        };
        assert_eq!(answer.line("active"), None);
        answer.facts.insert("pid".into(), "8".into());
        assert_eq!(answer.line("active"), None);
        assert_eq!(answer.line("standing aside"), Some("no"));
    }
}
