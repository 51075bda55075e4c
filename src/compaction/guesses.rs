//! Reading the deadlines of segments that were there when the store was opened.
//!
//! A checkpoint keeps little of a segment's deadlines, so the log guesses after an open (log/deadlines.rs), and a few late ones
//! hide what has expired. Then the segment is read, once, a part at a time: the headers of its records, and of those with a
//! deadline the key. A record counts if a slot names it. It is looked up under its key's stripe, as it is superseded, so that
//! none is counted that is dead, and each is taken out that dies later.
//!
//! `compact` reads each segment of which the first deadline has passed. The background job does so only if what the guesses may
//! hide would bring the log over its bound: where deadlines lie close together, a guess is good enough.

use std::ops::Range;

use super::compactor::Compactor;
use super::online::Outcome;
use crate::address::Address;
use crate::engine::Engine;
use crate::error::{Nature, Result};
use crate::log::deadlines::Reading;
use crate::log::record::{Invalid, Record};
use crate::log::segments::Log;
use crate::mutant::{Mutant, broken};
use crate::sync::Moment;

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
        let found = |record: &Record<'_>, address: Address| {
            let bytes = record.header.total();
            self.log.found_deadline(slot, address.offset() + bytes, record.deadline(), bytes);
        };
        // Whoever needs what cannot be read meets the error.
        let reading = self.each_expiring(slot, at..end, PART_RECORDS, |_| true, found).unwrap_or(Reading::Failed);
        self.log.end_reading(slot, reading);
        Outcome::Made
    }

    /// Reads up to `most` records of a part of a segment. Calls `each` with those that have a deadline, are `wanted`, and that a
    /// slot names, under the stripe of the key: what is superseded meanwhile is superseded before or after the call. A record
    /// whose page of the index is damaged is passed over.
    ///
    /// # Errors
    /// `Corrupt` if a record cannot be read; errors of the moment.
    pub(super) fn each_expiring(
        &self,
        slot: u32,
        part: Range<u64>,
        most: usize,
        wanted: impl Fn(&Record<'_>) -> bool,
        each: impl Fn(&Record<'_>, Address),
    ) -> Result<Reading> {
        let (start, mut at) = (Address::new(slot, part.start), part.start);
        let pinned = self.log.pin(start).ok_or_else(|| self.log.invalid_record(start, Invalid::Beyond))?;
        for _ in 0..most {
            if at >= part.end {
                return Ok(Reading::Whole);
            }
            let address = Address::new(slot, at);
            let record = Record::at(&pinned, at).map_err(|why| self.log.invalid_record(address, why))?;
            at += record.header.total();
            if !record.header.expires() || !wanted(&record) {
                continue;
            }
            let Some(table) = self.tables.get(record.table()) else { continue };
            let hash = self.hasher.hash(record.key());
            self.tuning.pass(Moment::DeadlineRead);
            let edit = match table.edit(hash) {
                Err(_) if table.is_dropped() => continue,
                // No change mends a page: its records are counted no more.
                Err(error) if error.nature() == Nature::Damage => continue,
                other => other?,
            };
            if edit.find_address(hash, Some(address)).slot().is_some() || broken(Mutant::DeadlinesBlindly) {
                each(&record, address);
            }
        }
        Ok(Reading::Part(at))
    }
}
