//! Online compaction: segments with few live records are emptied, so that their space comes back.
//!
//! **Evacuating a segment**, a few records at a time, by the background thread and, when the log is over its
//! bound, by the writers themselves:
//!
//! 1. A victim is chosen (victim.rs). Every stripe is taken once: whoever has appended to the segment has published
//!    by then.
//! 2. Its records are read one after another; each is checked, so that rot is never copied under a fresh
//!    checksum. A segment with a record that cannot be read is kept as it is. If what cannot be read lies elsewhere, the segment
//!    waits (evacuate.rs, with steps 3 to 5).
//! 3. A put is live if the key's path has a slot with this very address. A live one is appended again and
//!    published under its key's stripe, as a write is; so log order stays index order. *Crash:* the copy is
//!    replayed, or it is lost with the tail and the original stands.
//! 4. A remove-record is appended again as long as a segment older than the victim holds records, if the key is
//!    absent under its lock: the older segment can hold a put of the key, which a repair would bring back. The last
//!    clear-record stays where it is, and removals before it die (log/clears.rs).
//! 5. An expired put that is live is removed from the index, under its key's stripe. Its deadline stands in the record, so
//!    nothing else says so. *Crash:* the index of the last checkpoint has it still, and it is expired. But as long as a segment
//!    older than the victim holds records, a removal is appended first: the older segment can hold a put of the key
//!    without a deadline, which a repair would bring back. The moment for which this is done is noted before, and kept by
//!    checkpoints, so that verify knows why no slot names the record.
//! 6. When all records are dealt with, the segment is *evacuated*; what follows is told in log/space.rs.
//!
//! No step holds a stripe for longer than one record takes.

use std::sync::Arc;
use std::time::Duration;

use super::compactor::{Choice, Stopped, Task};
use super::pressure::Pressure;
use super::space::SpaceReport;
use super::victim::{SMALL_AT_OPEN, is_worth_sealing, small_max, small_segments};
use crate::engine::Engine;
use crate::error::{Nature, Result};
use crate::health::Pass;
use crate::log::segment::Segment;
use crate::mutant::{Mutant, broken};
use crate::observe::{self, Cause};
use crate::progress::{OnProgress, tell};
use crate::stats::CompactionReport;
use crate::sync::{Instant, sleep, yield_now};

/// Records that the background thread deals with at a time.
const STEP_RECORDS: usize = 256;
/// Records that a writer deals with when the log is over its bound: a few microseconds' worth.
const HELP_RECORDS: usize = 16;
/// How long a writer waits at a time when the log is far over its bound.
const THROTTLE: Duration = Duration::from_micros(200);
/// How long the background thread rests between two steps while the log is only just over its bound.
const PACE: Duration = Duration::from_micros(20);

/// Steps of a turn of the background job.
const TURN_STEPS: usize = 16;

/// How a turn of the background job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There may be more to do.
    Unfinished,
    /// There is nothing more to do for now.
    Finished,
}

/// What a step of compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Records were dealt with, or a segment was finished.
    Made,
    /// Others are dealing with what is left of the victim.
    Others,
    /// There is nothing worth doing.
    Nothing,
}

impl Engine {
    /// What follows a change that has freed blobs. No lock is held.
    pub(crate) fn mind_freed_blobs(&self) {
        match (self.compactor.frees_blobs(&self.log), self.tuning.background) {
            (false, _) => {}
            (true, true) => self.wake.checkpoint.ring(),
            (true, false) => _ = self.upkeep_checkpoint(),
        }
    }

    /// What follows a change of many keys, which can have left much that is dead and little that is new. No lock is held.
    pub(crate) fn after_many(&self) {
        self.mind_freed_blobs();
        self.compact_after_look();
    }

    /// What follows removals that left so many dead bytes, and that can be few. No lock is held.
    pub(crate) fn after_removals(&self, dead: u64) {
        self.mind_freed_blobs();
        self.compactor.look_sooner(dead);
        if self.compactor.is_look_due(self.log.total()) {
            self.compact_after_look();
        }
    }

