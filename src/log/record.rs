//! One record of the log.
//!
//! ```text
//! small header (8 bytes)                 large header (16 bytes)
//!  0  crc32                               0  crc32
//!  4  kind 8                              4  kind 8 | 0x80
//!  5  key length 8                        5  zero 8
//!  6  value length 16                     6  key length 16
//!                                         8  value length 32
//!                                        12  zero 32
//! then the table id (32), if bit 4 of the kind is set, the deadline (64), if bit 3 is set, key, value, and zero bytes up to a
//! multiple of 8; of an aligned value (bit 5) zero bytes before it, up to a multiple of 16 of the file, and behind it
//! ```
//!
//! The crc covers everything after itself up to the end of the value, XORed with a mask of the segment's salt
//! and the record's offset. Bit 7 of the kind says "large header", bit 3 of a put
//! "has a deadline": milliseconds since 1970, from which on the record is expired. Bit 4 of a put or a removal says
//! "of another table than the main one". Bit 5 of a put says "the value begins at a multiple of 16 bytes of the file". Where that is
//! depends on where the record begins, and how long the record is does not: what is not needed before the value lies behind it.
//! Bit 6 is kept for compression; a record that has it set is not valid in this version.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::ops::Range;

use crate::address::Lsn;
use crate::checksum::{crc32, record_mask};
use crate::error::{Error, Result};
use crate::expiry::Deadline;
use crate::layout::BLOB_IDS;
use crate::sys::LogMap;
use crate::table_id::TableId;

/// The longest key in bytes.
pub(super) const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// The longest value in bytes.
pub(super) const VALUE_BYTES_MAX: usize = u32::MAX as usize;
/// Records start at multiples of this.
pub(crate) const ALIGN: u64 = 8;
pub(super) const SMALL: usize = 8;
const LARGE: usize = 16;
/// The longest header in bytes, without table id and deadline.
pub(super) const HEADER_BYTES_MAX: usize = LARGE;
/// Bytes of a table id, which follows the header.
pub(super) const TABLE_BYTES: usize = 4;
pub(super) const TABLE_BIT: u8 = 0x10;
/// Bytes of a deadline, which follows header and table id.
pub(super) const DEADLINE_BYTES: usize = 8;
pub(super) const DEADLINE_BIT: u8 = 0x08;
/// The value begins at a multiple of [`VALUE_ALIGN`].
pub(super) const ALIGNED_BIT: u8 = 0x20;
/// Where aligned values begin.
pub(super) const VALUE_ALIGN: usize = 16;
/// Bytes of the checksum at the front of a record.
pub(super) const CRC_BYTES: usize = 4;
pub(super) const LARGE_BIT: u8 = 0x80;
/// What makes a sync mark recognizable when the log is searched for one.
pub(super) const MARK_MAGIC: u64 = u64::from_le_bytes(*b"tophMARK");
/// Bytes of a sync mark.
pub(super) const MARK_BYTES: usize = SMALL + 16;
/// Bytes of a clear-record of the main table.
pub(crate) const CLEAR_BYTES: u64 = SMALL as u64;
/// Bytes of a frame's header.
pub(crate) const FRAME_BYTES: usize = SMALL + 16;

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Key and value.
    Put = 1,
    /// The key was removed.
    Remove = 2,
    /// Everything was removed.
    Clear = 3,
    /// The next records count as one: number of records, bytes.
    Frame = 4,
    /// Everything below an LSN was durable when this was written.
    Mark = 5,
    /// Key, and the link to a value in a blob file.
    PutBlob = 6,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Put,
            2 => Kind::Remove,
            3 => Kind::Clear,
            4 => Kind::Frame,
            5 => Kind::Mark,
            6 => Kind::PutBlob,
            _ => return None,
        })
    }
}

