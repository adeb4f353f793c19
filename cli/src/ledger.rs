//! The ledger: where a process's memory is, from its live page, a snapshot, or the JSON
//! that it wrote at its end.
//!
//! ```text
//!    RSS, by the kernel  ==  ours  +  libc in use  +  libc kept  +  files  +  other
//!                             |
//!      live + in magazines + free in pools + empty pools + metadata
//! ```
//!
//! What is ours, and the files' part, are counted. The C library says how many bytes it
//! has in use and keeps, not how many of these are in memory: of what is left of the RSS
//! they take their numbers, as far as it goes.

use std::fs;
use std::mem::size_of;

use serde_json::Value;

use crate::failure::Failure;
use crate::live::Live;
use crate::source;
use crate::stale::Stale;
use format::layout::{self, CLASSES, Header, MAP_MAGIC, Statistics, UNKNOWN};

/// Statistics, and what the kernel says of the process if it runs.
pub struct Ledger {
    pub statistics: Statistics,
    /// How old the statistics are, in milliseconds; 0 for those of a file.
    pub age_ms: u64,
    /// Why they are that old, where that was looked into.
    pub stale: Option<Stale>,
    pub process: Option<Process>,
    /// Full and resident pools by class are known.
    pub has_all: bool,
}

/// What the kernel says of a process.
#[derive(Clone, Copy)]
pub struct Process {
    pub rss: u64,
    /// Bytes that are pages of files, or of memory shared as such.
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

impl Ledger {
    /// The ledger of what an argument names.
    pub fn of(argument: &str) -> Result<Ledger, Failure> {
        match source::pid(argument) {
            Some(pid) => {
                let live = Live::open(pid)?;
                let mut ledger = Ledger::now(&live, pid, true)?;
                ledger.stale = Stale::of(pid, ledger.age_ms, live.has_thread());
                Ok(ledger)
            }
            None => file(argument),
        }
    }

    /// The ledger of a process. `exactly`: the kernel counts its pages one by one.
    pub fn now(live: &Live, pid: u32, exactly: bool) -> Result<Ledger, Failure> {
        let (statistics, age_ms) = live.statistics()?;
        Ok(Ledger {
            statistics,
            age_ms,
            stale: None,
            process: Process::of(pid, exactly),
            has_all: true,
        })
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
        let ours = take(self.statistics.resident.total);
        let libc_in_use = take(self.statistics.libc_in_use);
        let libc_kept = take(self.statistics.libc_kept);
        Some(Parts {
            rss,
            ours,
            libc_in_use,
            libc_kept,
            files,
            other: left,
        })
    }

    pub fn version(&self) -> String {
        text(&self.statistics.version)
    }

    /// The CPython that it is in, if it is in one.
    pub fn host(&self) -> Option<String> {
        Some(text(&self.statistics.host)).filter(|host| !host.is_empty())
    }

