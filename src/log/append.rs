//! Appending: one record or frame behind the other.
//!
//! Under the append lock, which is held for the copy of the record and no longer:
//!
//! 1. If the record does not fit, the next prepared segment becomes the active one; if there is none, the
//!    caller is told so and nothing has changed.
//! 2. If a sync has succeeded since the last mark, a sync mark is written first: it rides on this append.
//! 3. The record is copied behind, and the watermark moves.
//!
//! *Process dies:* what was copied is in the page cache, and what was not was not acknowledged. *Power loss:*
//! any part of what was not synced can be missing; replay stops at the first record that does not validate.
//! *Switch:* the new segment's header names the old one's end; without it, replay ends with the old segment.

use std::sync::Arc;

use super::appender::{Appended, Appender, Prepared};
use super::encode::{Entry, encode_mark};
use super::frame::write_below_mapping;
use super::record::{Kind, MARK_BYTES};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::segments::Log;
use crate::address::Address;
use crate::address::Lsn;
use crate::error::{Error, IoContext};
use crate::mutant::{Mutant, broken};
use crate::need::{Again, Need, Step};

impl Log {
    /// Appends records.
    ///
    /// `removals` is the number of remove- and clear-records in it. A record that only removes may use the
    /// reserve at the end of the last segment that the disk has room for.
    ///
    /// # Errors
    /// [`Need::Segment`]; nothing has changed then.
    #[inline]
    pub(crate) fn append(&self, entry: Entry<'_>, removals: u64, only_removes: bool) -> Step<Appended> {
        let mut guard = self.appender.lock();
        let appender = self.make_room(guard.as_mut(), entry.len(), only_removes)?;
        let offset = appender.writer.position();
        let salt = appender.segment.salt;
        entry.put_at(salt, offset, |piece| appender.writer.put(piece));
        Ok(self.appended(appender, offset, entry, removals, only_removes))
    }

    /// Appends a frame. A large one is written to the file: of a store into a mapped page, the first after each sync has to
    /// be found out and undone again by the kernel, page by page, which takes longer than the copy.
    ///
    /// # Errors
    /// [`Need::Segment`]; nothing has changed then. `Io` if writing fails: what the file holds is unknown then, and
    /// the caller poisons the store.
    pub(crate) fn append_frame(&self, frame: Entry<'_>, removals: u64, only_removes: bool) -> Step<Appended> {
        if frame.len() < self.config.tuning.written_bytes_min {
            return self.append(frame, removals, only_removes);
        }
        let mut guard = self.appender.lock();
        let appender = self.make_room(guard.as_mut(), frame.len(), only_removes)?;
        let offset = appender.writer.position();
        let closed = || Error::impossible(&appender.segment.path, "an active segment whose file is closed");
        let file = appender.segment.file().ok_or_else(closed)?;
        let written = write_below_mapping(&*file, frame, appender.segment.salt, offset);
        if written.is_err() {
            // A part of the frame may be there. The next record goes over its beginning, and what follows that must be no
            // valid record.
            appender.writer.wipe(frame.len());
        }
        written.context("write", &appender.segment.path)?;
        appender.writer.adopt(frame.len());
        Ok(self.appended(appender, offset, frame, removals, only_removes))
    }

