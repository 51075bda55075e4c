//! Tables: made, found, cleared, dropped. One of these at a time (`Tables::begin_change`).
//!
//! **Making a table**
//!
//! 1. The table gets an id that no other ever had, and its first pages, and stands in the list of tables. *Crash:* a checkpoint
//!    can name it. The catalog does not, so the open drops it.
//! 2. Its name is written into the catalog. *Crash before the record is in the log:* as in 1. *After:* the table is there. Replay
//!    makes it when it meets the record, because each record of the table lies behind that.
//!
//! **Clearing a table** other than the main one, and the main one beside others
//!
//! 1. Cuts are put off, and all stripes of the table are held.
//! 2. The catalog's entry gets the LSN of the log's end as `cleared`; for the main table a clear-record is appended. *Crash
//!    before that is in the log:* everything is there. *After:* nothing is; replay clears the table when it meets the record.
//! 3. The pages are emptied in memory, and readers see it. The stripes are free.
//! 4. What was there is counted as dead, and its large values are freed. Cuts go on. *Crash:* a checkpoint says both that the
//!    records are gone and that they are dead, or neither.
//!
//! **Dropping a table**
//!
//! 1. With all stripes held, the table is marked: no call changes or reads it any more.
//! 2. Its name is removed from the catalog. *Crash before the record is in the log:* the table is there. *After:* it is not; replay
//!    drops it. *Error:* the mark is taken away.
//! 3. Cuts are put off. What was there is counted as dead, its large values are freed, and the table leaves the list. *Crash:* a
//!    checkpoint between 2 and 3 can name the table without a name. The open drops it.
//! 4. The first checkpoint that does not name the table gives its pages back when it is durable. Another extent lies there after the
//!    next one at the earliest (table/tables.rs).

use std::sync::Arc;

use crate::address::Address;
use crate::catalog::{CatalogEntry, CatalogRecord, Codecs, check_name};
use crate::engine::Engine;
use crate::engine::scan::Scan;
use crate::engine::write::{Expect, KeyOf, New, Want, with_encoded};
use crate::error::{Error, Location, Result};
use crate::expiry::Deadline;
use crate::log::appender::Appended;
use crate::log::encode::Encoded;
use crate::log::record::{Kind, Label, Record};
use crate::need::{Shortage, Step};
use crate::observe;
use crate::table::Table;
use crate::table::slot::Slot;
use crate::table_id::{TABLES_MAX, TableId};

impl Engine {
    /// The table of a name, and its codecs.
    pub(crate) fn find_table(&self, name: &str) -> Result<Option<Found>> {
        let Some(entry) = self.catalog_entry(name)? else { return Ok(None) };
        // Not in the list: it is being dropped at this moment.
        let table = self.tables.get(entry.id).map(|table| table.shared());
        Ok(table.filter(|table| !table.is_dropped()).map(|table| Found { table, codecs: entry.codecs }))
    }

    /// What the catalog says of a name.
    pub(crate) fn catalog_entry(&self, name: &str) -> Result<Option<CatalogEntry>> {
        let Some(catalog) = self.tables.get(TableId::CATALOG) else {
            self.health.check_readable()?;
            self.health.check_open()?;
            return Ok(None);
        };
        let (key, hash) = (name.as_bytes(), self.hasher.hash(name.as_bytes()));
        let Some((address, value)) = self.get_with_address(&catalog, key, hash)? else { return Ok(None) };
        CatalogEntry::decode(&value).map(Some).ok_or_else(|| self.bad_entry(address))
    }

    /// The error for a record of the catalog that is no entry.
    fn bad_entry(&self, address: Address) -> Error {
        let location = Location::at(&self.log.path_of_slot(address.segment()), address.offset());
        Error::corrupt("catalog", location, "an entry of a table", "other bytes")
    }

    /// The table of a name, which is made if there is none, with these codecs.
    pub(crate) fn make_table(&self, name: &str, codecs: Option<Codecs>) -> Result<Found> {
        if let Some(found) = self.find_table(name)? {
            return Ok(found);
        }
        let _pass = self.health.enter()?;
        check_name(name)?;
        let _one = self.tables.begin_change();
        // Another thread may have been faster.
        match self.find_table(name)? {
            Some(found) => Ok(found),
            None => {
                let table = self.add_table(name, 0, |id| CatalogEntry::new(id, codecs.clone()))?;
                Ok(Found { table, codecs })
            }
        }
    }

