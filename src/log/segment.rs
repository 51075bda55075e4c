//! One segment file: its name and its header.
//!
//! ```text
//!   0  magic "tophLOG1"
//!   8  format version 32 | crc32 of the header with this field zero
//!  16  store uuid
//!  32  sequence 64
//!  40  salt 64
//!  48  predecessor's sequence 64
//!  56  predecessor's end 64: bytes past it are not valid, whatever they look like
//!  64  durable LSN 64: everything below it was durable when the header was written
//!  72  slot 32: the segment slot that record addresses name
//!  76  flags 32: bit 0 is reserved; bit 1 = the file was prepared for bulk writing, so that small syncs of it are
//!      slow
//!  80  zero
//! 128  records
//! ```
//!
//! The header is written when the segment becomes the active one; before that the file is all zeroes. A file
//! takes records only after its size and its directory entry are durable.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use crate::address::Address;
use crate::address::Lsn;
use crate::checksum::{Uuid, crc32};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::sys::{DiskFile, PAGE_BYTES, read_up_to};
use crate::table_id::TableId;

/// Bytes of the header.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 128;
const MAGIC: [u8; 8] = *b"tophLOG1";
/// The newest segment format that this build reads and writes.
pub(crate) const SEGMENT_VERSION: u32 = 1;

/// All flags that this version writes.
const FLAGS: u8 = 0b11;

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) uuid: Uuid,
    pub(crate) sequence: u32,
    pub(crate) salt: u64,
    /// Sequence of the segment before, 0 for none.
    pub(crate) predecessor: u32,
    /// Where the segment before ends.
    pub(crate) predecessor_end: u64,
    /// Everything below was durable.
    pub(crate) durable_lsn: Lsn,
    pub(crate) slot: u32,
    /// The file was prepared for bulk writing.
    pub(crate) bulk: bool,
}

/// What a segment header can look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderState {
    /// A header that validates.
    Valid(SegmentHeader),
    /// All zeroes: prepared and never used.
    Unused,
    /// Written by a newer version.
    Newer(u32),
    /// Something else.
    Invalid,
}

/// A header as it stands in a file.
type HeaderBytes = [u8; SEGMENT_HEADER_BYTES as usize];

impl SegmentHeader {
    pub(crate) fn encode(&self) -> HeaderBytes {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.uuid.0);
        bytes[32..40].copy_from_slice(&u64::from(self.sequence).to_le_bytes());
        bytes[40..48].copy_from_slice(&self.salt.to_le_bytes());
        bytes[48..56].copy_from_slice(&u64::from(self.predecessor).to_le_bytes());
        bytes[56..64].copy_from_slice(&self.predecessor_end.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.durable_lsn.raw().to_le_bytes());
        bytes[72..76].copy_from_slice(&self.slot.to_le_bytes());
        bytes[76] = u8::from(self.bulk) << 1;
        let crc = crc32(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Valid(*self), "a header that no reader accepts");
        bytes
    }

    /// True if the bytes have the checksum that they say, whatever their version: magic, version and checksum
    /// stand where they stand in every version.
    fn is_sealed(bytes: &HeaderBytes) -> bool {
        let mut without_crc = *bytes;
        without_crc[12..16].fill(0);
        bytes[..8] == MAGIC && crc32(&without_crc).to_le_bytes() == bytes[12..16]
    }

    /// The header that the bytes were before one of their bits was flipped.
    pub(crate) fn mended(bytes: &HeaderBytes) -> Option<SegmentHeader> {
        Self::mended_bytes(bytes).map(|(header, _)| header)
    }

    /// The same with its bytes, in which reserved bits stand as they were written.
    fn mended_bytes(bytes: &HeaderBytes) -> Option<(SegmentHeader, HeaderBytes)> {
        (0..bytes.len() * 8).find_map(|bit| {
            let mut mended = *bytes;
            *mended.get_mut(bit / 8)? ^= 1 << (bit % 8);
            match SegmentHeader::decode(&mended) {
                HeaderState::Valid(header) => Some((header, mended)),
                _ => None,
            }
        })
    }

    /// True if an interrupted write can have left these bytes, which are no valid header. Before the
    /// write there were zeroes, so each word is as it was meant to be or zero, and at least one is missing. What
    /// is known of a header's words must be right; checksum and salt can be anything.
    pub(crate) fn can_be_torn(bytes: &HeaderBytes, uuid: Uuid, sequence: u32) -> bool {
        let words: [u64; 16] = bytemuck::pod_read_unaligned(bytes);
        let known = |word: u64, right: u64| word == 0 || word == right;
        if let Some((_, whole)) = SegmentHeader::mended_bytes(bytes) {
            // One bit is wrong. Only a word that was lost explains that, not one that is almost right.
            let whole: [u64; 16] = bytemuck::pod_read_unaligned(&whole);
            return words.into_iter().zip(whole).all(|(word, right)| known(word, right));
        }
        let uuid_words: [u64; 2] = bytemuck::pod_read_unaligned(&uuid.0);
        let identity = known(words[0], u64::from_le_bytes(MAGIC))
            && known(words[2], uuid_words[0])
            && known(words[3], uuid_words[1])
            && known(words[4], sequence.into());
        let version = words[1] == 0 || words[1] as u32 == SEGMENT_VERSION;
        let earlier = words[6] < sequence.into()
            && words[7] <= Address::SEGMENT_BYTES_MAX
            && Lsn::from_raw(words[8]).sequence() < sequence
            && (words[7] | words[8]).is_multiple_of(8);
        let slot = (words[9] as u32 as usize) < Address::SEGMENTS && words[9] >> 32 <= u64::from(FLAGS);
        let rest = words[10..].iter().all(|&word| word == 0);
        identity && version && earlier && slot && rest && words[..10].contains(&0)
    }

    pub(crate) fn decode(bytes: &[u8]) -> HeaderState {
        let Some(bytes) = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>() else {
            return HeaderState::Invalid;
        };
        if bytes.iter().all(|&b| b == 0) {
            return HeaderState::Unused;
        }
        let words: [u64; 16] = bytemuck::pod_read_unaligned(bytes);
        // A version is believed only of a header whose checksum is right: else it is damage.
        if !SegmentHeader::is_sealed(bytes) {
            return HeaderState::Invalid;
        }
        let version = words[1] as u32;
        if version > SEGMENT_VERSION {
            return HeaderState::Newer(version);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        let (Ok(sequence), Ok(predecessor)) = (u32::try_from(words[4]), u32::try_from(words[6])) else {
            return HeaderState::Invalid;
        };
        if version == 0 {
            return HeaderState::Invalid;
        }
        HeaderState::Valid(SegmentHeader {
            uuid: Uuid(uuid),
            sequence,
            salt: words[5],
            predecessor,
            predecessor_end: words[7],
            durable_lsn: Lsn::from_raw(words[8]),
            slot: words[9] as u32,
            bulk: words[9] >> 32 & 2 != 0,
        })
    }
}

