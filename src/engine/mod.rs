//! What a store consists of, and what its operations share.
//!
//! ```text
//! ├── read    key → pinned record        ├── bulk     bulk removal, clear
//! ├── write   changing one key           ├── scan     iteration
//! ├── batch   all of it or nothing       ├── resize   the table's size
//! ├── catalog tables made, dropped       └── resources   what a step runs short of
//! └── stats, counts
//! ```

mod batch;
pub(crate) mod bulk;
pub(crate) mod catalog;
pub(crate) mod counts;
pub(crate) mod read;
mod resize;
pub(crate) mod resources;
pub(crate) mod scan;
mod stats;
pub(crate) mod write;

use std::path::PathBuf;
use std::sync::Arc;

use crate::address::Lsn;
use crate::awaited::{Awaited, Wait};
use crate::background::wake::Wake;
use crate::checkpoint::checkpointer::Checkpointer;
use crate::checkpoint::run::Scope;
use crate::checksum::KeyHasher;
use crate::compaction::compactor::Compactor;
use crate::engine::counts::Counts;
use crate::engine::resources::Waits;
use crate::error::{Fault, Result};
use crate::health::Health;
use crate::log::appender::Appended;
use crate::log::record::Record;
use crate::log::segments::Log;
use crate::mutant::{Mutant, broken};
use crate::observe::{Observer, Timed};
use crate::stats::RecoveryStats;
use crate::sync::{Mutex, OnceLock};
use crate::sys::LockGuard;
use crate::table::slot::Slot;
use crate::table::split::ReadHash;
use crate::table::tables::Tables;
use crate::tuning::{SyncPolicy, Tuning};

/// The store behind the handle, shared with its background threads.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) path: PathBuf,
    // The five owners. Each keeps its state to itself, and is lent the others for a call.
    pub(crate) tables: Tables,
    pub(crate) log: Log,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) compactor: Compactor,
    pub(crate) health: Health,
    /// The waits for a sync that hold up no thread. They outlive the engine.
    pub(crate) awaited: Arc<Awaited>,
    pub(crate) wake: Wake,
    pub(crate) hasher: KeyHasher,
    pub(crate) sync: SyncPolicy,
    pub(crate) tuning: Tuning,
    pub(crate) verify_reads: bool,
    pub(crate) waits: Waits,
    pub(crate) counts: Counts,
    /// What the open found and did.
    pub(crate) recovery: OnceLock<RecoveryStats>,
    /// Tells the outside.
    pub(crate) observer: Observer,
    /// Held until the store is closed.
    pub(crate) lock: Mutex<Option<Box<dyn LockGuard>>>,
}

/// What a change waits for before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// For what the policy says.
    Policy,
    /// For nothing: it asks for a sync, and its caller gets the wait.
    Asked,
}

impl ReadHash for Engine {
    fn hash_of(&self, slot: Slot) -> std::result::Result<Option<u64>, Fault> {
        let address = slot.address();
        let Some(pinned) = self.log.pin(address) else { return Ok(None) };
        let record = Record::at(&pinned, address.offset());
        let whole = record.ok().filter(|record| record.check(pinned.salt(), address.offset()).is_ok());
        Ok(whole.map(|record| self.hasher.hash(record.key())))
    }

    fn prefetch(&self, slot: Slot) {
        self.log.prefetch(slot.address());
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

    /// What follows an append: background threads are woken, or their work is done here. No lock is held. The change is
    /// published, so upkeep fails nothing: see [`upkeep_checkpoint`](Self::upkeep_checkpoint).
    ///
    /// Returns the wait for the sync of the change, if the caller wants one and the change is not durable yet.
    ///
    /// # Errors
    /// Those of the sync, if it was waited for.
    #[inline]
    pub(crate) fn after_append(&self, appended: Appended, until: Until) -> Result<Option<Wait>> {
        let Appended { end, total, running_low, .. } = appended;
        self.wake.appended();
        if running_low && self.tuning.background {
            self.wake.segment.ring();
        }
        if self.checkpointer.is_due(total) {
            if self.tuning.background {
                self.wake.checkpoint.ring();
            } else {
                self.upkeep_checkpoint();
            }
        }
        self.help_compaction(total);
        if broken(Mutant::UpkeepFails) {
            self.health.check_writable()?;
        }
        match (until, self.sync) {
            (Until::Asked, _) => self.ask_for_sync(end),
            (Until::Policy, SyncPolicy::Always) => self.sync_to(end).map(|()| None),
            (Until::Policy, _) => Ok(None),
        }
    }

    /// Asks for a sync of everything below the LSN. Returns the wait for it, if there is anything to wait for. Without
    /// background threads the sync is made here.
    ///
    /// # Errors
    /// Those of the sync, if it is made here.
    pub(crate) fn ask_for_sync(&self, lsn: Lsn) -> Result<Option<Wait>> {
        if self.log.durable_lsn() >= lsn {
            return Ok(None);
        }
        if !self.tuning.background {
            if broken(Mutant::AwaitedUnsynced) {
                return Ok(None);
            }
            return self.sync_to(lsn).map(|()| None);
        }
        self.awaited.ask(lsn);
        self.log.arrive();
        self.wake.awaited.ring();
        Ok(Some(Wait::new(&self.awaited, lsn)))
    }

    /// Runs a checkpoint, unless nothing has changed since the last one. `clean` marks the store as closed.
    pub(crate) fn run_checkpoint(&self, clean: bool) -> Result<()> {
        self.checkpoint(clean).map(|_| ())
    }

    /// The same. Returns false if the checkpoint could not let go of something that it does not need.
    pub(crate) fn checkpoint(&self, clean: bool) -> Result<bool> {
        let Engine { path, tables, log, health, observer, .. } = self;
        let scope = Scope { path, tables, log, health, observer };
        let Some(let_go) = self.checkpointer.run(scope, clean)? else { return Ok(true) };
        self.compactor.note_freeing(let_go);
        // When nobody writes any more, it makes the journal shorter.
        self.wake.compaction.ring();
        Ok(let_go.all)
    }

    /// Runs a checkpoint as a part of upkeep, which is all work that follows a published change. Returns false if it failed.
    ///
    /// The error does not fail the change, because an error of a write means that nothing has changed. The error is
    /// counted and told. One of the moment goes when the next write or a background thread tries again. Any other one
    /// has poisoned the store, and the next write says so.
    pub(crate) fn upkeep_checkpoint(&self) -> bool {
        let result = self.run_checkpoint(false);
        if let Err(error) = &result {
            self.checkpointer.put_off(error);
        }
        result.is_ok()
    }

    /// Returns when everything below the LSN is durable; poisons the store if that fails.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.sync_by(|log| log.sync_to(lsn))
    }

    /// The same for callers who do not wait themselves.
    pub(crate) fn sync_for_others(&self, lsn: Lsn) -> Result<()> {
        self.sync_by(|log| log.sync_for_others(lsn))
    }

    fn sync_by(&self, sync: impl FnOnce(&Log) -> Result<()>) -> Result<()> {
        self.health.check_writable()?;
        let _timer = self.observer.time(Timed::Sync);
        sync(&self.log).inspect_err(|error| self.health.poison_if_unknown(error))?;
        if self.log.is_unsuited() {
            self.wake.compaction.ring();
        }
        Ok(())
    }

    /// Gives the locks back. The caller has closed the store.
    pub(crate) fn unlock(&self) {
        drop(self.lock.lock().take());
    }
}
