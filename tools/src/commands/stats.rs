//! `tophash stats`: a store's figures.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::tables;
use crate::exit::Outcome;
use crate::{open, output};

/// Print a store's figures
///
/// The figures are about all tables together; a second list tells the size of each, if there are tables with a name. Opens the
/// store read-only. What only a writer knows (what it moved, synced, waited for) is not known here: null in
/// JSON, and left out of the table. A running service reports it through Store::stats.
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
        forget_unknown(&mut stats);
        report.append(&mut stats);
    }
    let tables = tables::figures(&store)?;
    if args.json {
        report["by_table"] = json!(tables);
        output::emit_json(&report)?;
    } else {
        let unknown =
            "not known for a store that is read only here: what a writer does; Store::stats of the service has it";
        let each = if tables.len() > 1 { format!("\n{}\n", tables::text(&tables)) } else { String::new() };
        output::emit(&format!("{}\n{unknown}\n{each}", table(&report)))?;
    }
    Ok(Outcome::Yes)
}

/// Figures that are those of a writer: zero in a store that is opened for reading, whatever the writers did. A group
/// without names is one of them as a whole, but for what is known of it.
const OF_WRITERS: [(&str, &[&str]); 7] = [
    (
        "index",
        &[
            "file_bytes",
            "growths",
            "splits",
            "shrinks",
            "merges",
            "pages_given_back",
            "refills",
            "rewrites",
            "repairs",
            "inserts_into_empty_rest",
            "inserts_into_empty_one",
            "inserts_into_new_overflow",
        ],
    ),
    ("log", &["pinned_segments", "end_lsn", "durable_lsn"]),
    ("compaction", &[]),
    ("checkpoint", &[]),
    ("commit", &[]),
    ("waits", &[]),
    ("operations", &[]),
];
/// What a reader knows of a group that is a writer's.
const KNOWN: &[&str] = &["generation"];

fn forget_unknown(stats: &mut Map<String, Value>) {
    for (group, names) in OF_WRITERS {
        let Some(Value::Object(fields)) = stats.get_mut(group) else { continue };
        for (name, value) in fields {
            if names.contains(&name.as_str()) || names.is_empty() && !KNOWN.contains(&name.as_str()) {
                *value = Value::Null;
            }
        }
    }
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
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_object() && !value.is_null()) {
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
        assert_eq!(shown("growing", &json!(true)), "yes");
    }

    #[test]
    fn what_only_a_writer_knows_is_not_told_as_zero() {
        let Value::Object(mut stats) = serde_json::to_value(tophash::stats::Stats::default()).unwrap() else {
            panic!()
        };
        for (group, names) in OF_WRITERS {
            let fields = stats[group].as_object().unwrap();
            assert!(names.iter().all(|name| fields.contains_key(*name)), "{group}: {names:?}");
        }
        forget_unknown(&mut stats);
        let text = table(&Value::Object(stats.clone())).to_string();
        for gone in ["waits", "commit", "compaction", "checkpoint: count", "durable", "growths"] {
            assert!(!text.contains(gone), "{gone} is in {text}");
        }
        assert!(text.contains("checkpoint: generation") && text.contains("index: level"), "{text}");
        assert_eq!(stats["waits"]["segment"], Value::Null);
    }

    #[test]
    fn every_figure_of_the_stats_has_a_row() {
        let report = serde_json::to_value(tophash::stats::Stats::default()).unwrap();
        let text = table(&report).to_string();
        assert!(text.contains("waits: segment"), "{text}");
        assert!(text.contains("| records"), "{text}");
        assert!(text.contains("index: overflow pages"), "{text}");
        assert!(text.contains("recovery: journal redone"), "{text}");
    }
}