impl Kind {
    /// Reads the kind byte. `None` if it is that of no record.
    #[inline]
    pub(super) fn read(byte: u8) -> Option<Kind> {
        let kind = Kind::from_byte(byte & !(LARGE_BIT | DEADLINE_BIT | TABLE_BIT | ALIGNED_BIT))?;
        let puts = matches!(kind, Kind::Put | Kind::PutBlob);
        // A clear-record speaks of the main table. The catalog says when another one was cleared.
        let of_a_table = puts || kind == Kind::Remove;
        let fits = (puts || byte & DEADLINE_BIT == 0) && (of_a_table || byte & TABLE_BIT == 0);
        // A link to a large value needs no place of its own.
        (fits && (kind == Kind::Put || byte & ALIGNED_BIT == 0)).then_some(kind)
    }
}

/// What a record says besides kind, key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Label {
    /// The table whose key it is.
    pub(crate) table: TableId,
    /// From when on it is expired. Only a put can be.
    pub(crate) deadline: Deadline,
    /// Its value begins at a multiple of 16 bytes of the file. Only that of a put can.
    pub(crate) aligned: bool,
}

impl Label {
    /// Of a record without a deadline, whose value can begin anywhere.
    pub(crate) const fn of(table: TableId) -> Self {
        Label { table, deadline: Deadline::NEVER, aligned: false }
    }

    /// The same for a value that begins at a multiple of 16 bytes of the file, or anywhere.
    pub(crate) fn aligned(self, aligned: bool) -> Self {
        Label { aligned, ..self }
    }

    /// The same with a deadline.
    pub(crate) fn until(self, deadline: Deadline) -> Self {
        Label { deadline, ..self }
    }
}

/// In [`Header::front`].
const EXPIRES: u8 = 0x80;
const TABLED: u8 = 0x40;
const ALIGNED: u8 = 0x20;
/// The record begins eight bytes behind a multiple of 16. Only noted of aligned ones.
const AT_EIGHT: u8 = 0x10;
const WORDS: u8 = 0x0f;

/// [`AT_EIGHT`] for a record at that offset, a multiple of [`ALIGN`].
#[inline]
fn place(offset: u64) -> u8 {
    if offset.is_multiple_of(VALUE_ALIGN as u64) { 0 } else { AT_EIGHT }
}

/// A decoded header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    // Small, because a lookup carries it along: four flags, and the bytes before the key, which count table id and deadline, in words
    // of four bytes.
    front: u8,
    key_len: u16,
    pub(super) crc: u32,
    value_len: u32,
}

impl Header {
    /// Decodes the header at the front of `bytes`, which stand at an offset of the file; `None` if there is no valid one.
    #[inline]
    pub(crate) fn decode(bytes: &[u8], offset: u64) -> Option<Header> {
        let small: &[u8; SMALL] = bytes.first_chunk()?;
        let word = u64::from_le_bytes(*small);
        let crc = word as u32;
        let kind = (word >> 32) as u8;
        let kind_of = Kind::read(kind)?;
        let deadline = if kind & DEADLINE_BIT != 0 { EXPIRES | (DEADLINE_BYTES as u8 / 4) } else { 0 };
        let table = if kind & TABLE_BIT != 0 { TABLED | (TABLE_BYTES as u8 / 4) } else { 0 };
        let aligned = if kind & ALIGNED_BIT != 0 { ALIGNED | place(offset) } else { 0 };
        let front = |bytes: usize| (bytes as u8 / 4 + deadline + table) | aligned;
        if kind & LARGE_BIT == 0 {
            let (key_len, value_len) = ((word >> 40 & 0xff) as u16, (word >> 48) as u32);
            return Some(Header { kind: kind_of, crc, front: front(SMALL), key_len, value_len });
        }
        let large: &[u8; LARGE] = bytes.first_chunk()?;
        let lengths = u64::from_le_bytes(*large.last_chunk()?);
        let zero = word >> 40 & 0xff == 0 && lengths >> 32 == 0;
        let (key_len, value_len) = ((word >> 48) as u16, lengths as u32);
        zero.then_some(Header { kind: kind_of, crc, front: front(LARGE), key_len, value_len })
    }

