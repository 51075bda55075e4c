//! Figures about a store: what [`Store::stats`](crate::Store::stats) and [`Store::compact`](crate::Store::compact) return.

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

/// A snapshot of a store's figures, taken by [`Store::stats`](crate::Store::stats).
///
/// Sizes are in bytes. Counters count since the store was opened. The figures are read one after another
/// without stopping writers, so they can be off against each other by the writes of that instant.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Stats {
    /// Records in all tables.
    pub records: u64,
    /// Tables that have a name.
    pub tables: u64,
    /// What callers asked for, in all tables.
    pub operations: OperationStats,
    /// Pages, growth and slots, of all tables together. `level`, `growing`, `shrinking` and `evacuated_pages` are the main
    /// table's.
    pub index: IndexStats,
    /// The log: segments, live and dead bytes.
    pub log: LogStats,
    /// Online compaction: what it moved and freed.
    pub compaction: CompactionStats,
    /// Checkpoints and what waits for the next one.
    pub checkpoint: CheckpointStats,
    /// Syncs and group commit.
    pub commit: CommitStats,
    /// Times a caller had to wait or to try again.
    pub waits: WaitStats,
    /// What opening the store took.
    pub recovery: RecoveryStats,
    /// The first error that made the store refuse changes, if any did.
    pub poisoned: Option<String>,
}

/// How often callers asked for what since the store was opened. A key of a batch or of
/// [`remove_many`](crate::Table::remove_many) counts as one that was changed alone. `clear` counts as nothing. So do records that
/// are moved by compaction or replayed after a crash.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct OperationStats {
    /// Keys that [`get`](crate::Table::get), [`get_many`](crate::Table::get_many) and
    /// [`contains_key`](crate::Table::contains_key) found. Counted with the feature `metrics` alone, because a read pays for
    /// it; else 0.
    pub hits: u64,
    /// Keys that they did not find. Counted with the feature `metrics` alone; else 0.
    pub misses: u64,
    /// Keys that were absent and got a value.
    pub inserts: u64,
    /// Keys that had a value and got another one.
    pub replaced: u64,
    /// Keys that had a value and were removed.
    pub removes: u64,
    /// Batches that were applied. One without changes counts as none.
    pub batches: u64,
}

/// Figures of the index.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct IndexStats {
    /// log2 of the number of primary pages, without those that a growth under way has added.
    pub level: u32,
    /// Primary pages in use.
    pub pages: u64,
    /// True while the table is being doubled.
    pub growing: bool,
    /// True while the table is being halved.
    pub shrinking: bool,
    /// Pages that the resize under way has divided, or not yet merged.
    pub evacuated_pages: u64,
    /// Overflow pages in use.
    pub overflow_pages: u64,
    /// Overflow pages free for use.
    pub overflow_pages_free: u64,
    /// Disk blocks of the index file, in bytes; 0 in a read-only store.
    pub file_bytes: u64,
    /// Slots in all primary pages.
    pub slots: u64,
    /// Doublings finished.
    pub growths: u64,
    /// Pages split.
    pub splits: u64,
    /// Halvings finished.
    pub shrinks: u64,
    /// Pairs of pages merged.
    pub merges: u64,
    /// Pages whose disk blocks were given back.
    pub pages_given_back: u64,
    /// Pages whose slots' hash bits were refilled from the keys in the log.
    pub refills: u64,
    /// Pages rewritten in place to get rid of tombstones.
    pub rewrites: u64,
    /// Entries that removals moved towards the front of their path.
    pub repairs: u64,
    /// Inserts into a slot whose path ended there (`emptyRest`).
    pub inserts_into_empty_rest: u64,
    /// Inserts into a tombstone (`emptyOne`).
    pub inserts_into_empty_one: u64,
    /// Inserts that took a new overflow page.
    pub inserts_into_new_overflow: u64,
}

/// Figures of one table, taken by [`Table::stats`](crate::Table::stats). What is said of [`Stats`] holds.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct TableStats {
    /// Records in the table.
    pub records: u64,
    /// What callers asked for. Reads and batches are counted for the store as a whole, and are 0 here.
    pub operations: OperationStats,
    /// Pages, growth and slots. `file_bytes` is 0, because the tables share a file.
    pub index: IndexStats,
}