    /// Writes into the catalog which codecs a table has from now on. *Crash:* it has those or the ones before.
    pub(crate) fn set_codecs(&self, table: &Table, codecs: Codecs) -> Result<()> {
        let _pass = self.health.enter()?;
        let _one = self.tables.begin_change();
        let NamedEntry { catalog, name, entry } = self.named_entry(table)?;
        let entry = entry.with_codecs(codecs);
        let is_aligned = entry.is_aligned();
        let entry = entry.encode();
        let hash = self.hasher.hash(name.as_bytes());
        let key = KeyOf { table: &catalog, key: name.as_bytes(), hash };
        self.change(key, New::Put(&entry, Deadline::NEVER), Expect::Anything, Want::Nothing)?;
        table.set_aligned(is_aligned);
        Ok(())
    }

    /// Makes a table for the copy of another store's, with room for `entries`. `entry` comes from the other store's catalog.
    pub(crate) fn copy_table(&self, name: &str, entry: &CatalogEntry, entries: u64) -> Result<Arc<Table>> {
        let _pass = self.health.enter()?;
        check_name(name)?;
        let _one = self.tables.begin_change();
        self.add_table(name, entries, |id| entry.copied_to(id))
    }

    /// Makes the catalog, with room for this number of names.
    pub(crate) fn make_catalog(&self, names: u64) -> Result<()> {
        let _pass = self.health.enter()?;
        self.retry(|| self.tables.get_or_add_for(TableId::CATALOG, names)).map(drop)
    }

    /// Makes a table. The caller has begun the change, and there is none of the name.
    fn add_table(&self, name: &str, entries: u64, entry: impl FnOnce(TableId) -> CatalogEntry) -> Result<Arc<Table>> {
        if self.tables.named() >= TABLES_MAX {
            return Err(Error::LimitReached {
                path: self.path.clone(),
                what: "tables",
                limit: TABLES_MAX as u64,
                remedy: "drop tables that are not needed, or use several stores",
            });
        }
        self.log.note_tables();
        let catalog = self.retry(|| self.tables.get_or_add(TableId::CATALOG))?;
        let id = self.tables.take_id().ok_or_else(|| self.no_id())?;
        let table = self.retry(|| self.tables.get_or_add_for(id, entries))?;
        table.set_name(name);
        let entry = entry(id);
        table.set_aligned(entry.is_aligned());
        let entry = entry.encode();
        let hash = self.hasher.hash(name.as_bytes());
        let put = New::Put(&entry, Deadline::NEVER);
        match self.change(KeyOf { table: &catalog, key: name.as_bytes(), hash }, put, Expect::Absent, Want::Nothing) {
            Ok(_) => Ok(table),
            Err(error) => {
                // In a poisoned store the record may be in the log.
                if self.health.check_writable().is_ok() {
                    self.retire(&table);
                }
                Err(error)
            }
        }
    }

    fn no_id(&self) -> Error {
        Error::LimitReached {
            path: self.path.clone(),
            what: "tables that were ever made",
            limit: u64::from(u32::MAX),
            remedy: "export the store and import it into a new one",
        }
    }

    /// Drops the table of a name. False if there is none.
    pub(crate) fn drop_table(&self, name: &str) -> Result<bool> {
        let _pass = self.health.enter()?;
        let _one = self.tables.begin_change();
        let Some(Found { table, .. }) = self.find_table(name)? else { return Ok(false) };
        let catalog = self.retry(|| self.tables.get_or_add(TableId::CATALOG))?;
        table.mark_dropped(true);
        let hash = self.hasher.hash(name.as_bytes());
        let removed = self.change(
            KeyOf { table: &catalog, key: name.as_bytes(), hash },
            New::Remove,
            Expect::Anything,
            Want::Nothing,
        );
        if let Err(error) = removed {
            // In a poisoned store the record may be in the log.
            if self.health.check_writable().is_ok() {
                table.mark_dropped(false);
            }
            return Err(error);
        }
        self.retire(&table);
        self.after_many();
        Ok(true)
    }

