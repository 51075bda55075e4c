//! Reading a segment's records in order, live or not, and the slots that point to them beside.
//!
//! Every record begins where the one before ends, so one scan finds both: bytes that are no record, and slots
//! that point elsewhere than to a record's beginning. After a record that does not validate the scan goes on at
//! the next slot's address, or behind the record if its length is right.

use std::iter::Peekable;
use std::slice::Iter;

use super::kind;
use super::records::RecordCheck;
use super::segments::Known;
use super::sink::{Input, Sink};
use super::slots::LiveSlot;
use super::unnamed::Unnamed;
use crate::address::Lsn;
use crate::error::{Location, Result};
use crate::log::reader::{PreadSource, RecordSource};
use crate::log::record::{Invalid, Kind, Record};
use crate::sys::{Disk, PAGE_BYTES};
use crate::table_id::TableId;

/// Bytes that are read between two looks at the progress.
const STEP_BYTES: u64 = 1 << 20;

/// The scan of one segment.
pub(super) struct Scan<'s, 'c, 'u, 'p, 'q> {
    pub(super) known: &'s mut Known,
    pub(super) check: &'s mut RecordCheck<'c>,
    pub(super) unnamed: &'s mut Unnamed<'u>,
    /// Expired records were removed from the index up to this moment.
    pub(super) swept: u64,
    pub(super) sink: &'s mut Sink<'p>,
    /// The slots that point into the part that is scanned, sorted.
    pub(super) slots: &'s mut Peekable<Iter<'q, LiveSlot>>,
}

