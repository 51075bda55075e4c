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
pub(crate) mod read;
mod resize;
pub(crate) mod scan;
mod stats;
pub(crate) mod write;

use std::path::PathBuf;

use crate::address::Lsn;
use crate::background::wake::Wake;
use crate::checkpoint::checkpointer::Checkpointer;
use crate::checkpoint::run::Scope;
use crate::checksum::KeyHasher;
use crate::compaction::state::Compaction;
use crate::error::{Error, Fault, IoContext, Result};
use crate::health::Health;
use crate::log::record::Record;
use crate::log::segments::Log;
use crate::need::{Need, Shortage, Step};
use crate::observe::{self, Cause, Observer, Timed, Timer};
use crate::stats::RecoveryStats;
use crate::sync::{AtomicU64, OnceLock, Ordering};
use crate::sys::LockGuard;
use crate::table::Table;
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
    pub(crate) checkpointer: Checkpointer,
    pub(crate) counters: Counters,
    pub(crate) compaction: Compaction,
    /// The log may take this multiple of the live records' bytes, and a few segments.
    pub(crate) log_ratio: f64,
    pub(crate) wake: Wake,
    pub(crate) recovery: OnceLock<RecoveryStats>,
    /// Tells the outside.
    pub(crate) observer: Observer,
    /// Held as long as anything above lives.
    pub(crate) _lock: Box<dyn LockGuard>,
}

/// Counters for [`Stats`](crate::stats::Stats).
#[derive(Debug, Default)]
pub(crate) struct Counters {
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
                match self.checkpointer.extend_journal(&self.table, pages) {
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
                    self.checkpointer.provide_meta_room(&self.table, &self.log)?;
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
        if self.checkpointer.is_due(total) {
            if self.tuning.background {
                self.wake.checkpoint.ring();
            } else {
                self.run_checkpoint(false)?;
            }
        }
        self.help_compaction(total)?;
        if self.sync == SyncPolicy::Always { self.sync_to(end) } else { Ok(()) }
    }

    /// Runs a checkpoint, unless nothing has changed since the last one. `clean` marks the store as closed.
    pub(crate) fn run_checkpoint(&self, clean: bool) -> Result<()> {
        let Engine { path, table, log, health, observer, .. } = self;
        let scope = Scope { path, table, log, health, observer };
        if let Some(let_go) = self.checkpointer.run(scope, clean)? {
            self.compaction.note_freeing(let_go);
        }
        Ok(())
    }

    /// Returns when everything below the LSN is durable; poisons the store if that fails.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.health.check_writable()?;
        let _timer = self.observer.time(Timed::Sync);
        self.log.sync_to(lsn).inspect_err(|error| self.health.poison_if_unknown(error))
    }

    /// The active segment's file, and where its records end.
    pub(crate) fn log_end(&self) -> Option<(PathBuf, u64)> {
        let appender = self.log.appender.lock();
        appender.as_ref().map(|appender| (appender.segment.path.clone(), appender.lsn().offset()))
    }
}