    /// That of the same record at another offset.
    #[inline]
    pub(super) fn moved_to(self, offset: u64) -> Header {
        if self.is_aligned() { Header { front: self.front & !AT_EIGHT | place(offset), ..self } } else { self }
    }

    /// True if the record has a deadline.
    #[inline]
    pub(crate) fn expires(&self) -> bool {
        self.front & EXPIRES != 0
    }

    /// True if the value begins at a multiple of [`VALUE_ALIGN`] of the file.
    #[inline]
    pub(super) fn is_aligned(&self) -> bool {
        self.front & ALIGNED != 0
    }

    /// Bytes before the key.
    #[inline]
    fn key_start(&self) -> usize {
        usize::from(self.front & WORDS) * 4
    }

    /// Bytes before the deadline, or before the key if there is none.
    fn deadline_start(&self) -> usize {
        self.key_start() - if self.expires() { DEADLINE_BYTES } else { 0 }
    }

    /// The table that the bytes of the record name.
    pub(super) fn table(&self, bytes: &[u8]) -> TableId {
        if self.front & TABLED == 0 {
            return TableId::MAIN;
        }
        let end = self.deadline_start();
        let id = bytes.get(end - TABLE_BYTES..end).and_then(|id| id.first_chunk());
        TableId::from_raw(u32::from_le_bytes(id.copied().unwrap_or_default()))
    }

    /// Bytes up to the end of the value.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.value_start() + self.value_len as usize
    }

    /// Bytes up to the next record. Those of an aligned value do not depend on where it lies.
    #[inline]
    pub(crate) fn total(&self) -> u64 {
        let before = if self.is_aligned() { self.key_end().next_multiple_of(8) + 8 } else { self.key_end() };
        ((before + self.value_len as usize) as u64).next_multiple_of(ALIGN)
    }

    #[inline]
    fn key_end(&self) -> usize {
        self.key_start() + usize::from(self.key_len)
    }

    /// Bytes before the value.
    #[inline]
    pub(crate) fn value_start(&self) -> usize {
        if !self.is_aligned() {
            return self.key_end();
        }
        let before = if self.front & AT_EIGHT != 0 { VALUE_ALIGN / 2 } else { 0 };
        (before + self.key_end()).next_multiple_of(VALUE_ALIGN) - before
    }

    /// Where the key lies in the record.
    #[inline]
    pub(crate) fn key_range(&self) -> Range<usize> {
        self.key_start()..self.key_end()
    }

    /// Compares the crc with that of the record's bytes (all but the first [`CRC_BYTES`]).
    #[inline]
    pub(crate) fn check(&self, crc: u32, salt: u64, offset: u64) -> std::result::Result<(), Invalid> {
        let expected = crc ^ record_mask(salt, offset);
        if expected == self.crc { Ok(()) } else { Err(Invalid::Checksum(expected, self.crc)) }
    }
}

/// A record in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    bytes: &'a [u8],
}

/// Why the bytes at an address are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalid {
    /// The address, or the end that the header tells, lies beyond the written part.
    Beyond,
    /// There is no record header.
    Header,
    /// The checksum differs: expected (by the bytes), found (in the header).
    Checksum(u32, u32),
}

impl Invalid {
    /// The two halves of an error message: expected, found.
    pub(crate) fn texts(self) -> (String, String) {
        match self {
            Invalid::Beyond => ("a record inside the segment".into(), "a length or address beyond its end".into()),
            Invalid::Header => ("a record header".into(), "other bytes".into()),
            Invalid::Checksum(expected, found) => (format!("crc {expected:#010x}"), format!("crc {found:#010x}")),
        }
    }
}

