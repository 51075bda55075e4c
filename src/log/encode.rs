//! Records on their way into the log: encoded without a lock, one behind the other, and put where they are appended.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::ops::Range;

use super::record::{
    ALIGN, ALIGNED_BIT, CRC_BYTES, DEADLINE_BIT, FRAME_BYTES, Header, Kind, LARGE_BIT, Label, MARK_BYTES, MARK_MAGIC,
    Record, SMALL, TABLE_BIT, VALUE_ALIGN,
};
use crate::address::Lsn;
use crate::checksum::{crc32, record_mask};
use crate::expiry::Deadline;
use crate::table_id::TableId;

/// Records that wait to be appended to the log. Their checksums are computed when they are added; only the mask of
/// salt and offset comes in when they are copied there.
///
/// Where an aligned value lies in its record depends on the offset, so both places have a checksum. Here it lies as at a multiple
/// of 16.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    records: u64,
    expires: bool,
    /// Of each record with an aligned value, in their order: the checksum eight bytes behind a multiple of 16.
    crcs_at_eight: Vec<u32>,
}

/// Where a record lies that has not been appended.
const UNPLACED: u64 = 0;
const ZEROES: [u8; VALUE_ALIGN + ALIGN as usize] = [0; VALUE_ALIGN + ALIGN as usize];

impl Encoded {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.expires = false;
        self.crcs_at_eight.clear();
    }

    /// Bytes of all records.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The deadline of the only record.
    #[inline]
    pub(crate) fn deadline(&self) -> Deadline {
        if !self.expires {
            return Deadline::NEVER;
        }
        self.record(0).map_or(Deadline::NEVER, |record| record.deadline())
    }

    /// True if some of the records have a deadline.
    pub(crate) fn expires(&self) -> bool {
        self.expires
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of memory that the buffer holds on to.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds a record; returns where it starts. Only a put can have a deadline.
    #[inline]
    pub(crate) fn push(&mut self, label: Label, kind: Kind, key: &[u8], value: &[u8]) -> u64 {
        let Label { table, deadline, .. } = label;
        let (of_main, aligned) = (table == TableId::MAIN, label.aligned && kind == Kind::Put);
        let bits = if of_main { 0 } else { TABLE_BIT } | if deadline == Deadline::NEVER { 0 } else { DEADLINE_BIT };
        let byte = kind as u8 | bits | if aligned { ALIGNED_BIT } else { 0 };
        let start = self.bytes.len();
        self.records += 1;
        self.expires |= deadline != Deadline::NEVER;
        let small = key.len() <= usize::from(u8::MAX) && value.len() <= usize::from(u16::MAX);
        if small {
            let word = u64::from(byte) << 32 | (key.len() as u64) << 40 | (value.len() as u64) << 48;
            self.bytes.extend_from_slice(&word.to_le_bytes());
        } else {
            let word = u64::from(byte | LARGE_BIT) << 32 | (key.len() as u64) << 48;
            self.bytes.extend_from_slice(&word.to_le_bytes());
            self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
        if !of_main {
            self.bytes.extend_from_slice(&table.raw().to_le_bytes());
        }
        if let Some(millis) = deadline.millis() {
            self.bytes.extend_from_slice(&millis.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
        if aligned {
            self.bytes.resize(start + self.header(start).map_or(0, |header| header.value_start()), 0);
        }
        self.bytes.extend_from_slice(value);
        let (_, record) = self.bytes.split_at_mut(start);
        if let Some((front, rest)) = record.split_first_chunk_mut::<CRC_BYTES>() {
            *front = crc32(rest).to_le_bytes();
        }
        debug_assert!(
            Record::decode(record, UNPLACED).is_ok_and(|read| {
                let label = Label { aligned, ..label };
                (read.header.kind, read.label(), read.key(), read.value()) == (kind, label, key, value)
            }),
            "a record that no reader accepts"
        );
        let padded = match aligned.then(|| self.note_at_eight(start)).flatten() {
            Some(total) => start + total,
            None => self.bytes.len().next_multiple_of(ALIGN as usize),
        };
        self.bytes.resize(padded, 0);
        start as u64
    }

    /// Notes the other checksum of the last record, whose value is aligned. Returns its bytes up to the next one.
    #[cold]
    fn note_at_eight(&mut self, start: usize) -> Option<usize> {
        let header = self.header(start)?;
        let [front, before, value, _] = at_eight(header, self.bytes.get(start..)?);
        let mut crc = crc32fast::Hasher::new();
        [front, before, value].iter().for_each(|part| crc.update(part));
        self.crcs_at_eight.push(crc.finalize());
        Some(header.total() as usize)
    }

    fn header(&self, start: usize) -> Option<Header> {
        Header::decode(self.bytes.get(start..)?, UNPLACED)
    }

    /// The record that starts there; `None` after the last. Its checksum has no mask yet.
    #[inline]
    pub(crate) fn record(&self, start: u64) -> Option<Record<'_>> {
        Record::decode(self.bytes.get(start as usize..)?, UNPLACED).ok()
    }

    /// All records, and where they start.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Record<'_>)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let (start, record) = (next, self.record(next)?);
            next += record.header.total();
            Some((start, record))
        })
    }

    /// The records, each for itself.
    #[inline]
    pub(crate) fn singles(&self) -> Entry<'_> {
        Entry { frame: None, encoded: self }
    }

    /// The records, as one frame.
    pub(crate) fn framed(&self) -> Entry<'_> {
        let mut frame = [0; FRAME_BYTES];
        frame[4] = Kind::Frame as u8;
        frame[6] = 16;
        frame[SMALL..SMALL + 8].copy_from_slice(&self.records.to_le_bytes());
        frame[SMALL + 8..].copy_from_slice(&self.len().to_le_bytes());
        Entry { frame: Some(frame), encoded: self }
    }
}

