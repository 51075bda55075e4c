//! The tables of the meta data: the pages of each, and what findings call it.

use std::rc::Rc;

use super::extents::{self, Extents};
use super::kind;
use super::sink::Sink;
use super::state::State;
use crate::error::{Location, Result};
use crate::table::state::TableState;
use crate::table_id::TableId;

/// A table of the meta data.
#[derive(Debug)]
pub(super) struct CheckedTable<'s> {
    /// Its number in the meta data. The main table has number 0.
    pub(super) number: u16,
    pub(super) state: &'s TableState,
    pub(super) primary: Extents,
    pub(super) overflow: Extents,
}

impl<'s> CheckedTable<'s> {
    /// Looks at the extents and bitmaps of one table.
    pub(super) fn find(state: &'s State, number: u16, table: &'s TableState, sink: &mut Sink<'_>) -> Result<Self> {
        let (primary, overflow) = extents::find(state, table, sink)?;
        Ok(CheckedTable { number, state: table, primary, overflow })
    }

    /// Looks at the extents and bitmaps of all tables.
    pub(super) fn find_all(state: &'s State, sink: &mut Sink<'_>) -> Result<Vec<Self>> {
        let mut tables = Vec::new();
        for (number, table) in (0..).zip(&state.meta.tables) {
            sink.table = number;
            tables.push(CheckedTable::find(state, number, table, sink)?);
        }
        check_overlaps(state, &tables, sink);
        sink.table = 0;
        Ok(tables)
    }

    pub(super) fn id(&self) -> TableId {
        self.state.id
    }

    /// Everything that describes its pages was whole.
    pub(super) fn is_whole(&self) -> bool {
        self.primary.whole && self.overflow.whole
    }
}

/// No two extents have a page in common, whichever tables they are of.
fn check_overlaps(state: &State, tables: &[CheckedTable<'_>], sink: &mut Sink<'_>) {
    let of_table = |table: &CheckedTable<'_>| {
        let (number, ranges) = (table.number, table.primary.ranges().chain(table.overflow.ranges()));
        ranges.map(|(first, next)| (first, next, number)).collect::<Vec<_>>()
    };
    let mut ranges: Vec<(u64, u64, u16)> = tables.iter().flat_map(of_table).collect();
    ranges.sort_unstable();
    let mut end = 0;
    for (first, next, number) in ranges {
        sink.table = number;
        if first < end {
            let location = Location::page(&state.pages.index.path, first);
            sink.damage(
                kind::EXTENT_OVERLAP,
                location,
                format!("an extent from page {end} on"),
                format!("page {first}"),
            );
        }
        end = end.max(next);
    }
}

/// What findings call each table of the meta data, by its number.
pub(super) fn labels<'n>(state: &State, name: impl Fn(TableId) -> Option<&'n str>) -> Vec<Option<Rc<str>>> {
    state.meta.tables.iter().map(|table| label(table.id, name(table.id))).collect()
}

/// What findings call a table. The main one has no name.
pub(super) fn label(id: TableId, name: Option<&str>) -> Option<Rc<str>> {
    match (id, name) {
        (TableId::MAIN, _) => None,
        (TableId::CATALOG, _) => Some("(catalog)".into()),
        (_, Some(name)) => Some(name.into()),
        (id, None) => Some(format!("({id})").into()),
    }
}