/// Figures of the log.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct LogStats {
    /// Segment files that hold records.
    pub segments: u64,
    /// Bytes of records in them, dead ones and log overhead included.
    pub bytes: u64,
    /// Bytes of records that nothing refers to any more.
    pub dead_bytes: u64,
    /// Bytes of records with a deadline, expired or not, that no later record has superseded. After an open an estimate.
    pub expiring_bytes: u64,
    /// Those of them whose deadline has passed, which the compaction takes for dead.
    pub expired_bytes: u64,
    /// Bytes of remove- and clear-records, which are part of the dead ones.
    pub removal_bytes: u64,
    /// Size of all segment files, prepared ones included.
    pub file_bytes: u64,
    /// Segments that a [`Value`](crate::Value) or an [`OwnedValue`](crate::OwnedValue) keeps at this moment, unlinked ones
    /// included.
    pub pinned_segments: u64,
    /// Bytes of unlinked files (segments and blobs) whose space comes back when the last [`Value`](crate::Value) and
    /// [`OwnedValue`](crate::OwnedValue) into them is dropped. No directory shows them.
    pub held_bytes: u64,
    /// Blob files (values too large for a segment).
    pub blobs: u64,
    /// Size of all blob files.
    pub blob_bytes: u64,
    /// Blobs that no record links any more, and that the next checkpoint unlinks.
    pub freed_blobs: u64,
    /// Bytes of their values.
    pub freed_blob_bytes: u64,
    /// The LSN of the next record.
    pub end_lsn: u64,
    /// Everything below this LSN is durable.
    pub durable_lsn: u64,
}

/// Figures of the checkpoints.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct CheckpointStats {
    /// Checkpoints finished since the store was opened.
    pub count: u64,
    /// Generation of the newest durable checkpoint.
    pub generation: u64,
    /// Log bytes since the last cut: what a recovery would replay.
    pub log_bytes_since: u64,
    /// Index pages changed since the last cut.
    pub dirty_pages: u64,
    /// Index pages in private memory.
    pub private_pages: u64,
    /// Page images written by all checkpoints.
    pub images: u64,
    /// Longest time that a cut held all writers, in nanoseconds.
    pub cut_nanos_max: u64,
    /// Times a checkpoint that followed a change failed, something could not be freed although a checkpoint was durable, or
    /// the unwritten end of a segment could not be cut off. It is tried again later.
    pub put_off: u64,
    /// Room for page images in the journal file.
    pub journal_bytes: u64,
}

/// Figures of syncs.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct CommitStats {
    /// Rounds of fdatasync on the log.
    pub syncs: u64,
    /// Calls that waited for one of them, or whose future does.
    pub waiters: u64,
}

/// How often callers had to wait or to try again, and for what.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct WaitStats {
    /// A writer prepared a segment itself or waited for one.
    pub segment: u64,
    /// A writer extended the journal.
    pub journal: u64,
    /// A writer waited for a checkpoint because of `memory_bytes`.
    pub memory: u64,
    /// A writer allocated overflow pages or index blocks.
    pub index_space: u64,
    /// A reader took the stripe lock because entries kept moving.
    pub reader_locks: u64,
}

/// What opening the store took.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct RecoveryStats {
    /// False if the store had been closed cleanly.
    pub was_unclean: bool,
    /// Records replayed.
    pub replayed_records: u64,
    /// Log bytes replayed.
    pub replayed_bytes: u64,
    /// Bytes of torn tail that were discarded (never acknowledged as durable).
    pub discarded_bytes: u64,
    /// True if a complete journal was applied again.
    pub journal_redone: bool,
    /// Time from the call to the open store, in nanoseconds.
    pub open_nanos: u64,
}

/// What [`Store::compact`](crate::Store::compact) did.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct CompactionReport {
    /// False if the caller ended it early.
    pub finished: bool,
    /// Live records that were appended again.
    pub moved_records: u64,
    /// Bytes of the records that were appended again, kept removals included.
    pub moved_bytes: u64,
    /// Segments that were emptied.
    pub evacuated_segments: u64,
    /// Bytes of unlinked files that wait for the last [`Value`](crate::Value) or [`OwnedValue`](crate::OwnedValue) into them to be
    /// dropped, as in [`LogStats::held_bytes`].
    pub held_bytes: u64,
    /// Bytes of records in the log before.
    pub log_bytes_before: u64,
    /// Bytes of records in the log after.
    pub log_bytes_after: u64,
    /// Disk blocks of the whole store before, in bytes.
    pub disk_bytes_before: u64,
    /// Disk blocks of the whole store after, in bytes.
    pub disk_bytes_after: u64,
    /// Time taken, in nanoseconds.
    pub nanos: u64,
}

/// Figures of online compaction.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct CompactionStats {
    /// Live records that were appended again.
    pub moved_records: u64,
    /// Bytes of records that were appended again, kept removals included.
    pub moved_bytes: u64,
    /// Segments that were emptied.
    pub evacuated_segments: u64,
    /// Expired records that were removed from the index.
    pub expired_records: u64,
    /// Emptied segments whose space came back.
    pub freed_segments: u64,
    /// Bytes of records in emptied segments that wait for a checkpoint.
    pub evacuated_bytes: u64,
    /// Segments that are kept because a record in them cannot be read.
    pub damaged_segments: u64,
    /// Times a writer dealt with a few records because the log was over its bound.
    pub helps: u64,
    /// Times a writer waited for 0.2 ms because the log was far over its bound and a checkpoint was under way, or
    /// for the checkpoint itself because the log was at the very bound.
    pub throttles: u64,
}
