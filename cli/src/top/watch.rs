//! Samples of a process.

use std::fs;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use format::counters::UNKNOWN;

use crate::live::Live;
use crate::rss::Breakdown;

/// A process under watch.
pub struct Watch {
    pub pid: u32,
    pub interval: Duration,
    live: Live,
    /// The start time of the process: its number may be reused.
    began: String,
    left: Option<u64>,
    last: Option<Sample>,
}

/// A sample.
pub struct Sample {
    pub breakdown: Breakdown,
    at: Instant,
}

/// Rates per second between two samples.
#[derive(Clone, Copy, Default)]
pub struct Rates {
    pub returned: f64,
    pub misses: f64,
    pub arenas_in: f64,
    pub arenas_out: f64,
    pub large: f64,
    pub faults: f64,
}

/// The data to show.
pub struct Shown<'a> {
    pub breakdown: &'a Breakdown,
    /// `None` at the first sample.
    pub rates: Option<Rates>,
}

impl Watch {
    /// Begins the watch of a process with a stats page.
    pub fn begin(pid: u32, interval: Duration, count: Option<u64>) -> Result<Watch, Failure> {
        let live = Live::open(pid)?;
        let began = began(pid).ok_or_else(|| ended(pid))?;
        Ok(Watch {
            pid,
            interval,
            live,
            began,
            left: count,
            last: None,
        })
    }

    /// Takes a sample; `None` after the last one. The end of the process is a failure.
    pub fn look(&mut self) -> Result<Option<Shown<'_>>, Failure> {
        if self.left == Some(0) {
            return Ok(None);
        }
        self.left = self.left.map(|left| left - 1);
        let is_there = |watch: &Watch| began(watch.pid).as_ref() == Some(&watch.began);
        if !is_there(self) {
            return Err(ended(self.pid));
        }
        let looked = Breakdown::now(&self.live, self.pid, false);
        if !is_there(self) {
            return Err(ended(self.pid));
        }
        let mut breakdown = looked?;
        if breakdown.age_ms > 2000
            && let Ok(live) = Live::open(self.pid)
        {
            // The process may have created another page.
            self.live = live;
            breakdown = Breakdown::now(&self.live, self.pid, false)?;
        }
        let now = Sample {
            breakdown,
            at: Instant::now(),
        };
        let rates = self.last.as_ref().map(|before| rates(before, &now));
        let shown = self.last.insert(now);
        Ok(Some(Shown {
            breakdown: &shown.breakdown,
            rates,
        }))
    }

    /// Whether another sample follows.
    pub fn goes_on(&self) -> bool {
        self.left != Some(0)
    }
}

fn rates(before: &Sample, now: &Sample) -> Rates {
    let seconds = (now.at - before.at).as_secs_f64().max(1e-3);
    let (old, new) = (&before.breakdown.counters, &now.breakdown.counters);
    let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
    let faults = |sample: &Sample| sample.breakdown.process.map_or(0, |process| process.faults);
    let misses = |number| if number == UNKNOWN { 0 } else { number };
    Rates {
        returned: rate(old.resident.returned_total, new.resident.returned_total),
        misses: rate(misses(old.process.misses), misses(new.process.misses)),
        arenas_in: rate(old.arenas.mapped_total, new.arenas.mapped_total),
        arenas_out: rate(old.arenas.unmapped_total, new.arenas.unmapped_total),
        large: rate(old.large.served_below_total, new.large.served_below_total),
        faults: rate(faults(before), faults(now)),
    }
}

/// The start time of a process in kernel ticks; `None` if it has ended.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let began = fields.nth(18)?;
    (!matches!(state, "Z" | "X")).then(|| began.to_string())
}

fn ended(pid: u32) -> Failure {
    Failure::new(
        format!("process {pid} has ended"),
        "start it again to go on watching",
    )
}
