//! Which segment is emptied next.
//!
//! 1. By its counters: among the sealed segments the one with the largest share of bytes to gain. Removals that must
//!    be kept are no gain.
//! 2. If there is none, and removals are a good part of the log, the oldest one, although all of it may be live: when
//!    everything older has moved, removals die. If they are a good part of what is dead, the oldest one even before that.
//! 3. If there are very many with few records in them, the one with the fewest: their number is limited.
//! 4. If there is none, and segments wait because of a rotten record elsewhere, the oldest one: in that removals die, so that
//!    each of them can be emptied in its turn.
//!
//! A segment with a record that cannot be read is never chosen, and that of the last clear-record only when it is
//! the oldest.

use std::sync::Arc;

use super::compactor::{Choice, Compactor, Victim};
use crate::address::Lsn;
use crate::log::segment::{SEGMENT_HEADER_BYTES, Segment, Wait};
use crate::log::segments::Log;
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::Ordering;
use crate::table::tables::Tables;

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
/// limited. A store that has grown without a dead record has up to 190: its first ones are small against the next one.
const SMALL_MAX: usize = 256;

/// So many more are put together by an open, which need not have a background thread that lives long enough.
pub(super) const SMALL_AT_OPEN: usize = SMALL_MAX + 64;

/// Segments with few records that may stay.
pub(super) fn small_max(log: &Log) -> usize {
    if log.is_short_of_slots() { 1 } else { SMALL_MAX }
}

/// What evacuating the segment gains, in thousandths of its bytes. Removals count only if nothing older is there that they could
/// hide.
fn gain(log: &Log, segment: &Segment, is_oldest: bool) -> u64 {
    let bytes = log.record_bytes(segment).max(1);
    let kept = if is_oldest || log.is_hidden(segment) { 0 } else { segment.removal_bytes() };
    log.gone(segment).min(bytes).saturating_sub(kept) * 1000 / bytes
}

/// True if emptying the active segment would gain enough to end it for that.
pub(super) fn is_worth_sealing(log: &Log) -> bool {
    let segments = log.segments();
    let oldest = segments.iter().find(|segment| !segment.is_evacuated()).map(|segment| segment.sequence);
    let active = segments.iter().find(|segment| segment.end().is_none());
    active.is_some_and(|active| gain(log, active, oldest == Some(active.sequence)) > GAIN_FORCED)
}

/// Sealed segments with few records, the one with the fewest first.
pub(super) fn small_segments(log: &Log) -> Vec<u32> {
    let bytes = log.small_bytes();
    let sealed = |s: &Arc<Segment>| s.end().is_some() && !s.is_evacuated() && !s.is_damaged();
    let segments = log.segments();
    let records = segments.iter().filter(|s| sealed(s)).map(|s| (log.record_bytes(s), s.sequence));
    let mut small: Vec<_> = records.filter(|&(records, _)| records < bytes).collect();
    small.sort_unstable();
    small.into_iter().map(|(_, sequence)| sequence).collect()
}

/// True if every record of the segment can go elsewhere or die. The last clear-record cannot be moved behind later puts: its
/// segment waits until it is the oldest.
fn can_be_emptied(log: &Log, segment: &Segment, oldest: u32) -> bool {
    let sealed = segment.end().is_some() && !segment.is_evacuated();
    let is_oldest = segment.sequence == oldest;
    sealed && !segment.is_damaged() && (is_oldest || !log.keeps_clear(segment)) && !must_wait(log, segment, is_oldest)
}

/// True if damage elsewhere keeps the segment from being emptied. A record can be in the way of a removal only, and only where
/// removals are kept.
fn must_wait(log: &Log, segment: &Segment, is_oldest: bool) -> bool {
    let waits = |wait: Wait| wait.record.is_none() || !(is_oldest || log.is_hidden(segment));
    segment.waiting().is_some_and(waits)
}

/// Ends the waiting of segments for which the index does not name any more what could not be read.
fn look_at_waiting(log: &Log, tables: &Tables) {
    for segment in log.segments() {
        let Some(Wait { table, hash, record: Some(record) }) = segment.waiting() else { continue };
        if tables.names(table, hash, record).is_ok_and(|named| !named) {
            segment.end_waiting();
        }
    }
}

impl Compactor {
    /// Chooses a segment.
    pub(super) fn choose_victim(&self, log: &Log, tables: &Tables, choice: Choice) -> Option<Victim> {
        look_at_waiting(log, tables);
        let (segment, oldest) = match choice {
            Choice::Only(sequence) => {
                let (segment, oldest) = (log.segment(sequence)?, log.oldest()?);
                (Some(segment).filter(|segment| can_be_emptied(log, segment, oldest))?, oldest)
            }
            Choice::Best => self.choose_worthwhile(log, None)?,
            Choice::UpTo(last) => self.choose_worthwhile(log, Some(last))?,
        };
        tables.pass_all_stripes();
        let end = segment.end()?;
        let keep_removals = segment.sequence != oldest && !broken(Mutant::RemovalsDropped);
        let cleared = if keep_removals { log.readable_clear() } else { Lsn::default() };
        observe::victim_chosen(&segment.path, end);
        let id = self.victims.fetch_add(1, Ordering::Relaxed);
        Some(Victim { id, segment, at: SEGMENT_HEADER_BYTES, end, keep_removals, cleared, in_flight: 0 })
    }

    /// A segment that is worth it, if there is one, and the sequence of the oldest one. With `forced`, one up to that
    /// sequence, the oldest first.
    fn choose_worthwhile(&self, log: &Log, forced: Option<u32>) -> Option<(Arc<Segment>, u32)> {
        let segments = log.segments();
        let oldest = segments.iter().find(|segment| !segment.is_evacuated())?.sequence;
        let is_oldest = |segment: &Segment| segment.sequence == oldest;
        let gain = |segment: &Segment| gain(log, segment, is_oldest(segment));
        let sealed: Vec<_> = segments
            .iter()
            .filter(|s| s.end().is_some() && !s.is_evacuated() && forced.is_none_or(|last| s.sequence <= last))
            .collect();
        let candidates = || sealed.iter().filter(|s| can_be_emptied(log, s, oldest));
        let best = if forced.is_some() {
            candidates().find(|s| log.record_bytes(s) == 0 || gain(s) > GAIN_FORCED)
        } else {
            // In the oldest segment the removals die too, wherever else they would have to be kept.
            candidates().filter(|s| gain(s) > GAIN).max_by_key(|s| gain(s) + if is_oldest(s) { 50 } else { 0 })
        };
        let sum = |of: &dyn Fn(&Segment) -> u64| sealed.iter().map(|s| of(s)).sum::<u64>();
        let removals = sum(&|s| s.removal_bytes());
        let many = removals > sum(&|s| log.record_bytes(s)) / 1000 * REMOVALS;
        let most_of_it = many && forced.is_none() && removals > sum(&|s| log.dead(s.slot)) / 1000 * REMOVALS_OF_DEAD;
        let wait = || sealed.iter().any(|s| must_wait(log, s, is_oldest(s)) && !s.stays());
        let first = candidates().find(|s| is_oldest(s)).filter(|_| many || wait());
        let chosen = if most_of_it { first.or(best) } else { best.or(first) };
        let chosen = chosen.or_else(|| {
            let bytes = log.small_bytes();
            let small = || candidates().filter(|s| log.record_bytes(s) < bytes);
            small().min_by_key(|s| log.record_bytes(s)).filter(|_| small().count() > small_max(log))
        });
        Some((Arc::clone(chosen?), oldest))
    }
}
