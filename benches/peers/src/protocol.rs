//! What the coordinator asks of a worker, and the answers: one line of JSON each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::latency::Summary;
use crate::population::Population;

/// One request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Opens the engine; answer: [`Opened`].
    Open(Opening),
    /// Changes what a write promises; answer: nothing.
    SetMode(Mode),
    /// Inserts new records; answer: [`Timed`].
    Insert(Insert),
    /// Removes records in one batch; answer: [`Timed`].
    Remove(Remove),
    /// Makes everything durable; answer: seconds.
    Sync,
    /// Makes everything durable and lets work in the background come to its end; answer: [`Figures`].
    Settle,
    /// Reads; answer: [`Timed`].
    Read(Read),
    /// Zipfian reads and updates; answer: [`Mixed`].
    Ycsb(Ycsb),
    /// Replaces records; answer: [`Timed`].
    Churn(Churn),
    /// Looks whether the live records are there and the others are not; answer: nothing.
    CheckChurn(Churn),
    /// Readers beside a writer; answer: [`Mixed`].
    Mixed(ReadersAndWriter),
    /// Gives space back; answer: seconds, if the engine has a call for that.
    Compact,
    /// Inserts until the process is killed; no answer.
    WriteUntilKilled(WriteUntilKilled),
    /// Looks which records are there; answer: [`Found`].
    Find(Find),
    /// Closes the engine; answer: seconds.
    Close,
}

/// A worker's answer as it travels: that of the request, or what went wrong.
pub type Answer = Result<serde_json::Value, String>;

/// What holds of a write when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It is durable: survives power loss.
    Durable,
    /// No sync was waited for.
    Buffered,
}

/// How an engine is opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Opening {
    /// The engine's own folder; made if it is not there.
    pub path: PathBuf,
    /// The records that all requests speak of.
    pub population: Population,
    /// What writes promise.
    pub mode: Mode,
    /// tophash: log bytes between checkpoints, if not the default.
    pub checkpoint_bytes: Option<u64>,
    /// LMDB: address space for the whole database.
    pub map_bytes: u64,
    /// LMDB: MDB_WRITEMAP.
    pub is_write_map: bool,
    /// Engines with a cache of their own: its size.
    pub cache_bytes: u64,
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

/// Inserts of records with consecutive counters.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Insert {
    /// Counter of the first one; each thread has 2^28 of its own.
    pub first: u64,
    /// How many at most, in all.
    pub records: u64,
    /// Records of a batch; 1: each by itself; 0: all of them in one.
    pub batch: u64,
    /// Threads at once.
    pub threads: u64,
    /// Stop then, done or not.
    pub seconds_max: Option<f64>,
    /// Whether each call is timed.
    pub is_timed: bool,
    /// Whether sizes are watched meanwhile.
    pub is_watched: bool,
}

/// Removal of every other record of a range: its even counters.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Remove {
    /// The end of the range, which begins at 0.
    pub end: u64,
}

/// Random reads.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Read {
    /// Which ones.
    pub kind: ReadKind,
    /// Records to choose from: counters below this.
    pub records: u64,
    /// Threads at once.
    pub threads: u64,
    /// Reads of each thread at most.
    pub reads: u64,
    /// Stop then.
    pub seconds_max: f64,
    /// Where random numbers begin.
    pub seed: u64,
}

/// Kinds of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadKind {
    /// Keys that are there; the value is compared.
    Hits,
    /// Keys that are not, and never were.
    Absent,
    /// Keys that are there, many in one call where the engine has such a call.
    Many,
    /// Every other record was removed: odd counters are there, even ones are not. To check, not to measure.
    Halved,
    /// As hits, but nothing is looked up: what the benchmark itself costs.
    Nothing,
}

/// Reads and updates of zipfian keys, each an operation of its own.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ycsb {
    /// Records to choose from.
    pub records: u64,
    /// Updates among 100 operations.
    pub update_percent: u64,
    /// Whether an update reads the old value first.
    pub is_read_modify_write: bool,
    /// Threads at once.
    pub threads: u64,
    /// Operations of each thread at most.
    pub operations: u64,
    /// Stop then.
    pub seconds_max: f64,
    /// Where random numbers begin.
    pub seed: u64,
}

/// Steps that remove one live record and insert a fresh one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Churn {
    /// Live records.
    pub records: u64,
    /// Steps made before.
    pub done: u64,
    /// Steps to be made at most.
    pub steps: u64,
    /// Stop then.
    pub seconds_max: f64,
    /// Where random numbers begin.
    pub seed: u64,
}

/// Readers of everything acknowledged beside one writer of new records.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ReadersAndWriter {
    /// Records that are there.
    pub records: u64,
    /// Counter of the first new one.
    pub first: u64,
    /// Reading threads.
    pub readers: u64,
    /// Whether there is a writer.
    pub is_written: bool,
    /// How long.
    pub seconds: f64,
    /// Where random numbers begin.
    pub seed: u64,
}

/// Inserts one by one, with a sync every so many, until killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteUntilKilled {
    /// Counter of the first new record.
    pub first: u64,
    /// Records between syncs.
    pub sync_every: u64,
    /// Wait for the kill when so many log bytes have been written since the last checkpoint (engines with one).
    pub stop_bytes: Option<u64>,
    /// A file that says how far it has come: see [`Progress`].
    pub progress: PathBuf,
}

/// How far a process came that was killed: it wrote this before it said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records that a sync has acknowledged.
    pub synced: u64,
    /// 1 when it has come where it was to stop.
    pub is_done: u64,
}

/// Looks for records with consecutive counters.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Find {
    /// The first one.
    pub first: u64,
    /// How many.
    pub records: u64,
}

/// How many of the records there are, each with its whole value.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Found {
    /// Records found.
    pub found: u64,
}

/// Operations and their time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Timed {
    /// Of all threads.
    pub operations: u64,
    /// From the first thread's start to the last one's end.
    pub seconds: f64,
    /// Of single calls, of all threads.
    pub latency: Option<Summary>,
    /// Largest sizes seen.
    pub peak: Option<Peak>,
}

impl Timed {
    /// Operations per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

/// Reads and writes at the same time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Mixed {
    /// Reads.
    pub reads: Timed,
    /// Writes.
    pub writes: Timed,
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

/// Sizes of an open engine.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// Records, where the engine knows at once.
    pub records: Option<u64>,
    /// Bytes of the index, where it is something apart.
    pub index_bytes: Option<u64>,
    /// Bytes of the log, dead and overhead included, where there is one.
    pub log_bytes: Option<u64>,
    /// Anonymous memory of the process.
    pub anonymous_bytes: u64,
    /// Blocks of the files on the disk.
    pub disk_bytes: u64,
}
