//! The figures of each table: as the checkpoint knows it, and as the log's tail leaves it.

use std::collections::HashMap;

use super::census;
use super::diagnosis::{Diagnosis, TableFigures};
use crate::check::Check;
use crate::check::segments::Segments;
use crate::check::sink::Sink;
use crate::check::state::State;
use crate::check::tables::{CheckedTable, label};
use crate::error::Result;
use crate::store::Store;
use crate::table::load::level_for;
use crate::table::state::TableState;
use crate::table_id::TableId;
use crate::tuning::Tuning;

/// Counts the pages of all tables.
pub(super) fn examine(check: &Check<'_>, segments: &Segments, sink: &mut Sink<'_>, to: &mut Diagnosis) -> Result<()> {
    let state = check.state;
    let catalog = check.read_catalog(&segments.ends, &segments.sequences, sink)?;
    let tables = CheckedTable::find_all(state, sink)?;
    let named = |table: &TableState| label(table.id, catalog.name(table.id)).map(|name| name.to_string());
    let mut figures: Vec<TableFigures> =
        state.meta.tables.iter().map(|table| figures_of(state, table, named(table))).collect();
    census::run(state, &tables, &mut figures, sink, to)?;
    to.table = figures.first().cloned().unwrap_or_default();
    for more in figures.iter().skip(1) {
        let all = &mut to.table;
        all.pages = all.pages.saturating_add(more.pages);
        all.slots = all.slots.saturating_add(more.slots);
        all.pages_in_use += more.pages_in_use;
        all.removals += more.removals;
        all.overflow_pages += more.overflow_pages;
        all.pseudo_full_pages += more.pseudo_full_pages;
    }
    // The catalog is part of the sums, and no table of the user's.
    let is_catalog = |number: usize| state.meta.tables.get(number).is_some_and(|table| table.id == TableId::CATALOG);
    let numbered = figures.into_iter().enumerate().filter(|&(number, _)| !is_catalog(number));
    to.tables = numbered.map(|(_, figures)| figures).collect();
    to.tables.sort_by(|a, b| a.name.cmp(&b.name));
    to.records = to.tables.iter().map(|table| table.records).sum();
    to.table.records = to.records;
    Ok(())
}

/// The level at which a table has room for so many records. Thresholds are not stored; those of the defaults are what the
/// next writer will most likely go by.
fn level_needed(state: &State, records: u64) -> u32 {
    level_for(state.header.geometry, &Tuning::default(), records).into()
}

/// A table, as the meta data know it.
fn figures_of(state: &State, table: &TableState, name: Option<String>) -> TableFigures {
    let growth = table.growth;
    let page_slots = state.header.geometry.slots() as u64;
    TableFigures {
        name,
        records: table.records,
        level: u32::from(growth.level()),
        level_needed: level_needed(state, table.records),
        level_floor: if table.floor > 0 { level_needed(state, table.floor) } else { 0 },
        floor: table.floor,
        pages: growth.pages(),
        page_slots,
        slots: growth.pages().saturating_mul(page_slots),
        growing: growth.is_resizing() && !growth.is_shrinking(),
        shrinking: growth.is_shrinking(),
        evacuated_pages: growth.cursor(),
        ..TableFigures::default()
    }
}

/// What the log's tail leaves: tables that it made are there, those that it dropped are not, and the records are those of now.
/// Pages are those of the checkpoint.
pub(super) fn note_tail(store: &Store, state: &State, to: &mut Diagnosis) -> Result<()> {
    let records = store.stats().records;
    let main = store.engine().tables.main().records();
    (to.records, to.table.records, to.table.level_needed) = (records, records, level_needed(state, main));
    let mut before: HashMap<Option<String>, TableFigures> =
        to.tables.drain(..).map(|table| (table.name.clone(), table)).collect();
    for name in std::iter::once(None).chain(store.tables()?.into_iter().map(Some)) {
        let records = match &name {
            None => main,
            Some(name) => store.existing_table(name)?.len(),
        };
        let known = before.remove(&name);
        let figures = known.unwrap_or_else(|| TableFigures { name, ..TableFigures::default() });
        let level_needed = level_needed(state, records);
        to.tables.push(TableFigures { records, level_needed, ..figures });
    }
    Ok(())
}
