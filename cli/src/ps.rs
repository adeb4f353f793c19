//! `obmalloc ps`: the processes that publish statistics, on this machine.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use format::layout;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::live::Live;
use crate::output::{self, Table};
use crate::rss::Breakdown;
use crate::units;

/// The version of the JSON's form.
const SCHEMA: u32 = 1;
/// Statistics are old after this number of milliseconds beyond the look.
const OLD: u64 = 2000;
/// Characters of a command in the table.
const COMMAND: usize = 48;
/// Maximum of processes in a line.
const NAMED: usize = 12;
/// Processes that are read at once: one without a thread takes 0.3 s.
const AT_ONCE: usize = 16;
/// The link in a path of the library.
const LIBRARY: &str = "/libobmalloc.so";

/// List the processes that run with the library: memory, live blocks, growth
///
/// Those that run with OBMALLOC_STATS_PAGE=1 (`obmalloc run --stats-page`) and that this user may look
/// at. Processes are not stopped. "live" is the bytes of live blocks in pools. "pinned" is resident
/// memory of pages in use that no live block occupies: free, but on pages that live blocks keep.
/// "growth/min" is that of the RSS, between two looks.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The time between the two looks: 500ms, 5s, 1m
    #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    between: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  obmalloc ps --for 10s
  obmalloc ps --json | jq '.processes[] | select(.rss > 1e9) | .pid'";

