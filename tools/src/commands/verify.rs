//! `tophash verify`: reads everything in a store and compares it with its checksums and invariants.

use std::path::{Path, PathBuf};

use serde_json::json;
use tophash::Error;
use tophash::verify::{Finding, Report};

use crate::exit::{self, Interrupted, Outcome};
use crate::{interrupt, output, progress};

/// Check a store completely
///
/// Reads every page and every record and changes nothing. Exit code 0: clean. 1: damage was found, and is listed.
/// 2: the check could not be carried out, as when a writer has the store open.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash verify sessions.tophash && echo whole
  tophash verify sessions.tophash --json";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    match check(&args.store) {
        Ok(report) => {
            if args.json {
                output::emit_json(&document(&args.store, Ok(&report))?)?;
            } else {
                output::emit(&text(&args.store, &report))?;
            }
            Ok(if report.is_clean() { Outcome::Yes } else { Outcome::No })
        }
        Err(_) if interrupt::requested() => Err(Interrupted("the store was not checked to its end".into()).into()),
        // Damage so deep that the store cannot be walked is an answer, not a check that did not take place.
        Err(error) if error.is_corruption() => {
            if args.json {
                output::emit_json(&document(&args.store, Err(&error))?)?;
            }
            output::note(format_args!("tophash: {}", exit::explained(&error)));
            Ok(Outcome::No)
        }
        Err(error) => Err(error.into()),
    }
}

/// Verifies a store with a progress bar.
pub fn check(store: &Path) -> Result<Report, Error> {
    let bar = progress::bytes(Some(0), "verify");
    let result = tophash::verify::verify_with(store, progress::follow(&bar));
    bar.finish_and_clear();
    result
}

/// The report with what a program needs to act on it; with the error in its place if there is no report.
fn document(store: &Path, result: Result<&Report, &Error>) -> anyhow::Result<serde_json::Value> {
    let mut document = match result {
        Ok(report) => serde_json::to_value(report)?,
        Err(error) => json!({"error": error.to_string()}),
    };
    document["path"] = json!(store.to_string_lossy());
    document["is_clean"] = json!(result.is_ok_and(Report::is_clean));
    Ok(document)
}

fn text(store: &Path, report: &Report) -> String {
    let mut text = format!(
        "{}: {}{} in {} and {}, {} ({} overflow); {} read\n",
        store.display(),
        output::records(report.records),
        if report.tables == 0 {
            String::new()
        } else {
            format!(" of {} and the main one", output::some(report.tables, "table"))
        },
        output::some(report.segments, "segment"),
        output::some(report.blobs, "blob"),
        output::some(report.pages, "page"),
        output::count(report.overflow_pages),
        output::size(report.bytes_read),
    );
    if !report.closed_cleanly {
        text.push_str(&format!(
            "not closed cleanly; {} of the log's tail will be replayed when it is opened\n",
            output::records(report.tail_records)
        ));
    }
    if report.torn_bytes + report.leftover_segments + report.leftover_blobs > 0 {
        text.push_str(&format!(
            "left by a crash, to be removed by the next open: {} behind the end of the log, {}, {}\n",
            output::size(report.torn_bytes),
            output::some(report.leftover_segments, "segment"),
            output::some(report.leftover_blobs, "blob"),
        ));
    }
    if report.findings.is_empty() && report.is_clean() {
        text.push_str("no damage found\n");
        return text;
    }
    let mut table = output::table(["finding", "where", "expected", "found"]);
    for finding in &report.findings {
        let kind = if finding.harmless { format!("{} (harmless)", finding.kind) } else { finding.kind.clone() };
        let of = finding.table.as_ref().map_or(String::new(), |name| format!(", table {}", name.escape_debug()));
        table.add_row([kind, place(finding) + &of, finding.expected.clone(), finding.found.clone()]);
    }
    text.push_str(&format!("{table}\n"));
    text.push_str(&output::some(report.findings_total, "finding"));
    let listed = report.findings.len() as u64;
    if listed < report.findings_total {
        text.push_str(&format!(" (listed: the first {})", output::count(listed)));
    }
    text.push_str(if report.is_clean() {
        ", harmless; no damage found\n"
    } else {
        "; keep the files as they are and restore the store from a copy, or save what is whole with `tophash repair STORE NEW`\n"
    });
    text
}

fn place(finding: &Finding) -> String {
    let mut place = finding.path.clone();
    for (name, number) in [("byte", finding.offset), ("page", finding.page), ("slot", finding.slot.map(u64::from))] {
        if let Some(number) = number {
            place.push_str(&format!(", {name} {number}"));
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding and Report can only be made by the library, or from JSON as a program would read it.
    fn report(findings_total: u64) -> Report {
        let finding = json!({"kind": "page-checksum", "path": "index", "offset": 8192, "page": 2, "slot": null,
            "expected": "1", "found": "2"});
        let mut report = serde_json::to_value(Report::default()).unwrap();
        report["findings_total"] = json!(findings_total);
        report["findings"] = if findings_total > 0 { json!([finding]) } else { json!([]) };
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn a_clean_store_says_so() {
        let text = text(Path::new("s"), &report(0));
        assert!(text.ends_with("no damage found\n"), "{text}");
    }

    #[test]
    fn findings_are_listed_with_their_place_and_their_number() {
        let text = text(Path::new("s"), &report(70));
        assert!(text.contains("| page-checksum | index, byte 8192, page 2 |"), "{text}");
        assert!(text.contains("70 findings (listed: the first 1)"), "{text}");
        assert!(text.contains("restore the store"), "{text}");
    }

    #[test]
    fn harmless_findings_are_listed_and_are_no_damage() {
        let mut report = serde_json::to_value(report(1)).unwrap();
        report["harmless_total"] = json!(1);
        report["findings"][0]["harmless"] = json!(true);
        let text = text(Path::new("s"), &serde_json::from_value(report).unwrap());
        assert!(text.contains("page-checksum (harmless)") && text.ends_with("no damage found\n"), "{text}");
    }

    #[test]
    fn the_json_says_whether_it_is_clean() {
        assert_eq!(document(Path::new("s"), Ok(&report(0))).unwrap()["is_clean"], json!(true));
        assert_eq!(document(Path::new("s"), Ok(&report(2))).unwrap()["is_clean"], json!(false));
        let error = tophash::verify::verify("no/store/here").unwrap_err();
        assert_eq!(document(Path::new("s"), Err(&error)).unwrap()["is_clean"], json!(false));
    }
}
