//! A persistent hash map: an embedded key-value store that finds a record with one access to its index and one to its
//! log, with a tested promise about every crash.
//!
//! ```
//! # fn main() -> tophash::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("sessions.tophash");
//! let store = tophash::Store::open(&path)?;
//! store.insert("session:42", "user=ada")?;
//! assert_eq!(store.get("session:42")?.unwrap(), "user=ada");
//! store.remove("session:42")?;
//! assert!(store.get("session:42")?.is_none());
//! store.close()?;
//! # Ok(()) }
//! ```
//!
//! ```text
//! cargo add tophash
//! ```
//!
//! # Where to start
//!
//! [`Store::open`] makes a store, a directory of files, or opens the one that is there. Keys and values are bytes:
//! each call takes what is `AsRef<[u8]>`. [`Table::get`] returns a [`Value`], which dereferences to `[u8]` and lies in the store's own files. A store
//! is a handle: clone it for each thread. [`Store::close`] tells of errors, which dropping the last handle does not.
//!
//! Then choose a [`SyncPolicy`]: it decides what a power failure may take. The other defaults of [`Options`] fit most programs.
//!
//! | to | there is |
//! |---|---|
//! | open a store | [`Store::open`], and [`Options`] where the defaults do not fit |
//! | read one key | [`get`](Table::get), [`contains_key`](Table::contains_key) |
//! | change one key | [`insert`](Table::insert), [`remove`](Table::remove), which return the old value; [`set`](Table::set) and [`delete`](Table::delete), which do not read it |
//! | change one key by what it holds | [`compare_exchange`](Table::compare_exchange), [`update`](Table::update), [`get_or_insert_with`](Table::get_or_insert_with); [`try_update`](Table::try_update) and [`try_get_or_insert_with`](Table::try_get_or_insert_with), whose functions can fail |
//! | have several maps in one store | [`Store::table`], [`tables`](Store::tables), [`drop_table`](Store::drop_table); [`Batch::table`] changes several at once |
//! | have keys and values of types in place of bytes | [`Store::table_of`], a [`TypedTable`], the codecs in [`codec`] |
//! | let keys expire | [`expiring`](Table::expiring), [`expire`](Table::expire), [`persist`](Table::persist), [`expires_at`](Table::expires_at), [`Batch::insert_expiring`] |
//! | read and change many keys | [`get_many`](Table::get_many), [`apply`](Table::apply) of a [`Batch`], [`remove_many`](Table::remove_many), [`clear`](Table::clear) |
//! | go through all entries | [`iter`](Table::iter), [`keys`](Table::keys), [`values`](Table::values), and [`scan`](Table::scan) with a [`Cursor`] that outlives the process |
//! | keep what was read | [`Value`], which copies nothing, and [`OwnedValue`], which has no lifetime either |
//! | make writes durable | [`SyncPolicy`], [`sync`](Store::sync), [`checkpoint`](Store::checkpoint), [`close`](Store::close) |
//! | await durability, in an asynchronous service | [`insert_async`](Table::insert_async), [`set_async`](Table::set_async), [`remove_async`](Table::remove_async), [`delete_async`](Table::delete_async), [`compare_exchange_async`](Table::compare_exchange_async), [`update_async`](Table::update_async), [`apply_async`](Table::apply_async), [`sync_async`](Store::sync_async), and the [`Durable`] that they return; `docs/ASYNC.md` is the chapter |
//! | make room, or give it back | [`reserve`](Table::reserve), [`shrink_to_fit`](Table::shrink_to_fit), [`Store::compact`] |
//! | act on an error | [`Error`], whose text names the place and the next step |
//! | watch a store in use | [`Store::stats`], [`disk_bytes`](Store::disk_bytes) |
//! | check, repair and shrink a closed store | [`verify`], [`repair`], [`compact`], [`doctor`] |
//!
//! # What survives what
//!
//! | what happens | what is kept |
//! |---|---|
//! | the process dies (kill -9, panic, out of memory) | every write that returned |
//! | power loss, kernel crash | every write covered by a sync: with [`SyncPolicy::Always`] every write that returned, with [`SyncPolicy::Every`] all but about the last interval and what was written during a sync, with [`SyncPolicy::Manual`] up to the last [`Store::sync`]; always a prefix of the writes, batches whole |
//! | disk full | everything; writes that do not fit fail with [`Error::DiskFull`], removals go on from a reserve, reads go on |
//! | an fsync error, of the log or of a checkpoint | the store refuses further changes ([`Error::Poisoned`]); opening again recovers. Reads go on, unless the file system itself has shut down. The fsync of a value over 256 KiB, which has a file of its own, fails its call only |
//! | bit rot | [`Error::Corrupt`] with file and offset, never a wrong value |
//!
//! # What it costs
//!
//! * **Threads**: two for a store that is open for writing, three with [`SyncPolicy::Every`] or once a call
//!   has returned a [`Durable`], none for a read-only one. An idle store wakes none of them.
//! * **Disk**: 80 KiB for a new store, 88 KiB with its first records. In use the log takes at most 1.5 times the live records and some four segments, a segment
//!   being a 32nd of it ([`Options::log_ratio`]). A record has 8 bytes beside key and value (16 with a
//!   key of more than 255 bytes or a value of more than 65,535), 8 more if it expires, and ends at a multiple of 8.
//! * **Tables**: a new one takes 12 KiB of the index file and about 16 KiB of memory; its records are 4 bytes longer than those of the
//!   main table, and 8 to 16 more if its values are read in place ([`codec::Codec::ALIGNED`]). Tables share log, checkpoints and syncs. A thousand of them make an open some 45 ms longer.
//! * **Memory**: 10 to 20 bytes a record for the index. Changed pages of it are private memory, bounded by
//!   [`Options::memory_bytes`], which one large batch and a recovery may exceed. The rest is in the page cache.
//! * **Reads wait** for nobody: they take no lock, unless 64 tries met a change of the same page.
//! * **Writes wait** for the other writers of their page, and for the copy of a record into the log. With
//!   [`SyncPolicy::Always`] they wait for an fdatasync too, which callers share. A value of more than 256 KiB has a file of
//!   its own, whose fsync its call waits for. [`Stats::waits`](field@stats::Stats::waits) counts the waits for room.
//! * **[`Store::open`]** takes one to three milliseconds on a fast disk after a clean close. After a crash it takes about 0.35 s for each
//!   million records since the last checkpoint. **[`Store::close`]** runs a checkpoint.
//!
//! # Limits
//!
//! Keys up to 65,535 bytes, values up to 4 GiB - 1, 4 TiB of log in 4,096 segments, 4,096 tables. 64-bit little-endian Linux
//! only. One process at a time (or several read-only ones). No key ranges and no order: this is a hash map.
//!
//! # Features
//!
//! All are off by default and cost nothing then.
//!
//! * `bytes`: an [`OwnedValue`] becomes a [`bytes::Bytes`](https://docs.rs/bytes) without a copy.
//! * `serde`: figures, reports and cursors can be serialized and deserialized.
//! * `zerocopy`: [`codec`]s for types that are read in place. `postcard`: for all that [`serde`](https://docs.rs/serde) can write.
//! * `metrics`: figures of running stores through the [`metrics`](https://docs.rs/metrics) facade; `docs/METRICS.md`
//!   has the names.
//! * `tracing`: events about growth, checkpoints, compaction, waits and mappings through
//!   [`tracing`](https://docs.rs/tracing).
// Marks what a feature brings, where docs.rs builds the documentation.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("tophash supports 64-bit little-endian Linux only");

