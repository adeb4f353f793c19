//! Starts the interpreter with the preload and a program that allocates and reports.
//!
//! Three sources: the library's count of blocks, read in the process by ctypes (or, without
//! ctypes, its statistics at exit); its status line on stderr; and the list of mapped files.
//! The program reports on a descriptor of its own; if a wrapper has closed that, on stdout.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use format::options::GUARD_SAMPLE_RATE;
use format::status::{Line, Verdict};
use serde_json::Value;

use crate::settings;

const PROGRAM: &str = include_str!("probe.py");
/// Blocks that the program allocates, less the number that other blocks may hide.
const BLOCKS: u64 = 19_000;
/// The minimum where some blocks are guarded (OBMALLOC_GUARD_SAMPLE_RATE): these are not counted,
/// and there may be 16384 of them.
const UNGUARDED: u64 = 3_000;
/// Bytes that it allocates if ctypes is missing.
const BYTES: u64 = 20 << 20;
/// Maximum length of a report.
const TALK: usize = 8 << 20;
/// How long a descriptor may stay open after the interpreter has ended: its children may have
/// it open.
const REST: Duration = Duration::from_secs(1);
/// Minimum number of the descriptor, if the limit allows it: programs rely on low numbers.
const HIGH: i32 = 64;

/// The interpreter's report.
#[derive(Default)]
pub struct Answer {
    facts: BTreeMap<String, String>,
    /// Files that the process had mapped.
    pub files: Vec<PathBuf>,
    /// Its stderr.
    pub stderr: String,
    /// The proof that the library counted the interpreter's blocks, if it did.
    pub counted: Option<String>,
    /// Why there is no answer.
    pub silence: Option<String>,
    /// The library's own statistics.
    statistics: Option<Value>,
    /// Some blocks may be guarded.
    is_guarded: bool,
}

impl Answer {
    /// A fact of the report.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// Whether a fact of the report is true.
    pub fn is(&self, name: &str) -> bool {
        self.fact(name).is_some_and(|value| value != "0")
    }

    /// The library's version, from the library.
    pub fn library_version(&self) -> Option<&str> {
        self.statistics.as_ref()?["version"].as_str()
    }

    /// The status line of a library that serves that process, if it wrote one.
    pub fn active(&self) -> Option<Line<'_>> {
        self.status_lines()
            .find(|line| line.verdict == Verdict::Active)
    }

    /// The status line of a library that does not serve that process, if it wrote one.
    pub fn aside(&self) -> Option<Line<'_>> {
        self.status_lines()
            .find(|line| line.verdict != Verdict::Active)
    }

    fn status_lines(&self) -> impl Iterator<Item = Line<'_>> {
        let pid: Option<u32> = self.fact("pid").and_then(|pid| pid.parse().ok());
        let lines = self.stderr.lines().filter_map(Line::read);
        lines.filter(move |line| Some(line.pid) == pid)
    }
}

/// Starts the interpreter and reads its report.
pub fn ask(
    interpreter: &Path,
    arguments: &[OsString],
    environment: Vec<(OsString, OsString)>,
    patience: Duration,
) -> Answer {
    let own = std::process::id();
    let mark = format!("obmalloc-doctor-{own}-{:p}", &raw const environment);
    let folder = std::env::temp_dir().join(&mark);
    // Statistics in a folder of another user prove nothing: then only ctypes gives a proof.
    let is_own = fs::DirBuilder::new().mode(0o700).create(&folder).is_ok();
    let folder = is_own.then_some(folder);
    let is_guarded = environment.iter().any(|(name, rate)| {
        settings::is_name_of(&GUARD_SAMPLE_RATE, name) && !rate.is_empty() && rate != "0"
    });
    let mut command = Command::new(interpreter);
    let private = Private::make();
    let (fd, inode) = private
        .as_ref()
        .map_or((-1, 0), |private| (private.to.as_raw_fd(), private.inode));
    let program = PROGRAM
        .replace('@', &mark)
        .replace("FD", &fd.to_string())
        .replace("INODE", &inode.to_string());
    command
        .args(arguments)
        .args(["-c", &program])
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
    // SAFETY: fcntl is async-signal-safe, so a forked child may call it; for a bad descriptor
    // it returns an error, which is ignored.
    unsafe {
        command.pre_exec(move || {
            libc::fcntl(fd, libc::F_SETFD, 0);
            Ok(())
        });
    }
    let mut answer = Answer {
        is_guarded,
        ..Answer::default()
    };
    match command.spawn() {
        Ok(child) => answer.listen(child, private, &mark, folder.as_deref(), patience),
        Err(error) => {
            let why = crate::library::reason(&error);
            answer.silence = Some(format!("it cannot be started: {why}"));
        }
    }
    if let Some(folder) = folder {
        let _ = fs::remove_dir_all(folder);
    }
    answer
}

/// A pipe for the answer.
struct Private {
    from: File,
    to: OwnedFd,
    inode: u64,
}

impl Private {
    fn make() -> Option<Private> {
        let (from, to) = io::pipe().ok()?;
        let mut to = OwnedFd::from(to);
        // SAFETY: `to` owns an open descriptor; fcntl duplicates it.
        let high = unsafe { libc::fcntl(to.as_raw_fd(), libc::F_DUPFD_CLOEXEC, HIGH) };
        if high >= 0 {
            // SAFETY: fcntl has just created the descriptor, and nothing else owns it.
            to = unsafe { OwnedFd::from_raw_fd(high) };
        }
        let from = File::from(OwnedFd::from(from));
        let inode = from.metadata().ok()?.ino();
        Some(Private { from, to, inode })
    }
}

