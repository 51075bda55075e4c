//! A segment of its own for a large frame.
//!
//! A frame never straddles segments. One that has no room in the active segment nor in the next, and is larger than the
//! segments that the store would choose now, gets a segment that is as large as itself. It is written there before
//! anything is locked, by ordinary writes; filling the file with zeroes first and copying the frame through a mapping
//! would write everything twice.
//!
//! 1. The queue of prepared segments is emptied: their sequences come before the new one's.
//! 2. The file is created, its blocks are allocated; fsync, and fsync of the directory.
//! 3. The frame is written behind the room of the header. Where each write is synced, it is synced now, so that the
//!    commit has only the header to sync. *Crash:* a file without a header, which recovery unlinks.
//! 4. It is mapped, and becomes the only one in the queue.
//! 5. Under the append lock (append.rs) it becomes the active segment: its header is written, and with it the frame
//!    belongs to the log. *Power loss before both are synced:* the frame does not validate, or the header does not;
//!    either way the log ends before it.
//!
//! If somebody else needs a segment between 4 and 5, the frame's is thrown away and made again, a few times; then the
//! frame goes the way of all others.

use std::io;
use std::path::Path;

use super::appender::Prepared;
use super::encode::Entry;
use super::prepare::Made;
use super::record::MARK_BYTES;
use super::segment::SEGMENT_HEADER_BYTES;
use super::segments::Log;
use crate::address::Address;
use crate::error::{IoContext, Result};
use crate::mutant::{Mutant, broken};
use crate::sys::memory::reserved;
use crate::sys::{DiskFile, write_all_at, write_mapped_all_at};
use crate::tuning::SyncPolicy;

/// Bytes of one write. The page cache keeps the file in pieces of that size, if it can, and maps it by huge pages then.
const PIECE_BYTES: usize = 4 << 20;
/// The same for a frame in a segment that it shares with others.
const SMALL_PIECE_BYTES: usize = 64 << 10;
/// Bytes behind the frame: room for a few removals, should the disk be full.
const ROOM_BEHIND: u64 = 64 << 10;
/// How often a segment is made for one frame.
const TRIES_MAX: u32 = 3;

/// Collects what is put into pieces of one size, and writes them.
struct PieceWriter<W> {
    write: W,
    buffer: Vec<u8>,
    piece_bytes: usize,
    /// Where the buffer's bytes go.
    at: u64,
    result: io::Result<()>,
}

impl<W: FnMut(&[u8], u64) -> io::Result<()>> PieceWriter<W> {
    fn new(buffer: Vec<u8>, piece_bytes: usize, at: u64, write: W) -> Self {
        PieceWriter { write, buffer, piece_bytes, at, result: Ok(()) }
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.piece_bytes - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == self.piece_bytes {
                self.flush();
            }
        }
    }

    /// Does nothing after an error.
    fn flush(&mut self) {
        if self.result.is_ok() {
            self.result = (self.write)(&self.buffer, self.at);
        }
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
    }

    /// Writes the rest. The first error counts.
    fn finish(mut self) -> io::Result<()> {
        self.flush();
        self.result
    }
}

/// Writes a frame to the active segment's file, behind its last record.
pub(super) fn write_below_mapping(file: &dyn DiskFile, frame: Entry<'_>, salt: u64, offset: u64) -> io::Result<()> {
    let buffer = Vec::with_capacity(SMALL_PIECE_BYTES);
    let mut pieces =
        PieceWriter::new(buffer, SMALL_PIECE_BYTES, offset, |piece, at| write_mapped_all_at(file, piece, at));
    frame.put_at(salt, offset, |piece| pieces.put(piece));
    pieces.finish()
}

/// The size of a segment for a frame. A batch may be as large as a segment can be, so the room behind it ends where record
/// addresses end.
fn own_segment_bytes(frame: u64) -> u64 {
    let wanted = (SEGMENT_HEADER_BYTES + frame + ROOM_BEHIND).next_multiple_of(4096);
    if broken(Mutant::SegmentBeyondAddresses) { wanted } else { wanted.min(Address::SEGMENT_BYTES_MAX) }
}

/// The largest frame: with a segment header and a mark before it, it fills a segment.
pub(crate) const FRAME_BYTES_MAX: u64 = Address::SEGMENT_BYTES_MAX - SEGMENT_HEADER_BYTES - MARK_BYTES as u64;

/// The segment that was made for a frame.
#[derive(Debug, Default)]
pub(crate) struct OwnSegment {
    sequence: Option<u32>,
    tries: u32,
}

impl OwnSegment {
    /// The sequence of the segment, if there is one.
    pub(crate) fn sequence(&self) -> Option<u32> {
        self.sequence
    }
}