/// Shows the list.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    let list = List::look(options.between)?;
    let text = if options.json {
        format!("{:#}\n", list.json(options.between))
    } else {
        list.text()
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The processes of the machine.
#[derive(Default)]
struct List {
    rows: Vec<Row>,
    /// Processes that have the library but no page of their own.
    without_page: Vec<u32>,
    /// The number of processes that this user may not read.
    others: usize,
}

/// A process.
struct Row {
    pid: u32,
    command: String,
    rss: u64,
    live: u64,
    pinned: u64,
    /// Milliseconds since the counters were read.
    age_ms: u64,
    /// Bytes a minute. Without new counters the live bytes are those of the first look.
    rss_growth: f64,
    live_growth: Option<f64>,
}

/// The part of the library that a process maps.
#[derive(PartialEq, Eq, Debug)]
enum Has {
    Page,
    Library,
    Nothing,
}

impl Has {
    fn of(maps: &str) -> Has {
        let mut found = Has::Nothing;
        for line in maps.lines() {
            if line.ends_with(layout::LINK) {
                return Has::Page;
            }
            let file = line.find('/').map(|at| &line[at..]).unwrap_or_default();
            if file.contains(LIBRARY) {
                found = Has::Library;
            }
        }
        found
    }
}

/// One look at a process, and its moment.
struct Look {
    at: Instant,
    breakdown: Breakdown,
}

impl Look {
    /// `None` if the process has ended, or has no page of its own that can be opened.
    fn at(pid: u32) -> Option<Look> {
        let breakdown = Breakdown::now(&Live::open(pid).ok()?, pid, false).ok()?;
        breakdown.process?;
        Some(Look {
            at: Instant::now(),
            breakdown,
        })
    }

    fn rss(&self) -> u64 {
        self.breakdown.process.map_or(0, |process| process.rss)
    }

    fn live(&self) -> u64 {
        self.breakdown.counters.resident.live
    }
}

impl List {
    fn look(between: Duration) -> Result<List, Failure> {
        let mut list = List::default();
        let mut published = Vec::new();
        for pid in pids()? {
            // Names of files may have any bytes.
            match fs::read(format!("/proc/{pid}/maps")) {
                Ok(maps) => match Has::of(&String::from_utf8_lossy(&maps)) {
                    Has::Page => published.push(pid),
                    Has::Library => list.without_page.push(pid),
                    Has::Nothing => {}
                },
                // Threads of the kernel have no command.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    list.others += usize::from(command(pid).is_some());
                }
                Err(_) => {} // it has ended
            }
        }
        let looks = in_parallel(&published, |&pid| Look::at(pid));
        let mut first = Vec::new();
        for (pid, look) in published.into_iter().zip(looks) {
            match look {
                Some(look) => first.push((pid, look)),
                None if has_ended(pid) => {}
                None => list.without_page.push(pid),
            }
        }
        thread::sleep(between);
        let rows = in_parallel(&first, |(pid, before)| {
            Some(Row::of(*pid, command(*pid)?, before, &Look::at(*pid)?))
        });
        list.rows = rows.into_iter().flatten().collect();
        list.rows
            .sort_by_key(|row| (std::cmp::Reverse(row.rss), row.pid));
        list.without_page.sort_unstable();
        Ok(list)
    }

    fn text(&self) -> String {
        let mut out = String::new();
        if !self.rows.is_empty() {
            let head = ["pid", "command", "RSS", "live", "pinned", "growth/min"];
            let mut table = Table::new(2, &head);
            for row in &self.rows {
                let old = if row.is_old() { "*" } else { "" };
                table.row(vec![
                    row.pid.to_string(),
                    shortened(&row.command),
                    units::bytes(row.rss),
                    units::bytes(row.live) + old,
                    units::bytes(row.pinned) + old,
                    signed(row.rss_growth),
                ]);
            }
            for line in table.lines() {
                let _ = writeln!(out, "{line}");
            }
        } else {
            out.push_str("No process publishes statistics.\n");
        }
        if self.rows.iter().any(Row::is_old) {
            out.push_str("*: more than 2 s old; `obmalloc stats PID` has the reason.\n");
        }
        if !self.without_page.is_empty() {
            let pids = self.without_page.iter().take(NAMED).map(u32::to_string);
            let pids = pids.collect::<Vec<_>>().join(", ");
            let more = match self.without_page.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let _ = writeln!(
                out,
                "Without statistics, though the library is in them: {pids}{more}. Either the library \
                 does not serve them, or they were started without --stats-page."
            );
        }
        if self.others > 0 {
            let others = match self.others {
                1 => "1 process that belongs".into(),
                others => format!("{} processes that belong", units::count(others as u64)),
            };
            let _ = writeln!(out, "Not shown: {others} to others.");
        }
        out
    }

    fn json(&self, between: Duration) -> Value {
        let processes = self.rows.iter().map(|row| {
            json!({
                "pid": row.pid,
                "command": row.command,
                "rss": row.rss,
                "live": row.live,
                "pinned": row.pinned,
                "age_ms": row.age_ms,
                "rss_growth_per_minute": row.rss_growth.round() as i64,
                "live_growth_per_minute": row.live_growth.map(|growth| growth.round() as i64),
            })
        });
        json!({
            "schema": SCHEMA,
            "seconds": between.as_secs_f64(),
            "processes": processes.collect::<Vec<_>>(),
            "without_page": self.without_page,
            "not_permitted": self.others,
        })
    }
}

impl Row {
    fn of(pid: u32, command: String, before: &Look, now: &Look) -> Row {
        let minutes = now.at.duration_since(before.at).as_secs_f64() / 60.0;
        let growth = |before: u64, now: u64| (now as f64 - before as f64) / minutes.max(1e-9);
        let is_new = now.breakdown.age_ms < OLD && before.breakdown.age_ms < OLD;
        let resident = &now.breakdown.counters.resident;
        Row {
            pid,
            command,
            rss: now.rss(),
            live: resident.live,
            pinned: resident.free_in_pools,
            age_ms: now.breakdown.age_ms,
            rss_growth: growth(before.rss(), now.rss()),
            live_growth: is_new.then(|| growth(before.live(), now.live())),
        }
    }

    fn is_old(&self) -> bool {
        self.age_ms >= OLD
    }
}

/// The processes of the machine, sorted.
fn pids() -> Result<Vec<u32>, Failure> {
    let entries = fs::read_dir("/proc")
        .map_err(|error| Failure::new(format!("cannot read /proc: {error}"), "mount it"))?;
    let numbers = entries.flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = numbers.filter(|&pid| pid != std::process::id()).collect();
    pids.sort_unstable();
    Ok(pids)
}

