//! Which segment is emptied next.
//!
//! 1. By its counters: among the sealed segments the one with the largest share of bytes to gain. Removals that must
//!    be kept are no gain.
//! 2. If there is none, and removals are a good part of the log, the oldest one, although all of it may be live: when
//!    everything older has moved, removals die. If they are a good part of what is dead, the oldest one even before that.
//! 3. If there are very many with few records in them, the one with the fewest: their number is limited.
//!
//! A segment with a record that cannot be read is never chosen, and one with a clear-record only when it is the oldest.

use std::sync::Arc;

use crate::compaction::online::Progress;
use crate::compaction::state::Victim;
use crate::engine::Engine;
use crate::error::Result;
use crate::log::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::Ordering;

/// A segment is not worth evacuating for less than so many thousandths of its bytes.
const GAIN: u64 = 30;
/// The same where the user has asked for compaction.
const GAIN_FORCED: u64 = 50;
/// If removals are more than so many thousandths of the log, the oldest segment is evacuated whatever its gain: they
/// must be kept for as long as anything older is there.
const REMOVALS: u64 = 50;
/// If they are more than so many thousandths of the dead bytes, the oldest comes before those with more to gain. Otherwise
/// removals would crowd out the dead bytes that can be gained, and ever more would be copied for ever less.
const REMOVALS_OF_DEAD: u64 = 333;
/// Beyond so many sealed segments with few records, the smallest are put together, dead bytes or not: their number is
/// limited. A store that has grown has about 40.
const SMALL_MAX: usize = 256;

/// So many more are put together by an open, which need not have a background thread that lives long enough.
const SMALL_AT_OPEN: usize = SMALL_MAX + 64;

impl Engine {
    /// Segments with few records that may stay.
    pub(super) fn small_max(&self) -> usize {
        if self.log.is_short_of_slots() { 1 } else { SMALL_MAX }
    }

    /// Puts segments with few records together, if there are many. Each process that ends without a close leaves one, and
    /// their number is limited.
    ///
    /// # Errors
    /// Those of a write or a checkpoint. What was moved stays moved.
    pub(crate) fn bound_segments(&self) -> Result<()> {
        /// Records that are moved between two looks.
        const RECORDS: usize = 4096;
        if self.log.space().small < SMALL_AT_OPEN && !self.log.is_short_of_slots() {
            return Ok(());
        }
        while self.log.space().small > self.small_max() {
            if self.compact_step(RECORDS, None)? != Progress::Made {
                break;
            }
        }
        self.run_checkpoint(false)
    }

    /// What evacuating the segment gains, in thousandths of its bytes. Removals count only if nothing older is there.
    fn gain(&self, segment: &Segment, is_oldest: bool) -> u64 {
        let bytes = self.log.record_bytes(segment).max(1);
        let kept = if is_oldest { 0 } else { segment.removal_bytes.load(Ordering::Relaxed) };
        self.log.dead(segment.slot).min(bytes).saturating_sub(kept) * 1000 / bytes
    }

    /// Chooses a segment; with `forced`, one up to that sequence, the oldest first.
    pub(super) fn choose_victim(&self, forced: Option<u32>) -> Option<Victim> {
        let segments = self.log.segments();
        let oldest = segments.iter().find(|segment| !segment.is_evacuated())?.sequence;
        let is_oldest = |segment: &Segment| segment.sequence == oldest;
        let gain = |segment: &Segment| self.gain(segment, is_oldest(segment));
        let sealed: Vec<_> = segments
            .iter()
            .filter(|s| s.end().is_some() && !s.is_evacuated() && forced.is_none_or(|last| s.sequence <= last))
            .collect();
        let candidates = || sealed.iter().filter(|s| !s.is_damaged() && (is_oldest(s) || !s.has_clears()));
        let best = if forced.is_some() {
            candidates().find(|s| self.log.record_bytes(s) == 0 || gain(s) > GAIN_FORCED)
        } else {
            // In the oldest segment the removals die too, wherever else they would have to be kept.
            candidates().filter(|s| gain(s) > GAIN).max_by_key(|s| gain(s) + if is_oldest(s) { 50 } else { 0 })
        };
        let sum = |of: &dyn Fn(&Segment) -> u64| sealed.iter().map(|s| of(s)).sum::<u64>();
        let removals = sum(&|s| s.removal_bytes.load(Ordering::Relaxed));
        let many = removals > sum(&|s| self.log.record_bytes(s)) / 1000 * REMOVALS;
        let most_of_it =
            many && forced.is_none() && removals > sum(&|s| self.log.dead(s.slot)) / 1000 * REMOVALS_OF_DEAD;
        let first = candidates().find(|s| is_oldest(s)).filter(|_| many);
        let chosen = if most_of_it { first.or(best) } else { best.or(first) };
        let chosen = chosen.or_else(|| {
            let small = || candidates().filter(|s| self.log.record_bytes(s) < self.log.small_bytes());
            small().min_by_key(|s| self.log.record_bytes(s)).filter(|_| small().count() > self.small_max())
        });
        let segment = Arc::clone(chosen?);
        self.table.pass_all_stripes();
        let end = segment.end()?;
        let keep_removals = segment.sequence != oldest && !broken(Mutant::RemovalsDropped);
        observe::victim_chosen(&segment.path, end);
        let id = self.compaction.victims.fetch_add(1, Ordering::Relaxed);
        Some(Victim { id, segment, at: SEGMENT_HEADER_BYTES, end, keep_removals, in_flight: 0 })
    }

    /// Ends the active segment, if emptying it would gain enough. One that is not emptied then would be a file of
    /// a whole segment for few records.
    pub(super) fn seal_if_worth_it(&self) -> Result<()> {
        let segments = self.log.segments();
        let oldest = segments.iter().find(|segment| !segment.is_evacuated()).map(|segment| segment.sequence);
        let active = segments.iter().find(|segment| segment.end().is_none());
        if active.is_none_or(|active| self.gain(active, oldest == Some(active.sequence)) <= GAIN_FORCED) {
            return Ok(());
        }
        self.checkpointer.provide_meta_room(&self.table, &self.log)?;
        self.log.provide_segment(0)?;
        // As at each append, a stripe is held: a checkpoint's cut holds all of them, and must find the log as it was
        // when it noted its LSN.
        let _held = self.table.lock(0);
        self.log.seal_active();
        Ok(())
    }
}
