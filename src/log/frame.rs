//! A segment of its own for a large frame.
//!
//! A frame never straddles segments. One that has no room in the active segment nor in the next, and is larger than the
//! segments that the store would choose now, gets a segment that is as large as itself. It is written there before
//! anything is locked, by ordinary writes; filling the file with zeroes first and copying the frame through a mapping
//! would write everything twice.
//!
//! 1. The queue of prepared segments is emptied: their sequences come before the new one's.
//! 2. The file is created, its blocks are allocated; fsync, and fsync of the directory.
//! 3. The frame is written behind the place of the header. Where each write is synced, it is synced now, so that the
//!    commit has only the header to sync. *Crash:* a file without a header, which recovery unlinks.
//! 4. It is mapped, and becomes the only one in the queue.
//! 5. Under the append lock (append.rs) it becomes the active segment: its header is written, and with it the frame
//!    belongs to the log. *Power loss before both are synced:* the frame does not validate, or the header does not;
//!    either way the log ends before it.
//!
//! If somebody else needs a segment between 4 and 5, the frame's is thrown away and made again, a few times; then the
//! frame goes the way of all others.

use std::path::Path;
use std::sync::Arc;

use super::record::{Entry, MARK_BYTES};
use super::segment::SEGMENT_HEADER_BYTES;
use super::segments::{Log, Prepared};
use crate::error::{IoContext, Result};
use crate::options::SyncPolicy;
use crate::sys::{DiskFile, LogMap, write_all_at};

/// Bytes of one write. Also the size of the pieces in which the page cache will hold the file.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes behind the frame: room for a few removals, should the disk be full.
const ROOM_BEHIND: u64 = 64 << 10;
/// How often a segment is made for one frame.
const TRIES_MAX: u32 = 3;

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
        own.tries > 0 || (room + SEGMENT_HEADER_BYTES > self.segment_bytes(0) && !self.has_room(room))
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
        let _one = self.preparing.lock();
        self.discard_prepared()?;
        let bytes = (SEGMENT_HEADER_BYTES + frame.len() + ROOM_BEHIND).next_multiple_of(4096);
        let made = self.enqueue(bytes, true, |salt, path| self.write_own_segment(frame, bytes, salt, path))?;
        own.sequence = Some(made);
        Ok(())
    }

    /// The frame will not be appended: its segment is unlinked.
    pub(crate) fn give_up_own_segment(&self, own: &OwnSegment) {
        let _one = self.preparing.lock();
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
    ) -> Result<(Arc<dyn DiskFile>, LogMap, bool)> {
        let file = self.create_allocated(path, bytes)?;
        // The zeroes before the header's place, and behind the frame, are written like the rest: what the page cache
        // holds is never read from the disk.
        let mut buffer = Vec::with_capacity(PIECE_BYTES.min(bytes as usize));
        let (mut at, mut result) = (0, Ok(()));
        let mut put = |mut piece: &[u8]| {
            while !piece.is_empty() && result.is_ok() {
                let (now, later) = piece.split_at(piece.len().min(PIECE_BYTES - buffer.len()));
                buffer.extend_from_slice(now);
                piece = later;
                if buffer.len() == PIECE_BYTES || at + buffer.len() as u64 == bytes {
                    result = write_all_at(&*file, &buffer, at);
                    at += buffer.len() as u64;
                    buffer.clear();
                }
            }
        };
        put(&[0; SEGMENT_HEADER_BYTES as usize]);
        frame.place(salt, SEGMENT_HEADER_BYTES, &mut put);
        let behind = bytes - SEGMENT_HEADER_BYTES - frame.len();
        put(&vec![0; behind as usize]);
        result.context("write a frame to", path)?;
        if self.config.sync == SyncPolicy::Always {
            file.sync_data().context("sync", path)?;
        }
        let map = file.map_log(bytes as usize, 0, true).context("map", path)?;
        Ok((file, map, false))
    }

    /// True if the segment is the next to become active.
    fn is_next(&self, sequence: u32) -> bool {
        self.prepared.lock().front().is_some_and(|next| next.segment.sequence == sequence)
    }

    /// True if the active segment or the next one has room for so many bytes.
    fn has_room(&self, bytes: u64) -> bool {
        let active = self.appender.lock().as_ref().map_or(0, |appender| appender.room());
        let fits = |next: &Prepared| !next.has_frame && next.writer.room() >= bytes + SEGMENT_HEADER_BYTES;
        active >= bytes || self.prepared.lock().front().is_some_and(fits)
    }

    /// Takes the next segment of the queue, if it is the one with that sequence.
    pub(crate) fn take_prepared_frame(&self, sequence: u32) -> Option<Prepared> {
        self.take_prepared_if(|next| next.has_frame && next.segment.sequence == sequence)
    }
}
