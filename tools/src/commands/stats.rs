//! `tophash stats`: a store's figures.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::exit::Outcome;
use crate::{open, output};

/// Print a store's figures
///
/// Opens the store read-only. Counters count since a store was opened, so here they show what opening took;
/// a running service reports its own through Store::stats.
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
  tophash stats sessions.tophash
  tophash stats sessions.tophash --json";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let store = open::read_only(&args.store)?;
    let mut report = json!({"path": args.store.to_string_lossy(), "disk_bytes": store.disk_bytes()?});
    if let (Some(report), Value::Object(mut stats)) = (report.as_object_mut(), serde_json::to_value(store.stats())?) {
        report.append(&mut stats);
    }
    if args.json {
        output::emit_json(&report)?;
    } else {
        output::emit(&format!("{}\n", table(&report)))?;
    }
    Ok(Outcome::Yes)
}

/// A row for each figure. The names come from the figures themselves, so that new ones show up by themselves.
fn table(report: &Value) -> comfy_table::Table {
    let mut table = output::table(["figure", "value"]);
    if let Value::Object(fields) = report {
        add_rows(&mut table, "", fields);
    }
    output::align_right(&mut table, [1]);
    table
}

fn add_rows(table: &mut comfy_table::Table, prefix: &str, fields: &Map<String, Value>) {
    // Single figures before groups, as they are read.
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_object()) {
        table.add_row([format!("{prefix}{}", name.replace('_', " ")), shown(name, value)]);
    }
    for (name, value) in fields {
        if let Value::Object(fields) = value {
            add_rows(table, &format!("{prefix}{name}: "), fields);
        }
    }
}

fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "no".to_string(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_string(),
        Value::String(text) => text.clone(),
        value => match value.as_u64() {
            Some(bytes) if name.contains("bytes") => output::size(bytes),
            Some(nanos) if name.contains("nanos") => output::duration(nanos),
            // Positions and generations are compared with those in error messages, not counted.
            Some(number) if name.contains("position") => format!("{number:#x}"),
            Some(number) => output::count(number),
            None => value.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_the_unit_of_their_name() {
        assert_eq!(shown("file_bytes", &json!(2048)), "2.00 KiB");
        assert_eq!(shown("open_nanos", &json!(1500)), "1.50 us");
        assert_eq!(shown("position", &json!(4096)), "0x1000");
        assert_eq!(shown("records", &json!(1_000_000)), "1,000,000");
        assert_eq!(shown("poisoned", &Value::Null), "no");
        assert_eq!(shown("growing", &json!(true)), "yes");
    }

    #[test]
    fn every_figure_of_the_stats_has_a_row() {
        let report = serde_json::to_value(tophash::Stats::default()).unwrap();
        let text = table(&report).to_string();
        assert!(text.contains("| records"), "{text}");
        assert!(text.contains("index: overflow pages"), "{text}");
        assert!(text.contains("recovery: journal redone"), "{text}");
    }
}
