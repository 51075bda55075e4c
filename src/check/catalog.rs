//! The catalog: which tables have a name, and which of their records count.
//!
//! It is read before all else, because the names stand in findings, and because the log can be full of records of tables that
//! were dropped or cleared. Of a catalog that could not be read as a whole nobody knows which tables it does not name.
//!
//! A table of the meta data without a name is a creation or a drop that was interrupted. The next open drops it: no damage.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::kind;
use super::segments::by_slot;
use super::sink::{Input, Sink};
use super::slots::{self, LiveSlot};
use super::state::State;
use super::tables::label;
use super::walk::Walk;
use crate::address::Lsn;
use crate::catalog::{CatalogEntry, CatalogRecord};
use crate::error::{Location, Result};
use crate::log::reader::{PreadSource, RecordSource};
use crate::log::record::{Kind, Record};
use crate::recovery::tail::Tail;
use crate::sys::Disk;
use crate::table_id::TableId;

/// A table with a name.
#[derive(Debug)]
struct Named {
    name: String,
    /// Records of the table below it do not count.
    cleared: Lsn,
}

/// What the catalog says.
#[derive(Debug)]
pub(super) struct Catalog {
    named: BTreeMap<TableId, Named>,
    /// Each entry could be read.
    whole: bool,
}

impl Catalog {
    /// That of a store without tables.
    pub(super) fn empty() -> Self {
        Catalog { named: BTreeMap::new(), whole: true }
    }

    /// Reads what the slots of the catalog name. `walk` leads over the catalog's pages alone.
    pub(super) fn read(disk: &dyn Disk, dir: &Path, walk: &mut Walk<'_>, sink: &mut Sink<'_>) -> Result<Self> {
        let mut live = Vec::new();
        // Damage of the pages is reported when all tables are walked over.
        sink.muted = true;
        let walked = walk.run(sink, &mut |slot| live.push(slot));
        sink.muted = false;
        let walked = walked?;
        sink.table = walk.tables.first().map_or(0, |table| table.number);
        let whole = walk.tables.iter().all(|table| table.is_whole());
        let mut catalog = Catalog::empty();
        catalog.whole = whole && walked.broken.is_empty() && walked.marked == 0;
        slots::sort(&mut live);
        catalog.read_records(disk, dir, walk.state, &live, sink)?;
        sink.table = 0;
        Ok(catalog)
    }

    fn read_records(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        state: &State,
        live: &[LiveSlot],
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let (sequences, ends) = (by_slot(state, |entry| entry.sequence), by_slot(state, |entry| entry.end));
        let salts = by_slot(state, |entry| entry.salt);
        let there: HashSet<TableId> = state.meta.tables.iter().map(|table| table.id).collect();
        for of_segment in live.chunk_by(|a, b| a.address().segment() == b.address().segment()) {
            let Some(slot) = of_segment.first().map(|live| live.address().segment() as usize) else { continue };
            let of = (sequences.get(slot), ends.get(slot), salts.get(slot));
            let (Some(&sequence), Some(&end), Some(&salt)) = of else { continue };
            let path = crate::layout::segment_path(dir, sequence);
            let Ok(input) = Input::open(disk, &path)? else {
                self.whole = false;
                continue;
            };
            let mut source = PreadSource::new(input.file, input.len.min(end));
            for live in of_segment {
                // Damage of the record is a finding of the scan.
                match source.record(live.address().offset(), end, salt) {
                    // A slot that names no put of the catalog is one as well.
                    Ok(record) if record.header.kind == Kind::Remove || record.table() != TableId::CATALOG => {
                        self.whole = false;
                    }
                    Ok(record) => {
                        let at = Lsn::new(sequence, live.address().offset());
                        let location = live.spot.location(&state.pages.index.path);
                        let said = self.said(&record, &location, sink);
                        let Some(CatalogRecord { name, entry: Some(entry) }) = said else { continue };
                        if !there.contains(&entry.id) {
                            let expected = format!("\"{}\" as a table of the meta data", name.escape_debug());
                            let found = format!("{}, which is not there", entry.id);
                            sink.damage(kind::CATALOG, location.clone(), expected, found);
                        }
                        self.add(name, &entry, at, &location, sink);
                    }
                    Err(_) => self.whole = false,
                }
            }
            sink.advance(source.take_bytes_read())?;
        }
        Ok(())
    }

