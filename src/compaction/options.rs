//! What a caller may ask of an offline compaction.

use crate::check::Finding;

/// What [`compact_with`](crate::compact::compact_with) is asked for.
///
/// By default a store is written anew, and refused if anything in it is damaged.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// use tophash::{Progress, compact};
/// let options = compact::Options::new().dry_run(true).skip_damaged(true);
/// let report = compact::compact_with(&path, &options, Progress::ignore)?;
/// println!("{} damaged records would be left out", report.skipped_total);
/// # Ok::<(), tophash::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Options {
    pub(super) dry_run: bool,
    pub(super) skip_damaged: bool,
}

impl Options {
    /// The defaults.
    ///
    /// ```
    /// use tophash::compact::Options;
    /// // Damage is refused, and the store is written anew.
    /// assert_eq!(Options::new(), Options::new().skip_damaged(false).dry_run(false));
    /// ```
    pub fn new() -> Self {
        Options::default()
    }

    /// Changes nothing, and only tells what would be gained, for which it reads all keys. Default: false.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// use tophash::{Progress, compact};
    /// let report = compact::compact_with(&path, &compact::Options::new().dry_run(true), Progress::ignore)?;
    /// assert!(!report.switched);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Leaves out records and values that are damaged, and names them in the report. They are gone for good then: try
    /// [`repair`](crate::repair::repair) first, which makes a new store and leaves the old one as it is. Default: false.
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) remains for damage of the index, because it hides keys that a repair
    /// saves, and for blocks that the device refuses to read.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// use tophash::{Progress, compact};
    /// let options = compact::Options::new().skip_damaged(true);
    /// let report = compact::compact_with(&path, &options, Progress::ignore)?;
    /// // Nothing was damaged.
    /// assert_eq!(report.skipped_total, 0);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn skip_damaged(mut self, skip_damaged: bool) -> Self {
        self.skip_damaged = skip_damaged;
        self
    }

    /// True if a finding of the check need not end the compaction. A key that the index hides would be lost for good,
    /// where a repair finds it. A block that the device refuses would end the process.
    pub(super) fn tolerates(&self, finding: &Finding) -> bool {
        let of_records = ["log-record", "frame", "unreadable-at-split"].contains(&finding.kind.as_str());
        let of_values = ["blob-missing", "blob-length", "blob-header", "blob-checksum"];
        finding.harmless || self.skip_damaged && (of_records || of_values.contains(&finding.kind.as_str()))
    }
}