impl<'a> Record<'a> {
    /// The record at an offset of a mapping. Does not compare the checksum.
    #[inline]
    pub(crate) fn at(map: &'a LogMap, offset: u64) -> std::result::Result<Record<'a>, Invalid> {
        // A large header can lie at the very end only if its record is there too.
        let front = map.read(offset, LARGE as u64).or_else(|| map.read(offset, SMALL as u64)).ok_or(Invalid::Beyond)?;
        let header = Header::decode(front, offset).ok_or(Invalid::Header)?;
        let bytes = map.read(offset, header.len() as u64).ok_or(Invalid::Beyond)?;
        Ok(Record { header, bytes })
    }

    /// The record at the front of `bytes`, which may hold more, and stand at an offset of the file. Does not compare the checksum.
    pub(crate) fn decode(bytes: &'a [u8], offset: u64) -> std::result::Result<Record<'a>, Invalid> {
        let header = Header::decode(bytes, offset).ok_or(Invalid::Header)?;
        Ok(Record { header, bytes: bytes.get(..header.len()).ok_or(Invalid::Beyond)? })
    }

    /// The record at the front of `bytes`, which hold its key and need not hold all of its value: the value is
    /// cut off where they end. For records too long to be held in memory, checked by other means.
    pub(super) fn clipped(header: Header, bytes: &'a [u8]) -> Option<Record<'a>> {
        let bytes = bytes.get(..header.len().min(bytes.len()))?;
        (bytes.len() >= header.value_start()).then_some(Record { header, bytes })
    }

    /// Compares the checksum.
    #[inline]
    pub(crate) fn check(&self, salt: u64, offset: u64) -> std::result::Result<(), Invalid> {
        self.header.check(crc32(self.part(CRC_BYTES..self.bytes.len())), salt, offset)
    }

    /// True if a part of the value is cut off.
    pub(crate) fn is_clipped(&self) -> bool {
        self.bytes.len() < self.header.len()
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        self.part(self.header.key_range())
    }

    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        self.part(self.header.value_start()..self.bytes.len())
    }

    /// The link, if the value is in a blob file.
    pub(crate) fn blob_link(&self) -> Option<BlobLink> {
        (self.header.kind == Kind::PutBlob).then(|| BlobLink::decode(self.value())).flatten()
    }

    /// From when on the record is expired.
    pub(crate) fn deadline(&self) -> Deadline {
        if !self.header.expires() {
            return Deadline::NEVER;
        }
        let bytes = self.part(self.header.deadline_start()..self.header.key_start());
        Deadline::from_record(u64::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default()))
    }

    /// The table whose key it is.
    pub(crate) fn table(&self) -> TableId {
        self.header.table(self.bytes)
    }

    /// What it says besides kind, key and value.
    pub(crate) fn label(&self) -> Label {
        Label { table: self.table(), deadline: self.deadline(), aligned: self.header.is_aligned() }
    }

    /// A part of the record. Header and key are there, because each constructor has compared their lengths with the bytes.
    #[inline]
    fn part(&self, range: Range<usize>) -> &'a [u8] {
        debug_assert!(range.start <= range.end && range.end <= self.bytes.len(), "a record without all of its key");
        self.bytes.get(range).unwrap_or_default()
    }

    fn words(&self) -> Option<(u64, u64)> {
        let words = self.value().as_chunks::<8>().0;
        let &[first, second] = words else { return None };
        (self.header.key_len == 0 && self.value().len() == 16)
            .then(|| (u64::from_le_bytes(first), u64::from_le_bytes(second)))
    }

    /// A frame's number of records and their bytes.
    pub(crate) fn frame(&self) -> Option<(u64, u64)> {
        (self.header.kind == Kind::Frame).then(|| self.words())?
    }

    /// The LSN below which a mark declares everything durable.
    pub(crate) fn mark(&self) -> Option<Lsn> {
        let (magic, durable_lsn) = (self.header.kind == Kind::Mark).then(|| self.words())??;
        (magic == MARK_MAGIC).then_some(Lsn::from_raw(durable_lsn))
    }
}

/// A link to a blob, the value of a [`Kind::PutBlob`] record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlobLink {
    pub(crate) id: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

