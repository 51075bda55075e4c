//! `tophash repair`: builds a new store from whatever of a damaged one can be read.

use std::path::{Path, PathBuf};

use serde_json::json;
use tophash::Error;
use tophash::repair::Report;

use crate::exit::{Interrupted, Outcome};
use crate::{interrupt, output, progress};

/// Build a new store from what is left of a damaged one
///
/// Reads the log of STORE, which is not changed, and puts everything that validates into NEW, where there must be
/// nothing. The index is not needed. Exit code 0: everything was saved. 1: NEW was made, but something is lost,
/// and is listed. 2: the repair could not be carried out; there is no NEW then.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The damaged store's directory
    store: PathBuf,
    /// The new store's directory
    new: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash repair sessions.tophash repaired.tophash
  tophash repair sessions.tophash repaired.tophash --json | jq .lost_keys";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    let bar = progress::bytes(Some(0), "repair");
    let result = tophash::repair::repair_with(&args.store, &args.new, progress::follow(&bar));
    bar.finish_and_clear();
    let report = match result {
        Ok(report) => report,
        Err(Error::Aborted { .. }) => {
            let new = args.new.display();
            return Err(Interrupted(format!("there is no {new}, and the old store is as it was")).into());
        }
        Err(error) => return Err(error.into()),
    };
    if args.json {
        let mut document = serde_json::to_value(&report)?;
        document["path"] = json!(args.store.to_string_lossy());
        document["new_path"] = json!(args.new.to_string_lossy());
        document["is_complete"] = json!(report.is_complete());
        output::emit_json(&document)?;
    } else {
        output::emit(&text(&args.new, &report))?;
    }
    Ok(if is_certain(&report) { Outcome::Yes } else { Outcome::No })
}

/// Nothing is lost, for certain. Bytes behind the end of the log can be what a crash left of writes that nobody was
/// told were durable, or what is left of synced writes that no later mark of the log speaks of.
fn is_certain(report: &Report) -> bool {
    report.is_complete() && report.torn_bytes == 0
}

/// The report for people.
fn text(new: &Path, report: &Report) -> String {
    let mut text = format!(
        "saved {}{} into {}\nread {}: {}, {}, {}, {}, {}\n",
        output::some(report.keys, "key"),
        if report.tables == 0 {
            String::new()
        } else {
            format!(" in {} and the main one", output::some(report.tables, "table"))
        },
        new.display(),
        output::size(report.bytes_read),
        output::some(report.puts, "value"),
        output::some(report.removes, "removal"),
        output::some(report.batches, "batch"),
        output::some(report.segments, "segment"),
        output::some(report.blobs, "blob"),
    );
    if !report.index_problem.is_empty() {
        text.push_str(&format!("the index was of no use, so the log spoke for itself: {}\n", report.index_problem));
    }
    if report.unlocked {
        text.push_str("there is no LOCK file: make sure that nobody was writing meanwhile\n");
    }
    if report.torn_bytes > 0 {
        let torn = output::size(report.torn_bytes);
        text.push_str(&format!(
            "left out: {torn} behind the end of the log. A crash leaves such bytes, of writes that were not durable; damage to \
             what was synced last looks the same\n"
        ));
    }
    if report.records_left_out > 0 {
        let records = output::records(report.records_left_out);
        text.push_str(&format!("left out: {records} of tables that were dropped or cleared\n"));
    }
    for left in &report.unfinished {
        text.push_str(&format!(
            "left by an earlier repair that was killed, to be removed if none is running: {left}\n"
        ));
    }
    for file in &report.files_left_out {
        text.push_str(&format!("left out: {file}\n"));
    }
    if report.is_complete() {
        text.push_str(if is_certain(report) { "nothing is lost\n" } else { "nothing else is lost\n" });
        return text;
    }
    losses(report, &mut text);
    keys(report, &mut text);
    for lost in &report.lost_tables {
        text.push_str(&format!(
            "table {}, whose name is lost, was saved as `{}` with {}: {}\n",
            lost.id,
            lost.saved_as.escape_debug(),
            output::records(lost.records),
            lost.reason
        ));
    }
    if let Some(entries) = report.index_entries_lost.filter(|&entries| entries > 0) {
        let entries = output::some(entries, "key");
        text.push_str(&format!("with their value there at the last checkpoint: {entries}\n"));
    }
    if report.stale_keys_max > 0 {
        let keys = output::some(report.stale_keys_max, "key");
        text.push_str(&format!("saved with an older value, or though they should be gone: at most {keys}\n"));
    }
    if report.unconfirmed_records > 0 {
        let records = output::records(report.unconfirmed_records);
        text.push_str(&format!("saved from behind the damage, perhaps never acknowledged: {records}\n"));
    }
    if report.batches_in_part > 0 {
        let batches = output::count(report.batches_in_part);
        text.push_str(&format!("committed batches of which a part is lost and the rest is saved: {batches}\n"));
    }
    if report.batches_left_out > 0 {
        let batches = output::count(report.batches_left_out);
        text.push_str(&format!("batches left out because nothing says that they were committed: {batches}\n"));
    }
    if report.batches_uncertain > 0 {
        let batches = output::some(report.batches_uncertain, "place");
        text.push_str(&format!("{batches} where a batch may have been saved in part\n"));
    }
    text.push_str("keep the old store, or a copy of it, until it is clear what else can be had from it\n");
    text
}

fn losses(report: &Report, text: &mut String) {
    let mut table = output::table(["lost", "where", "acknowledged", "why"]);
    for loss in &report.losses {
        let place = match loss.to {
            0 => format!("{} from byte {}", loss.path, loss.from),
            to => format!("{} bytes {} to {to}", loss.path, loss.from),
        };
        let acknowledged = if loss.acknowledged { "yes" } else { "not known" };
        table.add_row([&loss.kind, &place, acknowledged, &loss.reason]);
    }
    if report.losses_total > 0 {
        text.push_str(&format!("{table}\n"));
    }
    let (total, bytes) = (output::some(report.losses_total, "range"), output::size(report.lost_bytes));
    text.push_str(&format!("lost: {total} with {bytes}{}", listed(report.losses.len(), report.losses_total)));
    let acknowledged = output::count(report.acknowledged_losses);
    text.push_str(&format!("; acknowledged data among them: {acknowledged}\n"));
}

fn keys(report: &Report, text: &mut String) {
    let mut table = output::table(["key", "in the new store", "why"]);
    for lost in &report.lost_keys {
        let now = if lost.older_value_kept { "an older value" } else { "not there" };
        let why = format!("{} ({} byte {})", lost.reason, lost.path, lost.offset);
        let of = lost.table.as_ref().map_or(String::new(), |name| format!(" (table {})", name.escape_debug()));
        table.add_row([&format!("{}{of}", lost.key), now, &why]);
    }
    if report.lost_keys_total > 0 {
        text.push_str(&format!("{table}\n"));
        let total = output::some(report.lost_keys_total, "key");
        text.push_str(&format!(
            "known to be among what is lost: {total}{}\n",
            listed(report.lost_keys.len(), report.lost_keys_total)
        ));
    }
}

fn listed(listed: usize, total: u64) -> String {
    if (listed as u64) < total { format!(" (listed: the first {listed})") } else { String::new() }
}
