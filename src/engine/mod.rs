//! What a store consists of, and what its operations share.
//!
//! ```text
//! ├── read    key → pinned record        ├── bulk     bulk removal, clear
//! ├── write   changing one key           ├── scan     iteration
//! ├── batch   all of it or nothing       ├── resize   the table's size
//! └── stats
//! ```

mod batch;
pub(crate) mod bulk;
pub(crate) mod health;
pub(crate) mod read;
mod resize;
pub(crate) mod scan;
mod stats;
pub(crate) mod write;

use std::path::PathBuf;
use std::sync::Arc;

use crate::address::Lsn;
use crate::background::wake::Wake;
use crate::checkpoint::header::{FIRST_META_PAGE, IndexHeader};
use crate::checkpoint::journal::Journal;
use crate::checkpoint::meta::Meta;
use crate::checksum::KeyHasher;
use crate::compaction::state::Compaction;
use crate::engine::health::Health;
use crate::error::{Error, Fault, IoContext, Result};
use crate::log::record::Record;
use crate::log::segments::Log;
use crate::need::{Need, Shortage, Step};
use crate::observe::{self, Cause, Observer, Timed, Timer};
use crate::stats::RecoveryStats;
use crate::sync::{AtomicU64, Mutex, OnceLock, Ordering};
use crate::sys::{DiskFile, LockGuard};
use crate::table::Table;
use crate::table::page::PageImage;
use crate::table::slot::Slot;
use crate::table::split::ReadHash;
use crate::tuning::{SyncPolicy, Tuning};

/// The store behind the handle, shared with its background threads.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) path: PathBuf,
    pub(crate) table: Table,
    pub(crate) log: Log,
    pub(crate) health: Health,
    pub(crate) hasher: KeyHasher,
    pub(crate) sync: SyncPolicy,
    pub(crate) verify_reads: bool,
    pub(crate) tuning: Tuning,
    pub(crate) checkpoint_bytes: Option<u64>,
    /// Private pages beyond which writers wait for a checkpoint and clean ones are dropped.
    pub(crate) limit_pages: u64,
    /// `None` in a read-only store.
    pub(crate) files: Option<Files>,
    /// What the last checkpoint wrote. Held during a checkpoint: one at a time.
    pub(crate) checkpoint: Mutex<CheckpointState>,
    /// A checkpoint is due when the log has grown to this many bytes.
    pub(crate) checkpoint_due: AtomicU64,
    pub(crate) counters: Counters,
    pub(crate) compaction: Compaction,
    /// The log may take this multiple of the live records' bytes, and a few segments.
    pub(crate) log_ratio: f64,
    pub(crate) wake: Wake,
    /// Generation of the last checkpoint, and the bytes appended at its cut, for the stats.
    pub(crate) generation: AtomicU64,
    pub(crate) total_at_cut: AtomicU64,
    pub(crate) recovery: OnceLock<RecoveryStats>,
    /// Tells the outside.
    pub(crate) observer: Observer,
    /// Held as long as anything above lives.
    pub(crate) _lock: Box<dyn LockGuard>,
}

/// The files that checkpoints write.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) index: Arc<dyn DiskFile>,
    pub(crate) index_path: PathBuf,
    pub(crate) journal: Journal,
    /// Held while the journal's blocks are allocated.
    pub(crate) extending: Mutex<()>,
    /// Meta pages that index and journal have blocks for.
    pub(crate) meta_room: AtomicU64,
}

/// What stands in the index file.
#[derive(Debug)]
pub(crate) struct CheckpointState {
    pub(crate) header: IndexHeader,
    /// The meta pages as they were last written.
    pub(crate) meta_pages: Vec<PageImage>,
    /// The meta data that the store was opened with.
    pub(crate) opened: Meta,
}

/// Counters for [`Stats`](crate::stats::Stats).
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) checkpoints: AtomicU64,
    pub(crate) images: AtomicU64,
    pub(crate) cut_nanos_max: AtomicU64,
    /// Errors of work that only frees space.
    pub(crate) put_off: AtomicU64,
    pub(crate) segment_waits: AtomicU64,
    pub(crate) journal_waits: AtomicU64,
    pub(crate) memory_waits: AtomicU64,
    pub(crate) space_waits: AtomicU64,
}

impl ReadHash for Engine {
    fn hash_of(&self, slot: Slot) -> std::result::Result<Option<u64>, Fault> {
        let place = slot.place();
        let Some(pinned) = self.log.pin(place) else { return Ok(None) };
        let record = Record::at(&pinned, place.offset());
        let whole = record.ok().filter(|record| record.check(pinned.salt(), place.offset()).is_ok());
        Ok(whole.map(|record| self.hasher.hash(record.key())))
    }

    fn prefetch(&self, slot: Slot) {
        self.log.prefetch(slot.place());
    }
}

impl Engine {
    /// Publishes the figures, if that was some time ago. Called by a background thread.
    pub(crate) fn publish_figures(&self) {
        if self.observer.is_due() {
            self.publish_now();
        }
    }

