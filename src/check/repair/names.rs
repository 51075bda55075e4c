//! The catalog as it stands at the end of the log: which tables have a name, and which of their records count.
//!
//! Records of a table without a name are those of a table that was dropped. They are left out, unless the record with the name can
//! stand in what cannot be read. Then they are saved under a name that says so, because to lose them silently would be worse than to bring
//! back what was dropped. The meta data, where they can be read, settle it for each table that is older than the checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::Lsn;
use crate::catalog::CatalogEntry;
use crate::checkpoint::meta::Meta;
use crate::table_id::TableId;

/// A table with a name.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) entry: CatalogEntry,
}

/// What the catalog says at the end of the log.
#[derive(Debug)]
pub(super) struct Names {
    by_id: BTreeMap<TableId, Named>,
    gone: BTreeSet<TableId>,
    damaged: bool,
    /// The next id of the checkpoint, and the tables that it has.
    known: Option<(u32, BTreeSet<TableId>)>,
}

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Saved,
    /// Its table was dropped, or cleared later.
    Dead,
    /// Its table has no name, and may have had one.
    Nameless,
}

impl Names {
    /// Sums up what the catalog says at the end: the entries by their names, tables that were dropped, and whether a record of the
    /// catalog can be lost. The meta data know which tables there were at the checkpoint.
    pub(super) fn new(
        entries: BTreeMap<String, CatalogEntry>,
        gone: BTreeSet<TableId>,
        damaged: bool,
        meta: Option<&Meta>,
    ) -> Self {
        let named = |(name, entry): (String, CatalogEntry)| (entry.id, Named { name, entry });
        let by_id = entries.into_iter().map(named).collect();
        let known = meta.map(|meta| (meta.next_table, meta.tables.iter().map(|table| table.id).collect()));
        Names { by_id, gone, damaged, known }
    }

    /// All tables with a name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TableId, &Named)> {
        self.by_id.iter().map(|(&id, named)| (id, named))
    }

    pub(super) fn name(&self, id: TableId) -> Option<&str> {
        self.by_id.get(&id).map(|named| &*named.name)
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.by_id.values().any(|named| named.name.as_bytes() == name)
    }

    pub(super) fn fate(&self, id: TableId, lsn: Lsn) -> Fate {
        match self.by_id.get(&id) {
            Some(named) if lsn >= named.entry.cleared => Fate::Saved,
            Some(_) => Fate::Dead,
            None if self.can_be_lost(id) => Fate::Nameless,
            None => Fate::Dead,
        }
    }

    /// True if the name of a table without one can have stood in what cannot be read.
    fn can_be_lost(&self, id: TableId) -> bool {
        let dropped_before = self.known.as_ref().is_some_and(|(next, there)| id.raw() < *next && !there.contains(&id));
        self.damaged && !self.gone.contains(&id) && !dropped_before
    }
}