    /// The names of all tables, sorted.
    pub(crate) fn table_names(&self) -> Result<Vec<String>> {
        self.health.check_readable()?;
        self.health.check_open()?;
        let mut names = Vec::new();
        self.each_entry(|name, entry| {
            // Not in the list, or marked: it is being dropped at this moment.
            if self.tables.get(entry.id).is_some_and(|table| !table.is_dropped()) {
                names.push(name.to_string());
            }
            Ok(())
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Calls `each` with every name in the catalog, and what it says of the table.
    fn each_entry(&self, mut each: impl FnMut(&str, CatalogEntry) -> Result<()>) -> Result<()> {
        let Some(catalog) = self.tables.get(TableId::CATALOG) else { return Ok(()) };
        let mut scan = Scan::new(self, &catalog);
        while let Some(entry) = scan.next_entry() {
            let entry = entry?;
            let Some((name, said)) = CatalogEntry::read(entry.key(), entry.value()) else {
                let location = Location::file(self.log.dir());
                let found = format!("other bytes for {:?}", String::from_utf8_lossy(entry.key()));
                return Err(Error::corrupt("catalog", location, "an entry of a table", found));
            };
            each(name, said)?;
        }
        Ok(())
    }

    /// Step 3 of dropping a table, which nobody changes any more.
    pub(crate) fn retire(&self, table: &Table) {
        table.mark_dropped(true);
        let cuts = self.tables.put_off_cuts();
        let (gone, damage) = table.slots_at_rest();
        self.bury_all(&gone);
        self.tables.hold_list().retire(table.id());
        drop(cuts);
        // What hides behind a damaged page stays in the log, and counts as alive.
        damage.iter().for_each(|error| observe::put_off(&self.path, &error.to_string()));
    }

    /// Counts records as dead that no slot names any more, and frees their large values. The caller puts cuts off.
    fn bury_all(&self, gone: &[Slot]) {
        /// How far ahead records are fetched.
        const AHEAD: usize = 16;
        for (i, slot) in gone.iter().enumerate() {
            if let Some(ahead) = gone.get(i + AHEAD) {
                self.log.prefetch(ahead.address());
            }
            let address = slot.address();
            // A record that cannot be read keeps its space until its segment is emptied.
            let Some(pinned) = self.log.pin(address) else { continue };
            let Ok(record) = self.log.record(&pinned, address) else { continue };
            self.log.bury(address, record.deadline(), record.header.total());
            self.log.relink(record.blob_link(), None);
        }
    }

    /// Clears a table that is not alone. The caller has begun the change.
    pub(super) fn clear_beside_others(&self, table: &Table) -> Result<Appended> {
        let named = match table.id() {
            TableId::MAIN => None,
            _ => Some(self.named_entry(table)?),
        };
        self.retry(|| {
            let _cuts = self.tables.put_off_cuts();
            let (mut gone, mut is_appended) = (Vec::new(), false);
            let cleared = table.clear(Some(&mut gone), || {
                table.check_there()?;
                let appended = match &named {
                    None => self.append_clear()?,
                    Some(named) => self.put_cleared(named)?,
                };
                is_appended = true;
                Ok(appended)
            });
            if let Err(Shortage::Error(error)) = &cleared
                && is_appended
            {
                // Of whatever nature: the log says that nothing is there, and memory does not.
                self.health.poison(error);
            }
            let (appended, emptied) = cleared?;
            drop(emptied);
            self.bury_all(&gone);
            Ok(appended)
        })
    }

    /// Step 2 of clearing the main table. The caller holds its stripes.
    fn append_clear(&self) -> Step<Appended> {
        with_encoded(|encoded| {
            encoded.push(Label::of(TableId::MAIN), Kind::Clear, &[], &[]);
            let appended = self.log.append(encoded.singles(), 1, true)?;
            self.log.add_dead(appended.address, encoded.len());
            self.log.note_clear_before(appended.end);
            Ok(appended)
        })
    }

    /// Step 2 of clearing another table. The caller holds its stripes, so every record of the table lies below the log's end.
    fn put_cleared(&self, named: &NamedEntry) -> Step<Appended> {
        let entry = named.entry.cleared_at(self.log.end().0);
        with_encoded(|encoded| {
            encoded.push(Label::of(TableId::CATALOG), Kind::Put, named.name.as_bytes(), &entry.encode());
            self.put_entry(&named.catalog, named.name.as_bytes(), encoded)
        })
    }

    /// The name of a table, and what the catalog says of it.
    fn named_entry(&self, table: &Table) -> Result<NamedEntry> {
        table.check_there()?;
        let lost = || Error::impossible(&self.path, "a table without an entry in the catalog");
        let name = table.name().ok_or_else(lost)?;
        let entry = self.catalog_entry(&name)?.filter(|entry| entry.id == table.id()).ok_or_else(lost)?;
        let catalog = self.retry(|| self.tables.get_or_add(TableId::CATALOG))?;
        Ok(NamedEntry { catalog, name, entry })
    }

    /// Puts a record into the catalog, without a lookup in the list of tables.
    fn put_entry(&self, catalog: &Table, name: &[u8], encoded: &Encoded) -> Step<Appended> {
        let hash = self.hasher.hash(name);
        let mut edit = catalog.edit(hash)?;
        let mut previous = None;
        let sought = edit.find(hash, |slot| self.is_key(catalog, name, slot, &mut previous))?;
        let reserved = edit.reserve_put(sought)?;
        let appended = self.log.append(encoded.singles(), 0, false)?;
        edit.publish(reserved, appended.address);
        self.supersede(previous.as_ref(), None);
        Ok(appended)
    }
}

/// A table, and what the catalog says of its types.
pub(crate) struct Found {
    pub(crate) table: Arc<Table>,
    /// `None` for a table of bytes.
    pub(crate) codecs: Option<Codecs>,
}

/// A table's name, and what the catalog says of it.
struct NamedEntry {
    catalog: Arc<Table>,
    name: String,
    entry: CatalogEntry,
}

/// What a recovery does with the catalog.
impl Engine {
    /// Makes, clears or drops a table, as a record of the catalog says that is about to be replayed. Returns the catalog.
    pub(crate) fn replay_catalog(&self, record: &Record<'_>, address: Address) -> Result<Arc<Table>> {
        let said = CatalogRecord::read(record).ok_or_else(|| self.bad_entry(address))?;
        let catalog = self.retry(|| self.tables.get_or_add(TableId::CATALOG))?;
        let before = self.catalog_entry(said.name)?;
        let dropped = said.drops(before.as_ref().map(|before| before.id)).and_then(|id| self.tables.get(id));
        if let Some(dropped) = dropped {
            self.retire(&dropped);
        }
        if let Some(new) = said.entry {
            self.tables.pass_id(new.id);
            let table = self.retry(|| self.tables.get_or_add(new.id))?;
            if before.is_some_and(|before| before.id == new.id && before.cleared < new.cleared) {
                self.replay_clear_of(&table)?;
            }
        }
        Ok(catalog)
    }

    /// Empties a table that is not alone, as a record says that was replayed.
    pub(crate) fn replay_clear_of(&self, table: &Table) -> Result<()> {
        let gone = self.retry(|| {
            let mut gone = Vec::new();
            table.clear(Some(&mut gone), || Ok(())).map(|_| gone)
        })?;
        self.bury_all(&gone);
        Ok(())
    }

    /// Gives the tables their names when the tail is replayed, and drops those that have none.
    pub(crate) fn name_tables(&self) -> Result<()> {
        self.each_entry(|name, said| {
            let Some(table) = self.tables.get(said.id) else {
                let location = Location::file(self.log.dir());
                return Err(Error::corrupt("catalog", location, format!("{name:?} as {}", said.id), "no such table"));
            };
            table.set_name(name);
            table.set_aligned(said.is_aligned());
            Ok(())
        })?;
        for table in self.tables.all() {
            let is_named = table.name().is_some() || table.id() < TableId::FIRST;
            if !is_named && !self.health.is_read_only() {
                self.retire(&table);
            }
        }
        Ok(())
    }
}
