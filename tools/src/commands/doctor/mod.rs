//! `tophash doctor`: how a store's space is used, and what to do about it.

mod charts;
mod circumstances;
mod details;
mod html;
mod markup;
mod space;
mod text;
mod workload;

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use tophash::Error;
use tophash::doctor::{Advice, Diagnosis, Severity};
use tophash::stats::Stats;

use workload::Workload;

use crate::exit::{Interrupted, Outcome};
use crate::{interrupt, output, progress};

/// Diagnose how a store's space is used, and what a workload asks of it, with advice
///
/// Reads the index and the log's counters and changes nothing; nobody may have the store open for writing.
/// Exit code 0, or 1 if a finding is at or above the severity of --fail-on; 2: the diagnosis could not be made.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The store's directory; may be left out with --trace
    #[arg(required_unless_present = "trace")]
    store: Option<PathBuf>,
    /// A recorded trace of calls: what the workload could do better (`tophash bench --record`, docs/TRACE.md)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Figures of the running store, as JSON: what Store::stats gave
    #[arg(long, value_name = "FILE", requires = "store")]
    stats: Option<PathBuf>,
    /// Exit with code 1 on findings at or above this severity: info, warning or critical
    #[arg(long, value_name = "SEVERITY")]
    fail_on: Option<Severity>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a report with pictures to this file: one page, nothing loaded from elsewhere
    #[arg(long, value_name = "FILE", requires = "store")]
    html: Option<PathBuf>,
}

const EXAMPLE: &str = "\
Example:
  tophash doctor sessions.tophash
  tophash doctor sessions.tophash --html report.html
  tophash doctor sessions.tophash --fail-on warning --json > diagnosis.json
  tophash doctor --trace recorded";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    let workload = args.trace.as_deref().map(Workload::read).transpose()?;
    let diagnosis = args.store.as_deref().map(|store| look(args, store)).transpose()?;
    if let (Some(path), Some(store), Some(diagnosis)) = (&args.html, &args.store, &diagnosis) {
        let page = html::page(&circumstances::Circumstances::now(store), diagnosis);
        std::fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    if args.json {
        let mut document = diagnosis.as_ref().map_or_else(|| Ok(json!({})), serde_json::to_value)?;
        if let Some(store) = &args.store {
            document["path"] = json!(store.to_string_lossy());
        }
        if let Some(workload) = &workload {
            document["workload"] = serde_json::to_value(workload)?;
        }
        output::emit_json(&document)?;
    } else {
        let mut text = String::new();
        if let (Some(store), Some(diagnosis)) = (&args.store, &diagnosis) {
            text = text::report(store, diagnosis);
        }
        if let Some(workload) = &workload {
            text.push_str(if text.is_empty() { "" } else { "\n" });
            text.push_str(&workload.text());
        }
        output::emit(&text)?;
    }
    let worst = diagnosis.and_then(|diagnosis| diagnosis.worst()).max(workload.and_then(|workload| workload.worst()));
    let fails = args.fail_on.is_some_and(|severity| worst >= Some(severity));
    Ok(if fails { Outcome::No } else { Outcome::Yes })
}

fn look(args: &Args, store: &Path) -> anyhow::Result<Diagnosis> {
    let stats = args.stats.as_deref().map(read_stats).transpose()?;
    let mut diagnosis = match diagnose(store) {
        Err(_) if interrupt::requested() => {
            return Err(Interrupted("the store was not read to its end".into()).into());
        }
        result => result?,
    };
    if let Some(stats) = stats {
        diagnosis.include_stats(stats);
    }
    Ok(diagnosis)
}

fn diagnose(store: &Path) -> Result<Diagnosis, Error> {
    let bar = progress::bytes(Some(0), "doctor");
    let result = tophash::doctor::diagnose_with(store, progress::follow(&bar));
    bar.finish_and_clear();
    result
}

fn read_stats(path: &Path) -> anyhow::Result<Stats> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let wrong =
        || format!("{} does not hold the figures of a running store, as Store::stats gives them", path.display());
    let figures: serde_json::Value = serde_json::from_str(&text).with_context(wrong)?;
    // Stats takes a field that is missing for zero, because versions differ. A text without a whole part that a writer
    // has is something else, as what `tophash stats` prints.
    let parts = ["index", "log", "compaction", "checkpoint", "commit", "waits"];
    if let Some(missing) = parts.into_iter().find(|part| !figures[part].is_object()) {
        return Err(anyhow::anyhow!("`{missing}` is missing")).with_context(wrong);
    }
    serde_json::from_value(figures).with_context(wrong)
}

/// What to do, with the store at hand in the commands.
fn action(store: &Path, advice: &Advice) -> String {
    let path = store.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,".contains(c);
    let quoted = if path.chars().all(plain) { path.into_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) };
    advice.action.replace(" STORE", &format!(" {quoted}"))
}

/// A part of a whole, in words.
fn percent(part: u64, all: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / all.max(1) as f64)
}

/// What a bar of a histogram stands for, if the last one stands for all that is more, too.
fn step_name(step: usize, first: usize, last: usize, longest: usize) -> String {
    let number = first + step;
    if step == last && longest > number { format!("{number}+") } else { number.to_string() }
}