/// What is appended in one go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'e> {
    /// The header of a frame, without its checksum.
    frame: Option<[u8; FRAME_BYTES]>,
    encoded: &'e Encoded,
}

impl Entry<'_> {
    /// Bytes in the log.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.encoded.len() + self.frame.map_or(0, |_| FRAME_BYTES as u64)
    }

    /// The kind of the first record.
    #[inline]
    pub(crate) fn first_kind(&self) -> Option<Kind> {
        match self.frame {
            Some(_) => Some(Kind::Frame),
            None => Kind::read(*self.encoded.bytes.get(4)?),
        }
    }

    /// Passes the bytes on, piece by piece, as they stand at an offset of a segment with that salt.
    #[inline]
    pub(crate) fn put_at(&self, salt: u64, offset: u64, mut put: impl FnMut(&[u8])) {
        let mut offset = offset;
        if let Some(mut frame) = self.frame {
            let crc = crc32(&frame[CRC_BYTES..]) ^ record_mask(salt, offset);
            frame[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
            put(&frame);
            offset += FRAME_BYTES as u64;
        }
        let mut crcs_at_eight = self.encoded.crcs_at_eight.iter();
        let mut rest = &self.encoded.bytes[..];
        while let Some(header) = Header::decode(rest, UNPLACED) {
            let (record, next) = rest.split_at(header.total() as usize);
            let other = if header.is_aligned() { crcs_at_eight.next() } else { None };
            match other.filter(|_| !offset.is_multiple_of(VALUE_ALIGN as u64)) {
                Some(crc) => {
                    put(&(crc ^ record_mask(salt, offset)).to_le_bytes());
                    at_eight(header, record).into_iter().for_each(&mut put);
                }
                None => {
                    put(&(header.crc ^ record_mask(salt, offset)).to_le_bytes());
                    put(record.split_at(CRC_BYTES).1);
                }
            }
            offset += header.total();
            rest = next;
        }
        debug_assert!(rest.is_empty(), "bytes that are no record among records");
    }
}

/// The bytes behind the checksum of a record with an aligned value, as they stand eight bytes behind a multiple of 16: to the key's
/// end, zeroes, the value, zeroes.
fn at_eight(header: Header, record: &[u8]) -> [&[u8]; 4] {
    let there = header.moved_to(8);
    let key_end = header.key_range().end;
    let part = |range: Range<usize>| record.get(range).unwrap_or_default();
    let zeroes = |count: usize| ZEROES.split_at(count).0;
    let (front, value) = (part(CRC_BYTES..key_end), part(header.value_start()..header.len()));
    [front, zeroes(there.value_start() - key_end), value, zeroes(header.total() as usize - there.len())]
}

/// The bytes of a sync mark at an offset of a segment with that salt.
pub(super) fn encode_mark(durable_lsn: Lsn, salt: u64, offset: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[4] = Kind::Mark as u8;
    bytes[6] = 16;
    bytes[8..16].copy_from_slice(&MARK_MAGIC.to_le_bytes());
    bytes[16..].copy_from_slice(&durable_lsn.raw().to_le_bytes());
    let crc = crc32(&bytes[4..]) ^ record_mask(salt, offset);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}
