//! Why the statistics of a process are old, and its children.
//!
//! A thread of the process answers readers. A process that has forked and has freed no memory
//! since has none: the master of a prefork server, or a daemon that sleeps. The kernel still has
//! the RSS of its children.

use std::fmt;
use std::fs;

use serde_json::{Value, json};

use format::options::BACKGROUND_THREAD;

use crate::rss::Process;
use crate::settings;
use crate::units;

/// Statistics are old after this number of milliseconds.
const OLD: u64 = 2000;
/// Maximum of children in the line.
const NAMED: usize = 12;

/// Old statistics.
pub struct Stale {
    age_ms: u64,
    why: Why,
    /// The process's children, and their RSS.
    children: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// The thread does not answer.
    Silent,
    /// A setting has switched the thread off.
    NoThread,
    /// A fork has ended the thread, and the process has freed nothing since.
    Fork,
}

impl Stale {
    /// Whether the statistics of a process are old, and why.
    pub fn of(pid: u32, age_ms: u64, has_thread: bool) -> Option<Stale> {
        if age_ms <= OLD {
            return None;
        }
        let why = if has_thread {
            Why::Silent
        } else if is_without_thread(pid) {
            Why::NoThread
        } else {
            Why::Fork
        };
        let children = children(pid).into_iter().filter_map(|child| {
            let process = Process::of(child, false)?;
            Some((child, process.rss))
        });
        Some(Stale {
            age_ms,
            why,
            children: children.collect(),
        })
    }

    /// `stale` of the JSON.
    pub fn json(&self) -> Value {
        let children = self.children.iter();
        let children = children.map(|(pid, rss)| json!({"pid": pid, "rss": rss}));
        json!({
            "reason": match self.why {
                Why::Silent => "silent",
                Why::NoThread => "no thread",
                Why::Fork => "fork",
            },
            "text": self.to_string(),
            "children": children.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Stale {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.age_ms / 1000;
        match self.why {
            Why::Silent => write!(
                out,
                "as of {seconds} seconds ago: since then the process has not answered"
            )?,
            Why::NoThread => write!(
                out,
                "as of {seconds} seconds ago: without the helper thread the process answers when \
                 it frees memory"
            )?,
            Why::Fork => write!(
                out,
                "these parts are {seconds} s old: the process has not run since its fork"
            )?,
        }
        let named: Vec<_> = self
            .children
            .iter()
            .take(NAMED)
            .map(|(pid, rss)| format!("{pid} ({})", units::bytes(*rss)))
            .collect();
        if !named.is_empty() {
            write!(out, "; its children: {}", named.join(", "))?;
        }
        match self.children.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

/// Whether the environment at the start of the process has switched the thread off.
fn is_without_thread(pid: u32) -> bool {
    let environment = settings::environment_of(pid).unwrap_or_default();
    !settings::value(&BACKGROUND_THREAD, &environment).is_on()
}

/// The children of a process, sorted.
fn children(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // After the name, which may have any bytes: the state, then the parent.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent.and_then(|parent| parent.parse().ok()) == Some(pid)
    };
    let mut children: Vec<u32> = numbers.filter(is_child).collect();
    children.sort_unstable();
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_line() {
        let mut stale = Stale {
            age_ms: 63_500,
            why: Why::Fork,
            children: vec![(7, 1 << 20), (8, 2 << 20)],
        };
        assert_eq!(
            stale.to_string(),
            "these parts are 63 s old: the process has not run since its fork; its children: \
             7 (1.0 MiB), 8 (2.0 MiB)"
        );
        stale.children = (1..=20).map(|pid| (pid, 0)).collect();
        assert!(stale.to_string().ends_with("12 (0 B) and 8 more"));
        assert_eq!(stale.json()["reason"], "fork");
        assert!(Stale::of(std::process::id(), 100, false).is_none());
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let found = children(std::process::id());
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        assert!(found.contains(&child.id()));
    }
}