fn has_ended(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}/fd")).is_err()
}

/// A process's command line, without control characters; `None` for one without, or that has ended.
fn command(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end_matches('\0').chars();
    let text: String = text.map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!text.is_empty()).then_some(text)
}

fn shortened(command: &str) -> String {
    if command.chars().count() <= COMMAND {
        return command.into();
    }
    command.chars().take(COMMAND - 3).collect::<String>() + "..."
}

/// Bytes with a sign.
fn signed(growth: f64) -> String {
    let bytes = units::bytes(growth.abs().round() as u64);
    match growth.round() {
        0.0 => bytes,
        growth if growth < 0.0 => format!("-{bytes}"),
        _ => format!("+{bytes}"),
    }
}

/// `work` on each item, on some threads; the results in their order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let mut results = Vec::with_capacity(items.len());
    for some in items.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|item| scope.spawn(|| work(item))).collect();
            results.extend(threads.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_show_what_a_process_has() {
        let library = "7f00-7f01 r-xp 00000000 08:01 1  /opt/a b/libobmalloc.so.0\n";
        let page = "7f02-7f03 rw-s 00000000 00:01 2  /memfd:obmalloc-live (deleted)\n";
        assert_eq!(
            Has::of("7f00-7f01 r-xp 0 0 1  /bin/true\n7f02-7f03 rw-p 0 0 0\n"),
            Has::Nothing
        );
        assert_eq!(Has::of(library), Has::Library);
        assert_eq!(Has::of(&format!("{library}{page}")), Has::Page);
        assert_eq!(Has::of(""), Has::Nothing);
    }

    #[test]
    fn growth_has_a_sign() {
        assert_eq!(signed(0.2), "0 B");
        assert_eq!(signed(2048.0), "+2.0 KiB");
        assert_eq!(signed(-3.0 * 1024.0 * 1024.0), "-3.0 MiB");
    }

    #[test]
    fn long_commands_are_cut() {
        let long = shortened(&"é".repeat(100));
        assert_eq!(
            (long.chars().count(), long.ends_with("...")),
            (COMMAND, true)
        );
        assert_eq!(shortened("python app.py"), "python app.py");
        assert!(command(std::process::id()).is_some_and(|text| !text.contains('\0')));
        assert_eq!(command(u32::MAX), None);
    }

    #[test]
    fn each_kind_has_its_line() {
        let row = |pid, age_ms| Row {
            pid,
            command: "python app.py".into(),
            rss: 5 << 20,
            live: 2 << 20,
            pinned: 1 << 20,
            age_ms,
            rss_growth: 1024.0,
            live_growth: None,
        };
        let list = List {
            rows: vec![row(7, 0), row(8, 5000)],
            without_page: (1..=14).collect(),
            others: 1,
        };
        let text = list.text();
        let line = |n: usize| text.lines().nth(n).unwrap_or_default();
        assert_eq!(
            line(1).split_whitespace().collect::<Vec<_>>().join(" "),
            "7 python app.py 5.0 MiB 2.0 MiB 1.0 MiB +1.0 KiB"
        );
        assert!(
            line(2).contains("2.0 MiB*") && line(3).starts_with('*'),
            "{text}"
        );
        assert!(line(4).contains("11, 12 and 2 more"), "{text}");
        assert_eq!(line(5), "Not shown: 1 process that belongs to others.");
        let said = list.json(Duration::from_millis(1500));
        assert_eq!(
            (&said["seconds"], &said["not_permitted"]),
            (&json!(1.5), &json!(1))
        );
        assert_eq!(said["processes"][1]["live_growth_per_minute"], Value::Null);
        assert!(List::default().text().starts_with("No process"));
    }

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<u32> = (0..50).collect();
        assert_eq!(
            in_parallel(&items, |&n| n * 2),
            (0..100).step_by(2).collect::<Vec<_>>()
        );
    }
}
