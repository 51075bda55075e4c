//! A persistent hash map: an embedded key-value store that finds a record with one access to its index and one to its
//! log, with a tested promise about every crash.
//!
//! ```
//! # fn main() -> tophash::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("sessions.tophash");
//! let store = tophash::Store::open(&path)?;
//! store.insert("session:42", "user=ada")?;
//! assert_eq!(store.get("session:42")?.unwrap(), &b"user=ada"[..]);
//! store.remove("session:42")?;
//! assert!(store.get("session:42")?.is_none());
//! store.close()?;
//! # Ok(()) }
//! ```
//!
//! # What survives what
//!
//! | what happens | what is kept |
//! |---|---|
//! | the process dies (kill -9, panic, out of memory) | every write that returned |
//! | power loss, kernel crash | every write covered by a sync: with [`SyncPolicy::Always`] every write that returned, with [`SyncPolicy::Every`] all but the last interval, with [`SyncPolicy::Manual`] up to the last [`Store::sync`]; always a prefix of the writes, batches whole |
//! | disk full | everything; writes that do not fit fail with [`Error::DiskFull`], removals go on from a reserve, reads go on |
//! | an fsync error, of the log or of a checkpoint | the store refuses further changes ([`Error::Poisoned`]); opening again recovers. Reads go on, unless the file system itself has shut down. The fsync of a value over 256 KiB, which has a file of its own, fails its call only |
//! | bit rot | [`Error::Corrupt`] with file and offset, never a wrong value |
//!
//! # Limits
//!
//! Keys up to 65,535 bytes, values up to 4 GiB - 1, 4 TiB of log in 4,096 segments. 64-bit little-endian Linux
//! only. One process at a time (or several read-only ones). No key ranges and no order: this is a hash map.
//!
//! # Features
//!
//! Both are off by default and cost nothing then; `docs/METRICS.md` has the names.
//!
//! * `metrics`: figures of running stores through the [`metrics`](https://docs.rs/metrics) facade.
//! * `tracing`: events about growth, checkpoints, compaction, waits and mappings through
//!   [`tracing`](https://docs.rs/tracing).
#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("tophash supports 64-bit little-endian Linux only");

mod address;
mod background;
mod batch;
mod check;
mod checkpoint;
mod checksum;
mod compaction;
mod engine;
mod error;
mod layout;
mod log;
#[doc(hidden)]
pub mod mutant;
mod need;
mod observe;
mod options;
mod recovery;
mod stats;
mod store;
mod sync;
#[doc(hidden)]
pub mod sys;
mod table;
mod tuning;
mod value;

pub use batch::Batch;
pub use check::{
    Advice, BlobFigures, Diagnosis, DiskBytes, HeatCell, HeatMap, Level, LogFigures, OverflowFigures, PageNote,
    Reclaimable, SegmentFigures, SlotCounts, TableFigures, doctor, doctor_with,
};
pub use check::{Finding, Loss, LostKey, RepairReport, Report, repair, repair_with, verify, verify_with};
#[doc(hidden)]
pub use check::{doctor_disk, repair_disk, verify_disk};
#[doc(hidden)]
pub use compaction::offline::compact_disk;
pub use compaction::offline::{OfflineReport, Shape, compact, compact_skipping_damaged, compact_with};
pub use engine::scan::Entries;
pub use error::{Error, Location, Result};
pub use options::Options;
pub use stats::{
    CheckpointStats, CommitStats, CompactionReport, CompactionStats, IndexStats, LogStats, RecoveryStats, Stats,
    WaitStats,
};
pub use store::Store;
#[doc(hidden)]
pub use sync::{PartOrder, PartPlan};
pub use tuning::SyncPolicy;
#[doc(hidden)]
pub use tuning::Tuning;
pub use value::{Entry, Value};

/// The code in README.md, compiled and run with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
