//! Reading a segment's records one after another: through a mapping, or by pread where a block that the
//! device refuses must be told, and not end the process.
//!
//! The reader by pread holds a window of the file. A record that is longer is checked piece by piece, and only
//! its front, with the key, is handed out.

use std::io;
use std::sync::Arc;

use super::record::{CRC_BYTES, HEADER_BYTES_MAX, Header, Invalid, KEY_BYTES_MAX, MARK_BYTES, Record, highest_mark};
use super::segment::SEGMENT_HEADER_BYTES;
use crate::address::Lsn;
use crate::sys::{DiskFile, LogMap, PAGE_BYTES, read_around, read_up_to};
use crate::table_id::TableId;

/// Bytes that are read at a time.
const WINDOW_BYTES: usize = 1 << 20;
/// How far a sync mark can reach beyond the piece of the file in which its magic stands.
const MARK_REACH: usize = MARK_BYTES - 8;

const _: () = assert!(WINDOW_BYTES > HEADER_BYTES_MAX + KEY_BYTES_MAX + PAGE_BYTES);

/// Where records are read from.
pub(crate) trait RecordSource {
    /// Bytes of the file.
    fn len(&self) -> u64;
    /// The record at an offset, if it ends at or below `limit` and its checksum is right.
    fn record(&mut self, at: u64, limit: u64, salt: u64) -> Result<Record<'_>, Invalid>;
    /// What lies behind an offset, a multiple of eight: the highest durable LSN of a valid sync mark, and the number
    /// of bytes up to the last one that is not zero.
    fn behind(&mut self, from: u64, salt: u64) -> (Option<Lsn>, u64);
    /// The first block that could not be read, if any.
    fn failure(&mut self) -> Option<(u64, io::Error)>;
}

/// A segment that is mapped.
#[derive(Debug)]
pub(crate) struct MappedSource(pub(crate) LogMap);

impl RecordSource for MappedSource {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn record(&mut self, at: u64, limit: u64, salt: u64) -> Result<Record<'_>, Invalid> {
        let record = Record::at(&self.0, at)?;
        if at + record.header.total() > limit {
            return Err(Invalid::Beyond);
        }
        record.check(salt, at)?;
        Ok(record)
    }

    fn behind(&mut self, from: u64, salt: u64) -> (Option<Lsn>, u64) {
        let bytes = self.0.read(from, self.0.len().saturating_sub(from)).unwrap_or(&[]);
        (highest_mark(bytes, salt, from), written(bytes))
    }

    fn failure(&mut self) -> Option<(u64, io::Error)> {
        None
    }
}

/// A segment that is read by pread.
#[derive(Debug)]
pub(crate) struct PreadSource {
    file: Arc<dyn DiskFile>,
    len: u64,
    window: Vec<u8>,
    /// Offset of the window in the file; a multiple of the block size.
    start: u64,
    /// Bytes of the window that are filled.
    filled: usize,
    /// Blocks that could not be read and count as zeroes.
    bad: Vec<(u64, io::Error)>,
    bytes_read: u64,
}

impl PreadSource {
    /// Reads `len` bytes of a file.
    pub(crate) fn new(file: Arc<dyn DiskFile>, len: u64) -> Self {
        PreadSource { file, len, window: Vec::new(), start: 0, filled: 0, bad: Vec::new(), bytes_read: 0 }
    }

    /// Bytes read from the device since the last call.
    pub(crate) fn take_bytes_read(&mut self) -> u64 {
        std::mem::take(&mut self.bytes_read)
    }

    /// The record header at an offset, if it can be one. Nothing is checked.
    pub(crate) fn header_at(&mut self, at: u64) -> Option<Header> {
        Header::decode(self.bytes(at, HEADER_BYTES_MAX), at)
    }

