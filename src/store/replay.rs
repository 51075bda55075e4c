//! Replaying the log's tail into the index.
//!
//! Changes of one key are applied in log order; changes of different keys commute. So the tail is sorted by
//! page, stably, in large pieces, and what the next changes touch is prefetched. A clear-record is a barrier.
//! Growth, overflow and everything else happen as they did when the records were written, though not at the
//! same moments: the index is a function of the records, not of their timing.

use std::collections::HashSet;

use crate::checkpoint::tail::{Tail, TailOp};
use crate::error::Result;
use crate::index::chain::Found;
use crate::index::slot::Slot;
use crate::index::table::Table;
use crate::index::{Need, Step};
use crate::log::Position;
use crate::log::record::{BlobLink, CLEAR_BYTES, Kind, Record};
use crate::store::bulk::Clear;
use crate::store::core::Core;
use crate::store::read::Hit;
use crate::sync::{Ordering, in_parallel, parts};

/// Changes sorted at a time.
const PIECE: usize = 1 << 20;
/// How far ahead pages and records are prefetched.
const AHEAD: usize = 12;
/// Pages that are made ready at once.
const POPULATED_PAGES: u64 = 64;
/// Fewer changes than that are replayed by one thread.
const PARALLEL_MIN: usize = 10_000;
/// Threads that replay at the most.
const PARTS_MAX: usize = 8;

impl Core {
    /// Replays a tail. Returns the number of log bytes that it covers.
    pub(crate) fn replay(&self, tail: &Tail, cut: Position) -> Result<u64> {
        // Waiting for a checkpoint would be waiting for ourselves.
        self.recovering.store(true, Ordering::Relaxed);
        let lift = self.table.dirty.lift_limit();
        let mut done = 0;
        for run in tail.ops.split_inclusive(|op| op.kind == Kind::Clear) {
            done += run.len();
            let (clear, changes) = match run.split_last() {
                Some((last, rest)) if last.kind == Kind::Clear => (Some(last), rest),
                _ => (None, run),
            };
            for piece in changes.chunks(PIECE) {
                self.replay_piece(piece)?;
            }
            if let Some(op) = clear {
                let later = tail.linked.iter().filter(|&&(op, _)| op >= done).map(|(_, link)| link.id);
                self.replay_clear(tail, op, &later.collect())?;
            }
        }
        drop(lift);
        self.recovering.store(false, Ordering::Relaxed);
        let bytes = tail.segments.iter().map(|segment| {
            let from = if segment.sequence == cut.sequence() { cut.offset() } else { 0 };
            segment.end.saturating_sub(from)
        });
        Ok(bytes.sum())
    }

    /// Each thread has stripes of its own, so that nobody waits, and the changes of one key stay with one thread.
    fn replay_piece(&self, piece: &[TailOp]) -> Result<()> {
        let parts = if self.tuning.background && piece.len() >= PARALLEL_MIN { parts().min(PARTS_MAX) } else { 1 };
        let results = in_parallel(parts, |part| self.replay_part(piece, part, parts));
        results.into_iter().collect()
    }

    fn replay_part(&self, piece: &[TailOp], part: usize, parts: usize) -> Result<()> {
        let growth = self.table.growth();
        let own = |op: &TailOp| (growth.stripe_of(op.hash) * parts) >> growth.stripes_log2() == part;
        let own = piece.iter().enumerate().filter(|(_, op)| own(op));
        // The second member keeps changes of one key in their order.
        let mut order: Vec<(u64, usize)> = own.map(|(i, op)| (growth.page_of(op.hash), i)).collect();
        order.sort_unstable();
        let ahead = |by: usize| order.get(by).map(|&(_, i)| &piece[i]);
        let mut populated = 0;
        for (at, &(_, i)) in order.iter().enumerate() {
            while populated <= at + AHEAD && populated < order.len() {
                populated += self.populate_for(&order[populated..]);
            }
            if let Some(ahead) = ahead(at + AHEAD) {
                self.table.prefetch(ahead.hash);
                self.log.pins.prefetch(ahead.place.segment(), ahead.place.offset());
            }
            if let Some(slot) = ahead(at + AHEAD / 2).and_then(|ahead| self.table.guess(ahead.hash)) {
                self.log.prefetch(slot);
            }
            self.retry_replay(|| self.replay_one(&piece[i]))?;
        }
        Ok(())
    }