    /// Steps 1 and 2.
    #[inline]
    fn make_room<'a>(
        &self,
        appender: Option<&'a mut Appender>,
        bytes: u64,
        only_removes: bool,
    ) -> Step<&'a mut Appender> {
        let bytes = bytes + MARK_BYTES as u64;
        let appender = appender.ok_or_else(|| Error::impossible(self.dir(), "an append without an active segment"))?;
        let reserve = if broken(Mutant::NoReserve) || only_removes || self.queue.count() > 0 {
            0
        } else {
            self.config.tuning.reserve_bytes.min(appender.segment.capacity() / 8)
        };
        if appender.writer.room() < bytes + reserve {
            let Some(next) = self.take_prepared(bytes) else {
                return Err(Need::Segment { bytes }.into());
            };
            self.switch(appender, next);
        }
        let durable_lsn = self.commit.durable_lsn();
        if durable_lsn > appender.marked {
            let too_far = appender.writer.position() + bytes;
            let told = match broken(Mutant::MarkTooFar) {
                true => Lsn::new(appender.segment.sequence, too_far),
                false => durable_lsn,
            };
            let mark = encode_mark(told, appender.segment.salt, appender.writer.position());
            appender.writer.put(&mark);
            appender.total += MARK_BYTES as u64;
            appender.marked = durable_lsn;
            self.add_dead(Address::new(appender.segment.slot, 0), MARK_BYTES as u64);
        }
        Ok(appender)
    }

    /// What follows step 3: the watermark and the counters move.
    #[inline]
    fn appended(
        &self,
        appender: &mut Appender,
        offset: u64,
        entry: Entry<'_>,
        removals: u64,
        only_removes: bool,
    ) -> Appended {
        appender.writer.publish();
        let is_removal = removals > 0 && (only_removes || entry.first_kind() == Some(Kind::Remove));
        appender.segment.add_removals(removals, if is_removal { entry.len() } else { 0 });
        appender.total += entry.len();
        Appended {
            address: Address::new(appender.segment.slot, offset),
            end: appender.lsn(),
            total: appender.total,
            running_low: self.queue.count() < appender.segments_ahead(),
        }
    }

    /// Makes the segment active that holds a frame already (frame.rs), and has a given sequence.
    ///
    /// # Errors
    /// [`Again::FrameOvertaken`] if it is not the next segment any more; nothing has changed then.
    pub(crate) fn activate_frame(
        &self,
        sequence: u32,
        frame: Entry<'_>,
        removals: u64,
        only_removes: bool,
    ) -> Step<Appended> {
        let mut guard = self.appender.lock();
        let missing = || Error::impossible(self.dir(), "an append without an active segment");
        let appender = guard.as_mut().ok_or_else(missing)?;
        let Some(next) = self.take_prepared_frame(sequence) else {
            return Err(Need::Again(Again::FrameOvertaken).into());
        };
        self.switch(appender, next);
        let offset = appender.writer.position();
        appender.writer.adopt(frame.len());
        Ok(self.appended(appender, offset, frame, removals, only_removes))
    }

    /// True unless the active segment is nearly full and no other one is prepared.
    pub(crate) fn has_room_ahead(&self) -> bool {
        let room = |appender: &Appender| appender.writer.room() * 4 > appender.segment.capacity();
        self.queue.count() > 0 || self.appender.lock().as_ref().is_some_and(room)
    }

    /// Ends the active segment, if it holds records and another one is prepared. Returns it, and where it ends. The
    /// caller holds a stripe, as those who append do: the log stands still while a checkpoint's cut holds all of them.
    pub(crate) fn seal_active(&self) -> Option<(Arc<Segment>, u64)> {
        let mut guard = self.appender.lock();
        let appender = guard.as_mut()?;
        let end = appender.writer.position();
        if end <= SEGMENT_HEADER_BYTES {
            return None;
        }
        let next = self.take_prepared(0)?;
        let sealed = Arc::clone(&appender.segment);
        self.switch(appender, next);
        Some((sealed, end))
    }

    /// Makes a prepared segment the active one.
    fn switch(&self, appender: &mut Appender, next: Prepared) {
        let Prepared { segment, writer, .. } = next;
        let end = appender.writer.position();
        let durable_lsn = self.commit.durable_lsn();
        let predecessor = Arc::clone(&appender.segment);
        appender.go_on_in(Arc::clone(&segment), writer, durable_lsn);
        if appender.is_hurried() {
            self.pieces.hurried();
        }
        appender.write_header(self.config.uuid, predecessor.sequence, end, durable_lsn);
        self.pieces.look_at(segment.bulk);
        predecessor.seal(end);
        self.registry.lock().segments.insert(segment.sequence, segment);
    }

    /// Makes a prepared segment the first active one after opening. `predecessor` names the segment before
    /// and its end; everything below `durable_lsn` is durable.
    pub(crate) fn activate(&self, next: Prepared, predecessor: (u32, u64), durable_lsn: Lsn) {
        let Prepared { segment, writer, .. } = next;
        let mut appender = Appender::new(Arc::clone(&segment), writer, durable_lsn);
        appender.write_header(self.config.uuid, predecessor.0, predecessor.1, durable_lsn);
        self.registry.lock().segments.insert(segment.sequence, segment);
        *self.appender.lock() = Some(appender);
    }
}