impl BlobLink {
    pub(crate) fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<BlobLink> {
        let &[id, len, rest] = bytes.as_chunks::<8>().0 else { return None };
        let rest = u64::from_le_bytes(rest);
        let link = BlobLink { id: u64::from_le_bytes(id), len: u64::from_le_bytes(len), crc: rest as u32 };
        let is_possible = link.id < BLOB_IDS && link.len <= VALUE_BYTES_MAX as u64;
        (bytes.len() == 24 && rest >> 32 == 0 && is_possible).then_some(link)
    }
}

/// Checks the lengths of a key and a value.
pub(crate) fn check_lengths(key: usize, value: usize) -> Result<()> {
    if key > KEY_BYTES_MAX {
        return Err(Error::KeyTooLong { len: key, limit: KEY_BYTES_MAX });
    }
    if value > VALUE_BYTES_MAX {
        return Err(Error::ValueTooLong { len: value, limit: VALUE_BYTES_MAX });
    }
    Ok(())
}

/// Checks a key's length.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    check_lengths(key.len(), 0)
}

/// Checks a value's length.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    check_lengths(0, value.len())
}

/// Searches bytes for valid sync marks, wherever records begin, and returns the highest durable LSN. `offset` is that
/// of `bytes[0]` in the segment, a multiple of [`ALIGN`].
pub(super) fn highest_mark(bytes: &[u8], salt: u64, offset: u64) -> Option<Lsn> {
    let magic = MARK_MAGIC.to_le_bytes();
    let words = bytes.as_chunks::<8>().0;
    let candidates = words.iter().enumerate().filter(|&(_, word)| *word == magic);
    candidates
        .filter_map(|(i, _)| {
            let start = (i * 8).checked_sub(SMALL)?;
            let at = offset + start as u64;
            let record = Record::decode(bytes.get(start..)?, at).ok()?;
            record.check(salt, at).ok()?;
            record.mark()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::super::encode::{Encoded, Entry, encode_mark};
    use super::*;
    use proptest::prelude::*;

    const MAIN: Label = Label::of(TableId::MAIN);

    fn one(kind: Kind, key: &[u8], value: &[u8], salt: u64, offset: u64) -> Vec<u8> {
        labelled(MAIN, kind, key, value, salt, offset)
    }

    fn labelled(label: Label, kind: Kind, key: &[u8], value: &[u8], salt: u64, offset: u64) -> Vec<u8> {
        let mut encoded = Encoded::default();
        encoded.push(label, kind, key, value);
        bytes_at(encoded.singles(), salt, offset)
    }

    fn bytes_at(entry: Entry<'_>, salt: u64, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        entry.put_at(salt, offset, |piece| bytes.extend_from_slice(piece));
        assert_eq!(bytes.len() as u64, entry.len());
        bytes
    }

    #[test]
    fn an_eight_byte_pair_takes_24_bytes() {
        assert_eq!(one(Kind::Put, &[1; 8], &[2; 8], 1, 128).len(), 24);
        assert_eq!(one(Kind::Put, &[1; 16], &[2; 100], 1, 128).len(), 128);
        assert_eq!(one(Kind::Put, b"", b"", 1, 128).len(), 8);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            key in proptest::collection::vec(any::<u8>(), 0..400),
            value in proptest::collection::vec(any::<u8>(), 0..400),
            wide in any::<bool>(),
            salt in any::<u64>(),
            offset in 0u64..1 << 30,
            table in prop_oneof![Just(0), any::<u32>()],
            deadline in prop_oneof![Just(Deadline::NEVER), (0u64..1 << 62).prop_map(Deadline::from_record)],
            aligned in any::<bool>(),
        ) {
            let value = if wide { value.repeat(300) } else { value };
            let offset = offset & !7;
            let label = Label { table: TableId::from_raw(table), deadline, aligned };
            let bytes = labelled(label, Kind::Put, &key, &value, salt, offset);
            let record = Record::decode(&bytes, offset).unwrap();
            let value_at = offset + record.header.value_start() as u64;
            prop_assert!(!aligned || value_at.is_multiple_of(16), "a value at {value_at}");
            let elsewhere = labelled(label, Kind::Put, &key, &value, salt, offset + 8);
            prop_assert_eq!(elsewhere.len(), bytes.len());
            prop_assert_eq!((record.header.kind, record.label()), (Kind::Put, label));
            prop_assert_eq!((record.key(), record.value()), (&key[..], &value[..]));
            prop_assert_eq!(record.header.total(), bytes.len() as u64);
            prop_assert_eq!(record.check(salt, offset), Ok(()));
            prop_assert!(record.check(salt, offset + 8).is_err());
            prop_assert!(record.check(salt.wrapping_add(1), offset).is_err());
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0usize..(8 + 16 + 40) * 8) {
            let mut bytes = one(Kind::Put, &[7; 16], &[9; 40], 5, 256);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let valid = Record::decode(&bytes, 256).is_ok_and(|record| record.check(5, 256).is_ok());
            prop_assert!(!valid);
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(record) = Record::decode(&bytes, 8) {
                let _ = (record.check(1, 8), record.key(), record.value(), record.frame(), record.mark());
                let _ = BlobLink::decode(record.value());
            }
            let _ = highest_mark(&bytes, 1, 8);
        }
    }

    /// The main table's records are as short as if there were no other table.
    #[test]
    fn a_table_id_takes_four_bytes() {
        let other = Label::of(TableId::from_raw(7));
        assert_eq!(labelled(other, Kind::Put, &[1; 8], &[2; 8], 1, 128).len(), 32);
        assert_eq!(labelled(other, Kind::Put, &[1; 8], &[2; 4], 1, 128).len(), 24);
        let bytes = labelled(other, Kind::Remove, b"key", b"", 1, 128);
        let record = Record::decode(&bytes, 128).unwrap();
        assert_eq!((record.table(), record.key(), record.value()), (other.table, &b"key"[..], &b""[..]));
    }

    #[test]
    fn a_bit_that_does_not_go_with_the_kind_makes_no_record() {
        for kind in 0..=u8::MAX {
            let expected = match kind & !(LARGE_BIT | TABLE_BIT | DEADLINE_BIT) {
                1 | 6 | 0x21 => true,
                2 => kind & DEADLINE_BIT == 0,
                3..=5 => kind & (TABLE_BIT | DEADLINE_BIT) == 0,
                _ => false,
            };
            assert_eq!(Kind::read(kind).is_some(), expected, "{kind:#x}");
        }
    }

    #[test]
    fn frames_count_their_records() {
        let mut encoded = Encoded::default();
        encoded.push(MAIN, Kind::Put, b"a", b"1");
        encoded.push(MAIN, Kind::Remove, b"b", b"");
        let bytes = bytes_at(encoded.framed(), 9, 128);
        let frame = Record::decode(&bytes, 128).unwrap();
        assert_eq!(frame.check(9, 128), Ok(()));
        assert_eq!(frame.frame(), Some((2, 32)));
        let first = Record::decode(&bytes[FRAME_BYTES..], 152).unwrap();
        assert_eq!((first.key(), first.check(9, 128 + FRAME_BYTES as u64)), (&b"a"[..], Ok(())));
    }

    #[test]
    fn marks_are_found_among_other_bytes() {
        let mut bytes = one(Kind::Put, b"key", b"value", 3, 128);
        let at = 128 + bytes.len() as u64;
        bytes.extend(encode_mark(Lsn::new(2, 4096), 3, at));
        bytes.extend([0xee; 40]);
        assert_eq!(highest_mark(&bytes, 3, 128), Some(Lsn::new(2, 4096)));
        assert_eq!(highest_mark(&bytes, 4, 128), None);
        assert_eq!(highest_mark(&bytes, 3, 136), None);
    }

    #[test]
    fn links_survive() {
        let link = BlobLink { id: 7, len: 1 << 31, crc: 0xdead_beef };
        assert_eq!(BlobLink::decode(&link.encode()), Some(link));
        assert_eq!(BlobLink::decode(&[0; 23]), None);
        assert_eq!(BlobLink::decode(&BlobLink { id: BLOB_IDS, ..link }.encode()), None);
    }
}
