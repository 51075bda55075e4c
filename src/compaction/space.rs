//! How far the log is over its bound, and what has to be done about it.

use std::time::Duration;

use super::compactor::{Compactor, Freeing};
use super::pressure::Pressure;
use super::victim::small_max;
use crate::checkpoint::run::LetGo;
use crate::log::segments::Log;
use crate::sync::{Instant, Ordering};

/// Bytes of freed blobs that are worth a checkpoint in any case; more, if the store holds more.
const FREED_BLOBS_MIN: u64 = 16 << 20;
/// How long nothing is freed after an error of freeing, unless somebody asks for a checkpoint.
const FREEING_PAUSE: Duration = Duration::from_secs(1);
/// So many emptied segments are worth a checkpoint, however small they are.
const WAITING_MAX: usize = 32;
/// A log that is more segments than that over its bound is freed in larger steps.
const FAR: u64 = 4;

/// The log's space, measured against its bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpaceReport {
    /// There is too much of it.
    pub(super) due: bool,
    pub(super) pressure: Pressure,
    /// A checkpoint would free enough to be worth it.
    pub(super) checkpoint: bool,
    /// A checkpoint would free something of what is too much: it is worth it if nothing more can be emptied.
    pub(super) frees: bool,
    /// What was emptied cannot be freed at this moment.
    pub(super) stuck: bool,
}

impl Compactor {
    /// Compares the log's size with its bound. A quiet store is tidied up further: half-way to no dead bytes.
    pub(super) fn assess(&self, log: &Log, quiet: bool) -> SpaceReport {
        let space = log.space();
        let segment = space.active.max(log.segment_bytes(0));
        let goal = self.bound(space.live(), quiet).saturating_add(segment);
        // What nothing can be done about is no reason to copy the rest over and over.
        let bytes = space.bytes - space.stuck;
        let total = bytes + space.evacuated;
        let far = total > goal.saturating_add(segment * 2);
        // The promise is four segments, of which `goal` has one. Half of one is left for what happens between two looks.
        let pressure = if total > goal.saturating_add(segment * 5 / 2) {
            Pressure::Full
        } else if far && space.evacuated >= segment {
            Pressure::Wait
        } else if far || bytes > goal.saturating_add(segment / 2) {
            Pressure::Help
        } else {
            Pressure::None
        };
        self.live.store(space.live(), Ordering::Relaxed);
        let can_free = self.can_free();
        let over = total.saturating_sub(goal);
        let frees = can_free && space.evacuated > 0 && over > 0;
        SpaceReport {
            due: bytes > goal || space.small > small_max(log),
            pressure,
            checkpoint: can_free && (space.evacuated >= self.step(over, segment) || space.waiting >= WAITING_MAX),
            frees,
            stuck: space.evacuated > 0 && !can_free,
        }
    }

    /// Emptied bytes that are worth a checkpoint while the log is so many bytes over its bound: a segment within it, and any
    /// beyond it.
    ///
    /// Far beyond it they are half of what is too much, because a checkpoint writes each index page that the emptying has
    /// changed: those of one segment are nearly all pages of a large table. But if the records moved since the last checkpoint
    /// fill a segment, it comes at once, because moving more would make the log longer.
    fn step(&self, over: u64, segment: u64) -> u64 {
        if over == 0 {
            return segment;
        }
        let moved = self.moved_bytes().saturating_sub(self.freeing.lock().moved);
        if over > FAR * segment && moved < segment { over / 2 } else { 1 }
    }

    /// Bytes that the log may take for so many live ones, but for a segment. A quiet store is tidied up further.
    fn bound(&self, live: u64, quiet: bool) -> u64 {
        let ratio = if quiet { (1.0 + self.ratio) / 2.0 } else { self.ratio };
        (live as f64 * ratio).min(u64::MAX as f64 / 4.0) as u64
    }

    /// True if a checkpoint would free enough space to be worth it.
    pub(crate) fn frees_space(&self, log: &Log) -> bool {
        self.assess(log, false).checkpoint || self.frees_blobs(log)
    }

    /// Bytes of freed blobs that may wait for a checkpoint.
    pub(crate) fn freed_blobs_max(&self, log: &Log) -> u64 {
        let live = log.blob_bytes() + self.live.load(Ordering::Relaxed);
        // However much dead weight the log may have, these are no more than the rest.
        let share = (self.ratio - 1.0).clamp(0.0, 1.0);
        (live as f64 * share).max(FREED_BLOBS_MIN as f64) as u64
    }

