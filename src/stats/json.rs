//! The statistics as JSON: the counters of `format`'s schema, section by section, and the
//! classes. docs/metrics.md describes them.

use core::fmt::{self, Write};

use crate::os::process::libc_memory;
use crate::os::text;
use crate::stats::HeapStats;
use format::counters::CLASS_NAMES;

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// Writes the statistics; nothing where there is no memory for a snapshot.
pub(crate) fn write(out: &mut dyn Write, host: Option<&str>) -> fmt::Result {
    let now = HeapStats::now().ok_or(fmt::Error)?;
    write!(
        out,
        "{{\"version\":\"{}\",\"schema\":{SCHEMA},\"pid\":{},\"host\":",
        env!("CARGO_PKG_VERSION"),
        text::pid()
    )?;
    match host {
        Some(host) => write!(out, "\"{host}\"")?,
        None => out.write_str("null")?,
    }
    // The section of the last counter, and whether its object is open: a section that begins
    // with an unknown counter is null as a whole.
    let (mut section, mut is_open) = ("", false);
    now.counters(libc_memory()).each(&mut |of, name, value| {
        let mut comma = ",";
        if of != section {
            if is_open {
                out.write_char('}')?;
            }
            (section, is_open) = (of, !of.is_empty() && value.is_some());
            if is_open {
                write!(out, ",\"{of}\":{{")?;
                comma = "";
            } else if !of.is_empty() {
                write!(out, ",\"{of}\":null")?;
            }
        }
        if !is_open && !of.is_empty() {
            return Ok(());
        }
        pair(out, comma, name, value)
    })?;
    if is_open {
        out.write_char('}')?;
    }
    out.write_str(",\"classes\":[")?;
    for (i, class) in now.classes().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, "{comma}{{\"class\":{}", class.class.index())?;
        for (name, value) in CLASS_NAMES.split(' ').zip(class.counters().values()) {
            pair(out, ",", name, Some(value.cast_signed()))?;
        }
        out.write_char('}')?;
    }
    out.write_str("]}")
}

#[inline(never)]
fn pair(out: &mut dyn Write, comma: &str, name: &str, value: Option<i64>) -> fmt::Result {
    write!(out, "{comma}\"{name}\":")?;
    match value {
        Some(value) => write!(out, "{value}"),
        None => out.write_str("null"),
    }
}