    /// The classes that have pools, with their index.
    pub fn classes(&self) -> impl Iterator<Item = (usize, &layout::Class)> {
        let all = self.statistics.classes.iter().enumerate();
        all.filter(|(_, class)| class.pools > 0)
            .map(|(i, class)| (i + 1, class))
    }
}

/// A number that may not be known.
pub fn known(number: u64) -> Option<u64> {
    (number != UNKNOWN).then_some(number)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

impl Process {
    /// What the kernel says of it; `None` if it is gone.
    pub fn of(pid: u32, exactly: bool) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything.
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

/// The number in a line of such a file, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

const NEXT: &str = "name a process, a snapshot, or a file that OBMALLOC_STATS has written";

/// The ledger in a file.
fn file(path: &str) -> Result<Ledger, Failure> {
    let bytes = fs::read(path)
        .map_err(|error| Failure::new(format!("cannot read {path}: {error}"), NEXT))?;
    let cannot = |what: &str| Failure::new(format!("cannot use {path}: {what}"), NEXT);
    let (statistics, has_all) = if bytes.starts_with(&MAP_MAGIC) {
        (of_snapshot(&bytes).map_err(cannot)?, true)
    } else {
        let text = std::str::from_utf8(&bytes).ok();
        let json = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let json = json.ok_or_else(|| cannot("it is neither a snapshot nor JSON"))?;
        let statistics = of_json(&json).map_err(|what| cannot(&what))?;
        (statistics, json.pointer("/classes/0/resident").is_some())
    };
    Ok(Ledger {
        has_all,
        statistics,
        age_ms: 0,
        stale: None,
        process: None,
    })
}

fn of_snapshot(bytes: &[u8]) -> Result<Statistics, &'static str> {
    let at = size_of::<Header>() - size_of::<Statistics>();
    let version = layout::VERSION.to_le_bytes();
    let header = (size_of::<Header>() as u32).to_le_bytes();
    let Some(part) = bytes.get(at..at + size_of::<Statistics>()) else {
        return Err("it is cut short");
    };
    if bytes[8..12] != version || bytes[12..16] != header {
        return Err("it is a snapshot of another version");
    }
    // SAFETY: so many bytes; any are a valid one.
    Ok(unsafe { part.as_ptr().cast::<Statistics>().read_unaligned() })
}

/// The statistics of `obmalloc_stats_json`.
fn of_json(json: &Value) -> Result<Statistics, String> {
    let number = |path: &str| {
        let value = json.pointer(path).and_then(Value::as_u64);
        value.ok_or_else(|| format!("it has no number {path}"))
    };
    if number("/schema")? != 1 {
        return Err("its schema is another one".into());
    }
    // SAFETY: a struct of integers; zero is a valid one.
    let mut to: Statistics = unsafe { std::mem::zeroed() };
    for (name, place) in [("/version", &mut to.version), ("/host", &mut to.host)] {
        let text = json
            .pointer(name)
            .and_then(Value::as_str)
            .unwrap_or_default();
        for (to, from) in place.iter_mut().zip(text.bytes().take(31)) {
            *to = from;
        }
    }
    to.pid = number("/pid")? as u32;
    to.arenas = layout::Arenas {
        size: number("/arenas/size")?,
        in_use: number("/arenas/in_use")?,
        empty: number("/arenas/empty")?,
        mapped_total: number("/arenas/mapped_total")?,
        unmapped_total: number("/arenas/unmapped_total")?,
        highwater: number("/arenas/highwater")?,
    };
    to.pools = layout::Pools {
        size: number("/pools/size")?,
        used: number("/pools/used")?,
        full: number("/pools/full")?,
        free: number("/pools/free")?,
        lanes: number("/pools/lanes")?,
    };
    to.bytes = layout::Bytes {
        from_os: number("/bytes/from_os")?,
        metadata: number("/bytes/metadata")?,
        live: number("/bytes/live")?,
        live_requested_estimate: number("/bytes/live_requested_estimate")?,
        in_magazines: number("/bytes/in_magazines")?,
        free_in_pools: number("/bytes/free_in_pools")?,
    };
    to.resident = layout::Resident {
        total: number("/resident/total")?,
        live: number("/resident/live")?,
        in_magazines: number("/resident/in_magazines")?,
        free_in_pools: number("/resident/free_in_pools")?,
        empty_pools: number("/resident/empty_pools")?,
        metadata: number("/resident/metadata")?,
        returned_total: number("/resident/returned_total")?,
    };
    let below = json.pointer("/large/blocks_live").and_then(Value::as_i64);
    to.large = layout::Large {
        served_below_total: number("/large/served_below_total")?,
        blocks_live: below.ok_or("it has no number /large/blocks_live")?,
    };
    to.libc_in_use = number("/libc/in_use").unwrap_or(UNKNOWN);
    to.libc_kept = number("/libc/kept").unwrap_or(UNKNOWN);
    to.rss = number("/rss").unwrap_or(UNKNOWN);
    to.threads = number("/threads").unwrap_or(UNKNOWN);
    to.misses = number("/misses").unwrap_or(UNKNOWN);
    let classes = json.pointer("/classes").and_then(Value::as_array);
    for each in classes.ok_or("it has no list /classes")? {
        let number = |name: &str| {
            let value = each.get(name).and_then(Value::as_u64);
            value.ok_or_else(|| format!("a class has no number {name}"))
        };
        let index = number("class")? as usize;
        if !(1..=CLASSES).contains(&index) {
            return Err("it has a class that there is not".into());
        }
        to.classes[index - 1] = layout::Class {
            size: number("size")?,
            pools: number("pools")?,
            full: number("pools_full").unwrap_or(0),
            blocks_live: number("blocks_live")?,
            blocks_in_magazines: number("blocks_in_magazines")?,
            blocks_free: number("blocks_free")?,
            resident: number("resident").unwrap_or(0),
        };
    }
    Ok(to)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A ledger with numbers of its own in each place.
    pub fn some() -> Ledger {
        // SAFETY: a struct of integers; zero is a valid one.
        let mut statistics: Statistics = unsafe { std::mem::zeroed() };
        statistics.pid = 77;
        statistics.version[..5].copy_from_slice(b"0.1.0");
        statistics.host[..6].copy_from_slice(b"3.13.0");
        statistics.resident.total = 1500;
        statistics.resident.live = 1000;
        statistics.resident.in_magazines = 200;
        statistics.resident.free_in_pools = 150;
        statistics.resident.empty_pools = 100;
        statistics.resident.metadata = 50;
        statistics.libc_in_use = 300;
        statistics.libc_kept = 40;
        statistics.classes[5].size = 48;
        statistics.classes[5].pools = 2;
        statistics.classes[5].blocks_live = 20;
        Ledger {
            statistics,
            age_ms: 1500,
            stale: None,
            process: Some(Process {
                rss: 2500,
                files: 600,
                faults: 9,
            }),
            has_all: true,
        }
    }

    #[test]
    fn parts_sum_to_the_rss_whatever_the_c_library_says() {
        let mut ledger = some();
        for (in_use, kept) in [(300, 40), (UNKNOWN, UNKNOWN), (1 << 40, 7), (0, 1 << 40)] {
            ledger.statistics.libc_in_use = in_use;
            ledger.statistics.libc_kept = kept;
            let parts = ledger.parts().expect("it runs");
            let sum = parts.ours + parts.libc_in_use + parts.libc_kept + parts.files + parts.other;
            assert_eq!((sum, parts.ours), (parts.rss, 1500));
        }
        ledger.statistics.resident.total = 5000;
        assert_eq!(ledger.parts().map(|parts| parts.other), Some(0));
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
