//! How a store is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::checksum::Uuid;
use crate::error::{Error, Result};
use crate::index::table::RECORDS_MAX;
use crate::store::Store;
use crate::sync::PartPlan;
use crate::sys::{Disk, RealDisk};

/// When writes are made safe against power loss. (Against the death of the process every write is safe as
/// soon as the call returns, whatever the policy.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Every writing call returns after its record is durable. Concurrent writers share one fdatasync.
    Always,
    /// A background thread syncs at this interval while there is something to sync. Power loss can take the
    /// writes of the last interval; what is left is a prefix of the writes.
    Every(Duration),
    /// Only [`Store::sync`], [`Store::checkpoint`], automatic checkpoints and [`Store::close`] sync.
    Manual,
}

impl Default for SyncPolicy {
    /// `Every(100 ms)`.
    fn default() -> Self {
        SyncPolicy::Every(Duration::from_millis(100))
    }
}

/// Constants that tests make tiny, so that growth, overflow, segment switches and checkpoints happen all the
/// time. Not part of the public interface: no promise covers them.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// log2 of the number of primary pages of a new store.
    pub level_min: u8,
    /// Home buckets of a page, at least 2.
    pub home_buckets: u8,
    /// Stash buckets of a page; with the home buckets at most 63.
    pub stash_buckets: u8,
    /// Growth starts when the live slots exceed this many thousandths of all primary slots.
    pub grow_permille: u32,
    /// The table shrinks when fewer live slots than this many thousandths of the slots of half its pages are
    /// left; 0 for never.
    pub shrink_permille: u32,
    /// log2 of the number of overflow pages in the first overflow group.
    pub overflow_log2_min: u8,
    /// An insert that finds a chain of this many overflow pages full helps growth along.
    pub chain_help: u32,
    /// Tombstones of a page (in thousandths of its slots) past which it is rewritten in place.
    pub rewrite_permille: u32,
    /// False: removals leave tombstones where they are, as in Go's map. To show what path repair is good for.
    pub repair: bool,
    /// Values larger than this go to a blob file of their own.
    pub blob_bytes_min: u64,
    /// Frames of that many bytes and more are written to the file of the active segment, not through its mapping.
    pub written_bytes_min: u64,
    /// False: no background threads; whatever they would do happens in the calls that need it.
    pub background: bool,
    /// log2 of the largest number of lock stripes.
    pub stripes_log2_max: u8,
    /// Log bytes that only removals may use while no further segment can be prepared.
    pub reserve_bytes: u64,
    /// Hash key of a new store, for reproducible tests; random if none.
    pub hash_key: Option<(u64, u64)>,
    /// Parts in which a recovery replays the log's tail, and when each begins.
    pub parts: PartPlan,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            level_min: 4,
            home_buckets: 60,
            stash_buckets: 3,
            grow_permille: 820,
            shrink_permille: 410,
            overflow_log2_min: 4,
            chain_help: 2,
            rewrite_permille: 125,
            repair: true,
            blob_bytes_min: 256 << 10,
            written_bytes_min: 32 << 10,
            background: true,
            stripes_log2_max: 10,
            reserve_bytes: 32 << 10,
            hash_key: None,
            parts: PartPlan::default(),
        }
    }
}

/// A builder for [`Store`].
///
/// ```
/// # fn main() -> tophash::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// use tophash::{Options, SyncPolicy};
/// let store = Options::new().sync(SyncPolicy::Always).capacity(100_000).open(&path)?;
/// store.insert("k", "v")?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) sync: SyncPolicy,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) capacity: u64,
    pub(crate) verify_reads: bool,
    pub(crate) checkpoint_bytes: Option<u64>,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) log_ratio: f64,
    pub(crate) read_only: bool,
    pub(crate) mode: u32,
    pub(crate) tuning: Tuning,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) origin: Option<Origin>,
}