/// Bytes of the pages in which records stand that end there.
fn whole_pages(end: u64) -> u64 {
    end.next_multiple_of(PAGE_BYTES as u64)
}

/// What a segment waits for that cannot be emptied now, although its own records can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The table of the record that could not be dealt with, and the hash of its key.
    pub(crate) table: TableId,
    pub(crate) hash: u64,
    /// The record elsewhere that cannot be read, and that could be a later put of a removal's key. `None`: a page of the index
    /// cannot be read, which no change mends.
    pub(crate) record: Option<Address>,
}

/// A segment that holds records.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) slot: u32,
    pub(crate) salt: u64,
    pub(crate) path: PathBuf,
    /// Bytes of the file.
    capacity: AtomicU64,
    /// The file was prepared for bulk writing: small syncs of it are slow.
    pub(crate) bulk: bool,
    /// Where its records end; `u64::MAX` while it is the active one.
    end: AtomicU64,
    /// Remove- and clear-records in it.
    removals: AtomicU64,
    /// Their bytes. After an open an estimate: the checkpoint knows only their number.
    removal_bytes: AtomicU64,
    /// The log's LSN when the last slot that pointed here was cleared; 0 before.
    evacuated: AtomicU64,
    /// A record cannot be read: the segment is kept as it is.
    damaged: AtomicBool,
    /// It cannot be emptied now, because of damage elsewhere.
    waiting: Mutex<Option<Wait>>,
    /// Something stands behind its end: the file is not cut.
    keeps_end: AtomicBool,
    /// Kept until it is sealed and durable.
    file: Mutex<Option<Arc<dyn DiskFile>>>,
}

impl Segment {
    pub(crate) fn new(
        (sequence, slot, salt): (u32, u32, u64),
        path: PathBuf,
        capacity: u64,
        end: Option<u64>,
        file: Option<Arc<dyn DiskFile>>,
    ) -> Self {
        Segment {
            sequence,
            slot,
            salt,
            path,
            capacity: AtomicU64::new(capacity),
            bulk: false,
            end: AtomicU64::new(end.unwrap_or(u64::MAX)),
            removals: AtomicU64::new(0),
            removal_bytes: AtomicU64::new(0),
            evacuated: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
            waiting: Mutex::new(None),
            keeps_end: AtomicBool::new(false),
            file: Mutex::new(file),
        }
    }

    /// The same segment, and whether its file was made for bulk writing.
    pub(crate) fn made(self, bulk: bool) -> Self {
        Segment { bulk, ..self }
    }

    /// Bytes of the file.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// True if whole pages follow the last record, which ends at `end`, nothing is known to stand in them, and somebody needs
    /// the file still.
    pub(super) fn has_unwritten_end(&self, end: u64) -> bool {
        !self.is_evacuated() && !self.keeps_end.load(Ordering::Relaxed) && self.capacity() > whole_pages(end)
    }

