//! Large values that have expired. What their links take in the log is nothing, so no segment becomes a victim for their sake:
//! they are freed one by one.
//!
//! 1. The link is read, and its record checked. A record that cannot be read is left to the evacuation of its segment.
//! 2. Under the key's stripe: if the slot still names the link, a removal is appended, the slot is emptied, and the value is
//!    freed. *Crash before the removal is in the log:* the value is expired and there. *After:* it is gone.
//! 3. A checkpoint unlinks the file, as that of any freed value.

use crate::address::Address;
use crate::engine::Engine;
use crate::engine::write::with_encoded;
use crate::error::{Error, Nature, Result};
use crate::log::large::Linked;
use crate::log::record::{Kind, Label, Record};
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::sync::Moment;

/// Values that are freed between two looks at the list.
const MANY: usize = 256;

impl Engine {
    /// Frees large values that have expired, if they are more than so many bytes. Returns whether some were freed. No lock is
    /// held.
    ///
    /// # Errors
    /// Those of a write. What was freed is freed; the next call goes on.
    pub(super) fn free_expired_large(&self, more_than: u64) -> Result<bool> {
        if !self.log.has_expiring_large() {
            return Ok(false);
        }
        let now = self.log.now();
        while let Some(sequence) = self.log.opened_large(now) {
            self.find_expiring_large(sequence);
        }
        if self.log.expired_large_bytes(now) <= more_than {
            return Ok(false);
        }
        self.log.sweep(now);
        loop {
            let links = self.log.expired_large(now, MANY);
            if links.is_empty() {
                break;
            }
            for (id, address) in links {
                match self.free_large(address, now) {
                    // It concerns this value alone. The evacuation of its segment meets it.
                    Err(error) if error.nature() == Nature::Damage => {}
                    other => other?,
                }
                // Also if it was another record's by now, or cannot be read.
                self.log.forget_large(id, address);
            }
        }
        self.mind_freed_blobs();
        Ok(true)
    }

    /// Steps 1 and 2.
    fn free_large(&self, address: Address, now: u64) -> Result<()> {
        let Some(pinned) = self.log.pin(address) else { return Ok(()) };
        let Ok(record) = self.log.record(&pinned, address) else { return Ok(()) };
        if record.blob_link().is_none() || !record.deadline().is_over(now) {
            return Ok(());
        }
        let Some(table) = self.tables.get(record.table()) else { return Ok(()) };
        let hash = self.hasher.hash(record.key());
        self.tuning.pass(Moment::LargeRead);
        with_encoded(|encoded| {
            encoded.push(Label::of(record.table()), Kind::Remove, record.key(), &[]);
            // The removal is kept whatever the segment: which one is the oldest changes meanwhile.
            match self.retry(|| self.expire_record(&table, &record, hash, address, true, encoded)) {
                // Whoever drops it frees the value.
                Err(Error::TableDropped { .. }) => Ok(()),
                freed => freed.map(|_| ()),
            }
        })
    }

    /// Reads a segment of an opened store for links that expire. One that cannot be read tells no more; its evacuation meets the
    /// error.
    fn find_expiring_large(&self, sequence: u32) {
        let Some(segment) = self.log.segment(sequence) else { return };
        let records = SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + self.log.record_bytes(&segment);
        let found = |record: &Record<'_>, address: Address| {
            let linked = |link| Linked { link, deadline: record.deadline(), address };
            record.blob_link().map(linked).into_iter().for_each(|linked| self.log.found_large(linked));
        };
        let is_link = |record: &Record<'_>| record.header.kind == Kind::PutBlob;
        let _ = self.each_expiring(segment.slot, records, usize::MAX, is_link, found);
    }
}
