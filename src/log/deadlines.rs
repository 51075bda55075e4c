//! How many bytes of each segment expire when: what the compaction knows of expiry without reading a record.
//!
//! The bytes are counted in spans of time that end at the same multiples for all records of a segment. The spans get longer as
//! they get more, so a segment has few of them. What a later record supersedes is taken out again.
//!
//! A checkpoint keeps the first and the last end and the sum. After an open the bytes count as spread evenly between them,
//! until the segment is read.

use std::collections::BTreeMap;

/// The shortest span: 2^10 ms, about a second.
const SHIFT_MIN: u32 = 10;
/// Spans of a segment at the most.
const SPANS_MAX: usize = 64;
/// Spans over which the bytes of an opened segment are spread.
const SPREAD: u64 = 16;

/// What a segment's records with a deadline take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deadlines {
    shift: u32,
    /// Bytes by the end of their span, in milliseconds since 1970.
    spans: BTreeMap<u64, u64>,
}

/// The same as a checkpoint keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiring {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) bytes: u64,
}

impl Expiring {
    /// Bytes that are over at that moment, as after an open.
    pub(crate) fn over(self, now: u64) -> u64 {
        Deadlines::opened(self).over(now)
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { shift: SHIFT_MIN, spans: BTreeMap::new() }
    }
}

impl Deadlines {
    /// The first end of a span at which a deadline is over.
    fn end(&self, millis: u64) -> u64 {
        ((millis >> self.shift) + 1) << self.shift
    }

    fn add(&mut self, millis: u64, bytes: u64) {
        *self.spans.entry(self.end(millis)).or_default() += bytes;
        while self.spans.len() > SPANS_MAX {
            self.shift += 1;
            for (end, bytes) in std::mem::take(&mut self.spans) {
                *self.spans.entry(self.end(end - 1)).or_default() += bytes;
            }
        }
    }

