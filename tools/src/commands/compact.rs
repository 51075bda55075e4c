//! `tophash compact`: writes a store anew, without anything dead in it.

use std::path::{Path, PathBuf};

use serde_json::json;
use tophash::Error;
use tophash::compact::{self, Report, Shape};

use crate::exit::{Interrupted, Outcome};
use crate::{interrupt, output, progress};

/// Make a store as small as its content
///
/// Writes a new index, each table sized for its content, without tombstones and overflow pages, and a new log without dead
/// records, in the order of the index; then puts both in the place of the old ones in one step. Nobody may have the
/// store open. Needs free space for the live records. Ctrl-C, a full disk or a crash leave the old store. Exit
/// code 0: done, or nothing to gain. 1: done, and damaged records were left out. 2: it could not be done; the store is
/// as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// Only tell what would be gained; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave out records and values that are damaged, and name them. They are gone then; `tophash repair` keeps the old
    /// store
    #[arg(long)]
    skip_damaged: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash compact sessions.tophash --dry-run
  tophash compact sessions.tophash";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    let bar = progress::bytes(Some(0), "compact");
    let follow = progress::follow(&bar);
    let options = compact::Options::new().dry_run(args.dry_run).skip_damaged(args.skip_damaged);
    let result = compact::compact_with(&args.store, &options, follow);
    bar.finish_and_clear();
    let report = match result {
        Ok(report) => report,
        Err(Error::Aborted { .. }) => return Err(Interrupted("the store is as it was".into()).into()),
        Err(error) => return Err(error.into()),
    };
    if args.json {
        let mut document = serde_json::to_value(&report)?;
        document["path"] = json!(args.store.to_string_lossy());
        output::emit_json(&document)?;
    } else {
        output::emit(&text(&args.store, &report))?;
    }
    report.skipped.iter().for_each(|skipped| output::note(format_args!("skipped: {skipped}")));
    Ok(if report.skipped_total == 0 { Outcome::Yes } else { Outcome::No })
}

/// The report for people: before and after, side by side.
fn text(store: &Path, report: &Report) -> String {
    let after = if report.dry_run { "after (estimated)" } else { "after" };
    let mut table = output::table(["", "before", after]);
    let (before, then) = (&report.before, &report.after);
    type Figure = fn(&Shape) -> String;
    let rows: [(&str, Figure); 11] = [
        ("records", |shape| output::count(shape.records)),
        ("tables", |shape| output::count(shape.tables)),
        ("slots: live", |shape| output::count(shape.live_slots)),
        ("slots: emptyOne", |shape| output::count(shape.empty_one_slots)),
        ("slots: emptyRest", |shape| output::count(shape.empty_rest_slots)),
        ("pages", |shape| output::count(shape.pages)),
        ("overflow pages", |shape| output::count(shape.overflow_pages)),
        ("segments", |shape| output::count(shape.segments)),
        ("log", |shape| output::size(shape.log_bytes)),
        ("dead in the log", |shape| output::size(shape.dead_bytes)),
        ("disk", |shape| output::size(shape.disk_bytes)),
    ];
    for (name, figure) in rows {
        table.add_row([name.to_string(), figure(before), figure(then)]);
    }
    let mut text = format!("{}\n{table}\n", store.display());
    let gained = output::size(before.disk_bytes.saturating_sub(then.disk_bytes));
    text.push_str(&if report.dry_run {
        format!("about {gained} would come back; nothing was changed\n")
    } else if report.switched {
        let seconds = report.nanos as f64 / 1e9;
        let rate = report.after.records as f64 / seconds.max(1e-9);
        format!("{gained} came back, in {seconds:.2} s ({} a second)\n", output::records(rate as u64))
    } else {
        "nothing to gain: the store is as it was\n".to_string()
    });
    if report.skipped_total > 0 {
        let verb = if report.dry_run { "would be" } else { "were" };
        text.push_str(&format!("damaged, and {verb} left out: {}\n", output::records(report.skipped_total)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(switched: bool, dry_run: bool) -> Report {
        let mut report = serde_json::to_value(Report::default()).unwrap();
        report["before"]["disk_bytes"] = json!(3 << 20);
        report["before"]["empty_one_slots"] = json!(1234);
        report["after"]["disk_bytes"] = json!(1 << 20);
        report["nanos"] = json!(1_500_000_000u64);
        report["switched"] = json!(switched);
        report["dry_run"] = json!(dry_run);
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn before_and_after_stand_side_by_side() {
        let text = text(Path::new("s"), &report(true, false));
        assert!(text.contains("| slots: emptyOne  | 1,234"), "{text}");
        assert!(text.contains("2.00 MiB came back, in 1.50 s"), "{text}");
    }

    #[test]
    fn a_dry_run_and_a_store_that_cannot_shrink_say_so() {
        assert!(text(Path::new("s"), &report(false, true)).ends_with("would come back; nothing was changed\n"));
        assert!(text(Path::new("s"), &report(false, false)).ends_with("nothing to gain: the store is as it was\n"));
    }
}
