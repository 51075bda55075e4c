//! Where in a store's files something is.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place inside a store's files, as far as it is known.
///
/// Printed as `index at byte 20480 (page 5, slot 17)`; parts that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// Byte offset inside the file.
    pub offset: Option<u64>,
    /// Page number inside the index or journal file (4096-byte pages).
    pub page: Option<u64>,
    /// Slot number inside the page.
    pub slot: Option<u32>,
}

impl Location {
    /// A whole file.
    pub(crate) fn file(path: &Path) -> Self {
        Location { path: path.to_path_buf(), ..Location::default() }
    }

    /// A byte offset in a file.
    pub(crate) fn at(path: &Path, offset: u64) -> Self {
        Location { path: path.to_path_buf(), offset: Some(offset), ..Location::default() }
    }

    /// A page of the index or of the journal.
    pub(crate) fn page(path: &Path, page: u64) -> Self {
        Location { path: path.to_path_buf(), offset: Some(page * 4096), page: Some(page), slot: None }
    }

    /// The same place, with the slot inside the page.
    pub(crate) fn with_slot(mut self, slot: u32) -> Self {
        self.slot = Some(slot);
        self
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        match (self.page, self.slot) {
            (Some(page), Some(slot)) => write!(f, " (page {page}, slot {slot})"),
            (Some(page), None) => write!(f, " (page {page})"),
            (None, Some(slot)) => write!(f, " (slot {slot})"),
            (None, None) => Ok(()),
        }
    }
}
