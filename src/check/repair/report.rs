//! What a repair reports: what was saved, and what was lost.

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use crate::check::Finding;

/// A range of bytes of the old log whose records could not be saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Loss {
    /// A stable name: `record` (bytes that are no valid record), `batch` (a batch that is not whole, and that nothing
    /// declares durable: none of it was taken), `segment-missing`, `segment-gap` (a segment that is lost, or was freed by a compaction: then nothing is lost),
    /// `segment-header` (nothing tells how to check the records behind it), `segment-length` (the file ends too early), `log-end` (records that a later mark speaks of are gone).
    pub kind: String,
    /// The file.
    pub path: String,
    /// Offset of the first byte.
    pub from: u64,
    /// Offset behind the last byte; 0 if it is not known.
    pub to: u64,
    /// Something in the log or in the index proves that these bytes had been made durable. Else they can be
    /// what a crash left of writes that were never acknowledged as durable.
    pub acknowledged: bool,
    /// What is wrong with the first of the bytes.
    pub reason: String,
}

/// A key whose latest change is known to be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct LostKey {
    /// The name of the key's table, `None` for the main one. `(catalog)`: the key is the name of a table, and what the catalog said
    /// of that table last is lost.
    pub table: Option<String>,
    /// The key: printable ASCII as it is, everything else as `\n`, `\\` or `\x1f`.
    pub key: String,
    /// The file that the change was in.
    pub path: String,
    /// Where in the file its record begins.
    pub offset: u64,
    /// What happened to it.
    pub reason: String,
    /// The new store has an older value of the key. False: it does not have the key.
    pub older_value_kept: bool,
}

/// A table of which the records were saved and the name is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct LostTable {
    /// The id that its records carry.
    pub id: u64,
    /// The name of the table in the new store.
    pub saved_as: String,
    /// Records that it has there.
    pub records: u64,
    /// Why its name is not known. It can have been dropped.
    pub reason: String,
}

/// What a repair saved and what was lost. See [`repair`](crate::repair::repair).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Report {
    /// Uuid of the old store.
    pub uuid: String,
    /// Why index and journal could not tell which segments and which end the log has, so that it had to speak
    /// for itself. Empty if they could.
    pub index_problem: String,
    /// What was found wrong with headers, journal and meta data.
    pub index_findings: Vec<Finding>,
    /// The LOCK file could not be locked because there is none: whether somebody was writing is not known.
    pub unlocked: bool,

    /// Keys in the new store, those of all tables.
    pub keys: u64,
    /// Tables in the new store, beside the main one.
    pub tables: u64,
    /// Records with a value that were read, superseded ones included.
    pub puts: u64,
    /// Removals that were read.
    pub removes: u64,
    /// Records that removed everything in the main table before them.
    pub clears: u64,
    /// Records of tables that were left out, because their table was dropped, or was cleared after them.
    pub records_left_out: u64,
    /// Whole batches.
    pub batches: u64,
    /// Bytes of valid records.
    pub valid_bytes: u64,
    /// Large values that were copied.
    pub blobs: u64,
    /// Segments that records were read from.
    pub segments: u64,

    /// What could not be saved, up to a bound.
    pub losses: Vec<Loss>,
    /// All losses, those beyond the bound included.
    pub losses_total: u64,
    /// Their bytes, as far as is known.
    pub lost_bytes: u64,
    /// How many of them are of acknowledged data.
    pub acknowledged_losses: u64,
    /// Keys whose latest change is known to be lost, up to a bound.
    pub lost_keys: Vec<LostKey>,
    /// All keys whose latest change is known to be lost. What is lost without a trace is not among them.
    pub lost_keys_total: u64,
    /// Tables whose records were saved under another name, because theirs is lost.
    pub lost_tables: Vec<LostTable>,
    /// Entries of the index that point into what is lost: so many keys had their latest value there at the
    /// last checkpoint. `None` if the index could not be read as a whole.
    pub index_entries_lost: Option<u64>,
    /// At most so many keys of the new store may have an older value than they should, or should have been
    /// removed: a change of them can have stood in what is lost.
    pub stale_keys_max: u64,
    /// Batches of which a part is lost and the rest was saved: they had been committed, since something declares them
    /// durable.
    pub batches_in_part: u64,
    /// Batches that were left out because they are not whole, and nothing says that they had been committed.
    pub batches_left_out: u64,
    /// How often a batch can have been taken in part, because damage may hide where it begins.
    pub batches_uncertain: u64,

    /// Bytes behind the end of the log that look written: nothing says that they had been durable. A crash leaves
    /// such bytes; damage to what was synced last, before a later mark could speak of it, looks the same.
    pub torn_bytes: u64,
    /// Records behind a gap, not known to have been acknowledged, that were saved because without an index
    /// damage cannot be told from the end of the log.
    pub unconfirmed_records: u64,
    /// Unfinished stores beside the new one, from earlier repairs of the same name that were killed. Nothing needs them:
    /// they may be removed once no other repair is at work.
    pub unfinished: Vec<String>,
    /// Files of the log directory that were left out: what they are, and why.
    pub files_left_out: Vec<String>,
    /// Bytes read from the old store.
    pub bytes_read: u64,
}

impl Report {
    /// True if nothing is known to be lost: the new store holds all that the old one held, but for what may have
    /// stood in [`torn_bytes`](Self::torn_bytes), if there are any.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// let report = tophash::repair::repair(&path, path.with_extension("repaired"))?;
    /// if !report.is_complete() {
    ///     println!("lost: {:?}", report.lost_keys);
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.losses_total == 0 && self.lost_keys_total == 0 && self.lost_tables.is_empty()
    }
}
