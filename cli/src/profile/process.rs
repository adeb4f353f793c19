//! Profiles of running processes: of one, or of one and its descendants.

use std::collections::HashMap;
use std::fs;

use super::model::Profile;
use super::{reader, writer};
use crate::failure::Failure;
use crate::live::Live;
use crate::output;

/// A process, with its descendants or alone.
#[derive(Clone, Copy)]
pub struct Processes {
    pub pid: u32,
    pub children: bool,
}

impl Processes {
    /// The processes of now, the first one first.
    fn pids(self) -> Vec<u32> {
        let descendants = if self.children {
            descendants(self.pid)
        } else {
            Vec::new()
        };
        [self.pid].into_iter().chain(descendants).collect()
    }

    /// Their profile of now, and its file's bytes. Of several, those that have one are merged;
    /// why others have none is a line on stderr.
    pub fn profile(self) -> Result<(Profile, Vec<u8>), Failure> {
        if !self.children {
            return profile(self.pid);
        }
        let mut all = Profile::default();
        let pids = self.each(|pid| {
            let (profile, _) = profile(pid)?;
            all.merge(&profile, 1, Some(pid.into()));
            if all.comments.is_empty() {
                all.comments.clone_from(&profile.comments);
            }
            Ok(())
        })?;
        if pids > 1 {
            // It is not of one process.
            let pid = format!("{}=", format::profile::COMMENT_PID);
            all.comments.retain(|line| !line.starts_with(&pid));
        }
        let bytes = writer::write(&all);
        Ok((all, bytes))
    }

    /// Calls `with` for each process; returns the number of those that it was done with. A failure
    /// of all of them is the first one's.
    pub fn each(self, mut with: impl FnMut(u32) -> Result<(), Failure>) -> Result<usize, Failure> {
        let (mut done, mut failures) = (0, Vec::new());
        for pid in self.pids() {
            match with(pid) {
                Ok(()) => done += 1,
                Err(failure) => failures.push(failure),
            }
        }
        match failures.into_iter() {
            mut failures if done == 0 => Err(failures.next().unwrap_or_else(|| {
                Failure::new(
                    format!("there is no process {}", self.pid),
                    "see whether it has ended",
                )
            })),
            failures => {
                failures.for_each(|failure| output::say(&failure));
                Ok(done)
            }
        }
    }
}

/// The profile of a process as it is now, and the bytes that the library has made.
fn profile(pid: u32) -> Result<(Profile, Vec<u8>), Failure> {
    let bytes = Live::open(pid)?.profile()?;
    let profile = reader::read(&bytes[..]).map_err(|what| {
        let what = format!("cannot use the profile of process {pid}: {what}");
        Failure::new(
            what,
            "use the command that belongs to the process's library",
        )
    })?;
    Ok((profile, bytes))
}

/// Children of a process, their children and so on, by /proc.
fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut all, mut next) = (Vec::new(), vec![pid]);
    while let Some(pid) = next.pop() {
        let mut own = children.remove(&pid).unwrap_or_default();
        own.sort_unstable();
        all.extend(&own);
        next.extend(own);
    }
    all
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state parent`; a name may have any bytes.
    let after = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = String::from_utf8_lossy(&stat[after + 1..]);
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn descendants_are_found() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 100 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = shell.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let inner: u32 = line.trim().parse().unwrap();
        assert_eq!(parent(inner), Some(shell.id()));
        assert_eq!(descendants(shell.id()), [inner]);
        let all = descendants(std::process::id());
        assert!(all.contains(&inner) && all.contains(&shell.id()));
        // SAFETY: a signal to a process that was started here.
        unsafe { libc::kill(inner.cast_signed(), libc::SIGKILL) };
        shell.wait().unwrap();
    }

    #[test]
    fn a_process_without_a_profile_is_told() {
        let own = Processes {
            pid: std::process::id(),
            children: false,
        };
        let said = own.profile().err().unwrap().to_string();
        assert!(
            said.contains("publishes nothing") && !said.contains('\n'),
            "{said}"
        );
        let none = Processes {
            pid: u32::MAX,
            children: true,
        };
        assert!(
            none.profile()
                .err()
                .unwrap()
                .to_string()
                .contains("there is no process")
        );
    }
}
