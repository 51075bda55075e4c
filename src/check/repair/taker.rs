//! Who takes what the log holds: the new store, or the reader of the catalog.

use std::path::Path;
use std::rc::Rc;

use super::names::Names;
use crate::address::Lsn;
use crate::error::Result;
use crate::expiry::Deadline;
use crate::table_id::TableId;

/// A key, and the table that it belongs to.
pub(super) type Owner<'k> = (TableId, &'k [u8]);

/// Takes changes in the order of the log.
pub(super) trait Taker {
    /// True if nothing need be learned to say what becomes of the table's records.
    fn knows(&self, table: TableId) -> bool;

    /// What the catalog says.
    fn learn(&mut self, names: Names) -> Result<()>;

    /// True if a record of a table at a point of the log is to be taken.
    fn counts(&mut self, table: TableId, lsn: Lsn) -> Result<bool>;

    fn put(&mut self, owner: Owner<'_>, value: &[u8], deadline: Deadline) -> Result<()>;

    fn remove(&mut self, owner: Owner<'_>) -> Result<()>;

    /// Everything in the main table was removed.
    fn clear(&mut self) -> Result<()>;

    /// Something is lost at this point of the log: any key can have been changed there.
    fn gap(&mut self) -> Result<()>;

    /// A change of this key is lost. Its record begins at `offset`.
    fn lose(&mut self, owner: Owner<'_>, path: &Rc<Path>, offset: u64, reason: String, removal: bool);
}
