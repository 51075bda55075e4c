//! How many bytes of each segment expire when: what the compaction knows of expiry without reading a record.
//!
//! The bytes are counted in spans of time that end at the same multiples for all records of a segment. The spans get longer as
//! they get more, so a segment has few of them. What a later record supersedes is taken out again.
//!
//! A checkpoint keeps the first and the last end and the sum. After an open the bytes count as spread evenly between them: a
//! *guess*. A few late deadlines make it far too late. So once the first end has passed, and before the last one has, the segment
//! can be read, once: each record with a deadline that a slot names is counted where it belongs, and then that takes the place of
//! the guess. What is superseded meanwhile is taken out of both, by where the record stands.

use std::collections::BTreeMap;

use super::segment::SEGMENT_HEADER_BYTES;

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

/// What an open guesses of a segment, until the segment is read.
#[derive(Debug)]
struct Guess {
    spans: Deadlines,
    /// Where the records end for which it stands. Those behind were appended or replayed since, and are counted as they came.
    end: u64,
    /// Where the first record begins that was not read, and what those before it say.
    read: u64,
    found: Deadlines,
    /// A thread is reading, or the segment could not be read.
    closed: bool,
}

impl Guess {
    /// True if reading the segment can find more that is over than the guess says.
    fn is_doubtful(&self, now: u64) -> bool {
        let spans = &self.spans.spans;
        let first = spans.first_key_value().is_some_and(|(&end, _)| end <= now);
        first && spans.last_key_value().is_some_and(|(&end, _)| end > now)
    }
}

/// How reading a part of a segment has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// There is more to read, from here on.
    Part(u64),
    Whole,
    /// Something cannot be read. It is not tried again.
    Failed,
}

/// The deadlines of all segments, by segment slot.
#[derive(Debug, Default)]
pub(super) struct AllDeadlines {
    by_slot: BTreeMap<u32, Deadlines>,
    /// What stands for records from before the open.
    guesses: BTreeMap<u32, Guess>,
    /// The highest moment for which expired records were removed from the index.
    pub(super) swept: u64,
}

