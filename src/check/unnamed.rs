//! Records that a slot must name, and none does: the last put of a key, with nothing behind it that removes it.
//!
//! The scan of the log (**scan**) hands over each put that no slot names. Nearly all of them are dead: a later record
//! of the key is in the log, or a clear-record. So the puts are collected, by the hash of the key, and the log is read
//! again: what meets a later record of its hash is dropped. What is left is lost to every reader of the store.
//!
//! Memory is bounded: when so many puts are collected as are to be held, the log is read for them, and collecting goes
//! on. A store without dead records is read once.
//!
//! And the other way round: a removal (or a clear-record) that was not carried out leaves a slot that names a put
//! before it. The removals are collected too, and one walk over the index looks for slots of the same tag.
//!
//! Each table is judged for itself. Records of a table that the catalog does not name are dead, and so are those below the position
//! at which their table was cleared. A clear-record speaks of the main table alone.
//!
//! Damage can hide the later record. So nothing is said of puts before a part of the log that could not be read, nor
//! of keys whose page could not be read.

use std::collections::{HashMap, HashSet};

use super::catalog::Catalog;
use super::kind;
use super::segments::{Known, Segments, by_slot};
use super::sink::{Input, Sink};
use super::slots::LiveSlot;
use super::tables::CheckedTable;
use super::walk::{Walk, Walked};
use crate::address::Address;
use crate::address::Lsn;
use crate::checksum::KeyHasher;
use crate::error::{IoContext, Location, Result};
use crate::log::reader::{PreadSource, RecordSource, key_at};
use crate::log::record::{ALIGN, Kind};
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::sys::{Disk, PAGE_BYTES};
use crate::table::slot::Tag;
use crate::table_id::TableId;
use crate::words::quoted;

/// Puts that nothing explains and that are kept; the rest is counted.
const LEFT_MAX: usize = 1 << 20;
/// Bytes that are read between two looks at the progress.
const STEP_BYTES: u64 = 1 << 20;
/// Bytes of a key that a finding shows.
const KEY_SHOWN: usize = 40;

/// A change of a key: a put that no slot names, or a removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Put {
    hash: u64,
    table: TableId,
    lsn: Lsn,
}

/// Collects puts that no slot names.
#[derive(Debug)]
pub(super) struct Unnamed<'c> {
    limit: usize,
    catalog: &'c Catalog,
    puts: Vec<Put>,
    /// The last clear-record that was seen: it hides records of the main table.
    cleared: Lsn,
    /// The end of the last block that could not be read when the log was read again: it can hold a later record.
    unread: Lsn,
    /// Puts that the whole log does not explain.
    left: Vec<Put>,
    /// Those beyond the bound.
    left_uncounted: u64,
    /// Removals, at most as many as are to be held.
    removals: Vec<Put>,
    removals_total: u64,
}

impl<'c> Unnamed<'c> {
    /// Holds `limit` puts in memory: 24 bytes each.
    pub(super) fn new(limit: usize, catalog: &'c Catalog) -> Self {
        Unnamed {
            limit: limit.max(16),
            catalog,
            puts: Vec::new(),
            cleared: Lsn::default(),
            unread: Lsn::default(),
            left: Vec::new(),
            left_uncounted: 0,
            removals: Vec::new(),
            removals_total: 0,
        }
    }

    /// A put that no slot names.
    pub(super) fn add(&mut self, table: TableId, hash: u64, lsn: Lsn) {
        let put = Put { hash, table, lsn };
        if self.catalog.counts(table, lsn) && !self.is_cleared(&put) {
            self.puts.push(put);
        }
    }

    /// True if the last clear-record hides a put.
    fn is_cleared(&self, put: &Put) -> bool {
        put.table == TableId::MAIN && put.lsn <= self.cleared
    }

    /// A clear-record of the main table.
    pub(super) fn clear(&mut self, lsn: Lsn) {
        self.cleared = self.cleared.max(lsn);
    }

