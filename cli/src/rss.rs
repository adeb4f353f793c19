//! The breakdown of a process's RSS, from its stats page, a heap snapshot, or the JSON that it
//! wrote at its end.
//!
//! ```text
//!    RSS, by the kernel  ==  ours  +  libc in use  +  libc kept  +  files  +  other
//!                             |
//!      live + in magazines + free in pools + empty pools + metadata
//! ```
//!
//! The library's part and the files' part are counted page by page. The C library reports how
//! many bytes it has in use and keeps, not how many of them are resident: its two parts are
//! taken from the rest of the RSS, as far as that goes.

use std::fs;
use std::mem::size_of;

use format::counters::{CLASS_COUNT, CLASS_COUNTERS, COUNT, COUNTERS, Class, Counters, UNKNOWN};
use format::layout::{self, CLASSES, FIRST_BYTES, Header, MAP_MAGIC, Statistics};
use serde_json::Value;

use crate::failure::Failure;
use crate::live::Live;
use crate::open;
use crate::stale::Stale;

/// The counters of a process, and the kernel's figures of it if it runs.
pub struct Breakdown {
    pub pid: u32,
    /// The version of the library.
    pub version: String,
    /// The version of the CPython that the library is in.
    pub host: Option<String>,
    pub counters: Counters,
    /// The classes that have pools, with their index.
    pub classes: Vec<(usize, Class)>,
    /// Milliseconds since the counters were read; 0 for a file.
    pub age_ms: u64,
    /// Why they are old, where that was looked into.
    pub stale: Option<Stale>,
    pub process: Option<Process>,
}

/// The kernel's figures of a process.
#[derive(Clone, Copy)]
pub struct Process {
    pub rss: u64,
    /// Bytes of pages of files and of shared memory.
    pub files: u64,
    pub faults: u64,
}

/// The parts of the RSS, which sum to it.
#[derive(Clone, Copy)]
pub struct Parts {
    pub rss: u64,
    pub ours: u64,
    pub libc_in_use: u64,
    pub libc_kept: u64,
    pub files: u64,
    pub other: u64,
}

impl Parts {
    /// In the order of [`format::counters::PROCESS_PARTS`].
    pub fn values(&self) -> [u64; 5] {
        [
            self.ours,
            self.libc_in_use,
            self.libc_kept,
            self.files,
            self.other,
        ]
    }
}

impl Breakdown {
    /// The breakdown of the process or file that an argument names.
    pub fn of(argument: &str) -> Result<Breakdown, Failure> {
        match open::pid(argument) {
            Some(pid) => {
                let live = Live::open(pid)?;
                let mut breakdown = Breakdown::now(&live, pid, true)?;
                breakdown.stale = Stale::of(pid, breakdown.age_ms, live.has_thread());
                Ok(breakdown)
            }
            None => file(argument),
        }
    }

    /// The breakdown of a process. With `exactly` the kernel counts its pages one by one.
    pub fn now(live: &Live, pid: u32, exactly: bool) -> Result<Breakdown, Failure> {
        let (statistics, age_ms) = live.statistics()?;
        Ok(Breakdown {
            age_ms,
            process: Process::of(pid, exactly),
            ..Breakdown::of_statistics(&statistics)
        })
    }

    fn of_statistics(statistics: &Statistics) -> Breakdown {
        let classes = (1..).zip(statistics.classes);
        Breakdown {
            pid: statistics.pid,
            version: text(&statistics.version),
            host: Some(text(&statistics.host)).filter(|host| !host.is_empty()),
            counters: statistics.counters(),
            classes: classes.filter(|(_, class)| class.pools > 0).collect(),
            age_ms: 0,
            stale: None,
            process: None,
        }
    }

    /// The parts of the RSS, if the process runs.
    pub fn parts(&self) -> Option<Parts> {
        let Process { rss, files, .. } = self.process?;
        let files = files.min(rss);
        let mut left = rss - files;
        let mut take = |wanted: u64| {
            let taken = if wanted == UNKNOWN {
                0
            } else {
                wanted.min(left)
            };
            left -= taken;
            taken
        };
        let ours = take(self.counters.resident.total);
        let libc_in_use = take(self.counters.libc.in_use);
        let libc_kept = take(self.counters.libc.kept);
        Some(Parts {
            rss,
            ours,
            libc_in_use,
            libc_kept,
            files,
            other: left,
        })
    }

