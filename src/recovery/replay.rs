//! Replaying the log's tail into the index.
//!
//! Changes of one key are applied in log order; changes of different keys commute. The tail is replayed in pieces:
//!
//! 1. A piece of changes is read from the mapped log (recovery/tail.rs has validated it). It ends at a clear-record at
//!    the latest, and its size follows from `memory_bytes`.
//! 2. The table is sized for the piece, by one thread: how many keys are new is estimated.
//! 3. The piece is divided among threads by hash bits that no size of the table changes, so the changes of one key stay
//!    with one thread. Each thread sorts its part by page, stably, and prefetches the pages and records that follow. The
//!    table neither grows nor shrinks meanwhile.
//! 4. The changes that the threads made are counted. A number other than the piece's refuses the open.
//! 5. A clear-record is a barrier: it is applied after the piece that it ends. So is a record of the catalog, which makes, clears
//!    or drops a table (engine/catalog.rs).
//!
//! An estimate that falls short costs overflow pages, which growth after the open takes back.

use std::collections::HashSet;

use crate::address::Lsn;
use crate::engine::Engine;
use crate::engine::bulk::Clear;
use crate::engine::read::Hit;
use crate::error::{Error, Location, Result};
use crate::log::large::Linked;
use crate::log::record::{CLEAR_BYTES, Kind, Record};
use crate::mutant::{Mutant, broken};
use crate::need::Step;
use crate::recovery::tail::Tail;
use crate::recovery::tail_reader::{TailOp, TailReader};
use crate::sync::{in_parallel, parts};
use crate::sys::pins::Pinned;
use crate::table::Table;
use crate::table::growth::Growth;
use crate::table_id::TableId;
use crate::words::some;

/// Changes replayed at a time: the least and the most.
const PIECE_CHANGES: (usize, usize) = (1 << 12, 1 << 20);
/// Memory for a change of a piece: the change, its rank in the order of its thread, and what growing vectors waste.
const BYTES_PER_CHANGE: u64 = 64;
/// The part of `memory_bytes` that a piece may take.
const PIECE_SHARE: u64 = 8;
/// How far ahead pages and records are prefetched.
const AHEAD: usize = 12;
/// Pages that are made ready at once.
const POPULATED_PAGES: u64 = 64;
/// Fewer changes than that are replayed by one thread.
const PARALLEL_MIN: usize = 10_000;
/// Threads that replay at the most.
const PARTS_MAX: usize = 8;
/// About as many keys are looked up to estimate how many of a piece's keys are new.
const SAMPLES: usize = 4096;

/// The part that replays the changes of a hash. It depends on the hash alone: a table of any size, and one that is being
/// resized, has the same parts. Pages are chosen by the low bits. So pages that are made ready at once belong to one part,
/// and parts of a power of two share no page of a table that has as many times [`POPULATED_PAGES`].
fn part_of(hash: u64, parts: usize) -> usize {
    let block = (hash / POPULATED_PAGES) as u32;
    ((u64::from(block.reverse_bits()) * parts as u64) >> 32) as usize
}

impl Engine {
    /// Replays a tail. Returns the number of log bytes that it covers.
    pub(crate) fn replay(&self, tail: &Tail, cut: Lsn) -> Result<u64> {
        // Waiting for a checkpoint would be waiting for ourselves.
        self.health.set_recovering(true);
        let lift = self.tables.index().lift_limit();
        let memory = self.checkpointer.limit_pages().saturating_mul(crate::sys::PAGE_BYTES as u64);
        let most = usize::try_from(memory / PIECE_SHARE / BYTES_PER_CHANGE).unwrap_or(usize::MAX);
        let most = most.clamp(PIECE_CHANGES.0, PIECE_CHANGES.1);
        let mut reader = TailReader::new(&self.log, &self.hasher, tail, cut);
        let mut piece = Vec::new();
        let mut done = 0;
        while reader.read(most, &mut piece)? {
            done += piece.len();
            let entry = piece.pop_if(|last| last.table == TableId::CATALOG);
            let clear = piece.pop_if(|last| last.kind == Kind::Clear);
            self.replay_piece(&mut piece)?;
            if let Some(op) = entry {
                self.replay_entry(&op)?;
            }
            if let Some(op) = clear {
                let later = tail.linked.iter().filter(|&&(op, _)| op >= done).map(|(_, link)| link.id);
                self.replay_clear(self.tables.main(), tail, &op, &later.collect())?;
            }
        }
        self.check_replayed("the log's tail", tail.changes, done)?;
        drop(lift);
        self.health.set_recovering(false);
        let bytes = tail.segments.iter().map(|segment| {
            let from = if segment.sequence == cut.sequence() { cut.offset() } else { 0 };
            segment.end.saturating_sub(from)
        });
        Ok(bytes.sum())
    }