    /// A removal.
    pub(super) fn remove(&mut self, table: TableId, hash: u64, lsn: Lsn) {
        self.removals_total += 1;
        if self.removals.len() < self.limit {
            self.removals.push(Put { hash, table, lsn });
        }
    }

    /// True if the log is to be read for what was collected.
    pub(super) fn is_full(&mut self) -> bool {
        if self.puts.len() < self.limit {
            return false;
        }
        self.keep_last();
        self.puts.len() > self.limit / 2
    }

    /// Drops what was put again later, or cleared.
    fn keep_last(&mut self) {
        let mut puts = std::mem::take(&mut self.puts);
        puts.retain(|put| !self.is_cleared(put));
        puts.sort_unstable_by_key(|put| (put.hash, put.table, std::cmp::Reverse(put.lsn)));
        puts.dedup_by_key(|put| (put.hash, put.table));
        self.puts = puts;
    }

    /// Reads the log, and drops what a later record explains.
    pub(super) fn resolve(
        &mut self,
        disk: &dyn Disk,
        hasher: &KeyHasher,
        segments: &[Known],
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        self.keep_last();
        if self.puts.is_empty() {
            return Ok(());
        }
        sink.expect(segments.iter().map(|known| known.entry.end).sum());
        let mut wanted = Wanted::new(std::mem::take(&mut self.puts));
        for known in segments {
            each_record(disk, known, sink, &mut self.unread, &mut |at, kind, table, key| {
                let lsn = Lsn::new(known.entry.sequence, at);
                match kind {
                    Kind::Put | Kind::PutBlob | Kind::Remove => wanted.explain(hasher.hash(key), table, lsn),
                    Kind::Clear if table == TableId::MAIN => self.cleared = self.cleared.max(lsn),
                    Kind::Clear | Kind::Frame | Kind::Mark => {}
                }
            })?;
        }
        for put in wanted.left() {
            if self.is_cleared(&put) {
                continue;
            }
            if self.left.len() < LEFT_MAX { self.left.push(put) } else { self.left_uncounted += 1 }
        }
        Ok(())
    }

    /// Reports slots that name a put which was removed later. Each pass takes as many removals as are to be held, and
    /// walks over the index.
    pub(super) fn check_removed(
        &mut self,
        disk: &dyn Disk,
        hasher: &KeyHasher,
        segments: &[Known],
        walk: &mut Walk<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        if self.removals_total == 0 && self.cleared == Lsn::default() && !self.catalog.has_cleared() {
            return Ok(());
        }
        let passes = self.removals_total.div_ceil(self.limit as u64).max(1);
        for pass in 0..passes {
            let mut removals = std::mem::take(&mut self.removals);
            if passes > 1 {
                removals.clear();
                sink.expect(segments.iter().map(|known| known.entry.end).sum());
                for known in segments {
                    each_record(disk, known, sink, &mut self.unread, &mut |at, kind, table, key| {
                        let hash = if kind == Kind::Remove { hasher.hash(key) } else { return };
                        if hash % passes == pass {
                            removals.push(Put { hash, table, lsn: Lsn::new(known.entry.sequence, at) });
                        }
                    })?;
                }
            }
            let cleared = |id| if id == TableId::MAIN { self.cleared } else { self.catalog.cleared(id) };
            let cleared = |table: &CheckedTable<'_>| if pass == 0 { cleared(table.id()) } else { Lsn::default() };
            let cleared: Vec<Lsn> = walk.tables.iter().map(cleared).collect();
            removed_in(&removals, &cleared, hasher, walk, sink)?;
        }
        Ok(())
    }