    /// Looks at the log's space, and notes what writers have to do and when to look again.
    fn look(&self, quiet: bool) -> SpaceReport {
        let report = self.compactor.look(&self.log, quiet);
        if report.checkpoint && self.tuning.background {
            self.wake.checkpoint.ring();
        }
        report
    }

    /// Compacts for a turn, at the end of which the log is within its bound or there is nothing to gain, if the turn has not
    /// ended before. `stop` ends it sooner. Called by the background job. `quiet`: nobody has written for a while.
    pub(crate) fn compact_in_background(&self, quiet: bool, stop: &dyn Fn() -> bool) -> Turn {
        let turn = self.compact_while_due(quiet, stop);
        if turn == Turn::Finished && !stop() && self.health.check_writable().is_ok() {
            // Once: whatever keeps an end from being cut keeps it in the next turn too.
            self.log.cut_ends();
        }
        turn
    }

    fn compact_while_due(&self, quiet: bool, stop: &dyn Fn() -> bool) -> Turn {
        let look = self.look(quiet);
        self.log.reclaim();
        if self.log.is_ill_fitting() && self.health.check_writable().is_ok() {
            // If it fails, the segment goes on being used.
            let _ = self.log.replace_active(|| self.tables.main().lock(0));
        }
        if stop() || self.health.check_writable().is_err() {
            return Turn::Finished;
        }
        // Of a quiet store all of them go at once, and their files. An error is one of a later write too, or passes: they are
        // tried again at the next look.
        let freed = self.free_expired_large(if quiet { 0 } else { self.tuning.expired_large_bytes });
        if quiet && freed.is_ok_and(|freed| freed) && self.log.freed_blobs().0 > 0 {
            self.upkeep_checkpoint();
        }
        let far = look.pressure >= Pressure::Wait;
        if far && broken(Mutant::CompactionGivesUp) {
            return Turn::Finished;
        }
        if far && look.checkpoint {
            // Moving more records before it is done would only make the log longer. Nobody else runs it for sure:
            // the writers may have nothing to write any more.
            return if self.run_checkpoint(false).is_ok() { Turn::Unfinished } else { Turn::Finished };
        }
        if far && look.stuck {
            return Turn::Finished;
        }
        if !look.due {
            return self.read_if_worth_it();
        }
        for _ in 0..TURN_STEPS {
            // An error is met again by whoever needs the space; a damaged segment is not chosen again.
            match self.compact_step(STEP_RECORDS, Choice::Best) {
                Ok(Outcome::Made) if look.pressure == Pressure::None => sleep(PACE),
                Ok(Outcome::Made) => {}
                Ok(Outcome::Others) => {
                    sleep(PACE);
                    break;
                }
                // What is emptied is all that can be had.
                Ok(Outcome::Nothing) if self.look(quiet).frees && self.run_checkpoint(false).is_ok() => break,
                Ok(Outcome::Nothing) => return self.read_if_worth_it(),
                Err(_) => return Turn::Finished,
            }
        }
        Turn::Unfinished
    }

    /// Reads a part of a segment, if what may have expired unseen would be enough for more to do.
    fn read_if_worth_it(&self) -> Turn {
        let made = self.compactor.is_worth_reading(&self.log) && self.read_deadlines() == Outcome::Made;
        if made { Turn::Unfinished } else { Turn::Finished }
    }

    /// What a writer does after an append: looks at the log's space now and then, and helps if it is over its
    /// bound. No lock is held.
    #[inline]
    pub(crate) fn help_compaction(&self, total: u64) {
        if self.compactor.is_look_due(total) {
            return self.compact_after_look();
        }
        match self.compactor.pressure() {
            Pressure::None => {}
            pressure => self.compact_under_pressure(pressure),
        }
    }