mod address;
mod awaited;
mod background;
mod batch;
mod catalog;
mod check;
mod checkpoint;
mod checksum;
pub mod codec;
mod compaction;
mod cursor;
mod durable;
mod engine;
mod error;
mod expiry;
mod gate;
mod health;
mod iter;
mod layout;
mod log;
#[cfg(not(tophash_mutants))]
mod mutant;
#[cfg(tophash_mutants)]
#[doc(hidden)]
pub mod mutant;
mod need;
mod observe;
mod options;
mod progress;
mod recovery;
pub mod stats;
mod store;
mod sync;
#[doc(hidden)]
pub mod sys;
mod table;
mod table_id;
mod tuning;
mod value;
mod words;

pub use batch::{Batch, TableChanges};
pub use cursor::Cursor;
pub use durable::Durable;
pub use engine::scan::Entries;
pub use error::{Error, Location, Result};
pub use expiry::Expiry;
pub use iter::{Iter, Keys, Values};
pub use options::Options;
pub use progress::Progress;
pub use store::{CompareExchangeError, Store, Table, TypedChanges, TypedIter, TypedKeys, TypedTable, TypedValues};
#[doc(hidden)]
pub use sync::{Hold, Moment, PartOrder, PartPlan};
pub use tuning::SyncPolicy;
#[doc(hidden)]
pub use tuning::Tuning;
pub use value::{Entry, OwnedValue, Value};

/// Checking a store's files: every checksum, every page, every link. Changes nothing.
pub mod verify {
    #[doc(hidden)]
    pub use crate::check::verify_disk;
    pub use crate::check::{Finding, Report, verify, verify_with};
}

/// Making a new store of what is whole in a damaged one.
pub mod repair {
    #[doc(hidden)]
    pub use crate::check::repair::repair_disk;
    pub use crate::check::repair::{Loss, LostKey, LostTable, Report, repair, repair_with};
}

/// Writing a closed store anew, as small as it can be.
///
/// A store in use keeps its size within bounds by itself; [`Store::compact`] forces that.
pub mod compact {
    #[doc(hidden)]
    pub use crate::compaction::offline::compact_disk;
    pub use crate::compaction::offline::{Report, compact, compact_with};
    pub use crate::compaction::options::Options;
    pub use crate::compaction::shape::Shape;
}

/// Figures of a closed store's space, and advice drawn from them.
pub mod doctor {
    #[doc(hidden)]
    pub use crate::check::doctor::diagnose_disk;
    pub use crate::check::doctor::{
        Advice, BlobFigures, Diagnosis, DiskBytes, HeatCell, HeatMap, LogFigures, OverflowFigures, PageNote,
        ParseSeverityError, Reclaimable, SegmentFigures, Severity, SlotCounts, TableFigures, diagnose, diagnose_with,
    };
}

/// The code in README.md, compiled and run with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// That in docs/ASYNC.md.
#[cfg(doctest)]
#[doc = include_str!("../docs/ASYNC.md")]
struct Async;
