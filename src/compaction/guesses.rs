//! Reading the deadlines of segments that were there when the store was opened.
//!
//! A checkpoint keeps little of a segment's deadlines, so the log guesses after an open (log/deadlines.rs), and a few late ones
//! hide what has expired. Then the segment is read, once, a part at a time: the headers of its records, and of those with a
//! deadline the key. A record counts if a slot names it. It is looked up under its key's stripe, as it is superseded, so that
//! none is counted that is dead, and each is taken out that dies later.
//!
//! `compact` reads each segment of which the first deadline has passed. The background job does so only if what the guesses may
//! hide would bring the log over its bound: where deadlines lie close together, a guess is good enough.

use super::compactor::Compactor;
use super::online::Outcome;
use crate::address::Address;
use crate::engine::Engine;
use crate::error::Result;
use crate::log::deadlines::Reading;
use crate::log::record::{Invalid, Record};
use crate::log::segments::Log;

/// Records that are read at a time.
const PART_RECORDS: usize = 4096;

impl Compactor {
    /// True if reading segments could show that a quiet store has more than it should.
    pub(super) fn is_worth_reading(&self, log: &Log) -> bool {
        let hidden = log.doubtful_bytes();
        hidden > 0 && self.is_over(log, hidden)
    }
}

impl Engine {
    /// Reads a part of a segment whose guess may hide what has expired: of the one that may hide most.
    pub(super) fn read_deadlines(&self) -> Outcome {
        let doubtful = self.log.doubtful_deadlines();
        let Some(&(slot, _)) = doubtful.iter().max_by_key(|&&(_, bytes)| bytes) else { return Outcome::Nothing };
        // Another thread has just begun.
        let Some((at, end)) = self.log.begin_reading(slot) else { return Outcome::Others };
        // Whoever needs what cannot be read meets the error.
        let reading = self.read_part(slot, at, end).unwrap_or(Reading::Failed);
        self.log.end_reading(slot, reading);
        Outcome::Made
    }

    fn read_part(&self, slot: u32, mut at: u64, end: u64) -> Result<Reading> {
        let start = Address::new(slot, at);
        let pinned = self.log.pin(start).ok_or_else(|| self.log.invalid_record(start, Invalid::Beyond))?;
        for _ in 0..PART_RECORDS {
            if at >= end {
                return Ok(Reading::Whole);
            }
            let address = Address::new(slot, at);
            let record = Record::at(&pinned, at).map_err(|why| self.log.invalid_record(address, why))?;
            at += record.header.total();
            if !record.header.expires() {
                continue;
            }
            let hash = self.hasher.hash(record.key());
            let edit = self.table.edit(hash)?;
            if edit.find_address(hash, Some(address)).slot().is_some() {
                self.log.found_deadline(slot, at, record.deadline(), record.header.total());
            }
        }
        Ok(Reading::Part(at))
    }
}