impl Log {
    /// True if a segment should be made for a frame.
    pub(crate) fn wants_own_segment(&self, frame: Entry<'_>, own: &OwnSegment) -> bool {
        let room = frame.len() + MARK_BYTES as u64;
        if own.sequence.is_some_and(|sequence| self.is_next(sequence)) {
            return false;
        }
        own.tries > 0 || (!self.has_room(room) && room + SEGMENT_HEADER_BYTES > self.segment_bytes(0))
    }

    /// Makes a segment for a frame, and writes the frame there. The caller holds no lock.
    ///
    /// # Errors
    /// `DiskFull`, `LimitReached` when all segment slots are taken, `Io`.
    pub(crate) fn provide_own_segment(&self, frame: Entry<'_>, own: &mut OwnSegment) -> Result<()> {
        own.sequence = None;
        if own.tries == TRIES_MAX {
            return Ok(());
        }
        own.tries += 1;
        let _one = self.queue.alone();
        self.discard_prepared()?;
        let bytes = own_segment_bytes(frame.len());
        let made =
            self.enqueue(bytes, true, |salt, path, created| self.write_own_segment(frame, bytes, salt, path, created))?;
        own.sequence = Some(made);
        Ok(())
    }

    /// The frame will not be appended: its segment is unlinked.
    pub(crate) fn give_up_own_segment(&self, own: &OwnSegment) {
        let _one = self.queue.alone();
        if own.sequence.is_some_and(|sequence| self.is_next(sequence)) {
            // If this fails, the next open unlinks the file; what made the batch fail is told already.
            let _ = self.discard_prepared();
        }
    }

    /// Steps 2 to 4.
    fn write_own_segment(
        &self,
        frame: Entry<'_>,
        bytes: u64,
        salt: u64,
        path: &Path,
        created: &mut bool,
    ) -> Result<Made> {
        let file = self.create_allocated(path, bytes, created)?;
        // The zeroes where the header will be, and behind the frame, are written like the rest: what the page cache
        // holds is never read from the disk.
        let buffer = reserved(PIECE_BYTES).context("reserve memory for a part of", path)?;
        let mut pieces = PieceWriter::new(buffer, PIECE_BYTES, 0, |piece, at| write_all_at(&*file, piece, at));
        pieces.put(&[0; SEGMENT_HEADER_BYTES as usize]);
        frame.put_at(salt, SEGMENT_HEADER_BYTES, |piece| pieces.put(piece));
        let behind = bytes - SEGMENT_HEADER_BYTES - frame.len();
        pieces.put(&vec![0; behind as usize]);
        pieces.finish().context("write a frame to", path)?;
        if self.config.sync == SyncPolicy::Always {
            file.sync_data().context("sync", path)?;
        }
        let map = file.map_log(bytes as usize, 0, true).context("map", path)?;
        Ok(Made { file, map, bulk: self.config.sync == SyncPolicy::Manual })
    }

    /// True if the segment is the next to become active.
    fn is_next(&self, sequence: u32) -> bool {
        self.queue.next(|next| next.segment.sequence == sequence).unwrap_or(false)
    }

    /// True if the active segment or the next one has room for so many bytes.
    fn has_room(&self, bytes: u64) -> bool {
        let active = self.appender.lock().as_ref().map_or(0, |appender| appender.room());
        active >= bytes || self.queue.next(|next| next.has_room(bytes)).unwrap_or(false)
    }

    /// Takes the next segment of the queue, if it is the one with that sequence.
    pub(super) fn take_prepared_frame(&self, sequence: u32) -> Option<Prepared> {
        self.queue.take_if(|next| next.has_frame && next.segment.sequence == sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment for a batch just below the limit was larger than record addresses reach: 64 KiB of room were added to
    /// it. Records behind the batch got the addresses of others, and the store could not be opened again. No test made a
    /// batch of a gigabyte.
    #[test]
    fn every_address_in_a_segment_of_its_own_is_one() {
        for slack in [0, 8, 1000, 4096, ROOM_BEHIND, ROOM_BEHIND + 8, 1 << 20, FRAME_BYTES_MAX - 8] {
            let frame = FRAME_BYTES_MAX - slack;
            let bytes = own_segment_bytes(frame);
            assert!(bytes <= Address::SEGMENT_BYTES_MAX, "{bytes} for a frame of {frame}");
            assert!(bytes >= SEGMENT_HEADER_BYTES + frame + MARK_BYTES as u64, "{bytes} for a frame of {frame}");
            assert_eq!(Address::new(4095, bytes - 8).offset(), bytes - 8);
        }
    }
}