    /// Reports what nothing explains.
    pub(super) fn report(
        mut self,
        disk: &dyn Disk,
        segments: &Segments,
        tables: &[CheckedTable<'_>],
        walked: &Walked,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        if walked.marked != walked.marked_addresses.len() as u64 {
            // More of them than are remembered, which are as many findings.
            return Ok(());
        }
        let marked: HashSet<Address> = walked.marked_addresses.iter().copied().collect();
        let damaged = segments.known.iter().filter_map(Known::damaged_to).max().unwrap_or_default();
        let hidden = damaged.max(self.unread);
        self.left.sort_unstable_by_key(|put| put.lsn);
        for put in self.left {
            let (sequence, at) = (put.lsn.sequence(), put.lsn.offset());
            let Some(known) = segments.known.iter().find(|known| known.entry.sequence == sequence) else { continue };
            let Some(table) = tables.iter().find(|table| table.id() == put.table) else { continue };
            let page = table.state.growth.page_of(put.hash);
            let is_hidden = put.lsn <= hidden
                || put.table == TableId::MAIN && put.lsn <= self.cleared
                || walked.broken.contains(&(table.number, page))
                || marked.contains(&Address::new(known.entry.slot, at));
            if is_hidden {
                continue;
            }
            let key = Input::open(disk, &known.path)?.ok().and_then(|input| key_at(&*input.file, at));
            sink.table = table.number;
            let expected = format!("a slot of page {page} that names the last record of key {}", shown(key));
            let found = "no slot: no reader finds the key (`tophash repair` saves it into a new store)";
            sink.damage(kind::RECORD_UNNAMED, Location::at(&known.path, at), expected, found);
        }
        sink.table = 0;
        if self.left_uncounted > 0 {
            let found = format!("{} more last records of keys that no slot names", self.left_uncounted);
            sink.damage(kind::RECORD_UNNAMED, Location::default(), "a slot for each", found);
        }
        Ok(())
    }
}

/// One pass of [`Unnamed::check_removed`].
///
/// `cleared` says for each table below which position none of its records counts.
fn removed_in(
    removals: &[Put],
    cleared: &[Lsn],
    hasher: &KeyHasher,
    walk: &mut Walk<'_>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let tables: HashMap<TableId, &CheckedTable<'_>> = walk.tables.iter().map(|table| (table.id(), table)).collect();
    let of_page = |&put: &Put| tables.get(&put.table).map(|t| (t.number, t.state.growth.page_of(put.hash), put));
    let mut by_page: Vec<(u16, u64, Put)> = removals.iter().filter_map(of_page).collect();
    by_page.sort_unstable();
    let sequences = by_slot(walk.state, |entry| entry.sequence);
    // Slots, and the change after which they should be gone.
    let mut suspects: Vec<(LiveSlot, Change)> = Vec::new();
    sink.muted = true;
    let walked = walk.run(sink, &mut |slot| {
        let address = slot.address();
        let Some(&sequence) = sequences.get(address.segment() as usize) else { return };
        let lsn = Lsn::new(sequence, address.offset());
        if suspects.len() >= LEFT_MAX {
            return;
        }
        let cleared = cleared.get(usize::from(slot.table())).copied().unwrap_or_default();
        if lsn < cleared {
            suspects.push((slot, Change::Cleared(cleared)));
            return;
        }
        let own = (slot.table(), slot.owner());
        let from = by_page.partition_point(|&(table, page, _)| (table, page) < own);
        let of_page = by_page.iter().skip(from).take_while(|&&(table, page, _)| (table, page) == own);
        for &(.., removal) in of_page {
            if lsn < removal.lsn && Tag::of(removal.hash, slot.split_base()) == slot.slot.tag() {
                suspects.push((slot, Change::Removed(removal)));
            }
        }
    });
    sink.muted = false;
    walked?;
    let index = walk.state.pages.index.path.clone();
    for (slot, change) in suspects {
        let key = walk.keys.key(slot.address())?;
        let (what, lsn) = match change {
            Change::Cleared(lsn) => ("all keys were removed", lsn),
            Change::Removed(put) if key.as_ref().is_none_or(|key| hasher.hash(key) != put.hash) => continue,
            Change::Removed(put) => ("it was removed", put.lsn),
        };
        let at = format!("byte {} of segment {}", lsn.offset(), lsn.sequence());
        sink.table = slot.table();
        let found = format!("key {}, though {what} later (at {at}): `tophash repair` leaves it out", shown(key));
        sink.damage(kind::RECORD_REMOVED, slot.spot.location(&index), "a key that was not removed", found);
    }
    sink.table = 0;
    Ok(())
}

/// After what a slot should be gone.
#[derive(Clone, Copy)]
enum Change {
    /// Its table was cleared: position below which nothing counts.
    Cleared(Lsn),
    /// A key with this hash was removed.
    Removed(Put),
}

/// The front of a key, as a finding shows it.
fn shown(key: Option<Vec<u8>>) -> String {
    key.map_or("(unreadable)".into(), |key| quoted(&key, KEY_SHOWN))
}

/// Puts by the hash of their key.
struct Wanted {
    /// Sorted by hash, one for each hash and table.
    puts: Vec<Put>,
    /// Where the hashes of each range begin; the upper bits of a hash choose the range.
    starts: Vec<u32>,
    shift: u32,
    /// Puts with a later record.
    explained: Vec<bool>,
}

impl Wanted {
    fn new(puts: Vec<Put>) -> Self {
        let log2 = puts.len().max(2).ilog2();
        let shift = 64 - log2;
        let mut starts = vec![0; (1 << log2) + 1];
        for put in &puts {
            if let Some(count) = starts.get_mut((put.hash >> shift) as usize + 1) {
                *count += 1;
            }
        }
        let mut before = 0;
        for start in &mut starts {
            before += *start;
            *start = before;
        }
        let explained = vec![false; puts.len()];
        Wanted { puts, starts, shift, explained }
    }

