//! One run of a program, measured: the kernel's account when it ends, and what it and its
//! children have in memory while they run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(10);
const MIB: f64 = (1 << 20) as f64;

/// What is measured.
pub const QUANTITIES: [&str; 5] = [
    "time, s",
    "CPU, s",
    "peak RSS, MiB",
    "RSS x time, MiB s",
    "page faults",
];

/// One run.
pub struct Run {
    /// The numbers, in the order of `QUANTITIES`.
    pub numbers: [f64; QUANTITIES.len()],
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs it to its end. `progress` is called now and then with the seconds so far and the
/// MiB in memory.
pub fn run(
    command: &[OsString],
    environment: &[(OsString, OsString)],
    progress: impl Fn(f64, f64) + Send,
) -> io::Result<Run> {
    let mut stderr = nameless_file()?;
    let start = Instant::now();
    let child = Command::new(&command[0])
        .args(&command[1..])
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.try_clone()?)
        .spawn()?;
    let (ended, is_ended) = mpsc::channel();
    let (ending, rss_seconds) = thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(child.id(), start, is_ended, progress));
        let ending = wait(child.id());
        drop(ended);
        (ending, sampler.join().unwrap_or(f64::NAN))
    });
    let (status, used, time) = ending.map(|(status, used)| (status, used, start.elapsed()))?;
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let mut text = Vec::new();
    stderr.rewind()?;
    stderr.read_to_end(&mut text)?;
    Ok(Run {
        numbers: [
            time.as_secs_f64(),
            seconds(used.ru_utime) + seconds(used.ru_stime),
            used.ru_maxrss as f64 / 1024.0,
            rss_seconds,
            (used.ru_minflt + used.ru_majflt) as f64,
        ],
        status,
        stderr: String::from_utf8_lossy(&text).into_owned(),
    })
}

fn nameless_file() -> io::Result<File> {
    // By its number: the C library has it since 2.27, and the command runs with older ones.
    // SAFETY: a C string and a flag.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_memfd_create,
            c"stderr".as_ptr(),
            libc::MFD_CLOEXEC,
        ) as i32
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// Waits for the child's end; its status and what it and its children have used.
fn wait(pid: u32) -> io::Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    let mut used = MaybeUninit::uninit();
    loop {
        // SAFETY: places for both answers.
        let done = unsafe { libc::wait4(pid as i32, &raw mut status, 0, used.as_mut_ptr()) };
        if done >= 0 {
            // SAFETY: a call that succeeds has filled it.
            return Ok((ExitStatus::from_raw(status), unsafe { used.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// MiB in memory by seconds, summed up until the end.
fn sample(pid: u32, start: Instant, is_ended: Receiver<()>, progress: impl Fn(f64, f64)) -> f64 {
    let (mut sum, mut last, mut shown) = (0.0, (Instant::now(), 0.0), start);
    loop {
        let ended = is_ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected);
        let now = Instant::now();
        // At the end nothing is left to see: what was there last counts.
        let rss = if ended { last.1 } else { resident(pid) };
        sum += (last.1 + rss) / 2.0 * (now - last.0).as_secs_f64();
        last = (now, rss);
        if ended {
            return sum;
        }
        if now - shown > Duration::from_millis(250) {
            shown = now;
            progress((now - start).as_secs_f64(), rss);
        }
    }
}

/// MiB of the process and its descendants. Pages that they share count for each.
fn resident(pid: u32) -> f64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<f64>().ok());
    // SAFETY: a question without conditions.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64;
    let own = pages.unwrap_or(0.0) * page_size / MIB;
    own + children(pid).into_iter().map(resident).sum::<f64>()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    let lists: Vec<_> = lists.filter_map(Result::ok).collect();
    let pids = lists.iter().flat_map(|list| list.split_whitespace());
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_measured() {
        let command = ["sh", "-c", "sleep 0.2; echo said >&2; exit 3"].map(OsString::from);
        let path = std::env::var_os("PATH").unwrap();
        let run = run(&command, &[("PATH".into(), path)], |_, _| {}).unwrap();
        assert_eq!(run.status.code(), Some(3));
        assert_eq!(run.stderr, "said\n");
        let [time, cpu, peak, rss_seconds, faults] = run.numbers;
        assert!((0.2..30.0).contains(&time), "{time}");
        assert!(cpu < time + 0.1 && peak > 0.5 && faults > 10.0);
        // `sh` and `sleep` are both there, so twice the peak is an upper bound.
        assert!(rss_seconds > 0.1 * peak * 0.2 && rss_seconds < 2.5 * peak * time);
    }
}