/// What a new store takes over from the one that it is to replace.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) uuid: Uuid,
    pub(crate) hash_key: (u64, u64),
    pub(crate) generation: u64,
    pub(crate) log_dir: u64,
    /// The directory that the log directory lies in.
    pub(crate) home: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults: create if missing, `SyncPolicy::Every(100 ms)`, verified reads, sizes chosen by the
    /// store.
    #[must_use]
    pub fn new() -> Self {
        Options {
            sync: SyncPolicy::default(),
            create: true,
            create_new: false,
            capacity: 0,
            verify_reads: true,
            checkpoint_bytes: None,
            segment_bytes: None,
            memory_bytes: None,
            log_ratio: 1.5,
            read_only: false,
            mode: 0o600,
            tuning: Tuning::default(),
            disk: Arc::new(RealDisk),
            origin: None,
        }
    }

    /// When writes are made safe against power loss. Default: every 100 ms.
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Whether a store is created where there is none. Default: true.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the store must be a new one: an existing one is [`Error::AlreadyExists`]. Default: false.
    #[must_use]
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Sizes the table of a *new* store for this many entries, so that it does not grow while it is filled.
    /// Costs no journal and hardly any disk before use: the pages are holes in the file. No effect on an
    /// existing store (see [`Store::reserve`]).
    #[must_use]
    pub fn capacity(mut self, entries: u64) -> Self {
        self.capacity = entries;
        self
    }

    /// Whether each read checks the record's checksum. Default: true. Without it a rotten value is returned
    /// as it is; a rotten key still reads as absent or as an error, never as another key.
    #[must_use]
    pub fn verify_reads(mut self, verify: bool) -> Self {
        self.verify_reads = verify;
        self
    }

    /// A checkpoint is started after this many bytes of log. More means less writing of index pages and a
    /// longer replay after a crash (about 0.35 seconds per million records in the page cache, with two
    /// processors).
    /// Default: twice the size of the index, at least 128 MiB, at most 1 GiB.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = Some(bytes);
        self
    }

    /// The size of log segments. Between 4 KiB and 1 GiB, rounded up to 4 KiB. Default: grows with the
    /// store, from 256 KiB to 1 GiB.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// A bound for index pages that were changed since the last checkpoint and live in private memory.
    /// Writers wait for a checkpoint when it is reached (counted in [`Stats`](crate::Stats)). Default: a
    /// quarter of the memory that the container or machine allows, at least 64 MiB. Pages of an extent that
    /// growth has just added are in memory from the start, whatever the bound; clean ones are given back.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    /// The log may take this multiple of the live records' bytes, plus a few segments; beyond it, segments with
    /// much dead weight are compacted in the background, and if that does not keep up, writers help with a few
    /// records at each write. At least 1.1; less space means more copying: at 1.5, with keys replaced at
    /// random, about one record is copied for each that is written. [`f64::INFINITY`] turns compaction off.
    /// Default: 1.5.
    #[must_use]
    pub fn log_ratio(mut self, ratio: f64) -> Self {
        self.log_ratio = ratio;
        self
    }

    /// Opens without changing anything on disk: the log's tail is replayed into private memory. Several
    /// read-only openers may share a store, none beside a writer. Default: false.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The permissions of a *new* store's files, less the umask: 0600, 0640, 0660, 0644 or 0666, or fewer for others
    /// than the owner. Who may read the files may enter the directories, so that 0640 makes directories of 0750.
    /// Default: 0600.
    ///
    /// Whoever may write the files of a store may put anything into it. Readers need permission for `LOCK` too,
    /// which has it like the rest.
    ///
    /// A store that exists keeps its own: whatever is made in it later gets owner and permissions of its file
    /// `index`, whoever makes it. To change them, close the store and use `chmod -R`, `chown -R`.
    ///
    /// ```
    /// # fn main() -> tophash::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("shared.tophash");
    /// // The group may read it, beside other readers.
    /// let store = tophash::Options::new().mode(0o640).open(&path)?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Test constants; see [`Tuning`].
    #[doc(hidden)]
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// The disk that the store lives on; tests plug a simulated one in here.
    #[doc(hidden)]
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// The new store replaces another one.
    pub(crate) fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Opens the store, creating or recovering it as need be.
    ///
    /// A clean open reads a few pages; after a crash the log's tail since the last checkpoint is replayed. After a clean
    /// open the files stay as they were closed until the store is marked as in use: by a background thread soon, or by the
    /// first change.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NotFound`], [`Error::AlreadyExists`], [`Error::NotAStore`],
    /// [`Error::NewerFormat`], [`Error::WrongStore`], [`Error::Corrupt`], [`Error::LostData`],
    /// [`Error::InvalidOption`], [`Error::DiskFull`], [`Error::Io`]. After an error nothing was changed,
    /// except that an interrupted recovery may have been carried further.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        self.validate()?;
        Store::open_with(path.as_ref(), self)
    }

    fn validate(&self) -> Result<()> {
        fn invalid(option: &'static str, value: impl ToString, reason: &'static str) -> Result<()> {
            Err(Error::InvalidOption { option, value: value.to_string(), reason })
        }
        if let Some(bytes) = self.segment_bytes
            && !(4096..=1 << 30).contains(&bytes)
        {
            return invalid("segment_bytes", bytes, "it must be between 4 KiB and 1 GiB");
        }
        if self.checkpoint_bytes == Some(0) {
            return invalid("checkpoint_bytes", 0, "a checkpoint cannot follow every byte");
        }
        if self.memory_bytes.is_some_and(|bytes| bytes < 256 << 10) {
            return invalid("memory_bytes", self.memory_bytes.unwrap_or(0), "at least 256 KiB are needed");
        }
        if self.log_ratio.is_nan() || self.log_ratio < 1.1 {
            return invalid("log_ratio", self.log_ratio, "it must be at least 1.1");
        }
        if self.sync == SyncPolicy::Every(Duration::ZERO) {
            return invalid("sync", "Every(0 ns)", "an interval of zero: use SyncPolicy::Always");
        }
        if self.capacity > RECORDS_MAX {
            return invalid("capacity", self.capacity, "a store holds at most 2^38 entries");
        }
        if self.mode & !0o666 != 0 || self.mode & 0o600 != 0o600 {
            let reason = "files are read and written by their owner, and at most that by others: from 0600 to 0666";
            return invalid("mode", format!("{:#05o}", self.mode).replacen("0o", "0", 1), reason);
        }
        if self.read_only && self.create_new {
            return invalid("create_new", true, "a read-only open creates nothing");
        }
        Ok(())
    }
}