    #[cold]
    fn compact_after_look(&self) {
        let look = self.look(false);
        if self.tuning.background {
            if look.due {
                self.wake.compaction.ring();
            }
            return;
        }
        // The change that led here is made: an error of this is none of its own.
        let _ = self.free_expired_large(self.tuning.expired_large_bytes);
        let mut look = look;
        loop {
            if look.checkpoint && !self.upkeep_checkpoint() {
                return;
            }
            if !look.due {
                return;
            }
            // The change that led here is made: an error of this is none of its own. It is met again by the caller that
            // needs the space. If what is left of the victim is with others, they will finish it.
            match self.compact_step(STEP_RECORDS, Choice::Best) {
                Ok(Outcome::Made) => {}
                Ok(Outcome::Nothing) if look.frees && self.upkeep_checkpoint() => {}
                Ok(Outcome::Others | Outcome::Nothing) | Err(_) => return,
            }
            look = self.compactor.assess(&self.log, false);
        }
    }

    #[cold]
    fn compact_under_pressure(&self, pressure: Pressure) {
        self.compactor.count_pressure(pressure);
        if pressure < Pressure::Wait {
            // An error is met again by whoever needs the space.
            if self.help(HELP_RECORDS).unwrap_or(Outcome::Nothing) == Outcome::Nothing {
                self.compactor.relieve();
            }
            return;
        }
        let _waiting = self.waiting(Cause::LogBound);
        let outcome = if pressure == Pressure::Full { self.help_at_the_bound() } else { Outcome::Others };
        if outcome == Outcome::Others {
            sleep(THROTTLE);
        }
        self.look(false);
        if outcome == Outcome::Nothing {
            self.compactor.relieve();
        }
    }

    /// What a writer does at the bound. `Others`: something else comes first, and the log is to grow no faster than that.
    /// `Nothing`: what is too much can be neither emptied nor freed, so holding up the writers would gain nothing.
    fn help_at_the_bound(&self) -> Outcome {
        if self.compactor.assess(&self.log, false).checkpoint {
            return if self.upkeep_checkpoint() { Outcome::Made } else { Outcome::Others };
        }
        match self.help(STEP_RECORDS) {
            Ok(Outcome::Nothing) => {
                let report = self.compactor.assess(&self.log, false);
                if report.frees || report.stuck { Outcome::Others } else { Outcome::Nothing }
            }
            // An error is met again by whoever needs the space.
            other => other.unwrap_or(Outcome::Others),
        }
    }

    /// Moves some records, as a part of somebody's write.
    fn help(&self, records: usize) -> Result<Outcome> {
        if !self.log.has_room_ahead() {
            // A segment is prepared by the background thread, not here: that could take long.
            self.wake.segment.ring();
            return Ok(Outcome::Others);
        }
        self.compact_step(records, Choice::Best)
    }

    /// Deals with up to `records` records of the victim, or finishes it. The caller holds no lock. `choice`: which
    /// one becomes the next victim, whether or not the log is over its bound.
    ///
    /// # Errors
    /// Those of a write (`DiskFull`), and `Corrupt` if a page or record cannot be read. The victim is let go
    /// then; what was moved stays moved.
    pub(crate) fn compact_step(&self, records: usize, choice: Choice) -> Result<Outcome> {
        let piece = match self.compactor.next_task(&self.log, &self.tables, &self.hasher, records, choice)? {
            Task::Piece(piece) => piece,
            Task::Finished => return Ok(Outcome::Made),
            Task::Others => return Ok(Outcome::Others),
            Task::Nothing => return Ok(Outcome::Nothing),
        };
        let result = self.evacuate_piece(&piece);
        self.compactor.finish(&piece, result.as_ref().err());
        match result {
            Err(stopped) if stopped.is_of_dropped_table() => Ok(Outcome::Others),
            other => other.or_else(Stopped::told).map(|()| Outcome::Made),
        }
    }

