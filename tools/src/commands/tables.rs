//! `tophash tables`: lists, drops and clears tables.

use std::path::PathBuf;

use clap::ArgGroup;
use serde_json::{Value, json};
use tophash::codec::CodecId;
use tophash::{Store, Table};

use crate::exit::Outcome;
use crate::format::escape;
use crate::{open, output};

/// List tables, drop one, or clear one
///
/// Without an option it lists them: records, pages, how full the pages are, and the codecs of keys and values. The main table, which has no name, comes first.
/// With an option it does not ask first. The change is durable when the command has ended. Exit code 1 if there is no table of
/// that name.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("change").args(["drop", "clear"]))]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// Remove a table and all records in it
    #[arg(long, value_name = "NAME")]
    drop: Option<String>,
    /// Remove all records of a table, and keep the table; '' is the main one
    #[arg(long, value_name = "NAME")]
    clear: Option<String>,
    /// Print JSON: {"path": ..., "tables": [...]}; the name of the main table is null, and so are the codecs of a table of bytes. With --drop and --clear:
    /// {"found": ..., "records": ...}, the records that were removed
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Records go into a table with `tophash set` and `tophash import` (--table NAME), which make it if there is none.

Example:
  tophash tables shop.tophash
  tophash tables shop.tophash --drop carts
  tophash tables shop.tophash --clear carts";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    match (&args.drop, &args.clear) {
        (Some(name), _) => change(args, name, "dropped", |store, _| store.drop_table(name).map(drop)),
        (_, Some(name)) => change(args, name, "cleared", |_, table| table.clear()),
        _ => list(args),
    }
}

fn list(args: &Args) -> anyhow::Result<Outcome> {
    let store = open::read_only(&args.store)?;
    let tables = figures(&store)?;
    if args.json {
        output::emit_json(&json!({"path": args.store.to_string_lossy(), "tables": tables}))?;
    } else {
        output::emit(&format!("{}\n", text(&tables)))?;
    }
    Ok(Outcome::Yes)
}

/// Drops or clears a table and tells how many records it had.
fn change(
    args: &Args,
    name: &str,
    done: &str,
    work: impl FnOnce(&Store, &Table) -> tophash::Result<()>,
) -> anyhow::Result<Outcome> {
    let store = open::writable(&args.store, None)?;
    let table = match store.tables()?.iter().any(|known| known == name) {
        true => Some(store.existing_table(name)?),
        // Only the main one can be cleared and not dropped.
        false => args.clear.as_ref().filter(|name| name.is_empty()).map(|_| Table::clone(&store)),
    };
    let records = table.as_ref().map_or(0, |table| table.len());
    if let Some(table) = &table {
        work(&store, table)?;
    }
    store.close()?;
    let called = open::called(Some(name).filter(|name| !name.is_empty()));
    if args.json {
        output::emit_json(&json!({"found": table.is_some(), "records": records}))?;
    } else if table.is_some() {
        output::emit(&format!("{done} {called}, with {}\n", output::records(records)))?;
    }
    if table.is_none() {
        let reason = if name.is_empty() { "the main table cannot be dropped; --clear '' empties it" } else { "" };
        let absent = format!("there is no {called}; `tophash tables STORE` lists those that are there");
        output::note(format_args!("tophash: {}", if reason.is_empty() { &absent } else { reason }));
        return Ok(Outcome::No);
    }
    Ok(Outcome::Yes)
}

/// The figures of each table, the main one first.
pub fn figures(store: &Store) -> anyhow::Result<Vec<Value>> {
    let mut all = vec![figures_of(store)?];
    for name in store.tables()? {
        all.push(figures_of(&store.existing_table(&name)?)?);
    }
    Ok(all)
}

fn figures_of(table: &Table) -> anyhow::Result<Value> {
    let stats = table.stats();
    // In thousandths, as exact as anybody needs it.
    let load = (stats.records as f64 / stats.index.slots.max(1) as f64 * 1000.0).round() / 1000.0;
    let codec = |id: CodecId| json!({"codec": id.name, "version": id.version});
    let codecs = table.codecs()?.map(|codecs| (codec(codecs.keys), codec(codecs.values)));
    let (keys, values) = codecs.unwrap_or_default();
    Ok(json!({
        "name": table.name(), "records": stats.records, "pages": stats.index.pages,
        "overflow_pages": stats.index.overflow_pages, "slots": stats.index.slots, "load": load,
        "keys": keys, "values": values,
    }))
}

/// The same for people.
pub fn text(tables: &[Value]) -> comfy_table::Table {
    let mut text = output::table(["table", "records", "pages", "overflow pages", "load", "keys", "values"]);
    for table in tables {
        let name = table["name"].as_str().map_or_else(|| "(main)".into(), |name| escape::escaped(name.as_bytes()));
        let count = |figure: &str| output::count(table[figure].as_u64().unwrap_or_default());
        let load = format!("{:.1} %", table["load"].as_f64().unwrap_or_default() * 100.0);
        let row = [name, count("records"), count("pages"), count("overflow_pages"), load];
        text.add_row(row.into_iter().chain([codec(&table["keys"]), codec(&table["values"])]));
    }
    output::align_right(&mut text, 1..5);
    text
}

/// What keys or values of a table are, for people.
fn codec(id: &Value) -> String {
    match (id["codec"].as_str(), id["version"].as_u64()) {
        (Some(name), None | Some(1)) => escape::escaped(name.as_bytes()),
        (Some(name), Some(version)) => format!("{}, version {version}", escape::escaped(name.as_bytes())),
        (None, _) => "bytes".into(),
    }
}