    /// Spans that came from a checkpoint are not where the record is: then the next one gives.
    fn take(&mut self, millis: u64, bytes: u64) {
        let from = self.end(millis);
        if let Some(span) = self.spans.get_mut(&from).filter(|span| **span > bytes) {
            *span -= bytes;
            return;
        }
        let mut left = bytes;
        let later: Vec<u64> = self.spans.range(from..).map(|(&end, _)| end).collect();
        let earlier: Vec<u64> = self.spans.range(..from).rev().map(|(&end, _)| end).collect();
        for end in later.into_iter().chain(earlier) {
            let Some(span) = self.spans.get_mut(&end) else { continue };
            let taken = left.min(*span);
            *span -= taken;
            left -= taken;
            if *span == 0 {
                self.spans.remove(&end);
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Bytes that are over at that moment.
    fn over(&self, now: u64) -> u64 {
        self.spans.range(..=now).map(|(_, bytes)| bytes).sum()
    }

    fn sum(&self) -> u64 {
        self.spans.values().sum()
    }

    fn kept(&self) -> Option<Expiring> {
        let (&first, _) = self.spans.first_key_value()?;
        let (&last, _) = self.spans.last_key_value()?;
        Some(Expiring { first, last, bytes: self.sum() })
    }

    fn opened(kept: Expiring) -> Self {
        let mut deadlines = Deadlines::default();
        let step = (kept.last.saturating_sub(kept.first) / SPREAD).max(1);
        let spans = (kept.last.saturating_sub(kept.first) / step + 1).min(SPREAD + 1);
        for n in 0..spans {
            let share = kept.bytes / spans + u64::from(n < kept.bytes % spans);
            let end = if n + 1 == spans { kept.last } else { kept.first + n * step };
            if share > 0 {
                deadlines.add(end.saturating_sub(1), share);
            }
        }
        deadlines
    }
}

/// The deadlines of all segments, by segment slot.
#[derive(Debug, Default)]
pub(super) struct AllDeadlines {
    by_slot: BTreeMap<u32, Deadlines>,
    /// The highest moment for which expired records were removed from the index.
    pub(super) swept: u64,
}

impl AllDeadlines {
    /// True if no record has a deadline.
    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// A record of the segment expires then.
    pub(super) fn add(&mut self, slot: u32, millis: u64, bytes: u64) {
        self.by_slot.entry(slot).or_default().add(millis, bytes);
    }

    /// One that was added is superseded.
    pub(super) fn take(&mut self, slot: u32, millis: u64, bytes: u64) {
        if let Some(of_segment) = self.by_slot.get_mut(&slot) {
            of_segment.take(millis, bytes);
        }
    }

    /// Forgets those of a segment.
    pub(super) fn forget(&mut self, slot: u32) {
        self.by_slot.remove(&slot);
    }

    /// Bytes of a segment that are over; `now` is asked only if one of its records has a deadline.
    pub(super) fn over(&self, slot: u32, now: impl FnOnce() -> u64) -> u64 {
        self.by_slot.get(&slot).map_or(0, |of_segment| of_segment.over(now()))
    }

    /// Bytes of all segments.
    pub(super) fn sum(&self) -> u64 {
        self.by_slot.values().map(Deadlines::sum).sum()
    }

    /// The moments after `now` at which bytes expire, in order.
    pub(super) fn moments_after(&self, now: u64) -> Vec<(u64, u64)> {
        let later = self.by_slot.values().flat_map(|of_segment| of_segment.spans.range(now.saturating_add(1)..));
        let mut moments: Vec<(u64, u64)> = later.map(|(&end, &bytes)| (end, bytes)).collect();
        moments.sort_unstable();
        moments
    }

    /// What a checkpoint keeps of a segment.
    pub(super) fn kept(&self, slot: u32) -> Option<Expiring> {
        self.by_slot.get(&slot)?.kept()
    }

    /// What a checkpoint has kept of a segment.
    pub(super) fn open(&mut self, slot: u32, kept: Expiring) {
        self.by_slot.insert(slot, Deadlines::opened(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_over_after_their_deadline_and_soon() {
        let mut deadlines = Deadlines::default();
        for n in 0..1000 {
            deadlines.add(10_000 + n * 60, 8);
        }
        assert!(deadlines.spans.len() <= SPANS_MAX && deadlines.sum() == 8000);
        for now in (0..80_000).step_by(77) {
            let exact = (0..1000).filter(|n| 10_000 + n * 60 <= now).count() as u64 * 8;
            let over = deadlines.over(now);
            assert!(over <= exact, "{now}: {over} of {exact}");
            let late = (0..1000).filter(|n| 10_000 + n * 60 + (1 << deadlines.shift) <= now).count() as u64 * 8;
            assert!(over >= late, "{now}: {over} of at least {late}");
        }
    }

    #[test]
    fn what_is_superseded_is_taken_out() {
        let mut deadlines = Deadlines::default();
        for n in 0..500 {
            deadlines.add(n * 1000, 16);
        }
        for n in 0..500 {
            deadlines.take(n * 1000, 16);
        }
        assert!(deadlines.spans.is_empty());
        // More than there is, from a checkpoint that guessed.
        deadlines.add(5, 8);
        deadlines.take(1 << 40, 100);
        assert!(deadlines.spans.is_empty());
    }

    #[test]
    fn a_checkpoint_keeps_the_sum_and_the_ends() {
        for (count, step) in [(1, 1), (2, 1), (3, 50_000), (1000, 777)] {
            let mut deadlines = Deadlines::default();
            (0..count).for_each(|n| deadlines.add(1_000_000 + n * step, 24));
            let kept = deadlines.kept().unwrap();
            let opened = Deadlines::opened(kept);
            assert_eq!(opened.sum(), kept.bytes);
            assert!(opened.over(kept.first - 1) == 0 && opened.over(kept.last + (1 << opened.shift)) == kept.bytes);
        }
        assert_eq!(Deadlines::default().kept(), None);
        let strange = Expiring { first: 9, last: 3, bytes: 5 };
        assert_eq!(Deadlines::opened(strange).sum(), 5);
    }
}