    /// A change that is left out would be lost for good with the next checkpoint.
    fn check_replayed(&self, what: &str, expected: usize, found: usize) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let location = Location::file(self.log.dir());
        let expected = format!("{} of {what} applied", some(expected as u64, "change"));
        Err(Error::corrupt("replay", location, expected, format!("{found}")))
    }

    /// The error for a change of a table that nothing has made.
    fn unknown_table(&self, op: &TailOp) -> Error {
        let location = Location::at(&self.log.path_of_slot(op.address.segment()), op.address.offset());
        Error::corrupt("record", location, "of a table that is there", op.table.to_string())
    }

    /// Steps 2 to 4, table by table.
    fn replay_piece(&self, piece: &mut [TailOp]) -> Result<()> {
        // Changes of different tables commute. Most pieces are of one table.
        if !piece.is_sorted_by_key(|op| op.table) {
            piece.sort_by_key(|op| op.table);
        }
        for changes in piece.chunk_by(|one, next| one.table == next.table) {
            let Some(first) = changes.first() else { continue };
            let table = self.tables.get(first.table).ok_or_else(|| self.unknown_table(first))?;
            self.replay_changes(&table, changes)?;
        }
        Ok(())
    }

    /// Steps 2 to 4, for one table.
    fn replay_changes(&self, table: &Table, piece: &[TailOp]) -> Result<()> {
        self.size_for(table, piece)?;
        let plan = self.tuning.parts;
        // Read once, for all threads.
        let growth = table.growth();
        let parts = match plan.parts {
            0 if self.tuning.background && piece.len() >= PARALLEL_MIN => {
                // In a smaller table the parts would wait for each other's pages.
                let most = growth.pages() / POPULATED_PAGES;
                parts().min(PARTS_MAX).min(most.max(1) as usize)
            }
            0 => 1,
            wanted => wanted,
        };
        let results = in_parallel(parts, plan.order, |part| self.replay_part(table, piece, growth, part, parts));
        let mut done = 0;
        for result in results {
            done += result?;
        }
        self.check_replayed("a piece of the log's tail", piece.len(), done)
    }

    /// Step 2. Growth that cannot be had now is no error of the open: paths become longer.
    fn size_for(&self, table: &Table, piece: &[TailOp]) -> Result<()> {
        let wanted = table.len().saturating_add(self.estimate_new(table, piece));
        match self.grow_for(table, wanted) {
            Err(Error::DiskFull { .. } | Error::LimitReached { .. } | Error::Corrupt { .. }) => Ok(()),
            other => other,
        }
    }

    /// About how many keys of a piece are not in the table. The keys of some pages are looked up, and stand for all others.
    ///
    /// The pages are neighbours, because reading a page maps it, and others around it, for reading. The first change of a
    /// page that is mapped so interrupts all processors.
    fn estimate_new(&self, table: &Table, piece: &[TailOp]) -> u64 {
        let puts = || piece.iter().filter(|op| matches!(op.kind, Kind::Put | Kind::PutBlob));
        // Of the pages before the resize that may be under way: each has the same share of the hashes.
        let pages = 1_u64 << table.growth().level();
        let share = SAMPLES as f64 / puts().count().max(1) as f64;
        let sampled = ((pages as f64 * share).ceil() as u64).clamp(1, pages);
        let mut keys: Vec<u64> = puts().map(|op| op.hash).filter(|hash| hash & (pages - 1) < sampled).collect();
        keys.sort_unstable();
        keys.dedup();
        let new = keys.iter().filter(|&&hash| !self.is_probable(table, hash)).count();
        (new as f64 * pages as f64 / sampled as f64).ceil() as u64
    }

    /// True if a slot has the bits of the hash. No key is read. Nobody changes the table now.
    fn is_probable(&self, table: &Table, hash: u64) -> bool {
        let Ok(edit) = table.edit(hash) else { return false };
        edit.find(hash, |_| Ok::<_, Error>(true)).is_ok_and(|sought| sought.slot().is_some())
    }

    /// Step 3, for one thread. Returns the number of changes that it has applied.
    fn replay_part(&self, table: &Table, piece: &[TailOp], growth: Growth, part: usize, parts: usize) -> Result<usize> {
        let moment = if broken(Mutant::PartitionedByTheMoment) { table.len() } else { 0 };
        let own =
            piece.iter().enumerate().filter(|(_, op)| part_of(op.hash ^ (moment * POPULATED_PAGES), parts) == part);
        // The second member keeps changes of one key in their order.
        let mut order: Vec<(u64, u32)> = own.map(|(i, op)| (growth.page_of(op.hash), i as u32)).collect();
        order.sort_unstable();
        let ahead = |by: usize| order.get(by).map(|&(_, i)| &piece[i as usize]);
        let mut populated = 0;
        for (at, &(_, i)) in order.iter().enumerate() {
            while populated <= at + AHEAD && populated < order.len() {
                populated += self.populate_for(table, &order[populated..]);
            }
            if let Some(ahead) = ahead(at + AHEAD) {
                table.prefetch(ahead.hash);
                self.log.prefetch(ahead.address);
            }
            if let Some(slot) = ahead(at + AHEAD / 2).and_then(|ahead| table.guess(ahead.hash)) {
                self.log.prefetch(slot.address());
            }
            self.retry(|| self.replay_one(table, &piece[i as usize]))?;
        }
        Ok(order.len())
    }

    /// Gets the next pages ready for changes, if most of some neighbours will be changed. Returns the number of changes
    /// to which that applies.
    fn populate_for(&self, table: &Table, order: &[(u64, u32)]) -> usize {
        let Some(&(page, _)) = order.first() else { return 0 };
        let first = page / POPULATED_PAGES * POPULATED_PAGES;
        let changes = order.partition_point(|&(page, _)| page < first + POPULATED_PAGES);
        let pages = order[..changes].chunk_by(|one, other| one.0 == other.0).count() as u64;
        if pages * 4 >= POPULATED_PAGES * 3 {
            table.populate(first, POPULATED_PAGES);
        }
        changes
    }

    fn pin_of(&self, op: &TailOp) -> Result<Pinned<'_>> {
        let unmapped = || Error::impossible(&self.path, "a segment of the tail that is not mapped");
        self.log.pin(op.address).ok_or_else(unmapped)
    }

    /// A record of the catalog is a barrier: the changes before it speak of the tables that there were.
    fn replay_entry(&self, op: &TailOp) -> Result<()> {
        let pinned = self.pin_of(op)?;
        let record: Record<'_> = self.log.record(&pinned, op.address)?;
        self.log.note_tables();
        let catalog = self.replay_catalog(&record, op.address)?;
        self.retry(|| self.replay_one(&catalog, op))
    }

    fn replay_clear(&self, table: &Table, tail: &Tail, op: &TailOp, linked_later: &HashSet<u64>) -> Result<()> {
        let segment = tail.segments.iter().find(|segment| segment.slot == op.address.segment());
        let (sequence, overhead) = segment.map_or((0, 0), |segment| (segment.sequence, segment.overhead_since_clear));
        let end = Lsn::new(sequence, op.address.offset() + CLEAR_BYTES);
        if !self.tables.is_alone() {
            self.replay_clear_of(table)?;
            self.log.note_clear_before(end);
            return Ok(());
        }
        self.retry(|| self.clear_locked(table, Clear::Replay { end, linked_later }).map(|_| ()))?;
        self.log.add_dead(op.address, overhead);
        Ok(())
    }

    fn replay_one(&self, table: &Table, op: &TailOp) -> Step<()> {
        let pinned = self.pin_of(op)?;
        let record: Record<'_> = self.log.record(&pinned, op.address)?;
        let mut edit = table.edit(op.hash)?;
        let mut previous: Option<Hit<'_>> = None;
        let key = record.key();
        // The record that is superseded is not read, as by `set` and `delete`: they have done so to a rotten one.
        let sought = edit.find(op.hash, |slot| self.is_key_with(table, key, slot, false, &mut previous))?;
        let reserved = match op.kind {
            Kind::Remove => edit.reserve_removal(sought)?,
            _ => Some(edit.reserve_put(sought)?),
        };
        if let Some(reserved) = reserved {
            edit.publish(reserved, op.address);
        }
        self.log.add_deadline(op.address, record.deadline(), record.header.total());
        let linked = |link| Linked { link, deadline: record.deadline(), address: op.address };
        self.supersede(previous.as_ref(), record.blob_link().map(linked));
        Ok(())
    }
}