    /// True if the records of a segment whose header says nothing speak of themselves as durable: a sync mark
    /// among them has a durable LSN in this very segment. Checksums cannot be checked without the header's salt,
    /// so a mark counts only where the lengths of all records before it lead to it. The first mark can stand far behind the
    /// front, because a batch of up to a gigabyte is one append, and the mark of its sync follows it.
    pub(crate) fn tells_own_durable_lsn(&mut self, sequence: u32) -> bool {
        let mut at = SEGMENT_HEADER_BYTES;
        while at < self.len {
            let Ok(record) = Record::decode(self.bytes(at, MARK_BYTES), at) else {
                match self.header_at(at) {
                    Some(header) => at += header.total(),
                    None => return false,
                }
                continue;
            };
            let own = |lsn: &Lsn| lsn.sequence() == sequence && lsn.offset() <= at;
            if record.mark().as_ref().is_some_and(own) {
                return true;
            }
            at += record.header.total();
        }
        false
    }

    /// Blocks that could not be read since the last call.
    pub(crate) fn take_bad(&mut self) -> Vec<(u64, io::Error)> {
        std::mem::take(&mut self.bad)
    }

    /// The bytes at an offset: as many as asked for (at most a window less a block), fewer at the end.
    fn bytes(&mut self, at: u64, bytes: usize) -> &[u8] {
        let bytes = (self.len.saturating_sub(at)).min(bytes as u64) as usize;
        let inside = at >= self.start && at - self.start + bytes as u64 <= self.filled as u64;
        if !inside {
            self.start = at - at % PAGE_BYTES as u64;
            let wanted = (self.len - self.start).min(WINDOW_BYTES as u64) as usize;
            if self.window.len() < wanted {
                self.window = vec![0; wanted];
            }
            let bad = &mut self.bad;
            let window = &mut self.window[..wanted];
            self.filled = read_around(&*self.file, window, self.start, &mut |at, error| bad.push((at, error)));
            self.bytes_read += self.filled as u64;
        }
        let from = (at - self.start) as usize;
        self.window.get(from..(from + bytes).min(self.filled)).unwrap_or(&[])
    }

    /// The checksum of a record that is longer than the window.
    fn long_crc(&mut self, at: u64, len: usize) -> Option<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let (mut from, end) = (at + CRC_BYTES as u64, at + len as u64);
        while from < end {
            let piece = self.bytes(from, (end - from).min((WINDOW_BYTES - PAGE_BYTES) as u64) as usize);
            if piece.is_empty() {
                return None;
            }
            hasher.update(piece);
            from += piece.len() as u64;
        }
        Some(hasher.finalize())
    }
}

impl RecordSource for PreadSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn record(&mut self, at: u64, limit: u64, salt: u64) -> Result<Record<'_>, Invalid> {
        let limit = limit.min(self.len);
        if at >= limit {
            return Err(Invalid::Beyond);
        }
        let header = Header::decode(self.bytes(at, HEADER_BYTES_MAX), at).ok_or(Invalid::Header)?;
        if header.total() > limit - at {
            return Err(Invalid::Beyond);
        }
        let len = header.len();
        if len <= WINDOW_BYTES - PAGE_BYTES {
            let record = Record::decode(self.bytes(at, len), at)?;
            record.check(salt, at)?;
            return Ok(record);
        }
        let crc = self.long_crc(at, len).ok_or(Invalid::Beyond)?;
        header.check(crc, salt, at)?;
        Record::clipped(header, self.bytes(at, header.value_start())).ok_or(Invalid::Beyond)
    }

    fn behind(&mut self, from: u64, salt: u64) -> (Option<Lsn>, u64) {
        let step = WINDOW_BYTES - 2 * PAGE_BYTES;
        let (mut at, mut durable_lsn, mut end) = (from, None, 0);
        while at < self.len {
            let piece = self.bytes(at, step + MARK_REACH);
            if piece.is_empty() {
                break;
            }
            durable_lsn = durable_lsn.max(highest_mark(piece, salt, at));
            end = match written(piece) {
                0 => end,
                written => at - from + written,
            };
            at += step as u64;
        }
        (durable_lsn, end)
    }

    fn failure(&mut self) -> Option<(u64, io::Error)> {
        if self.bad.is_empty() { None } else { Some(self.bad.swap_remove(0)) }
    }
}

