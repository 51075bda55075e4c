//! Which tables a tail speaks of, and where.

use std::collections::HashSet;

use crate::address::Lsn;
use crate::table_id::TableId;

/// Each record of the catalog, and between two of them the first change of each table. The main table is always there, so it is
/// left out.
#[derive(Debug, Default)]
pub(crate) struct Mentions {
    list: Vec<(TableId, Lsn)>,
    /// Tables of which a change follows the last record of the catalog.
    seen: HashSet<TableId>,
}

impl Mentions {
    /// Notes a change.
    pub(super) fn add(&mut self, table: TableId, at: Lsn) {
        if table == TableId::MAIN {
            return;
        }
        if table == TableId::CATALOG {
            self.seen.clear();
        } else if !self.seen.insert(table) {
            return;
        }
        self.list.push((table, at));
    }
}

impl<'m> IntoIterator for &'m Mentions {
    type Item = &'m (TableId, Lsn);
    type IntoIter = std::slice::Iter<'m, (TableId, Lsn)>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}
