//! redb: one table of byte strings. A reader is one read transaction with the table open.

use std::fs;

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, Table, TableDefinition, WriteTransaction};

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Mode, Opening};

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");

pub struct RedbEngine {
    database: Database,
    mode: Mode,
}

impl RedbEngine {
    fn begin(&self) -> anyhow::Result<WriteTransaction> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(match self.mode {
            Mode::Durable => Durability::Immediate,
            Mode::Buffered => Durability::None,
        })?;
        Ok(transaction)
    }
}

impl Engine for RedbEngine {
    type Reader<'e> = ReadOnlyTable<&'static [u8], &'static [u8]>;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        fs::create_dir_all(&opening.path)?;
        let path = opening.path.join("data.redb");
        let is_new = !path.exists();
        let database = Database::builder().set_cache_size(usize::try_from(opening.cache_bytes)?).create(path)?;
        if is_new {
            // Readers need a table.
            let transaction = database.begin_write()?;
            transaction.open_table(TABLE)?;
            transaction.commit()?;
        }
        Ok(RedbEngine { database, mode: opening.mode })
    }

    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self> {
        self.sync()?;
        Ok(RedbEngine { mode: opening.mode, ..self })
    }

    fn reader(&self) -> anyhow::Result<Self::Reader<'_>> {
        Ok(self.database.begin_read()?.open_table(TABLE)?)
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let transaction = self.begin()?;
        transaction.open_table(TABLE)?.insert(key, value)?;
        Ok(transaction.commit()?)
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        let transaction = self.begin()?;
        let was_there = transaction.open_table(TABLE)?.remove(key)?.is_some();
        transaction.commit()?;
        Ok(Some(was_there))
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let transaction = self.begin()?;
        fill(&mut RedbChanges(transaction.open_table(TABLE)?))?;
        Ok(transaction.commit()?)
    }

    fn sync(&self) -> anyhow::Result<()> {
        // A durable commit takes all earlier ones along.
        Ok(self.database.begin_write()?.commit()?)
    }

    fn compact(mut self, _opening: &Opening) -> anyhow::Result<(Self, bool)> {
        self.database.compact()?;
        Ok((self, true))
    }

    fn close(self) -> anyhow::Result<()> {
        Ok(self.database.close()?)
    }
}

impl Reader for ReadOnlyTable<&'static [u8], &'static [u8]> {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        Ok(check(ReadOnlyTable::get(self, key)?.as_ref().map(|value| value.value())))
    }
}

struct RedbChanges<'t>(Table<'t, &'static [u8], &'static [u8]>);

impl Changes for RedbChanges<'_> {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.0.insert(key, value)?;
        Ok(())
    }

    #[inline]
    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        Ok(Some(self.0.remove(key)?.is_some()))
    }
}
