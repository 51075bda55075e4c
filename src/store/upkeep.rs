//! Calls for the store as a whole: room, space, durability, figures.

use std::ops::ControlFlow;

use super::{Store, Table};
use crate::checksum::{SPLIT_MIX_STEP, split_mix};
use crate::error::Result;
use crate::progress::Progress;
use crate::stats::{CompactionReport, Stats};

impl Table {
    /// Makes room for `additional` more entries, so that the table does not grow while they are inserted.
    /// Grows the table now, step by step, while others go on reading and writing: about 3 µs for each page
    /// of 504 slots. The room is kept until the table is shrunk on purpose.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.reserve(10_000)?;
    /// for i in 0..10_000u32 {
    ///     store.insert(i.to_le_bytes(), "")?;
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Table::insert). A crash leaves a table of any size between.
    pub fn reserve(&self, additional: u64) -> Result<()> {
        let _pass = self.engine.health.enter()?;
        self.engine.reserve(&self.table, additional)
    }

    /// Makes the table as small as its entries allow, and gives back what [`reserve`](Table::reserve) has kept. In
    /// normal use the table shrinks by itself when most entries are gone. Merges pages step by step, while
    /// others go on reading and writing: a few microseconds for each page. Ends with a checkpoint.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.reserve(100_000)?;
    /// // What was to come did not come.
    /// store.shrink_to_fit()?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Table::insert). A crash leaves a table of any size between.
    pub fn shrink_to_fit(&self) -> Result<()> {
        let _pass = self.engine.health.enter()?;
        self.engine.shrink_to_fit(&self.table)
    }
}

impl Store {
    /// Compacts the log now: every segment of which more than a twentieth is dead is emptied, and its space is given
    /// back. See [`compact_with`](Store::compact_with).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let report = store.compact()?;
    /// println!("{} bytes given back", report.disk_bytes_before.saturating_sub(report.disk_bytes_after));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`compact_with`](Store::compact_with).
    pub fn compact(&self) -> Result<CompactionReport> {
        self.compact_with(Progress::ignore)
    }

    /// Compacts the log now, in this thread, while others go on reading and writing: live records are appended
    /// again at the log's head, one lock at a time. Not needed in normal use: the background does it when the
    /// log is over its bound ([`Options::log_ratio`](crate::Options::log_ratio)). `progress` is told how many bytes the
    /// emptied segments held, of those that the log had at the beginning, and ends the call by returning [`ControlFlow::Break`]; what was
    /// compacted stays so. The end can come before the total is reached, because only segments that gain something are emptied.
    ///
    /// Ends with a checkpoint, after which the space comes back; a segment with a [`Value`](crate::Value) that is still held
    /// gives its blocks back when that is dropped. After a crash everything is there, compacted or not.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::ops::ControlFlow;
    /// let report = store.compact_with(|progress| {
    ///     if progress.done < 1 << 30 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// })?;
    /// assert!(report.finished);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Table::insert). A record that cannot be read keeps its segment as it is:
    /// [`Error::Corrupt`](crate::Error::Corrupt).
    pub fn compact_with(&self, mut progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<CompactionReport> {
        self.engine.compact_all(&mut progress)
    }

    /// Returns when every change that returned before this call is durable (group commit: calls share one
    /// fdatasync).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("order:1", "paid")?;
    /// store.sync()?;
    /// // Now a power failure cannot take it.
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the sync failed; the store is poisoned then. [`Error::ReadOnly`](crate::Error::ReadOnly),
    /// [`Error::Poisoned`](crate::Error::Poisoned), [`Error::Closed`](crate::Error::Closed), [`Error::Forked`](crate::Error::Forked).
    pub fn sync(&self) -> Result<()> {
        let _pass = self.engine.health.enter()?;
        self.engine.sync_to(self.engine.log.tail())
    }

    /// Writes the changed index pages into the index file, so that the next open replays nothing. Runs by
    /// itself often enough; costs two writes of each page changed since the last checkpoint.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// // Before a snapshot of the volume: an open of the snapshot replays little. (Never copy the files of an open store.)
    /// store.checkpoint()?;
    /// assert_eq!(store.stats().checkpoint.log_bytes_since, 0);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sync`](Store::sync).
    pub fn checkpoint(&self) -> Result<()> {
        let _pass = self.engine.health.enter()?;
        self.engine.run_checkpoint(false)
    }

    /// Figures about the store. Reads counters one after another; stops nobody. Of a closed store: as they were when it was
    /// closed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// let stats = store.stats();
    /// assert_eq!((stats.records, stats.poisoned), (1, None));
    /// println!("{} of {} log bytes are dead", stats.log.dead_bytes, stats.log.bytes);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Publishes the figures of this moment to the recorder of the `metrics` crate that was installed when the store
    /// was opened. The store does it by itself about every second; before a scrape it makes the figures fresh.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// // In the handler of `/metrics`, before the recorder renders its text.
    /// store.publish_metrics();
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn publish_metrics(&self) {
        self.engine.publish_now();
    }

    /// Bytes that the store's files occupy on the disk (blocks, not lengths).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// println!("{} KiB on the disk", store.disk_bytes()? >> 10);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if a file cannot be looked at; [`Error::Closed`](crate::Error::Closed).
    pub fn disk_bytes(&self) -> Result<u64> {
        self.engine.health.check_open()?;
        self.engine.disk_bytes()
    }

    /// For benchmarks of the table: the cache lines of slots that a lookup of an absent key reads, on average over
    /// `samples` random hashes, and the tombstones among their slots. No promise covers it.
    #[doc(hidden)]
    pub fn survey(&self, samples: u32, seed: u64) -> Result<(f64, f64)> {
        let (mut lines, mut tombstones, mut state) = (0u64, 0u64, seed);
        for _ in 0..samples {
            state = state.wrapping_add(SPLIT_MIX_STEP);
            let (more, dead) = self.table.survey(split_mix(state))?;
            lines += u64::from(more);
            tombstones += u64::from(dead);
        }
        let samples = f64::from(samples.max(1));
        Ok((lines as f64 / samples, tombstones as f64 / samples))
    }

    /// For tests: how often background threads were woken, and whether all of them wait for something to do, without a
    /// deadline. No promise covers it.
    #[doc(hidden)]
    #[must_use]
    pub fn rest(&self) -> (u64, bool) {
        let (wakings, resting) = self.engine.rest();
        (wakings, resting == self.owner.threads.lock().len())
    }
}