    /// Puts segments with few records together, if there are many. Each process that ends without a close leaves one, and
    /// their number is limited. The smallest go first, and each is looked at once: an open of thousands takes no longer.
    ///
    /// A segment with a damaged record is kept as it is, and the others are put together.
    ///
    /// # Errors
    /// Those of a write or a checkpoint, but no damage. What was moved stays moved.
    pub(crate) fn bound_segments(&self) -> Result<()> {
        /// Records that are moved at a time.
        const RECORDS: usize = 4096;
        let small = small_segments(&self.log);
        if small.len() < SMALL_AT_OPEN && !self.log.is_short_of_slots() {
            return Ok(());
        }
        let emptied = || self.compactor.done().evacuated;
        let wanted = emptied() + small.len().saturating_sub(small_max(&self.log)) as u64;
        for sequence in small {
            if emptied() >= wanted {
                break;
            }
            loop {
                match self.compact_step(RECORDS, Choice::Only(sequence)) {
                    Ok(Outcome::Made) => {}
                    Ok(Outcome::Others | Outcome::Nothing) => break,
                    // It is marked now.
                    Err(error) if error.nature() == Nature::Damage => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.run_checkpoint(false)
    }

    /// Ends the active segment, if emptying it would gain enough. One that is not emptied then would be a file of
    /// a whole segment for few records.
    fn seal_if_worth_it(&self) -> Result<()> {
        if !is_worth_sealing(&self.log) {
            return Ok(());
        }
        self.checkpointer.provide_meta_room(self.tables.index(), &self.log)?;
        self.log.provide_segment(0)?;
        // As at each append, a stripe is held: a checkpoint's cut holds all of them, and must find the log as it was
        // when it noted its LSN.
        let _held = self.tables.main().lock(0);
        self.log.seal_active();
        Ok(())
    }

    /// Compacts every segment that exists now and has something to gain; see
    /// [`Store::compact_with`](crate::Store::compact_with).
    pub(crate) fn compact_all(&self, progress: &mut OnProgress<'_>) -> Result<CompactionReport> {
        let mut pass = Some(self.health.enter()?);
        let _span = observe::compaction(&self.path);
        let started = Instant::now();
        let before = (self.disk_bytes()?, self.log.space());
        let done = self.compactor.done();
        self.free_expired_large(0)?;
        let mut finished = true;
        // What the active segment holds is compacted too, if that is worth it: before the others, or once they are
        // gone and its removals need not be kept any more.
        for _ in 0..2 {
            self.seal_if_worth_it()?;
            let sealed = |segment: &Arc<Segment>| segment.end().is_some();
            let last = self.log.segments().iter().rev().find(|segment| sealed(segment)).map_or(0, |s| s.sequence);
            finished =
                finished && self.compact_forced(last, progress, (done.emptied_bytes, before.1.bytes), &mut pass)?;
        }
        self.run_checkpoint(false)?;
        self.log.cut_ends();
        self.checkpointer.trim_journal(self.tables.index(), &self.health, true);
        let now = self.compactor.done();
        Ok(CompactionReport {
            finished,
            moved_records: now.moved_records - done.moved_records,
            moved_bytes: now.moved_bytes - done.moved_bytes,
            evacuated_segments: now.evacuated - done.evacuated,
            held_bytes: self.log.held_bytes(),
            log_bytes_before: before.1.bytes,
            log_bytes_after: self.log.space().bytes,
            disk_bytes_before: before.0,
            disk_bytes_after: self.disk_bytes()?,
            nanos: started.elapsed().as_nanos() as u64,
        })
    }

    /// Compacts segments up to a sequence until nothing is worth it. Returns false if `progress` has ended it. `before`: the
    /// bytes that had been emptied before the call, and those of the log then. `progress` runs outside the gate: it may close
    /// the store.
    fn compact_forced<'s>(
        &'s self,
        last: u32,
        progress: &mut OnProgress<'_>,
        before: (u64, u64),
        pass: &mut Option<Pass<'s>>,
    ) -> Result<bool> {
        loop {
            let space = self.log.space();
            *pass = None;
            let told = tell(progress, self.compactor.done().emptied_bytes - before.0, before.1);
            *pass = Some(self.health.enter()?);
            if told.is_break() {
                return Ok(false);
            }
            // What has expired unseen comes first, so that what it is worth is known.
            let outcome = match self.read_deadlines() {
                Outcome::Nothing => self.compact_step(STEP_RECORDS, Choice::UpTo(last))?,
                read => read,
            };
            match outcome {
                Outcome::Made => {}
                Outcome::Others => yield_now(),
                Outcome::Nothing => return Ok(true),
            }
            // Emptied segments become space for what is still to be moved.
            if space.evacuated > 4 * self.log.segment_bytes(0) {
                self.run_checkpoint(false)?;
            }
        }
    }
}