/// The bytes from a pipe, [`TALK`] at most; the rest is read and dropped, so that the writer
/// continues.
struct Reader {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Reader {
    fn begin(mut pipe: impl Read + Send + 'static) -> Reader {
        let (at_end, end) = channel();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut some = [0; 1 << 16];
            while let Ok(n @ 1..) = pipe.read(&mut some) {
                let mut bytes = to.lock().unwrap_or_else(PoisonError::into_inner);
                let room = TALK - bytes.len();
                bytes.extend_from_slice(&some[..n.min(room)]);
            }
            // An error means that the receiver is gone.
            let _ = at_end.send(());
        });
        Reader { bytes, end }
    }

    /// Whether the pipe ends within this time.
    fn has_ended(&self, patience: Duration) -> bool {
        self.end.recv_timeout(patience).is_ok()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut bytes)
    }
}

impl Answer {
    fn listen(
        &mut self,
        mut child: Child,
        private: Option<Private>,
        mark: &str,
        folder: Option<&Path>,
        patience: Duration,
    ) {
        let group = child.id().cast_signed();
        // SAFETY: kill takes two numbers; the group was created for the child, and has only it and
        // its children, which have the pipes open.
        let end_all = || unsafe { libc::kill(-group, libc::SIGKILL) };
        let mut readers = Vec::new();
        if let Some(Private { from, to, .. }) = private {
            drop(to); // so that it ends with the child's
            readers.push(Reader::begin(from));
        }
        readers.extend(child.stdout.take().map(Reader::begin));
        let err = child.stderr.take().map(Reader::begin);
        let ended = wait(&mut child, patience);
        if ended.is_none() {
            end_all();
            let _ = child.wait();
        }
        let all = || readers.iter().chain(&err);
        if !all().all(|reader| reader.has_ended(REST)) {
            end_all();
            let _ = all().all(|reader| reader.has_ended(REST));
        }
        for bytes in readers.iter().map(Reader::bytes) {
            self.hear(&bytes, mark);
        }
        let err = err.map(|err| err.bytes()).unwrap_or_default();
        self.stderr = String::from_utf8_lossy(&err).into_owned();
        self.weigh(folder);
        if self.fact("end").is_none() {
            self.silence = Some(match ended {
                None => format!("it did not end within {} seconds", patience.as_secs()),
                Some(status) => how_it_ended(status, &self.stderr),
            });
        }
    }

    /// Parses the interpreter's report.
    fn hear(&mut self, bytes: &[u8], mark: &str) {
        for line in bytes.split(|&byte| byte == b'\n') {
            let said = line.strip_prefix(mark.as_bytes());
            let said = said.and_then(|said| said.strip_prefix(b" "));
            let Some((key, value)) = said.and_then(|said| {
                let at = said.iter().position(|&byte| byte == b' ')?;
                Some((&said[..at], &said[at + 1..]))
            }) else {
                continue;
            };
            if key == b"file" {
                self.files.push(OsStr::from_bytes(value).into());
            } else {
                let [key, value] = [key, value].map(|text| String::from_utf8_lossy(text).into());
                self.facts.insert(key, value);
            }
        }
    }
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
    match own_error(stderr) {
        Some(line) => format!("{how}, and says: {line}"),
        None => how,
    }
}

/// The interpreter's own error: its line about a fatal error, else the last line that is not the
/// library's.
pub fn own_error(stderr: &str) -> Option<&str> {
    let mut lines = stderr
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.trim().is_empty() && !line.starts_with("obmalloc: "));
    let fatal = lines.clone().find(|line| line.starts_with(FATAL));
    fatal.or_else(|| lines.next_back())
}

/// The beginning of the line of an interpreter that cannot start.
pub const FATAL: &str = "Fatal Python error: ";

impl Answer {
    /// Whether the library's counters follow the interpreter's allocations.
    fn weigh(&mut self, folder: Option<&Path>) {
        let parse = |text: Option<&str>| text.and_then(|text| serde_json::from_str(text).ok());
        let [before, during, after] =
            ["before", "during", "after"].map(|key| parse(self.fact(key)));
        if let (Some(before), Some(during), Some(after)) = (before, during, after) {
            let [first, second, third] = [&before, &during, &after].map(blocks_live);
            let (least, others) = if self.is_guarded {
                (UNGUARDED, " (OBMALLOC_GUARD_SAMPLE_RATE has the others)")
            } else {
                (BLOCKS, "")
            };
            if second >= first + least && second >= third + least {
                let grown = second - first;
                self.counted = Some(format!(
                    "it counted {grown} blocks more while the interpreter held 20000 objects{others}"
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
    fn the_hosts_own_error_is_quoted() {
        let said = "obmalloc: standing aside in pid 7: no\nFatal Python error: init: PYTHONHASHSEED\n\
                    Python runtime state: preinitialized\n\nCurrent thread (most recent call first):\n\
                    <no Python frame>\nobmalloc: 3 arenas\n";
        assert_eq!(
            own_error(said),
            Some("Fatal Python error: init: PYTHONHASHSEED")
        );
        assert_eq!(own_error("no such option\n \n"), Some("no such option"));
        assert_eq!(own_error("obmalloc: a\n"), None);
    }

    #[test]
    fn a_line_counts_if_it_is_of_that_process() {
        let mut answer = Answer {
            stderr: "obmalloc: active in pid 7: CPython 3\nobmalloc: standing aside in pid 8: no\n"
                .into(),
            ..Answer::default()
        };
        assert_eq!(answer.active(), None);
        answer.facts.insert("pid".into(), "8".into());
        assert_eq!(answer.active(), None);
        assert_eq!(answer.aside().map(|line| line.text), Some("no"));
    }
}
