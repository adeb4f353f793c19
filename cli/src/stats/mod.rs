//! `obmalloc stats`: where a process's memory is, once.

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

/// Show where a process's memory is: the library's by what it is for, and the rest
///
/// Of a process that runs with OBMALLOC_STATS_PAGE=1 (`obmalloc run --stats-page`), of a snapshot, or of
/// the JSON that OBMALLOC_STATS=FILE has a process write at its end. The process is not
/// stopped. docs/metrics.md has each number, its unit, and what adds up to what.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A process, or a file
    #[arg(value_name = "PID|FILE")]
    of: String,
    /// All of it as JSON
    #[arg(long, conflicts_with_all = ["prometheus", "textfile"])]
    json: bool,
    /// As metrics, in Prometheus' text form, which is OpenMetrics' form, too
    #[arg(long)]
    prometheus: bool,
    /// Metrics to a file for node_exporter: whole or not at all; in a folder, as
    /// obmalloc-PID.prom
    #[arg(long, value_name = "DIR|FILE")]
    textfile: Option<PathBuf>,
    /// A label for each metric, such as app=shop; may be repeated. (Without one, metrics of a
    /// textfile have the label pid)
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

const EXAMPLES: &str = "Examples:
  obmalloc stats 4711
  obmalloc stats 4711 --json | jq .resident
  obmalloc stats 4711 --textfile /var/lib/node_exporter --label app=shop";

/// Shows it.
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

/// A label of Prometheus: its name, and its value.
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
