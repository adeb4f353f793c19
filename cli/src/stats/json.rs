//! The ledger as JSON: what `obmalloc_stats_json` says, and more.

use serde_json::{Value, json};

use crate::ledger::{Ledger, known};
use crate::stale::Stale;

/// The version of the form. Names may come within one; none goes, or changes its meaning.
const SCHEMA: u32 = 1;

/// All of it.
pub fn of(ledger: &Ledger) -> Value {
    let s = &ledger.statistics;
    let classes = ledger.classes().map(|(index, class)| {
        let mut entry = json!({
            "class": index,
            "size": class.size,
            "pools": class.pools,
            "blocks_live": class.blocks_live,
            "blocks_in_magazines": class.blocks_in_magazines,
            "blocks_free": class.blocks_free,
        });
        if ledger.has_all {
            entry["pools_full"] = json!(class.full);
            entry["resident"] = json!(class.resident);
        }
        entry
    });
    let classes: Vec<_> = classes.collect();
    let libc = known(s.libc_in_use).map(|in_use| json!({"in_use": in_use, "kept": s.libc_kept}));
    let parts = ledger.parts().map(|parts| {
        json!({
            "total": parts.rss,
            "ours": parts.ours,
            "libc_in_use": parts.libc_in_use,
            "libc_kept": parts.libc_kept,
            "files": parts.files,
            "other": parts.other,
        })
    });
    json!({
        "version": ledger.version(),
        "schema": SCHEMA,
        "pid": s.pid,
        "host": ledger.host(),
        "age_ms": ledger.age_ms,
        "stale": ledger.stale.as_ref().map(Stale::json),
        "arenas": {
            "size": s.arenas.size,
            "in_use": s.arenas.in_use,
            "empty": s.arenas.empty,
            "mapped_total": s.arenas.mapped_total,
            "unmapped_total": s.arenas.unmapped_total,
            "highwater": s.arenas.highwater,
        },
        "pools": {
            "size": s.pools.size,
            "used": s.pools.used,
            "full": s.pools.full,
            "free": s.pools.free,
            "lanes": s.pools.lanes,
        },
        "bytes": {
            "from_os": s.bytes.from_os,
            "metadata": s.bytes.metadata,
            "live": s.bytes.live,
            "live_requested_estimate": s.bytes.live_requested_estimate,
            "in_magazines": s.bytes.in_magazines,
            "free_in_pools": s.bytes.free_in_pools,
        },
        "resident": {
            "total": s.resident.total,
            "live": s.resident.live,
            "in_magazines": s.resident.in_magazines,
            "free_in_pools": s.resident.free_in_pools,
            "empty_pools": s.resident.empty_pools,
            "metadata": s.resident.metadata,
            "returned_total": s.resident.returned_total,
        },
        "large": {
            "served_below_total": s.large.served_below_total,
            "blocks_live": s.large.blocks_live,
        },
        "libc": libc,
        "rss": known(s.rss),
        "process": parts,
        "threads": known(s.threads),
        "misses": known(s.misses),
        "classes": classes,
    })
}
