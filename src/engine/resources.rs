//! What a step runs short of is found here, with no lock held; then the step starts again.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::need::{Need, Shortage, Step};
use crate::observe::{self, Cause, Timed, Timer};
use crate::stats::WaitStats;
use crate::sync::{AtomicU64, Ordering};
use crate::table::Table;
use crate::table::region::RegionKind;

/// How often callers had to wait for something, by what it was.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    segment: AtomicU64,
    journal: AtomicU64,
    memory: AtomicU64,
    index_space: AtomicU64,
}

impl Waits {
    /// The figures, with how often readers took a lock.
    pub(super) fn stats(&self, reader_locks: u64) -> WaitStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WaitStats {
            segment: get(&self.segment),
            journal: get(&self.journal),
            memory: get(&self.memory),
            index_space: get(&self.index_space),
            reader_locks,
        }
    }
}

/// Tries that begin again although they lack nothing. A call itself asks for a few of them: a long chain, a large value. Each
/// further one means that another call has got through: about one try in two where two calls meet at one key, 63 in 64 where 64 do.
const LOST_MAX: u64 = 10_000;

impl Engine {
    /// A caller begins to wait.
    pub(crate) fn waiting(&self, cause: Cause) -> Timer<'_> {
        observe::waiting(&self.path, cause);
        self.observer.time(Timed::Wait(cause))
    }

    /// Runs a step until it has what it needs. Between two tries no lock is held.
    ///
    /// # Errors
    /// Those of the step and of finding what it needs; `Stuck` if it never comes to an end.
    pub(crate) fn retry<T>(&self, step: impl FnMut() -> Step<T>) -> Result<T> {
        /// Of the pages that one step needs, others can take some meanwhile.
        const CHECKPOINTS: u32 = 16;
        self.retry_within(CHECKPOINTS, step)
    }

    /// The same. If the last one of so many checkpoints is asked for, the step needs more pages at once than the memory limit
    /// allows: one operation alone may exceed it.
    ///
    /// # Errors
    /// As for [`retry`](Self::retry).
    pub(crate) fn retry_within<T>(&self, most: u32, mut step: impl FnMut() -> Step<T>) -> Result<T> {
        /// Far more than any step ever needed.
        const TRIES_MAX: u64 = 1_000_000;
        let (mut tries, mut lost, mut checkpoints) = (0, 0, 0);
        let mut _lift = None;
        loop {
            match step() {
                Ok(value) => return Ok(value),
                Err(Shortage::Error(error)) => return Err(error.into()),
                Err(Shortage::Need(need)) => {
                    tries += 1;
                    lost += u64::from(matches!(need, Need::Again(_)));
                    if tries == TRIES_MAX || lost == LOST_MAX {
                        let reason = match need {
                            Need::Again(again) => again.to_string(),
                            other => format!("{other:?} was found each time, and was never enough"),
                        };
                        return Err(Error::Stuck { path: self.path.clone(), tries, reason });
                    }
                    checkpoints += u32::from(need == Need::Checkpoint);
                    if checkpoints == most {
                        _lift = Some(self.tables.index().lift_limit());
                    }
                    self.satisfy(need)?;
                    if self.tuning.shortages > 0 && self.may_free() {
                        // What the attempt has made dirty is clean when the next one begins.
                        self.run_checkpoint(false)?;
                    }
                }
            }
        }
    }

    /// Does something that takes space of the disk, or a segment of which there can be so many. If there is none, what can be
    /// freed is freed, and it is tried again: first the ends of segments, then segments that wait to be written, then what a
    /// checkpoint lets go. The caller holds no lock.
    ///
    /// # Errors
    /// `DiskFull`, `LimitReached` only if nothing can be freed, or it is not enough.
    pub(crate) fn with_space<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut result = work();
        if matches!(result, Err(Error::DiskFull { .. })) && self.may_free() && self.log.has_unwritten_ends() {
            self.log.cut_ends();
            result = work();
        }
        if matches!(result, Err(Error::DiskFull { .. })) && self.may_free() && self.log.give_back_prepared() {
            result = work();
        }
        match result {
            Err(Error::DiskFull { .. } | Error::LimitReached { .. }) if self.may_free() && self.has_to_free() => {
                self.run_checkpoint(false)?;
                work()
            }
            other => other,
        }
    }

    /// True if space of the disk may be freed. Not in a recovery: the records that are still to be replayed lie below any cut.
    fn may_free(&self) -> bool {
        !self.health.is_recovering() && self.health.check_writable().is_ok()
    }

    /// True if a checkpoint would free space of the disk.
    fn has_to_free(&self) -> bool {
        self.log.freed_blobs().0 > 0 || self.log.space().waiting > 0
    }

    /// On a full disk, the overflow pages that have blocks must do, if there are so many free ones.
    fn or_allocated(&self, table: &Table, allocated: Result<()>, pages: u64) -> Result<()> {
        match allocated {
            Err(Error::DiskFull { .. }) if table.has_allocated_free(pages) => Ok(()),
            other => other,
        }
    }

    /// Finds what a step ran short of. The caller holds no lock.
    #[cold]
    pub(crate) fn satisfy(&self, need: Need) -> Result<()> {
        match need {
            Need::Journal { pages, alone } => {
                let _waiting = self.waiting(Cause::Journal);
                self.waits.journal.fetch_add(1, Ordering::Relaxed);
                match self.checkpointer.extend_journal(self.tables.index(), pages) {
                    // On a full disk the blocks that are there must do: a checkpoint empties the dirty set. Not
                    // in a recovery: the records that are still to be replayed lie below any cut.
                    Err(full @ Error::DiskFull { .. }) => {
                        if alone > self.tables.index().journal_pages() || self.health.is_recovering() {
                            return Err(full);
                        }
                        self.run_checkpoint(false)
                    }
                    other => other,
                }
            }
            Need::Checkpoint => {
                let _waiting = self.waiting(Cause::Memory);
                self.waits.memory.fetch_add(1, Ordering::Relaxed);
                self.health.check_writable()?;
                debug_assert!(!self.health.is_recovering());
                self.run_checkpoint(false)
            }
            Need::Copies => self.tables.index().add_copies(),
            Need::IndexBlocks(page) => {
                let _waiting = self.waiting(Cause::IndexSpace);
                self.waits.index_space.fetch_add(1, Ordering::Relaxed);
                // Dropped meanwhile, which the step finds when it starts again. So below.
                let Some(table) = self.tables.get(page.table) else { return Ok(()) };
                let allocated = self.with_space(|| table.allocate_blocks(page));
                if page.region == RegionKind::Overflow { self.or_allocated(&table, allocated, 1) } else { allocated }
            }
            Need::Overflow { table, pages } => {
                let _waiting = self.waiting(Cause::IndexSpace);
                self.waits.index_space.fetch_add(1, Ordering::Relaxed);
                // A few more than asked for, so that not every insert comes here.
                let Some(table) = self.tables.get(table) else { return Ok(()) };
                self.with_space(|| self.retry(|| table.provide_overflow(pages + 4)))
            }
            Need::OverflowBlocks { table, pages } => {
                let _waiting = self.waiting(Cause::IndexSpace);
                self.waits.index_space.fetch_add(1, Ordering::Relaxed);
                let Some(table) = self.tables.get(table) else { return Ok(()) };
                let allocated = self.with_space(|| table.allocate_free(pages));
                self.or_allocated(&table, allocated, pages)
            }
            Need::Segment { bytes } => {
                self.health.check_writable()?;
                let _waiting = self.waiting(Cause::Segment);
                self.waits.segment.fetch_add(1, Ordering::Relaxed);
                self.with_space(|| {
                    self.checkpointer.provide_meta_room(self.tables.index(), &self.log)?;
                    self.log.provide_segment(bytes)
                })
            }
            Need::MetaRoom => self.with_space(|| self.checkpointer.provide_meta_room(self.tables.index(), &self.log)),
            Need::BlobList => {
                let _waiting = self.waiting(Cause::Blobs);
                self.run_checkpoint(false)
            }
            // Nobody waits for this thread's processor: the call in the way, if there was one, has got through.
            Need::Again(_) => Ok(()),
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::need::Again;

    /// Space that was the store's for the asking was no help on a full disk: the end of a sealed segment stayed until the next
    /// one was there.
    #[test]
    fn a_full_disk_is_helped_by_the_ends_of_segments() {
        let dir = tempfile::tempdir().unwrap();
        let tuning = crate::Tuning { background: false, ..crate::Tuning::default() };
        let store = crate::Options::new().tuning(tuning).segment_bytes(1 << 20).open(dir.path().join("s")).unwrap();
        let engine = store.engine();
        store.insert("a", "b").unwrap();
        engine.log.provide_segment(0).unwrap();
        engine.log.seal_active();
        assert!(engine.log.has_unwritten_ends());
        let source = || std::io::ErrorKind::StorageFull.into();
        let full = || Error::DiskFull { action: "allocate blocks of", path: engine.path.clone(), source: source() };
        engine.with_space(|| if engine.log.has_unwritten_ends() { Err(full()) } else { Ok(()) }).unwrap();
        engine.with_space(|| Err::<(), _>(full())).unwrap_err();
        store.insert("c", "d").unwrap();
        store.close().unwrap();
    }

    /// A state that should not be was tried again for ever, without a word. (Then it was tried a million times, with a yield after
    /// each of them, which took hours on a busy machine.)
    #[test]
    fn a_step_that_never_ends_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path().join("s")).unwrap();
        let stuck = store.engine().retry::<()>(|| Err(Need::Again(Again::LongChain).into())).unwrap_err();
        assert!(matches!(stuck, Error::Stuck { tries: LOST_MAX, .. }), "{stuck}");
        assert!(stuck.to_string().contains("a chain of overflow pages stayed long"), "{stuck}");
        store.insert("a", "b").unwrap();
        store.close().unwrap();
    }
}
