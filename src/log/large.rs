//! Large values, as the rest of the store asks the log for them. Their files, and which of them are linked, freed and
//! mapped, are known to [`Blobs`](super::blob::Blobs) alone.

use std::collections::HashSet;
use std::sync::Arc;

use super::blob::{BlobMap, BlobSnapshot};
use super::large_deadlines::Unread;
use super::record::BlobLink;
use super::segments::Log;
use crate::address::{Address, Lsn};
use crate::error::Result;
use crate::expiry::Deadline;

/// A large value as a published record links it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linked {
    pub(crate) link: BlobLink,
    /// That of the record, and where it is.
    pub(crate) deadline: Deadline,
    pub(crate) address: Address,
}

impl Log {
    /// Writes a value into a blob and makes it durable. To be linked or given up.
    ///
    /// # Errors
    /// `LimitReached` if no id is left; `Io`, `DiskFull`.
    pub(crate) fn write_blob(&self, value: &[u8]) -> Result<BlobLink> {
        self.blobs.write(value)
    }

    /// Removes a blob that no record links after all.
    pub(crate) fn give_up_blob(&self, link: BlobLink) {
        self.blobs.give_up(link);
    }

    /// Notes which blob a published change links, and which one the record before it linked. The caller holds the key's
    /// stripe.
    #[inline]
    pub(crate) fn relink(&self, old: Option<BlobLink>, new: Option<Linked>) {
        if old.is_some() || new.is_some() {
            self.relink_large(old, new);
        }
    }

    #[cold]
    fn relink_large(&self, old: Option<BlobLink>, new: Option<Linked>) {
        // A record that compaction has moved links the blob that the record before it did, and so does one with another
        // deadline.
        if old.map(|link| link.id) != new.map(|new| new.link.id) {
            if let Some(link) = old {
                self.blobs.freed(link);
                self.large_deadlines.lock().forget(link.id);
            }
            new.into_iter().for_each(|new| self.blobs.linked(new.link));
        }
        new.into_iter().for_each(|new| self.found_large(new));
    }

    /// Maps a blob. `None` if there is no such file.
    ///
    /// # Errors
    /// `Corrupt` if the file is not the blob that the link names.
    pub(crate) fn map_blob(&self, link: BlobLink) -> Result<Option<Arc<BlobMap>>> {
        self.blobs.map(link)
    }

    /// Compares a mapped blob's checksum with its link.
    ///
    /// # Errors
    /// `Corrupt` if they differ.
    pub(crate) fn check_blob(&self, link: BlobLink, map: &BlobMap) -> Result<()> {
        self.blobs.check(link, map)
    }

    /// The number of large values that records link.
    pub(crate) fn linked_blobs(&self) -> u64 {
        self.blobs.count()
    }

    /// Bytes of the large values that records link.
    pub(crate) fn blob_bytes(&self) -> u64 {
        self.blobs.bytes()
    }

    /// The ids of all blob files, if records link any.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn blob_ids(&self) -> Result<Vec<u64>> {
        self.blobs.ids()
    }

    /// Everything below an LSN was removed: every record before it is dead, and the blobs are freed. The caller holds all
    /// stripes.
    pub(crate) fn cleared(&self, until: Lsn, blobs: &[u64]) {
        self.all_dead(until);
        self.large_deadlines.lock().clear();
        self.note_clear_before(until);
        self.blobs.free_all(blobs);
    }
}

/// What a checkpoint does with blobs.
impl Log {
    /// Freed blobs that wait for a checkpoint: how many, and the bytes of their values.
    pub(crate) fn freed_blobs(&self) -> (u64, u64) {
        self.blobs.waiting()
    }

    /// True if so many freed blobs wait that a checkpoint should run first.
    pub(crate) fn is_crowded_with_blobs(&self) -> bool {
        self.blobs.is_crowded()
    }

    /// The cut: what the checkpoint under way will say about blobs, up to `room` of them that wait to be unlinked. The caller
    /// holds all stripes.
    pub(crate) fn freeze_blobs(&self, room: usize) -> BlobSnapshot {
        self.blobs.freeze(room)
    }

    /// Unlinks the blobs that the durable checkpoint lists as dying. The caller runs the one checkpoint.
    ///
    /// # Errors
    /// If one of them cannot be unlinked, or the directory cannot be synced: the next checkpoint tries all again.
    pub(crate) fn unlink_dying_blobs(&self) -> Result<()> {
        self.blobs.unlink_dying()
    }

    /// Unlinks what a recovery found that no record links. `files`: the ids of all blob files. `linked`: those that records
    /// of the tail link. Returns the ids of the files that records should link.
    pub(crate) fn recover_blobs(&self, snapshot: &BlobSnapshot, files: &[u64], linked: &HashSet<u64>) -> Vec<u64> {
        self.blobs.recover(snapshot, files, linked)
    }

    /// Unlinks files that no record links, those of other stores excepted. A later checkpoint unlinks those
    /// for which it cannot be done now. Returns how many there were.
    ///
    /// # Errors
    /// `Io`, if one of them cannot be looked at; none is unlinked then.
    pub(crate) fn unlink_leftovers(&self, mut ids: Vec<u64>) -> Result<usize> {
        let mut failed = None;
        ids.retain(|&id| self.blobs.is_own(id).unwrap_or_else(|error| failed.replace(error).is_some()));
        if let Some(error) = failed {
            return Err(error);
        }
        self.blobs.unlink_orphans(&ids);
        Ok(ids.len())
    }
}

/// When large values expire.
impl Log {
    /// A slot names a record that links a large value. The caller holds the key's stripe.
    pub(crate) fn found_large(&self, Linked { link, deadline, address }: Linked) {
        self.large_deadlines.lock().set(link.id, deadline.millis(), address, link.len);
    }

    /// The link at that address is not known to expire any more.
    pub(crate) fn forget_large(&self, id: u64, address: Address) {
        self.large_deadlines.lock().forget_at(id, address);
    }

    /// A segment of an opened store has records with a deadline, the first of which is over at `first`.
    pub(crate) fn open_large_deadlines(&self, sequence: u32, first: u64) {
        if self.blobs.count() > 0 {
            self.large_deadlines.lock().open(Unread { sequence, first });
        }
    }

    /// Takes the sequence of a segment that has to be read for links: it was opened, and its first records have expired.
    pub(crate) fn opened_large(&self, now: u64) -> Option<u32> {
        self.large_deadlines.lock().take_unread(now).map(|unread| unread.sequence)
    }

    /// True if a large value may expire.
    pub(crate) fn has_expiring_large(&self) -> bool {
        !self.large_deadlines.lock().is_empty()
    }

    /// Bytes of expired large values.
    pub(crate) fn expired_large_bytes(&self, now: u64) -> u64 {
        self.large_deadlines.lock().bytes_over(now)
    }

    /// Ids of expired large values, and the addresses of their links.
    pub(crate) fn expired_large(&self, now: u64, most: usize) -> Vec<(u64, Address)> {
        self.large_deadlines.lock().links_over(now, most)
    }

    /// When so many bytes of large values will have expired, or all that expire.
    pub(crate) fn next_large_expiry(&self, bytes: u64) -> Option<u64> {
        self.large_deadlines.lock().next(bytes)
    }
}
