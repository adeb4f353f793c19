//! The statistics as JSON, in the form that docs/metrics.md describes.

use core::fmt::{self, Write};

use crate::arena::set::Counts;
use crate::base::layout::{ARENA_SIZE, POOL_SIZE};
use crate::os::text;
use crate::pool::Shard;
use crate::stats::{Ledger, Snapshot};

/// The version of the JSON's form.
const SCHEMA: u32 = 1;

/// Writes the statistics as JSON, in the form that docs/metrics.md describes. Nothing is
/// written where there is no memory for them.
pub(crate) fn write(out: &mut dyn Write, host: Option<&str>) -> fmt::Result {
    let now = Snapshot::now().ok_or(fmt::Error)?;
    write!(
        out,
        "{{\"version\":\"{}\",\"schema\":{SCHEMA}",
        env!("CARGO_PKG_VERSION")
    )?;
    write!(out, ",\"pid\":{},\"host\":", text::pid())?;
    match host {
        Some(host) => write!(out, "\"{host}\"")?,
        None => out.write_str("null")?,
    }
    let Counts {
        mapped,
        empty,
        free_pools,
        mapped_total,
        unmapped_total,
        highwater,
        ..
    } = now.arenas;
    write!(
        out,
        ",\"arenas\":{{\"size\":{ARENA_SIZE},\"in_use\":{},\"empty\":{empty},\
         \"mapped_total\":{mapped_total},\"unmapped_total\":{unmapped_total},\
         \"highwater\":{highwater}}}",
        mapped - empty
    )?;
    let sums = now.sums();
    write!(
        out,
        ",\"pools\":{{\"size\":{POOL_SIZE},\"used\":{},\"full\":{},\"free\":{free_pools},\
         \"lanes\":{}}}",
        sums.pools - sums.full,
        sums.full,
        Shard::open().count()
    )?;
    let (ledger, below) = (Ledger::of(&now), now.below());
    let Ledger {
        live,
        requested,
        in_magazines,
        free_in_pools,
        empty_pools,
        metadata,
        ours,
        returned,
        libc,
        process,
    } = ledger;
    write!(
        out,
        ",\"bytes\":{{\"from_os\":{},\"metadata\":{},\"live\":{live},\
         \"live_requested_estimate\":{requested},\"in_magazines\":{in_magazines},\
         \"free_in_pools\":{}}}",
        now.os_bytes(),
        now.metadata(),
        sums.free
    )?;
    write!(
        out,
        ",\"resident\":{{\"total\":{ours},\"live\":{live},\"in_magazines\":{in_magazines},\
         \"free_in_pools\":{free_in_pools},\"empty_pools\":{empty_pools},\
         \"metadata\":{metadata},\"returned_total\":{returned}}}"
    )?;
    write!(
        out,
        ",\"large\":{{\"served_below_total\":{},\"blocks_live\":{}}}",
        below.requests,
        below.live()
    )?;
    out.write_str(",\"libc\":")?;
    match libc {
        Some(libc) => write!(out, "{{\"in_use\":{},\"kept\":{}}}", libc.in_use, libc.kept)?,
        None => out.write_str("null")?,
    }
    out.write_str(",\"rss\":")?;
    match process {
        Some(bytes) => write!(out, "{bytes}")?,
        None => out.write_str("null")?,
    }
    write!(
        out,
        ",\"threads\":{},\"misses\":{}",
        now.threads(),
        sums.misses
    )?;
    out.write_str(",\"classes\":[")?;
    for (i, class) in now.classes().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(
            out,
            "{comma}{{\"class\":{},\"size\":{},\"pools\":{},\"pools_full\":{},\
             \"blocks_live\":{},\"blocks_in_magazines\":{},\"blocks_free\":{},\
             \"resident\":{}}}",
            class.class.index(),
            class.class.size(),
            class.counts.pools,
            class.counts.full,
            class.live(),
            class.in_magazines,
            class.free(),
            class.counts.resident
        )?;
    }
    out.write_str("]}")
}
