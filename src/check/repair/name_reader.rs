//! Reading the log for the catalog alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use super::names::Names;
use super::taker::{Owner, Taker};
use crate::address::Lsn;
use crate::catalog::CatalogEntry;
use crate::checkpoint::meta::Meta;
use crate::error::Result;
use crate::expiry::Deadline;
use crate::table_id::TableId;

/// Reads the catalog's records, in the order of the log, and passes over all others.
#[derive(Debug, Default)]
pub(super) struct NameReader {
    named: BTreeMap<String, CatalogEntry>,
    /// Tables that were dropped, or whose name another table got.
    gone: BTreeSet<TableId>,
    /// A record of the catalog can be lost.
    damaged: bool,
}

impl NameReader {
    /// What the catalog says at the end.
    pub(super) fn names(self, meta: Option<&Meta>) -> Names {
        Names::new(self.named, self.gone, self.damaged, meta)
    }
}

impl Taker for NameReader {
    fn knows(&self, _table: TableId) -> bool {
        true
    }

    fn learn(&mut self, _names: Names) -> Result<()> {
        Ok(())
    }

    fn counts(&mut self, table: TableId, _lsn: Lsn) -> Result<bool> {
        Ok(table == TableId::CATALOG)
    }

    fn put(&mut self, (_, key): Owner<'_>, value: &[u8], deadline: Deadline) -> Result<()> {
        let entry = CatalogEntry::read(key, value).filter(|_| deadline == Deadline::NEVER);
        let Some((name, entry)) = entry else {
            self.damaged = true;
            return Ok(());
        };
        let id = entry.id;
        self.gone.remove(&id);
        let before = self.named.insert(name.to_string(), entry);
        self.gone.extend(before.map(|before| before.id).filter(|&before| before != id));
        Ok(())
    }

    fn remove(&mut self, (_, key): Owner<'_>) -> Result<()> {
        let Ok(name) = std::str::from_utf8(key) else {
            self.damaged = true;
            return Ok(());
        };
        self.gone.extend(self.named.remove(name).map(|before| before.id));
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        Ok(())
    }

    fn gap(&mut self) -> Result<()> {
        // Each compaction leaves gaps, and what it frees holds no name that counts: else each repair without an index would bring
        // back what was dropped. That the gap can be a lost segment is told as a loss.
        Ok(())
    }

    fn lose(&mut self, _owner: Owner<'_>, _path: &Rc<Path>, _offset: u64, _reason: String, _removal: bool) {
        self.damaged = true;
    }
}