impl AllDeadlines {
    /// True if no record has a deadline.
    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty() && self.guesses.is_empty()
    }

    /// A record of the segment expires then.
    pub(super) fn add(&mut self, slot: u32, millis: u64, bytes: u64) {
        self.by_slot.entry(slot).or_default().add(millis, bytes);
    }

    /// One that was added is superseded; it stands at that offset.
    pub(super) fn take(&mut self, slot: u32, offset: u64, millis: u64, bytes: u64) {
        if let Some(guess) = self.guesses.get_mut(&slot).filter(|guess| offset < guess.end) {
            guess.spans.take(millis, bytes);
            if offset < guess.read {
                guess.found.take(millis, bytes);
            }
        } else if let Some(of_segment) = self.by_slot.get_mut(&slot) {
            of_segment.take(millis, bytes);
        }
    }

    /// Forgets those of a segment.
    pub(super) fn forget(&mut self, slot: u32) {
        self.by_slot.remove(&slot);
        self.guesses.remove(&slot);
    }

    /// What is counted of a segment, and what is guessed.
    fn of(&self, slot: u32) -> impl Iterator<Item = &Deadlines> {
        self.by_slot.get(&slot).into_iter().chain(self.guesses.get(&slot).map(|guess| &guess.spans))
    }

    /// Bytes of a segment that are over; `now` is asked only if one of its records has a deadline.
    pub(super) fn over(&self, slot: u32, now: impl FnOnce() -> u64) -> u64 {
        if self.of(slot).next().is_none() {
            return 0;
        }
        let now = now();
        self.of(slot).map(|deadlines| deadlines.over(now)).sum()
    }

    /// Bytes of all segments.
    pub(super) fn sum(&self) -> u64 {
        self.by_slot.values().chain(self.guesses.values().map(|guess| &guess.spans)).map(Deadlines::sum).sum()
    }

    /// The moments after `now` at which bytes expire, in order. Of a guess that can be put right the first moment counts for all.
    pub(super) fn moments_after(&self, now: u64) -> Vec<(u64, u64)> {
        let later = |deadlines: &Deadlines| {
            let later = deadlines.spans.range(now.saturating_add(1)..);
            later.map(|(&end, &bytes)| (end, bytes)).collect::<Vec<_>>()
        };
        let mut moments: Vec<(u64, u64)> = self.by_slot.values().flat_map(later).collect();
        for guess in self.guesses.values() {
            match guess.spans.spans.first_key_value() {
                _ if guess.closed => moments.extend(later(&guess.spans)),
                Some((&first, _)) if first > now => moments.push((first, guess.spans.sum())),
                _ => {}
            }
        }
        moments.sort_unstable();
        moments
    }

    /// The segments whose guess can be put right by reading them, and the bytes of each that could be over although the guess
    /// does not say so. `now` is asked only if there is a guess.
    pub(super) fn doubtful(&self, now: impl FnOnce() -> u64) -> Vec<(u32, u64)> {
        if self.guesses.is_empty() {
            return Vec::new();
        }
        let now = now();
        let open = self.guesses.iter().filter(|(_, guess)| !guess.closed && guess.is_doubtful(now));
        open.map(|(&slot, guess)| (slot, guess.spans.sum() - guess.spans.over(now))).collect()
    }

    /// Begins or goes on reading a segment. Returns where the next record begins, and where those end that are to be read.
    pub(super) fn begin_reading(&mut self, slot: u32) -> Option<(u64, u64)> {
        let guess = self.guesses.get_mut(&slot).filter(|guess| !guess.closed)?;
        guess.closed = true;
        Some((guess.read, guess.end))
    }

    /// A record was read that ends at `next`, and that a slot names.
    pub(super) fn found(&mut self, slot: u32, next: u64, millis: u64, bytes: u64) {
        if let Some(guess) = self.guesses.get_mut(&slot) {
            guess.read = next;
            guess.found.add(millis, bytes);
        }
    }

    /// Ends what was begun.
    pub(super) fn end_reading(&mut self, slot: u32, reading: Reading) {
        match reading {
            Reading::Part(at) => {
                if let Some(guess) = self.guesses.get_mut(&slot) {
                    (guess.read, guess.closed) = (at, false);
                }
            }
            Reading::Whole => {
                let Some(guess) = self.guesses.remove(&slot) else { return };
                for (end, bytes) in guess.found.spans {
                    self.add(slot, end.saturating_sub(1), bytes);
                }
            }
            Reading::Failed => {}
        }
    }

    /// What a checkpoint keeps of a segment.
    pub(super) fn kept(&self, slot: u32) -> Option<Expiring> {
        self.of(slot).filter_map(Deadlines::kept).reduce(|one, other| Expiring {
            first: one.first.min(other.first),
            last: one.last.max(other.last),
            bytes: one.bytes + other.bytes,
        })
    }

    /// What a checkpoint has kept of a segment, whose records end there.
    pub(super) fn open(&mut self, slot: u32, end: u64, kept: Expiring) {
        let (spans, found) = (Deadlines::opened(kept), Deadlines::default());
        self.guesses.insert(slot, Guess { spans, end, read: SEGMENT_HEADER_BYTES, found, closed: false });
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

    #[test]
    fn reading_takes_the_place_of_a_guess() {
        let mut all = AllDeadlines::default();
        // The end of the span in which the records expire.
        let (soon, late) = (10 << SHIFT_MIN, 1 << 40);
        all.open(7, 1000, Expiring { first: soon, last: late, bytes: 200 });
        // Behind what the guess stands for.
        all.add(7, soon - 1, 30);
        let now = soon + 5000;
        assert!(all.over(7, || now) < 60 && all.doubtful(|| soon - 1).is_empty() && all.doubtful(|| late).is_empty());
        assert_eq!(all.moments_after(soon - 1)[..2], [(soon, 30), (soon, 200)]);
        assert_eq!(all.doubtful(|| now)[0].0, 7);
        assert_eq!(all.begin_reading(7), Some((SEGMENT_HEADER_BYTES, 1000)));
        assert_eq!((all.begin_reading(7), all.doubtful(|| now)), (None, Vec::new()));
        for at in 0..5 {
            all.found(7, 200 + at * 20, soon - 1, 20);
        }
        // One that was read, one that was not, and one from after the open.
        all.take(7, 200, soon - 1, 20);
        all.take(7, 900, soon - 1, 20);
        all.take(7, 1000, soon - 1, 10);
        all.end_reading(7, Reading::Part(600));
        assert_eq!(all.kept(7).unwrap().bytes, 160 + 20, "a checkpoint keeps the guess meanwhile");
        assert_eq!(all.begin_reading(7), Some((600, 1000)));
        all.found(7, 700, late, 40);
        all.end_reading(7, Reading::Whole);
        assert_eq!((all.over(7, || now), all.sum(), all.begin_reading(7)), (80 + 20, 80 + 20 + 40, None));
        // What cannot be read stays a guess.
        all.open(8, 1000, Expiring { first: soon, last: late, bytes: 200 });
        all.begin_reading(8);
        all.end_reading(8, Reading::Failed);
        assert_eq!((all.begin_reading(8), all.doubtful(|| now), all.sum()), (None, Vec::new(), 340));
        all.forget(8);
        assert_eq!(all.sum(), 140);
    }
}