    /// Publishes the figures.
    pub(crate) fn publish_now(&self) {
        if cfg!(feature = "metrics") {
            self.observer.publish(&self.stats());
        }
    }

    /// A caller begins to wait.
    pub(crate) fn waits(&self, cause: Cause) -> Timer<'_> {
        observe::waiting(&self.path, cause);
        self.observer.time(Timed::Wait(cause))
    }

    /// Runs a step until it has what it needs. Between two tries no lock is held.
    ///
    /// # Errors
    /// Those of the step and of finding what it needs; `Stuck` if it never comes to an end.
    pub(crate) fn retry<T>(&self, mut step: impl FnMut() -> Step<T>) -> Result<T> {
        /// Far more than any step ever needed.
        const TRIES_MAX: u64 = 1_000_000;
        let mut tries = 0;
        loop {
            match step() {
                Ok(value) => return Ok(value),
                Err(Shortage::Error(error)) => return Err(*error),
                Err(Shortage::Need(need)) => {
                    tries += 1;
                    if tries == TRIES_MAX {
                        let reason = match need {
                            Need::Again(again) => again.to_string(),
                            other => format!("{other:?} was found each time, and was never enough"),
                        };
                        return Err(Error::Stuck { path: self.path.clone(), tries, reason });
                    }
                    self.satisfy(need)?;
                }
            }
        }
    }

    /// Does something that takes space of the disk. If there is none, what can be freed is freed, and it is tried once
    /// more. The caller holds no lock.
    ///
    /// # Errors
    /// `DiskFull` only if nothing can be freed, or it is not enough.
    pub(crate) fn with_space<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(Error::DiskFull { .. }) if self.can_free() => {
                self.run_checkpoint(false)?;
                work()
            }
            other => other,
        }
    }

    /// True if a checkpoint would free space of the disk. Not in a recovery: the records that are still to be replayed lie
    /// below any cut.
    fn can_free(&self) -> bool {
        !self.health.is_recovering()
            && self.health.check_writable().is_ok()
            && (self.log.blobs.waiting().0 > 0 || self.log.space().waiting > 0)
    }

    /// Finds what a step ran short of. The caller holds no lock.
    #[cold]
    pub(crate) fn satisfy(&self, need: Need) -> Result<()> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match need {
            Need::Journal { pages, alone } => {
                let _waiting = self.waits(Cause::Journal);
                count(&self.counters.journal_waits);
                match self.extend_journal(pages) {
                    // On a full disk the blocks that are there must do: a checkpoint empties the dirty set. Not
                    // in a recovery: the records that are still to be replayed lie below any cut.
                    Err(full @ Error::DiskFull { .. }) => {
                        if alone > self.table.dirty.journal_pages() || self.health.is_recovering() {
                            return Err(full);
                        }
                        self.run_checkpoint(false)
                    }
                    other => other,
                }
            }
            Need::Checkpoint => {
                let _waiting = self.waits(Cause::Memory);
                count(&self.counters.memory_waits);
                self.health.check_writable()?;
                debug_assert!(!self.health.is_recovering());
                self.run_checkpoint(false)
            }
            Need::Copies => {
                let added = self.table.dirty.add_copies(self.log.disk());
                added.context("reserve memory for copies of pages of", &self.table.path)
            }
            Need::IndexBlocks(page) => {
                let _waiting = self.waits(Cause::IndexSpace);
                count(&self.counters.space_waits);
                self.with_space(|| self.table.allocate_blocks(page))
            }
            Need::Overflow { pages } => {
                let _waiting = self.waits(Cause::IndexSpace);
                count(&self.counters.space_waits);
                // A few more than asked for, so that not every insert comes here.
                self.with_space(|| self.retry(|| self.table.provide_overflow(pages + 4)))
            }
            Need::Segment { bytes } => {
                self.health.check_writable()?;
                let _waiting = self.waits(Cause::Segment);
                count(&self.counters.segment_waits);
                self.with_space(|| {
                    self.provide_meta_room()?;
                    self.log.provide_segment(bytes)
                })
            }
            Need::BlobList => {
                let _waiting = self.waits(Cause::Blobs);
                self.run_checkpoint(false)
            }
            Need::Again(_) => {
                crate::sync::yield_now();
                Ok(())
            }
        }
    }

    fn extend_journal(&self, pages: u64) -> Result<()> {
        let Some(files) = &self.files else {
            self.table.dirty.set_journal_pages(u64::MAX);
            return Ok(());
        };
        let _one = files.extending.lock();
        let have = self.table.dirty.journal_pages();
        if have >= pages {
            return Ok(());
        }
        let images = pages.max(have + have / 2).next_multiple_of(64);
        files.journal.allocate(images + files.meta_room.load(Ordering::Acquire))?;
        self.table.dirty.set_journal_pages(images);
        Ok(())
    }

    /// Makes sure that the meta pages of the next checkpoints have blocks in the journal and in the index: a
    /// checkpoint must never run out of space.
    pub(crate) fn provide_meta_room(&self) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        let pages = Meta::pages_for(self.log.slots_used());
        if pages <= files.meta_room.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = files.extending.lock();
        let page = crate::sys::PAGE_BYTES as u64;
        files.index.allocate(0, (FIRST_META_PAGE + pages) * page).context("allocate blocks of", &files.index_path)?;
        files.journal.allocate(self.table.dirty.journal_pages() + pages)?;
        files.meta_room.store(pages, Ordering::Release);
        Ok(())
    }

    /// Allocates the journal blocks that a table of twice the size can need, so that no writer has to.
    pub(crate) fn prepare_journal(&self) {
        // If the disk is full, the call that needs the blocks says so.
        let _ = self.extend_journal(self.journal_pages_wanted());
    }

    /// Journal pages that a table of twice the size can need.
    pub(crate) fn journal_pages_wanted(&self) -> u64 {
        let overflow = self.table.overflow.pages().saturating_sub(self.table.pool.len());
        let pages = self.table.growth().pages() * 2 + overflow;
        (pages + pages / 16 + 64).min(self.limit_pages)
    }

    /// Does a little of the growth that is under way. Called before changes, with no lock held; `hash` is that of a
    /// change's key.
    ///
    /// The growth thread evacuates page after page. Should it get no time, the changes do without it: one in so many
    /// evacuates a page, so that the last one is done when the table holds a thirteenth more than at the start. Which
    /// one is left to the hash.
    ///
    /// On a full disk, at a damaged page, or without descriptors or memory for a moment, growth stands still; that alone
    /// keeps no change from being made.
    #[inline]
    pub(crate) fn help_growth(&self, hash: u64) -> Result<()> {
        if self.table.growth().is_resizing() && !hash.is_multiple_of(self.changes_per_page()) {
            return Ok(());
        }
        self.help_growth_by(1)
    }

    /// The same for many changes at once.
    pub(crate) fn help_growth_for(&self, changes: usize) -> Result<()> {
        self.help_growth_by(changes.div_ceil(self.changes_per_page() as usize))
    }

    /// In so many changes one evacuates a page.
    #[inline]
    fn changes_per_page(&self) -> u64 {
        (self.table.geometry.slots() / 16).max(1) as u64
    }

    fn help_growth_by(&self, pages: usize) -> Result<()> {
        let growing = self.table.growth().is_resizing();
        if !growing && !self.table.growth_wanted.load(Ordering::Relaxed) {
            if !self.tuning.background && self.table.shrink_wanted.load(Ordering::Relaxed) {
                self.table.start_shrink(false)?;
            }
            return Ok(());
        }
        if !growing && self.tuning.background && !self.table.is_extended() {
            // The growth thread is adding the extent.
            return Ok(());
        }
        let turns = growing && self.table.growth_wanted.load(Ordering::Relaxed) && self.table.growth().is_shrinking();
        let helped =
            self.retry(|| if growing && !turns { self.evacuate(pages) } else { self.table.try_start_growth() });
        match helped {
            Err(error) if error.can_wait() => Ok(()),
            other => other,
        }
    }

    /// Evacuates some pages, if growth is under way and nobody else is at it.
    pub(crate) fn evacuate(&self, pages: usize) -> Step<()> {
        self.table.help_growth(pages, self).map(|_| ())
    }

    /// What follows an append: wakes whoever has to do something now. No lock is held.
    #[inline]
    pub(crate) fn after_append(&self, end: Lsn, total: u64, running_low: bool) -> Result<()> {
        self.wake.appended();
        if running_low && self.tuning.background {
            self.wake.segment.ring();
        }
        if total >= self.checkpoint_due.load(Ordering::Relaxed) {
            if self.tuning.background {
                self.wake.checkpoint.ring();
            } else {
                self.run_checkpoint(false)?;
            }
        }
        self.help_compaction(total)?;
        if self.sync == SyncPolicy::Always { self.sync_to(end) } else { Ok(()) }
    }

    /// Returns when everything below the LSN is durable; poisons the store if that fails.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.health.check_writable()?;
        let _timer = self.observer.time(Timed::Sync);
        self.log.sync_to(lsn).inspect_err(|error| self.health.poison_if_unknown(error))
    }

    /// Log bytes from one checkpoint to the next.
    pub(crate) fn checkpoint_interval(&self) -> u64 {
        self.checkpoint_bytes.unwrap_or_else(|| {
            let pages = self.table.growth().pages();
            (pages * 4096 * 2).clamp(128 << 20, 1 << 30)
        })
    }

    /// The header that was written last.
    pub(crate) fn header(&self) -> IndexHeader {
        self.checkpoint.lock().header
    }

    /// The active segment's file, and where its records end.
    pub(crate) fn log_end(&self) -> Option<(PathBuf, u64)> {
        let appender = self.log.appender.lock();
        appender.as_ref().map(|appender| (appender.segment.path.clone(), appender.lsn().offset()))
    }
}