impl Scan<'_, '_, '_, '_, '_> {
    /// Reads records from where the last scan ended up to `upto`, at most to the segment's end. False if it is to be
    /// called again, once what it collected is dealt with.
    pub(super) fn run(&mut self, disk: &dyn Disk, upto: u64) -> Result<bool> {
        let end = self.known.entry.end;
        let upto = upto.min(end);
        if !self.known.exists {
            return Ok(true);
        }
        let input = match Input::open(disk, &self.known.path)? {
            Ok(input) => input,
            Err(error) => {
                self.sink.damage(kind::UNREADABLE, Location::file(&self.known.path), "a readable file", error);
                self.known.set_damaged(u64::MAX);
                return Ok(true);
            }
        };
        let len = input.len.min(end);
        let mut source = PreadSource::new(input.file, len);
        if self.known.lost {
            self.known.at = self.next_slot(self.known.at).unwrap_or(upto);
        }
        let mut told = self.known.at;
        while self.known.at < upto {
            let at = self.known.at;
            self.no_record_before(at);
            match source.record(at, end, self.known.entry.salt) {
                Ok(record) => {
                    self.known.lost = false;
                    self.record(at, &record);
                }
                Err(_) if at >= len => {
                    // The file is too short, which is a finding of its own.
                    self.known.set_damaged(u64::MAX);
                    return Ok(true);
                }
                Err(why) => {
                    // The cause first: whoever takes one finding for all takes the first.
                    self.unreadable(&mut source);
                    self.resume(&mut source, at, upto, why);
                }
            }
            self.unreadable(&mut source);
            if self.known.at >= told + STEP_BYTES {
                told = self.known.at;
                self.sink.advance(source.take_bytes_read())?;
            }
            if self.unnamed.is_full() {
                self.sink.advance(source.take_bytes_read())?;
                return Ok(false);
            }
        }
        self.no_record_before(upto.min(self.known.at));
        self.sink.advance(source.take_bytes_read())?;
        Ok(true)
    }

    /// Reports the blocks that could not be read since the last call.
    fn unreadable(&mut self, source: &mut PreadSource) {
        for (at, error) in source.take_bad() {
            self.sink.unreadable(&self.known.path, at, &error);
            self.known.set_damaged(at + PAGE_BYTES as u64);
        }
    }

    /// Slots before an offset at which a record begins: they point into the middle of the one before.
    fn no_record_before(&mut self, at: u64) {
        let lost = self.known.lost;
        while let Some(slot) = self.slots.next_if(|slot| slot.address().offset() < at) {
            if !lost {
                self.sink.table = slot.table();
                let location = slot.spot.location(self.check.index);
                self.sink.damage(
                    kind::SLOT_RECORD,
                    location,
                    "the address of a record",
                    format!("{:?}", slot.address()),
                );
            }
        }
        self.sink.table = 0;
    }

    /// The offset that the next slot at or behind an offset names.
    fn next_slot(&mut self, at: u64) -> Option<u64> {
        self.slots.clone().map(|slot| slot.address().offset()).find(|&offset| offset >= at)
    }

    /// A record that validates.
    fn record(&mut self, at: u64, record: &Record<'_>) {
        let bytes = record.header.total();
        let mut first: Option<&LiveSlot> = None;
        while let Some(slot) = self.slots.next_if(|slot| slot.address().offset() == at) {
            if let Some(first) = first {
                if !self.check.is_own(slot, record, self.sink) {
                    continue;
                }
                let found = format!("the address of page {} slot {}, too", first.spot.page(), first.spot.slot());
                self.sink.table = slot.table();
                self.sink.damage(
                    kind::SHARED_ADDRESS,
                    slot.spot.location(self.check.index),
                    "an address of its own",
                    found,
                );
                self.sink.table = 0;
                continue;
            }
            if self.check.check(slot, record, self.sink) {
                self.known.live_bytes += bytes;
            }
            first = Some(slot);
        }
        let lsn = Lsn::new(self.known.entry.sequence, at);
        let table = record.table();
        match record.header.kind {
            // Expired, and removed from the index without a record.
            Kind::Put | Kind::PutBlob if first.is_none() && !record.deadline().is_over(self.swept) => {
                self.unnamed.add(table, self.check.hasher.hash(record.key()), lsn);
            }
            Kind::Remove => self.unnamed.remove(table, self.check.hasher.hash(record.key()), lsn),
            Kind::Clear if table == TableId::MAIN => self.unnamed.clear(lsn),
            _ => {}
        }
        self.sink.report.log_records += 1;
        self.known.removals += u64::from(matches!(record.header.kind, Kind::Remove | Kind::Clear));
        self.known.at = at + bytes;
        self.frame(at, record);
    }

    /// Keeps count of the records of a batch.
    fn frame(&mut self, at: u64, record: &Record<'_>) {
        let next = self.known.at;
        let end = self.known.entry.end;
        if record.header.kind != Kind::Frame {
            let Some((left, frame_end)) = self.known.frame else { return };
            self.known.frame = Some((left - 1, frame_end)).filter(|&(left, _)| left > 0);
            if next > frame_end || (left == 1 && next != frame_end) {
                self.known.frame = None;
                let found = format!("a record that ends at byte {next}, with {} to come", left - 1);
                let expected = format!("a frame that ends at byte {frame_end}");
                self.sink.damage(kind::FRAME, Location::at(&self.known.path, at), expected, found);
            }
            return;
        }
        let nested = self.known.frame.take().is_some();
        let frame = record.frame().and_then(|(records, bytes)| {
            let frame_end = next.checked_add(bytes).filter(|&frame_end| frame_end <= end)?;
            (!nested && (records > 0 || bytes == 0)).then_some((records, frame_end))
        });
        match frame {
            Some((records, frame_end)) => self.known.frame = Some((records, frame_end)).filter(|_| records > 0),
            None => {
                let found = format!("{:?}", record.frame());
                let expected = format!("a frame inside the {end} bytes of records, and in no other");
                self.sink.damage(kind::FRAME, Location::at(&self.known.path, at), expected, found);
            }
        }
    }

    /// A record that does not validate: reports it and finds where to go on.
    fn resume(&mut self, source: &mut PreadSource, at: u64, upto: u64, why: Invalid) {
        let len = source.len();
        self.known.frame = None;
        let slot = self.slots.peek().filter(|slot| slot.address().offset() == at);
        let (expected, found) = why.texts();
        let mut location = Location::at(&self.known.path, at);
        if let Some(slot) = slot {
            self.sink.table = slot.table();
            location = Location { page: Some(slot.spot.page()), ..location }.with_slot(slot.spot.slot());
        }
        self.sink.damage(kind::LOG_RECORD, location, expected, found);
        self.sink.table = 0;

        let behind = source.header_at(at).map(|header| at + header.total()).filter(|&behind| behind <= len);
        if let (Some(behind), Invalid::Checksum(..)) = (behind, why) {
            self.known.wasted += behind - at;
        }
        if self.known.wasted > 4 * len + (64 << 20) {
            // Lengths that were made up to keep us reading.
            let found = "too many bytes that belong to no record";
            self.sink.damage(kind::LOG_RECORD, Location::at(&self.known.path, at), "records", found);
            self.known.exists = false;
            self.known.at = upto;
            self.known.set_damaged(u64::MAX);
            return;
        }
        let next_slot = self.next_slot(at + 1).filter(|&next| next < upto);
        let (end, salt) = (self.known.entry.end, self.known.entry.salt);
        let follows = behind
            .filter(|&behind| next_slot.is_none_or(|next| next >= behind))
            .filter(|&behind| behind == end || source.record(behind, end, salt).is_ok());
        self.known.lost = follows.is_none();
        self.known.at = follows.or(next_slot).unwrap_or(upto);
        self.known.set_damaged(self.known.at);
        // The slot of this record, and none that lies further along.
        let next = self.known.at;
        while self.slots.next_if(|slot| slot.address().offset() == at && at < next).is_some() {}
    }
}