    fn explain(&mut self, hash: u64, table: TableId, lsn: Lsn) {
        let range = (hash >> self.shift) as usize;
        let (Some(&from), Some(&to)) = (self.starts.get(range), self.starts.get(range + 1)) else { return };
        let same_range = from as usize..to as usize;
        let puts = self.puts.get(same_range.clone()).into_iter().flatten();
        let explained = self.explained.get_mut(same_range).into_iter().flatten();
        for (put, explained) in puts.zip(explained) {
            *explained |= put.hash == hash && put.table == table && put.lsn < lsn;
        }
    }

    /// What no later record explains.
    fn left(self) -> impl Iterator<Item = Put> {
        self.puts.into_iter().zip(self.explained).filter(|&(_, explained)| !explained).map(|(put, _)| put)
    }
}

/// Takes the offset, kind, table and key of a record.
type EachRecord<'e> = dyn FnMut(u64, Kind, TableId, &[u8]) + 'e;

/// Hands on the offset, kind, table and key of each record of a segment that validates. What is damaged was reported when the
/// segment was checked; a block that cannot be read now is reported, and `unread` moves to its end.
fn each_record(
    disk: &dyn Disk,
    known: &Known,
    sink: &mut Sink<'_>,
    unread: &mut Lsn,
    each: &mut EachRecord<'_>,
) -> Result<()> {
    if !known.exists {
        // Reported when the segment was checked.
        return Ok(());
    }
    let input = Input::open(disk, &known.path)?.context("open", &known.path)?;
    let (end, salt) = (known.entry.end, known.entry.salt);
    let limit = end.min(input.len);
    let mut source = PreadSource::new(input.file, limit);
    let (mut at, mut told) = (SEGMENT_HEADER_BYTES, 0);
    // Lengths that were made up must not keep us reading.
    let mut budget = 16 * limit + (64 << 20);
    while at < limit {
        if let Ok(record) = source.record(at, limit, salt) {
            each(at, record.header.kind, record.table(), record.key());
            at += record.header.total();
        } else {
            let cost = source.header_at(at).map_or(ALIGN, |header| header.total().min(limit));
            let Some(left) = budget.checked_sub(cost) else { break };
            budget = left;
            at += ALIGN;
        }
        if at >= told + STEP_BYTES {
            told = at;
            sink.advance(source.take_bytes_read())?;
        }
    }
    for (at, error) in source.take_bad() {
        sink.unreadable(&known.path, at, &error);
        *unread = (*unread).max(Lsn::new(known.entry.sequence, at + PAGE_BYTES as u64));
    }
    sink.advance(source.take_bytes_read())
}
