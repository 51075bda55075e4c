//! What the coordinator asks of a worker, and the answers: one line of JSON each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::latency::Summary;

/// One request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Opens the engine; answer: [`Opened`].
    Open(Opening),
    /// Inserts records; answer: [`Filled`].
    Fill(Fill),
    /// Makes everything durable and lets work in the background come to its end; answer: [`Figures`].
    Settle,
    /// Reads; answer: [`Timed`].
    Read(Read),
    /// Single durable writes; answer: [`Timed`].
    Durable(Durable),
    /// Inserts until just before a checkpoint; answer: [`Interval`].
    FillInterval(FillInterval),
    /// Closes the engine; answer: nothing.
    Close,
}

/// A worker's answer as it travels: that of the request, or what went wrong.
pub type Answer = Result<serde_json::Value, String>;

/// How an engine is opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Opening {
    /// The engine's own folder; made if it is not there.
    pub path: PathBuf,
    /// Whether every write is durable when the call returns.
    pub is_durable: bool,
    /// tophash: log bytes between checkpoints, if not the default.
    pub checkpoint_bytes: Option<u64>,
    /// LMDB: address space for the whole database.
    pub map_bytes: u64,
    /// LMDB: MDB_WRITEMAP.
    pub is_write_map: bool,
    /// A record to be read and checked before the open counts as done.
    pub first_answer: Option<u64>,
}

/// An engine was opened.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opened {
    /// From the call to the first answer.
    pub nanos: u64,
    /// What tophash replayed.
    pub replayed: Option<Replayed>,
}

/// What an open after a crash replayed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Replayed {
    /// Records.
    pub records: u64,
    /// Log bytes.
    pub bytes: u64,
}

/// Inserts of the records 0, 1, 2, ...
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fill {
    /// How many.
    pub records: u64,
    /// Records of a batch; 1: each by itself.
    pub batch: u64,
    /// Whether each insert is timed.
    pub is_timed: bool,
    /// Whether sizes are watched meanwhile.
    pub is_watched: bool,
    /// Stop then, done or not.
    pub seconds_max: Option<f64>,
}

/// Records were inserted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Filled {
    /// How many.
    pub records: u64,
    /// Until the last insert returned.
    pub seconds: f64,
    /// The sync that followed.
    pub sync_seconds: f64,
    /// Times of single inserts.
    pub latency: Option<Summary>,
    /// Largest sizes seen.
    pub peak: Option<Peak>,
}

/// Largest sizes during a fill.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Peak {
    /// Index bytes per record, once there were enough records for a ratio to mean something.
    pub index_bytes_per_record: f64,
    /// Records at that moment.
    pub index_records: u64,
    /// Anonymous memory of the process.
    pub anonymous_bytes: u64,
}

/// Random reads.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Read {
    /// Which ones.
    pub kind: ReadKind,
    /// Records to choose from.
    pub records: u64,
    /// Threads at once.
    pub threads: u64,
    /// Reads of each thread.
    pub reads: u64,
    /// Where random numbers begin.
    pub seed: u64,
}

/// Kinds of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadKind {
    /// Keys that are there; the value is compared.
    Hits,
    /// Keys that are not.
    Absent,
    /// Keys that are there, many in one call where the engine has such a call.
    Many,
    /// As hits, but nothing is looked up: what the benchmark itself costs.
    Nothing,
}

/// Writes of single new records, each durable when it returns.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Durable {
    /// Threads at once.
    pub threads: u64,
    /// How long.
    pub seconds: f64,
    /// Counter of the first record; each thread has 2^24 of its own.
    pub first: u64,
}

/// Operations and their time.
#[derive(Debug, Serialize, Deserialize)]
pub struct Timed {
    /// Of all threads.
    pub operations: u64,
    /// From the first thread's start to the last one's end.
    pub seconds: f64,
    /// Of single operations, of one thread.
    pub latency: Option<Summary>,
}

impl Timed {
    /// Operations per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

/// Inserts that leave as much to replay as can be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct FillInterval {
    /// Counter of the first record.
    pub first: u64,
    /// Log bytes since the last checkpoint to be reached (engines without a log: bytes of keys and values).
    pub bytes: u64,
    /// Records of a batch.
    pub batch: u64,
}

/// An interval was filled.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Interval {
    /// Counter of the last record.
    pub last: u64,
    /// Bytes since the last checkpoint.
    pub bytes: u64,
}

/// Sizes of an open engine.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// Records.
    pub records: u64,
    /// Bytes of the index, where it is something apart.
    pub index_bytes: Option<u64>,
    /// Bytes of the log, dead and overhead included, where there is one.
    pub log_bytes: Option<u64>,
    /// What the engine itself says that it takes on disk.
    pub disk_bytes: Option<u64>,
    /// Anonymous memory of the process.
    pub anonymous_bytes: u64,
}
