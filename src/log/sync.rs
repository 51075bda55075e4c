//! Making records durable: which files a round of group commit (commit.rs) syncs.

use std::io;
use std::path::PathBuf;

use super::segments::Log;
use crate::address::Lsn;
use crate::error::Result;
use crate::mutant::{Mutant, broken};

impl Log {
    /// Bytes behind the last LSN that is known to be durable; more than there are if that is in another segment.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.tail().raw().saturating_sub(self.commit.durable_lsn().raw())
    }

    /// Everything below this LSN is durable.
    pub(crate) fn durable_lsn(&self) -> Lsn {
        self.commit.durable_lsn()
    }

    /// Notes what recovery found or made durable.
    pub(crate) fn set_durable_lsn(&self, lsn: Lsn) {
        self.commit.set_durable_lsn(lsn);
    }

    /// True if the active segment was prepared for another way of writing, and should be replaced.
    pub(crate) fn is_unsuited(&self) -> bool {
        self.pieces.is_unsuited()
    }

    /// Returns when everything below `target` is durable.
    ///
    /// # Errors
    /// `Io` if a sync failed, for every caller whose LSN it should have covered. What is on disk is then
    /// unknown: the caller poisons the store.
    pub(crate) fn sync_to(&self, target: Lsn) -> Result<()> {
        self.commit.sync_to(target, self.dir(), || self.sync_round())
    }

    /// Counts a caller that waits without a thread of its own.
    pub(crate) fn arrive(&self) {
        self.commit.arrive();
    }

    /// As [`sync_to`](Self::sync_to), for callers who have [arrived](Self::arrive).
    pub(crate) fn sync_for_others(&self, target: Lsn) -> Result<()> {
        self.commit.sync_for_others(target, self.dir(), || self.sync_round())
    }

    /// Syncs all segments with unsynced records, in order; returns the LSN that is durable now.
    fn sync_round(&self) -> std::result::Result<Lsn, (PathBuf, io::Error)> {
        let (from, end) = (self.commit.durable_lsn(), self.tail());
        let bytes = end.raw().saturating_sub(from.raw());
        let unsynced: Vec<_> = self
            .registry
            .lock()
            .segments
            .range(from.sequence()..=end.sequence())
            .map(|(_, segment)| segment.clone())
            .collect();
        for segment in unsynced {
            if broken(Mutant::OnlyLastSegmentSynced) && segment.sequence < end.sequence() {
                continue;
            }
            let Some(file) = segment.file() else { continue };
            file.sync_data().map_err(|error| (segment.path.clone(), error))?;
            if segment.sequence < end.sequence() {
                segment.close_file();
            }
        }
        if self.pieces.synced(bytes)
            && let Some(active) = &*self.appender.lock()
        {
            self.pieces.look_at(active.segment.bulk);
        }
        Ok(end)
    }
}