    /// The parts of the library's resident memory, with their titles.
    pub fn ours(&self) -> [(&'static str, u64); 5] {
        let resident = &self.counters.resident;
        [
            ("live blocks", resident.live),
            ("free, in magazines", resident.in_magazines),
            ("free, on pages in use", resident.free_in_pools),
            ("empty pools", resident.empty_pools),
            ("metadata", resident.metadata),
        ]
    }

    /// The other parts of the RSS, with their titles; none if the process does not run.
    pub fn others(&self) -> Vec<(&'static str, u64)> {
        self.parts().map_or(Vec::new(), |parts| {
            vec![
                ("C library, in use", parts.libc_in_use),
                ("C library, kept", parts.libc_kept),
                ("files and shared", parts.files),
                ("other", parts.other),
            ]
        })
    }

    /// The host for a title.
    pub fn host_title(&self) -> String {
        let host = self.host.as_ref();
        host.map_or("no CPython".into(), |host| format!("CPython {host}"))
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

impl Process {
    /// Reads them; `None` if the process has ended.
    pub fn of(pid: u32, exactly: bool) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may have any bytes.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
        let faults = number(7)? + number(9)?;
        let of_pages = || {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let rss = kibibytes(&text, "Rss:")?;
            Some((rss, rss.saturating_sub(kibibytes(&text, "Anonymous:")?)))
        };
        let of_counters = || {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let files = kibibytes(&text, "RssFile:")? + kibibytes(&text, "RssShmem:")?;
            Some((kibibytes(&text, "VmRSS:")?, files))
        };
        let by_page = if exactly { of_pages() } else { None };
        let (rss, files) = by_page.or_else(of_counters)?;
        Some(Process { rss, files, faults })
    }
}

/// The number in a line of smaps_rollup or status, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

const NEXT: &str = "name a process, a snapshot, or a file that OBMALLOC_STATS has written";

/// The breakdown in a file.
fn file(path: &str) -> Result<Breakdown, Failure> {
    let bytes = fs::read(path)
        .map_err(|error| Failure::new(format!("cannot read {path}: {error}"), NEXT))?;
    let cannot = |what: String| Failure::new(format!("cannot use {path}: {what}"), NEXT);
    if bytes.starts_with(&MAP_MAGIC) {
        let statistics = of_snapshot(&bytes).map_err(|what| cannot(what.into()))?;
        return Ok(Breakdown::of_statistics(&statistics));
    }
    let text = std::str::from_utf8(&bytes).ok();
    let json = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let json = json.ok_or_else(|| cannot("it is neither a snapshot nor JSON".into()))?;
    of_json(&json).map_err(cannot)
}

/// The statistics in a snapshot's header. One of another version may have fewer counters, or
/// more.
pub fn of_snapshot(bytes: &[u8]) -> Result<Statistics, &'static str> {
    let at = size_of::<Header>() - size_of::<Statistics>();
    let word = |at: usize| {
        bytes
            .get(at..at + 4)
            .map(|word| word.try_into().unwrap_or_default())
    };
    let (Some(version), Some(header)) = (word(8), word(12)) else {
        return Err("it is cut short");
    };
    let header = u32::from_le_bytes(header) as usize;
    let known = [layout::MAP_VERSION, layout::MAP_VERSION_BY_PAGE];
    if !known.contains(&u32::from_le_bytes(version)) || header < at + FIRST_BYTES {
        return Err("it is a snapshot of another version");
    }
    let part = bytes.get(at..header).ok_or("it is cut short")?;
    let mut own = [0; size_of::<Statistics>()];
    let len = part.len().min(own.len());
    own[..len].copy_from_slice(&part[..len]);
    // SAFETY: `own` has the size of the struct, which is of integers: any bytes are valid.
    let mut statistics = unsafe { own.as_ptr().cast::<Statistics>().read_unaligned() };
    statistics.forget_beyond(len);
    Ok(statistics)
}

/// The statistics of `obmalloc_stats_json`.
fn of_json(json: &Value) -> Result<Breakdown, String> {
    let number = |path: &str| {
        let value = json.pointer(path)?;
        value
            .as_u64()
            .or_else(|| value.as_i64().map(i64::cast_unsigned))
    };
    let demanded = |path: &str| number(path).ok_or_else(|| format!("it has no number {path}"));
    if demanded("/schema")? != 1 {
        return Err("its schema is another one".into());
    }
    let pid = demanded("/pid")? as u32;
    let text = |path: &str| json.pointer(path).and_then(Value::as_str).map(String::from);
    let mut words = [UNKNOWN; COUNT];
    for (counter, word) in COUNTERS.iter().zip(&mut words) {
        let path = match counter.section {
            "" => format!("/{}", counter.name),
            section => format!("/{section}/{}", counter.name),
        };
        if !counter.optional {
            *word = demanded(&path)?;
        } else if let Some(number) = number(&path) {
            *word = number;
        }
    }
    let list = json.pointer("/classes").and_then(Value::as_array);
    let mut classes = Vec::new();
    for each in list.ok_or("it has no list /classes")? {
        let number = |name: &str| each.get(name).and_then(Value::as_u64);
        let missing = |name: &str| format!("a class has no number {name}");
        let index = number("class").ok_or_else(|| missing("class"))? as usize;
        if !(1..=CLASSES).contains(&index) {
            return Err("it has a class that there is not".into());
        }
        let mut words = [UNKNOWN; CLASS_COUNT];
        for (counter, word) in CLASS_COUNTERS.iter().zip(&mut words) {
            match number(counter.name) {
                Some(number) => *word = number,
                None if counter.optional => {}
                None => return Err(missing(counter.name)),
            }
        }
        classes.push((index, Class::of_values(&words)));
    }
    Ok(Breakdown {
        pid,
        version: text("/version").unwrap_or_default(),
        host: text("/host"),
        counters: Counters::of_values(&words),
        classes,
        age_ms: 0,
        stale: None,
        process: None,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A breakdown with different numbers in each place.
    pub fn some() -> Breakdown {
        let mut counters = Counters::default();
        counters.resident.total = 1500;
        counters.resident.live = 1000;
        counters.resident.in_magazines = 200;
        counters.resident.free_in_pools = 150;
        counters.resident.empty_pools = 100;
        counters.resident.metadata = 50;
        counters.libc.in_use = 300;
        counters.libc.kept = 40;
        let class = Class {
            size: 48,
            pools: 2,
            blocks_live: 20,
            ..Class::default()
        };
        Breakdown {
            pid: 77,
            version: "0.1.0".into(),
            host: Some("3.13.0".into()),
            counters,
            classes: vec![(6, class)],
            age_ms: 1500,
            stale: None,
            process: Some(Process {
                rss: 2500,
                files: 600,
                faults: 9,
            }),
        }
    }

    #[test]
    fn parts_sum_to_the_rss_whatever_the_c_library_says() {
        let mut breakdown = some();
        for (in_use, kept) in [(300, 40), (UNKNOWN, UNKNOWN), (1 << 40, 7), (0, 1 << 40)] {
            breakdown.counters.libc.in_use = in_use;
            breakdown.counters.libc.kept = kept;
            let parts = breakdown.parts().expect("it runs");
            let sum = parts.ours + parts.libc_in_use + parts.libc_kept + parts.files + parts.other;
            assert_eq!((sum, parts.ours), (parts.rss, 1500));
        }
        breakdown.counters.resident.total = 5000;
        assert_eq!(breakdown.parts().map(|parts| parts.other), Some(0));
    }

    #[test]
    fn this_process_has_memory() {
        for exactly in [false, true] {
            let process = Process::of(std::process::id(), exactly).expect("it runs");
            assert!(process.rss > process.files && process.files > 0 && process.faults > 0);
        }
        assert!(Process::of(u32::MAX, true).is_none());
    }

    #[test]
    fn json_that_is_none_of_ours_is_told() {
        let said = |text: &str| of_json(&serde_json::from_str(text).expect("JSON")).err();
        assert!(said("[]").is_some_and(|what| what.contains("/schema")));
        assert!(said("{\"schema\": 2}").is_some_and(|what| what.contains("schema")));
        assert!(said("{\"schema\": 1}").is_some_and(|what| what.contains("/pid")));
    }
}