    /// Gets the next pages ready for changes, if most of some neighbours will be changed. Returns the number of changes
    /// to which that applies.
    fn populate_for(&self, order: &[(u64, usize)]) -> usize {
        let Some(&(page, _)) = order.first() else { return 0 };
        let first = page / POPULATED_PAGES * POPULATED_PAGES;
        let changes = order.partition_point(|&(page, _)| page < first + POPULATED_PAGES);
        let pages = order[..changes].chunk_by(|one, other| one.0 == other.0).count() as u64;
        if pages * 4 >= POPULATED_PAGES * 3 {
            self.table.populate(first, POPULATED_PAGES);
        }
        changes
    }

    fn replay_clear(&self, tail: &Tail, op: &TailOp, linked_later: &HashSet<u64>) -> Result<()> {
        let segment = tail.segments.iter().find(|segment| segment.slot == op.place.segment());
        let (sequence, overhead) = segment.map_or((0, 0), |segment| (segment.sequence, segment.overhead_since_clear));
        let end = Position::new(sequence, op.place.offset() + CLEAR_BYTES);
        self.retry_replay(|| self.clear_locked(Clear::Replay { end, linked_later }).map(|_| ()))?;
        self.log.add_dead(op.place, overhead);
        Ok(())
    }

    /// Growth in a replay is driven by the replay itself.
    fn retry_replay(&self, mut step: impl FnMut() -> Step<()>) -> Result<()> {
        self.retry(|| {
            if self.table.growth().is_resizing() {
                self.table.help_growth(1, self)?;
            } else if self.table.growth_wanted.load(Ordering::Relaxed) {
                self.table.start_growth()?;
            }
            step()
        })
    }

    fn replay_one(&self, op: &TailOp) -> Step<()> {
        let table = &self.table;
        let pinned = self.log.pin(op.place)?.ok_or(Need::Nothing)?;
        let record: Record<'_> = self.log.record(&pinned, op.place)?;
        let guard = table.lock(op.hash);
        let owner = guard.growth.page_of(op.hash);
        let mut chain = table.chain(owner)?;
        let marks = chain.primary.state.load().has_marks();
        let mut previous: Option<Hit<'_>> = None;
        let key = record.key();
        let found = chain.find(Table::tag(&chain, op.hash), marks, |slot| self.is_key(key, slot, &mut previous))?;
        match (found, op.kind) {
            (Found::Hit(spot, _), Kind::Remove) => {
                table.touch_chain(&chain, owner, guard.growth)?;
                chain.primary.state.begin_move();
                chain.remove(spot);
                let trimmed = table.trim(&mut chain);
                chain.primary.state.end_move();
                guard.add_count(-1);
                trimmed?;
            }
            (Found::Miss(_), Kind::Remove) => {}
            (Found::Hit(spot, _), _) => {
                table.touch(chain.slot_of(spot.page), owner, guard.growth)?;
                chain.replace(spot, Slot::new(Table::tag(&chain, op.hash), op.place));
            }
            (Found::Miss(free), _) => {
                match free {
                    Some(spot) => table.touch(chain.slot_of(spot.page), owner, guard.growth)?,
                    None => table.touch_chain(&chain, owner, guard.growth)?,
                }
                let spot = table.room(&mut chain, owner, found)?.ok_or(Need::Nothing)?;
                chain.fill(spot, Slot::new(Table::tag(&chain, op.hash), op.place));
                let count = guard.add_count(1);
                if table.is_crowded(&guard, count) {
                    table.growth_wanted.store(true, Ordering::Relaxed);
                }
            }
        }
        let linked = (op.kind == Kind::PutBlob).then(|| BlobLink::decode(record.value())).flatten();
        let mut freed = None;
        if let Some(hit) = previous {
            self.log.add_dead(hit.place(), hit.header.total());
            freed = hit.blob();
        }
        // A record that compaction has moved links the blob that the record before it did.
        if freed.map(|link| link.id) != linked.map(|link| link.id) {
            freed.into_iter().for_each(|link| self.log.blobs.freed(link));
            linked.into_iter().for_each(|link| self.log.blobs.linked(link));
        }
        Ok(())
    }
}