    /// True if the pages behind the last record hold nothing but zeroes. If they do not, the end is from damaged meta data, or
    /// a failed write has left something: they are kept for a repair, and not looked at again.
    pub(super) fn is_end_unwritten(&self, file: &dyn DiskFile, end: u64) -> std::io::Result<bool> {
        let mut piece = vec![0; 64 << 10];
        let mut at = whole_pages(end);
        loop {
            let read = read_up_to(file, &mut piece, at)?;
            if piece.iter().take(read).any(|&byte| byte != 0) {
                self.keeps_end.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            if read < piece.len() {
                return Ok(true);
            }
            at += read as u64;
        }
    }

    /// Cuts the file off behind its last record, which ends at `end`: it is sealed.
    pub(super) fn shorten(&self, file: &dyn DiskFile, end: u64) -> std::io::Result<()> {
        let bytes = whole_pages(end);
        file.set_len(bytes)?;
        self.capacity.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Where the records end, unless it is the active segment.
    pub(crate) fn end(&self) -> Option<u64> {
        Some(self.end.load(Ordering::Acquire)).filter(|&end| end != u64::MAX)
    }

    /// No more records will be added.
    pub(crate) fn seal(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Remove- and clear-records in it.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Relaxed)
    }

    /// Bytes of them; after an open an estimate.
    pub(crate) fn removal_bytes(&self) -> u64 {
        self.removal_bytes.load(Ordering::Relaxed)
    }

    /// Counts removals that were appended, and the bytes that are theirs alone.
    pub(super) fn add_removals(&self, removals: u64, bytes: u64) {
        if removals > 0 {
            self.removals.fetch_add(removals, Ordering::Relaxed);
            self.removal_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Sets the number of removals that a checkpoint knows, and guesses their bytes.
    pub(crate) fn set_removals(&self, removals: u64, dead: u64) {
        /// A removal of a key of up to 16 bytes takes 24.
        const BYTES: u64 = 24;
        self.removals.store(removals, Ordering::Relaxed);
        self.removal_bytes.store(removals.saturating_mul(BYTES).min(dead), Ordering::Relaxed);
    }

    /// No slot points to it any more, as of an LSN of the log.
    pub(crate) fn set_evacuated(&self, at: Lsn) {
        self.evacuated.store(at.raw().max(1), Ordering::Release);
    }

    pub(crate) fn is_evacuated(&self) -> bool {
        self.evacuated.load(Ordering::Acquire) != 0
    }

    /// True if a checkpoint with this cut need not name the segment.
    pub(super) fn evacuated_before(&self, cut: Lsn) -> bool {
        let at = self.evacuated.load(Ordering::Acquire);
        at != 0 && at <= cut.raw()
    }

    /// A record cannot be read.
    pub(crate) fn set_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// It cannot be emptied now, because of damage elsewhere.
    pub(crate) fn set_waiting(&self, wait: Wait) {
        *self.waiting.lock() = Some(wait);
    }

    /// What it waits for.
    pub(crate) fn waiting(&self) -> Option<Wait> {
        *self.waiting.lock()
    }

    /// It need not wait any more.
    pub(crate) fn end_waiting(&self) {
        *self.waiting.lock() = None;
    }

    /// True if it is not emptied while the store is open: a record of it, or the page of one of its keys, cannot be read.
    pub(crate) fn stays(&self) -> bool {
        self.is_damaged() || self.waiting().is_some_and(|wait| wait.record.is_none())
    }

    pub(crate) fn file(&self) -> Option<Arc<dyn DiskFile>> {
        self.file.lock().clone()
    }

    /// Everything is durable: the descriptor is not needed any more.
    pub(super) fn close_file(&self) {
        *self.file.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_damage_does_not() {
        let header = SegmentHeader {
            uuid: Uuid([3; 16]),
            sequence: 12,
            salt: 0x1234_5678_9abc_def0,
            predecessor: 11,
            predecessor_end: 4096,
            durable_lsn: Lsn::new(11, 4000),
            slot: 5,
            bulk: true,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Valid(header));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A flipped version was told as a newer format once: "use a newer tophash", of a store that was damaged.
            assert_eq!(SegmentHeader::decode(&damaged), HeaderState::Invalid, "bit {bit}");
        }
        let torn = |bytes: &[u8; 128]| SegmentHeader::can_be_torn(bytes, header.uuid, 12);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::mended(&damaged), Some(header), "bit {bit}");
            // A word of which this was the only bit is zero now, as if it had not been written.
            let only_bit = bytes.as_chunks::<8>().0[bit / 64] == (1u64 << (bit % 64)).to_le_bytes();
            assert_eq!(torn(&damaged), only_bit, "bit {bit}");
        }
        // Any of the words may be missing; but what is there must be right.
        for missing in 1..1 << 10 {
            let mut damaged = bytes;
            (0..10).filter(|word| missing >> word & 1 != 0).for_each(|word| damaged[word * 8..][..8].fill(0));
            assert!(torn(&damaged), "words {missing:#b} missing");
            for at in [0, 9, 17, 31, 35, 50, 63, 70, 74, 77, 90, 127] {
                let mut noisy = damaged;
                noisy[at] ^= 0x55;
                assert!(!torn(&noisy), "words {missing:#b} missing, byte {at} wrong");
            }
        }
        assert_eq!(SegmentHeader::decode(&[0; 200]), HeaderState::Unused);
        assert_eq!(SegmentHeader::decode(&bytes[..100]), HeaderState::Invalid);
    }
}
