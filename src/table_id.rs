//! The number of a table, which its records carry.

use std::fmt;

/// Tables of a store that have a name: the main one and the catalog are not counted.
pub(crate) const TABLES_MAX: usize = 4096;

/// A table's number. Never given to a second table of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct TableId(u32);

impl TableId {
    /// The table that every store has. Its records carry no number.
    pub(crate) const MAIN: TableId = TableId(0);

    /// The table of the names of tables.
    pub(crate) const CATALOG: TableId = TableId(1);

    /// The first id that a table of the user's gets.
    pub(crate) const FIRST: TableId = TableId(2);

    pub(crate) const fn from_raw(raw: u32) -> Self {
        TableId(raw)
    }

    pub(crate) const fn raw(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TableId::MAIN => f.write_str("the main table"),
            TableId(id) => write!(f, "table {id}"),
        }
    }
}