    pub(super) fn frees_blobs(&self, log: &Log) -> bool {
        log.freed_blobs().1 > self.freed_blobs_max(log) && self.can_free()
    }

    /// Assesses the space, and notes what writers have to do and when to look again.
    pub(super) fn look(&self, log: &Log, quiet: bool) -> SpaceReport {
        let report = self.assess(log, quiet);
        self.pressure.store(report.pressure as u32, Ordering::Relaxed);
        self.look_at.store(log.total() + log.segment_bytes(0) / 8, Ordering::Relaxed);
        report
    }

    /// Makes the next look due so many bytes sooner, because so many died and removals append few.
    pub(super) fn look_sooner(&self, dead: u64) {
        let sooner = |at: u64| Some(at.saturating_sub(dead));
        let _ = self.look_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sooner);
    }

    /// True if the log's space is to be looked at when so many bytes were appended.
    #[inline]
    pub(super) fn is_look_due(&self, total: u64) -> bool {
        total >= self.look_at.load(Ordering::Relaxed)
    }

    /// What writers have to do now.
    #[inline]
    pub(super) fn pressure(&self) -> Pressure {
        Pressure::from_word(self.pressure.load(Ordering::Relaxed))
    }

    /// Writers have nothing to do until the next look, because there is nothing to gain. To look at all segments at each
    /// write would be dear.
    pub(super) fn relieve(&self) {
        self.pressure.store(Pressure::None as u32, Ordering::Relaxed);
    }

    /// True if a quiet store has more than it should: another look may find what this one could not do.
    pub(crate) fn is_worth_a_look(&self, log: &Log) -> bool {
        let report = self.assess(log, true);
        report.due || report.checkpoint || self.is_worth_reading(log)
    }

    /// True if a quiet store had more than it should, if so many bytes more were dead.
    pub(super) fn is_over(&self, log: &Log, more: u64) -> bool {
        let space = log.space();
        let segment = space.active.max(log.segment_bytes(0));
        space.bytes - space.stuck > self.bound(space.live().saturating_sub(more), true).saturating_add(segment)
    }

    /// When so many records will have expired that a quiet store has more than it should, in milliseconds since 1970. `None`
    /// if that will not happen.
    pub(crate) fn next_expiry(&self, log: &Log) -> Option<u64> {
        let moments = log.moments_to_come();
        if moments.is_empty() {
            return None;
        }
        let space = log.space();
        let segment = space.active.max(log.segment_bytes(0));
        let (bytes, mut live) = (space.bytes - space.stuck, space.live().saturating_sub(log.doubtful_bytes()));
        let mut moments = moments.into_iter();
        let (moment, _) = moments.find(|&(_, expires)| {
            live = live.saturating_sub(expires);
            bytes > self.bound(live, true).saturating_add(segment)
        })?;
        Some(moment)
    }

    /// Notes what a checkpoint could let go.
    ///
    /// The caller does not hold the lock of checkpoints any more, so a later checkpoint can be noted first. It stays.
    pub(crate) fn note_freeing(&self, let_go: LetGo) {
        self.counters.freed.fetch_add(let_go.segments, Ordering::Relaxed);
        let mut freeing = self.freeing.lock();
        if let_go.serial >= freeing.serial {
            let pause = (!let_go.all).then(|| Instant::now() + FREEING_PAUSE);
            *freeing = Freeing { serial: let_go.serial, pause, moved: self.moved_bytes() };
        }
    }

    fn can_free(&self) -> bool {
        self.freeing.lock().pause.is_none_or(|until| Instant::now() >= until)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// A checkpoint that could not free something was noted after a later one that could: nothing was freed for a second,
    /// and what the earlier one said was no longer true.
    #[test]
    fn what_a_later_checkpoint_let_go_counts() {
        let compactor = Compactor::new(1.5);
        let note = |serial, all| compactor.note_freeing(LetGo { serial, segments: 1, all });
        note(1, false);
        assert!(!compactor.can_free());
        note(3, true);
        note(2, false);
        assert!(compactor.can_free());
        note(4, false);
        note(3, true);
        assert!(!compactor.can_free());
        assert_eq!(compactor.counters.freed.load(Ordering::Relaxed), 5);
    }
}