/// Bytes up to the last one that is not zero.
fn written(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at as u64 + 1)
}

/// The key of the record at an offset, without a check of the record. `None` if there is nothing like one.
pub(crate) fn key_at(file: &dyn DiskFile, at: u64) -> Option<Vec<u8>> {
    owner_at(file, at).map(|(_, key)| key)
}

/// The table and the key of the record at an offset, without a check of the record. `None` if there is nothing like one.
pub(crate) fn owner_at(file: &dyn DiskFile, at: u64) -> Option<(TableId, Vec<u8>)> {
    let mut front = [0; HEADER_BYTES_MAX];
    let read = read_up_to(file, &mut front, at).ok()?;
    let header = Header::decode(&front[..read], at)?;
    let keys = header.key_range();
    let mut bytes = vec![0; keys.end];
    let read = read_up_to(file, &mut bytes, at).ok()?;
    (read == bytes.len()).then(|| (header.table(&bytes), bytes.split_off(keys.start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::encode::{Encoded, encode_mark};
    use crate::log::record::{Kind, Label};
    use crate::sys::{Disk, OpenMode, RealDisk, write_all_at};

    fn file(dir: &tempfile::TempDir, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        write_all_at(&*file, bytes, 0).unwrap();
        file
    }

    #[test]
    fn both_sources_read_the_same_records() {
        let mut bytes = vec![0; 128];
        let mut starts = Vec::new();
        for (i, len) in [10, 100_000, WINDOW_BYTES - 5000, 3 << 20, 0, 70_000].into_iter().enumerate() {
            let mut encoded = Encoded::default();
            encoded.push(Label::of(TableId::MAIN), Kind::Put, &vec![i as u8; i * 13_000], &vec![7; len]);
            starts.push(bytes.len() as u64);
            let at = bytes.len() as u64;
            encoded.singles().put_at(5, at, |piece| bytes.extend_from_slice(piece));
        }
        let end = bytes.len() as u64;
        bytes.resize(bytes.len() + 100, 0);
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir, &bytes);
        let mut mapped = MappedSource(file.map_log(bytes.len(), bytes.len() as u64, false).unwrap());
        let mut pread = PreadSource::new(file, bytes.len() as u64);
        for &at in &starts {
            let record = mapped.record(at, end, 5).unwrap();
            let same = pread.record(at, end, 5).unwrap();
            assert_eq!((record.header, record.key()), (same.header, same.key()), "at {at}");
        }
        for at in (0..end).step_by(4096) {
            let same = mapped.record(at, end, 5).err() == pread.record(at, end, 5).err();
            assert!(same, "at {at}");
        }
        let last = *starts.last().unwrap();
        assert_eq!(mapped.record(last, end - 8, 5).err(), Some(Invalid::Beyond));
        assert_eq!(pread.record(last, end - 8, 5).err(), Some(Invalid::Beyond));
        assert!(pread.record(last, end, 6).is_err() && pread.record(end + 200, u64::MAX, 5).is_err());
    }

    #[test]
    fn marks_are_found_wherever_pieces_meet() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 2 * WINDOW_BYTES];
        let at = WINDOW_BYTES - 2 * PAGE_BYTES + 64 - 16;
        let lsn = Lsn::new(3, 4096);
        bytes[at..at + MARK_BYTES].copy_from_slice(&encode_mark(lsn, 9, at as u64));
        let mut pread = PreadSource::new(file(&dir, &bytes), bytes.len() as u64);
        for from in [0, 8, 40, 48, 56, 64, 72] {
            let (found, written) = pread.behind(from, 9);
            assert_eq!(found, Some(lsn), "from {from}");
            assert_eq!(from + written, (at + MARK_BYTES) as u64 - 3, "the LSN's upper bytes are zero");
        }
    }
}
