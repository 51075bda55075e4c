//! How a store is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::checksum::Uuid;
use crate::error::{Error, Result};
use crate::sys::{Disk, RealDisk};
use crate::table::load::RECORDS_MAX;
use crate::tuning::{SyncPolicy, Tuning};

/// A builder for [`Store`](crate::Store).
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
    pub(crate) create_parents: bool,
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use tophash::{Options, SyncPolicy};
    /// // The same, but for the interval.
    /// let options = Options::new().sync(SyncPolicy::Every(Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Options {
            sync: SyncPolicy::default(),
            create: true,
            create_new: false,
            create_parents: false,
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use tophash::{Options, SyncPolicy};
    /// // A power failure may take the writes of the last second.
    /// let options = Options::new().sync(SyncPolicy::Every(Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Whether a store is created where there is none. Default: true.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// use tophash::{Error, Options};
    /// let error = Options::new().create(false).open(&path).unwrap_err();
    /// assert!(matches!(error, Error::NotFound { .. }));
    /// ```
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the store must be a new one: an existing one is [`Error::AlreadyExists`]. Default: false.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// use tophash::{Error, Options};
    /// let error = Options::new().create_new(true).open(&path).unwrap_err();
    /// assert!(matches!(error, Error::AlreadyExists { .. }));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Whether missing directories above a *new* store are created too. Default: false. Each is durable before the next one is
    /// made in it, and has the permissions of the store's own directory. An open that fails later leaves them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let state = dir.path();
    /// use tophash::{Error, Options};
    /// let path = state.join("service/cache/sessions.tophash");
    /// assert!(matches!(Options::new().open(&path), Err(Error::Io { .. })));
    /// let store = Options::new().create_parents(true).open(&path)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn create_parents(mut self, create: bool) -> Self {
        self.create_parents = create;
        self
    }

    /// Sizes the table of a *new* store for this many entries, so that it does not grow while it is filled.
    /// Costs no journal and hardly any disk before use: the pages are holes in the file. No effect on an
    /// existing store (see [`Store::reserve`](crate::Table::reserve)).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// let store = tophash::Options::new().capacity(1_000_000).open(&path)?;
    /// assert!(store.stats().index.slots > 1_000_000);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// At most 2^38.
    #[must_use]
    pub fn capacity(mut self, entries: u64) -> Self {
        self.capacity = entries;
        self
    }

    /// Whether each read checks the record's checksum. Default: true. Without it a rotten value is returned
    /// as it is; a rotten key still reads as absent or as an error, never as another key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// // For a disk whose file system checks what it reads.
    /// let store = tophash::Options::new().verify_reads(false).open(&path)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn verify_reads(mut self, verify: bool) -> Self {
        self.verify_reads = verify;
        self
    }

    /// A checkpoint is started after this many bytes of log. More means less writing of index pages and a
    /// longer replay after a crash (about 0.35 seconds per million records in the page cache, with two
    /// processors).
    /// Default: twice the size of the index, at least 128 MiB, at most 1 GiB.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// // After a crash at most about 64 MiB of log are replayed.
    /// let store = tophash::Options::new().checkpoint_bytes(64 << 20).open(&path)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = Some(bytes);
        self
    }

    /// The size of log segments. Between 4 KiB and 1 GiB, rounded up to 4 KiB. Default: grows with the
    /// store, from 16 KiB to 1 GiB.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// // Space comes back in pieces of at most 4 MiB. The log can have 16 GiB then: 4,096 segments.
    /// let store = tophash::Options::new().segment_bytes(4 << 20).open(&path)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// A limit for the memory of index pages that the kernel cannot take back: changed pages, their copies and images
    /// during a checkpoint. Writers wait for a checkpoint when three quarters are taken by pages (counted in
    /// [`Stats::waits`](crate::stats::Stats::waits)), and a checkpoint begins at half of that. An index that is larger than
    /// the limit makes random writes slow, because each checkpoint covers few of them.
    ///
    /// A batch, a `clear` or a recovery that changes more pages than that exceeds it. Not in it: the heap (8 bytes for each
    /// index page, 2 KiB for each segment), stacks, and mapped files, which are page cache.
    ///
    /// At least 256 KiB. Default: a quarter of the memory that the container or machine allows, at least 64 MiB.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// // In a container that has 512 MiB for the whole service.
    /// let store = tophash::Options::new().memory_bytes(64 << 20).open(&path)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
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
    ///
    /// ```
    /// use tophash::Options;
    /// // A disk of twice the data, and less copying.
    /// let roomy = Options::new().log_ratio(2.0);
    /// // No copying: the program calls `Store::compact` at night.
    /// let by_hand = Options::new().log_ratio(f64::INFINITY);
    /// ```
    #[must_use]
    pub fn log_ratio(mut self, ratio: f64) -> Self {
        self.log_ratio = ratio;
        self
    }

    /// Opens without changing anything on disk: the log's tail is replayed into private memory. Several
    /// read-only openers may share a store, none beside a writer. Default: false.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// use tophash::{Error, Options};
    /// let store = Options::new().read_only(true).open(&path)?;
    /// assert!(matches!(store.insert("a", "1"), Err(Error::ReadOnly { .. })));
    /// # Ok::<(), tophash::Error>(())
    /// ```
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

    pub(crate) fn validate(&self) -> Result<()> {
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
