//! The statistics as text on stderr, for people.

use core::fmt::{self, Display, Formatter};

use crate::os::process::libc_memory;
use crate::os::text;
use crate::stats::HeapStats;
use format::counters::Counters;

/// Logs the statistics.
pub(crate) fn log() {
    let pid = text::pid();
    let Some(now) = HeapStats::now() else {
        text::log(format_args!("no memory for the statistics of pid {pid}"));
        return;
    };
    text::log(format_args!(
        "statistics of pid {pid}; size, bytes, resident, libc and rss are in bytes"
    ));
    text::log(format_args!(
        "{:>6} {:>7} {:>9} {:>10} {:>10}",
        "size", "pools", "live", "magazines", "free"
    ));
    for class in now.classes() {
        let class = class.counters();
        text::log(format_args!(
            "{:>6} {:>7} {:>9} {:>10} {:>10}",
            class.size,
            class.pools,
            class.blocks_live,
            class.blocks_in_magazines,
            class.blocks_free
        ));
    }
    let counters = now.counters(libc_memory());
    let mut last = None;
    let _ = counters.each::<()>(&mut |section, _, value| {
        if last != Some(section) && value.is_some() {
            text::log(format_args!("{}", Section(&counters, section)));
        }
        last = Some(section);
        Ok(())
    });
}

/// The line of a section: the names of the JSON, and the values.
struct Section<'a>(&'a Counters, &'static str);

impl Display for Section<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(if self.1.is_empty() { "process" } else { self.1 })?;
        let mut separator = ':';
        self.0.each(&mut |section, name, value| match value {
            Some(value) if section == self.1 => {
                write!(out, "{separator} {name} {value}")?;
                separator = ',';
                Ok(())
            }
            _ => Ok(()),
        })
    }
}
