//! `obmalloc stats`: the breakdown of a process's RSS, once.

mod json;
pub mod prometheus;
mod text;
mod textfile;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::failure::{Failure, USAGE};
use crate::output;
use crate::rss::Breakdown;
use prometheus::Families;

/// Show a process's memory: the library's by its use, and the rest
///
/// Of a process that runs with OBMALLOC_STATS_PAGE=1 (`obmalloc run --stats-page`), of a snapshot,
/// or of the JSON that a process with OBMALLOC_STATS=FILE writes at exit. The process is not
/// stopped. docs/metrics.md has each number, its unit, and the sums.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A process, or a file
    #[arg(value_name = "PID|FILE")]
    of: String,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["prometheus", "textfile"])]
    json: bool,
    /// Print metrics in Prometheus' text format, which is valid OpenMetrics, too
    #[arg(long)]
    prometheus: bool,
    /// Write metrics to a file for node_exporter, atomically; in a folder, as obmalloc-PID.prom
    #[arg(long, value_name = "DIR|FILE")]
    textfile: Option<PathBuf>,
    /// Add a label to each metric, for instance app=shop; may be repeated. (Default in a textfile:
    /// pid)
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

const EXAMPLES: &str = "Examples:
  obmalloc stats 4711
  obmalloc stats 4711 --json | jq .resident
  obmalloc stats 4711 --textfile /var/lib/node_exporter --label app=shop";

/// Shows the breakdown.
pub fn main(options: &Options) -> Result<ExitCode, Failure> {
    if !options.labels.is_empty() && !options.prometheus && options.textfile.is_none() {
        return Err(Failure::new("--label is for metrics", "add --prometheus").status(USAGE));
    }
    let breakdown = Breakdown::of(&options.of)?;
    if let Some(place) = &options.textfile {
        let pid = ("pid".to_string(), breakdown.pid.to_string());
        let labels = match options.labels.as_slice() {
            [] => vec![pid],
            labels => labels.to_vec(),
        };
        textfile::write(
            place,
            breakdown.pid,
            &prometheus::text(&breakdown, &labels, Families::Classic),
        )?;
    }
    let text = if options.prometheus {
        prometheus::text(&breakdown, &options.labels, Families::OpenMetrics)
    } else if options.json {
        format!("{:#}\n", json::of(&breakdown))
    } else if options.textfile.is_none() {
        text::of(&breakdown)
    } else {
        return Ok(ExitCode::SUCCESS);
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A label of Prometheus: name and value.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not NAME=VALUE")?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(good) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err("a name is of letters, digits and _".into());
    }
    if prometheus::LABELS.contains(&name) || name.starts_with("__") {
        return Err(format!("{name} is used already"));
    }
    Ok((name.into(), value.into()))
}