    /// What a record says of a name. If it can be no record of the catalog, that is damage.
    fn said<'r>(&mut self, record: &Record<'r>, location: &Location, sink: &mut Sink<'_>) -> Option<CatalogRecord<'r>> {
        let said = CatalogRecord::read(record);
        if said.is_none() {
            self.whole = false;
            let (key, value) = (record.key().escape_ascii(), record.value().escape_ascii());
            let expected = "a name of 1 to 255 bytes of UTF-8, and the entry of a table, which never expires";
            let found = format!("{:?} of \"{key}\", {value}", record.header.kind);
            sink.damage(kind::CATALOG, location.clone(), expected, found);
        }
        said
    }

    /// Takes an entry over, which was written at a position of the log.
    fn add(&mut self, name: &str, entry: &CatalogEntry, at: Lsn, location: &Location, sink: &mut Sink<'_>) {
        let shown = name.escape_debug();
        let mut damage =
            |expected: String, found: String| sink.damage(kind::CATALOG, location.clone(), expected, found);
        match self.named.get(&entry.id) {
            Some(before) if before.name != name => damage(
                format!("a table of its own for \"{shown}\""),
                format!("{} of table \"{}\"", entry.id, before.name.escape_debug()),
            ),
            Some(before) if before.cleared > entry.cleared => {
                damage(format!("\"{shown}\" cleared at {:?} or later", before.cleared), format!("{:?}", entry.cleared));
            }
            _ => {}
        }
        if entry.cleared > at {
            let expected = format!("\"{shown}\" cleared before its entry was written at {at:?}");
            damage(expected, format!("cleared at {:?}", entry.cleared));
        }
        self.named.insert(entry.id, Named { name: name.to_string(), cleared: entry.cleared });
    }

    /// The name of a table.
    pub(super) fn name(&self, id: TableId) -> Option<&str> {
        self.named.get(&id).map(|named| &*named.name)
    }

    /// Tables with a name.
    pub(super) fn len(&self) -> usize {
        self.named.len()
    }

    /// The position below which the records of a table do not count. Clear-records are not considered.
    pub(super) fn cleared(&self, id: TableId) -> Lsn {
        self.named.get(&id).map_or(Lsn::default(), |named| named.cleared)
    }

    /// True if some table was cleared.
    pub(super) fn has_cleared(&self) -> bool {
        self.named.values().any(|named| named.cleared > Lsn::default())
    }

    /// True if a record counts, as far as its table has a say. Where the catalog could not be read, nothing is said of tables
    /// that it may name.
    pub(super) fn counts(&self, id: TableId, lsn: Lsn) -> bool {
        match self.named.get(&id) {
            Some(named) => lsn >= named.cleared,
            None => id < TableId::FIRST,
        }
    }

    /// Follows the log's tail: each entry must be one, and each change must be one of a table that is there. An open refuses
    /// anything else.
    pub(super) fn follow(&mut self, disk: &dyn Disk, state: &State, tail: &Tail, sink: &mut Sink<'_>) -> Result<()> {
        let mut there: HashSet<TableId> = state.meta.tables.iter().map(|table| table.id).collect();
        // The tail can make the catalog itself.
        let own = state.meta.tables.iter().position(|table| table.id == TableId::CATALOG);
        let own = own.unwrap_or(state.meta.tables.len()) as u16;
        sink.labels.resize(sink.labels.len().max(usize::from(own) + 1), label(TableId::CATALOG, None));
        for &(table, at) in &tail.mentions {
            let segment = tail.segments.iter().find(|segment| segment.sequence == at.sequence());
            let Some(segment) = segment else { continue };
            let location = Location::at(&segment.path, at.offset());
            sink.table = 0;
            if table != TableId::CATALOG {
                if !there.contains(&table) && self.whole {
                    sink.damage(kind::TABLE_UNKNOWN, location, "a record of a table that is there", table);
                }
                continue;
            }
            sink.table = own;
            let Ok(input) = Input::open(disk, &segment.path)? else { continue };
            let mut source = PreadSource::new(input.file, segment.end);
            // It validated a moment ago.
            let Ok(record) = source.record(at.offset(), segment.end, segment.salt) else { continue };
            // What it does to the tables is what a replay does (engine/catalog.rs).
            if let Some(said) = self.said(&record, &location, sink) {
                if let Some(dropped) = said.drops(self.id_of(said.name)) {
                    self.named.remove(&dropped);
                    there.remove(&dropped);
                }
                if let Some(entry) = said.entry {
                    there.insert(entry.id);
                    self.add(said.name, &entry, at, &location, sink);
                }
            }
            sink.advance(source.take_bytes_read())?;
        }
        sink.table = 0;
        Ok(())
    }

    fn id_of(&self, name: &str) -> Option<TableId> {
        self.named.iter().find(|(_, named)| named.name == name).map(|(&id, _)| id)
    }
}
