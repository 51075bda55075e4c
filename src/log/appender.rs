//! The active segment, and those that wait to become it.

use std::sync::Arc;
use std::time::Duration;

use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use super::sizes::SEGMENT_BYTES_FIRST;
use crate::address::{Address, Lsn};
use crate::checksum::Uuid;
use crate::sync::Instant;
use crate::sys::{LogMap, LogWriter};

/// The active segment and its writer.
#[derive(Debug)]
pub(super) struct Appender {
    pub(crate) segment: Arc<Segment>,
    pub(super) writer: LogWriter,
    /// The durable LSN of the last mark or segment header.
    pub(super) marked: Lsn,
    /// Bytes appended since the store was opened.
    pub(super) total: u64,
    /// When the segment became the active one.
    since: Instant,
    /// The segment before was full in a hurry: two are prepared ahead.
    hurried: bool,
}

/// A segment that is full before this has passed was written in a hurry, and so was one that was written at this rate. Of a
/// segment that is smaller than the usual first one, a part of the time counts.
const HURRY: Duration = Duration::from_millis(500);
const HURRY_BYTES_PER_SECOND: f64 = 64e6;

/// Where a record or frame was put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) address: Address,
    /// The first LSN after it.
    pub(crate) end: Lsn,
    /// Bytes appended since the store was opened.
    pub(crate) total: u64,
    /// The next segment should be prepared.
    pub(crate) running_low: bool,
}

impl Appender {
    pub(crate) fn new(segment: Arc<Segment>, writer: LogWriter, marked: Lsn) -> Self {
        Appender { segment, writer, marked, total: 0, since: Instant::now(), hurried: false }
    }

    /// Goes on in the next segment. The rate at which this one was filled says how many are prepared ahead.
    pub(super) fn go_on_in(&mut self, segment: Arc<Segment>, writer: LogWriter, marked: Lsn) {
        let (total, taken) = (self.total, self.since.elapsed());
        let rate = self.writer.position() as f64 / taken.as_secs_f64();
        let size = self.segment.capacity() as f64 / SEGMENT_BYTES_FIRST as f64;
        let hurried = taken < HURRY.mul_f64(size.min(1.0)) || rate > HURRY_BYTES_PER_SECOND;
        *self = Appender { total, hurried, ..Appender::new(segment, writer, marked) };
    }

    /// The LSN of the next record.
    pub(crate) fn lsn(&self) -> Lsn {
        Lsn::new(self.segment.sequence, self.writer.position())
    }

    /// Bytes appended since the store was opened.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// True if the segment before was full in a hurry.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// The mapping, and where the next record goes.
    pub(crate) fn ahead(&self) -> (Arc<LogMap>, u64) {
        (Arc::clone(self.writer.map()), self.writer.position())
    }

    /// Bytes left in the segment.
    pub(crate) fn room(&self) -> u64 {
        self.writer.room()
    }

    /// How many segments should be prepared: one when half of this one is used, two in a hurry.
    pub(super) fn segments_ahead(&self) -> u32 {
        if self.hurried { 2 } else { u32::from(self.writer.room() * 2 < self.segment.capacity()) }
    }

    pub(super) fn write_header(&mut self, uuid: Uuid, predecessor: u32, predecessor_end: u64, durable_lsn: Lsn) {
        debug_assert_eq!(self.writer.position(), 0);
        let header = SegmentHeader {
            uuid,
            sequence: self.segment.sequence,
            salt: self.segment.salt,
            predecessor,
            predecessor_end,
            durable_lsn,
            slot: self.segment.slot,
            bulk: self.segment.bulk,
        };
        self.writer.put(&header.encode());
        debug_assert_eq!(self.writer.position(), SEGMENT_HEADER_BYTES);
        self.writer.publish();
    }
}

/// A segment that waits to become the active one.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) segment: Arc<Segment>,
    pub(crate) writer: LogWriter,
    /// It was made for a frame, which it holds already (frame.rs): nothing else may go into it before.
    pub(super) has_frame: bool,
}

impl Prepared {
    /// True if records or a frame of so many bytes can go into it.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        !self.has_frame && self.writer.room() >= bytes + SEGMENT_HEADER_BYTES
    }
}
