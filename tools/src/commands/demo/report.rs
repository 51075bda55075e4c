//! What the demonstration tells.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::source::{Listing, Source};
use crate::output;

/// One step and what it checked.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What was done.
    pub name: &'static str,
    /// Records it was done to.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Time inside the store's calls.
    pub seconds: f64,
    /// What was compared.
    pub checked: String,
}

/// The whole demonstration.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was stored.
    pub source: String,
    /// Files that were found, and their size.
    pub files: u64,
    /// Bytes in them.
    pub file_bytes: u64,
    /// Files left out because of --max-bytes.
    pub cut_files: u64,
    /// Bytes in those.
    pub cut_bytes: u64,
    /// Symbolic links and special files, which are not followed.
    pub not_regular_files: u64,
    /// Files and folders that could not be read.
    pub unreadable_files: u64,
    /// Comparisons with a file that had changed since it was stored; the store was right about the old contents.
    pub changed_meanwhile: u64,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Records at the end.
    pub records: u64,
    /// What the store takes on disk.
    pub disk_bytes: u64,
    /// Time to close it.
    pub close_seconds: f64,
    /// Time to open it again.
    pub open_seconds: f64,
    /// Damage that verify found.
    pub findings: u64,
    /// Records that were not what they should be.
    pub differences: u64,
    /// The first of them.
    pub differences_first: Vec<String>,
    /// Where the store is, if it was to be kept.
    pub store: Option<String>,
}

impl Report {
    /// A report with nothing done yet.
    pub fn new(source: &Source, listing: &Listing, path: &Path, kept: bool) -> Self {
        Report {
            source: source.description.clone(),
            files: listing.files.len() as u64,
            file_bytes: listing.bytes,
            cut_files: listing.cut_files,
            cut_bytes: listing.cut_bytes,
            not_regular_files: listing.not_regular,
            unreadable_files: listing.unreadable,
            changed_meanwhile: 0,
            steps: Vec::new(),
            records: 0,
            disk_bytes: 0,
            close_seconds: 0.0,
            open_seconds: 0.0,
            findings: 0,
            differences: 0,
            differences_first: Vec::new(),
            store: kept.then(|| path.to_string_lossy().into_owned()),
        }
    }

    /// True if everything was as it should be.
    pub fn is_good(&self) -> bool {
        self.differences == 0 && self.findings == 0
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let count = output::count;
        let mut lines =
            vec![format!("{}: {}, {}", self.source, output::some(self.files, "file"), output::size(self.file_bytes))];
        if self.cut_files > 0 {
            let (files, size) = (output::some(self.cut_files, "file"), output::size(self.cut_bytes));
            lines.push(format!("left out, because of --max-bytes: {files}, {size}"));
        }
        for (number, what) in [
            (self.not_regular_files, "links and special files, not followed"),
            (self.unreadable_files, "files and folders that could not be read"),
            (self.changed_meanwhile, "comparisons with a file that had changed since it was stored"),
        ] {
            if number > 0 {
                lines.push(format!("{what}: {}", count(number)));
            }
        }
        lines.push(String::new());
        lines.push(self.table().to_string());
        lines.push(String::new());
        lines.push(format!(
            "{} in {} on disk; closed in {}, opened again in {}",
            output::records(self.records),
            output::size(self.disk_bytes),
            seconds(self.close_seconds),
            seconds(self.open_seconds),
        ));
        lines.extend(self.differences_first.iter().map(|difference| format!("DIFFERENT: {difference}")));
        lines.push(if self.is_good() {
            "everything is as it should be".to_string()
        } else {
            format!("DIFFERENCES: {}, FINDINGS IN THE FILES: {}", count(self.differences), count(self.findings))
        });
        if let Some(store) = &self.store {
            lines.push(format!(
                "the store is kept in {store}; look into it with: tophash scan {store} --limit 10 --keys-only"
            ));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn table(&self) -> comfy_table::Table {
        let mut table =
            output::table(["step", "records", "bytes", "time in the store", "records/s", "bytes/s", "checked"]);
        for step in &self.steps {
            let time = Duration::from_secs_f64(step.seconds);
            table.add_row([
                step.name.to_string(),
                output::count(step.records),
                output::size(step.bytes),
                seconds(step.seconds),
                output::count(output::per_second(step.records, time)),
                output::size(output::per_second(step.bytes, time)),
                step.checked.clone(),
            ]);
        }
        output::align_right(&mut table, 1..6);
        table
    }
}

fn seconds(seconds: f64) -> String {
    output::duration((seconds * 1e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let source = Source { description: "a folder".into(), roots: Vec::new() };
        let listing = Listing { bytes: 2048, cut_files: 3, cut_bytes: 1 << 20, ..Listing::default() };
        Report::new(&source, &listing, Path::new("kept.tophash"), true)
    }

    #[test]
    fn the_text_says_what_was_left_out_and_where_the_store_is() {
        let text = report().text();
        assert!(text.contains("left out, because of --max-bytes: 3 files, 1.00 MiB"), "{text}");
        assert!(text.contains("everything is as it should be"), "{text}");
        assert!(text.contains("the store is kept in kept.tophash"), "{text}");
    }

    #[test]
    fn a_difference_is_loud() {
        let mut report = report();
        report.differences = 1;
        report.differences_first.push("a is missing".into());
        assert!(!report.is_good());
        let text = report.text();
        assert!(
            text.contains("DIFFERENT: a is missing") && text.contains("DIFFERENCES: 1, FINDINGS IN THE FILES: 0"),
            "{text}"
        );
    }
}
