//! Applying a batch.
//!
//! 1. The last change of each key counts. If that leaves some out, or values must go to blobs, the records are written
//!    anew; blobs are synced. No lock is held.
//! 2. A frame that is too large for the segments at hand gets one of its own, and is written there now
//!    (log/frame.rs). *Crash:* a file without a header, which recovery unlinks.
//! 3. The stripes of all keys are locked, in ascending order of tables and stripes, and all that can run short is found.
//! 4. The frame is appended, or its segment becomes the active one. *Crash before the frame is whole, and named:* none
//!    of it. *After:* all of it.
//! 5. The index is changed key by key, and so readers see it.
//!
//! Everything but the frame goes in the order of the pages: a page is fetched from memory once for each step, not once
//! for each of its keys.

use std::sync::Arc;

use crate::address::Address;
use crate::awaited::Wait;
use crate::batch::Batch;
use crate::engine::read::Hit;
use crate::engine::{Engine, Until};
use crate::error::{Error, Result};
use crate::expiry::Deadline;
use crate::log::appender::Appended;
use crate::log::encode::{Encoded, Entry};
use crate::log::frame::{FRAME_BYTES_MAX, OwnSegment};
use crate::log::large::Linked;
use crate::log::record::{BlobLink, FRAME_BYTES, Kind, Label};
use crate::need::{Again, Need, Shortage, Step};
use crate::observe::Timed;
use crate::table::Table;
use crate::table::edit::StripeSet;
use crate::table::growth::Growth;
use crate::table::load::Expected;
use crate::table::stripes::Tally;
use crate::table_id::TableId;

/// After a batch of so many changes the log's space is looked at, however few bytes it has.
const MANY: u64 = 256;

/// One change of a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    /// The key's hash with its bits reversed. The low bits of a hash choose its page, so this order brings the keys of
    /// a page together, whatever the level of the table.
    reversed: u64,
    /// Where its record starts among the records, a multiple of 8; bit 0 is set if it removes.
    record: u64,
}

impl Change {
    fn hash(self) -> u64 {
        self.reversed.reverse_bits()
    }

    fn start(self) -> u64 {
        self.record & !1
    }

    fn removes(self) -> bool {
        self.record & 1 != 0
    }
}

/// The changes of a table's keys.
struct Group<'t> {
    table: &'t Table,
    /// In the order of their pages.
    list: Vec<Change>,
}

/// The changes of a batch that count, ready to be applied.
struct Changes<'b> {
    records: &'b Encoded,
    /// By ascending id of their tables. None is empty.
    groups: Vec<Group<'b>>,
    /// Links to the values in blobs, by the start of their records.
    links: Vec<(u64, BlobLink)>,
}

impl Group<'_> {
    /// The changes of each page, and the number of the first.
    fn by_page(&self, growth: Growth) -> impl Iterator<Item = (u64, usize, &[Change])> {
        let pages = self.list.chunk_by(move |a, b| growth.page_of(a.hash()) == growth.page_of(b.hash()));
        pages.scan(0, move |passed, page| {
            let first = *passed;
            *passed += page.len();
            Some((growth.page_of(page.first()?.hash()), first, page))
        })
    }

    fn removals(&self) -> u64 {
        self.list.iter().filter(|change| change.removes()).count() as u64
    }
}

impl Changes<'_> {
    fn key(&self, change: Change) -> &[u8] {
        key_of(self.records, change)
    }

    fn link(&self, change: Change) -> Option<BlobLink> {
        let at = self.links.binary_search_by_key(&change.start(), |&(start, _)| start).ok()?;
        Some(self.links[at].1)
    }

    fn len(&self) -> u64 {
        len(&self.groups)
    }

    fn removals(&self) -> u64 {
        self.groups.iter().map(Group::removals).sum()
    }
}

/// How many changes there are.
fn len(groups: &[Group<'_>]) -> u64 {
    groups.iter().map(|group| group.list.len() as u64).sum()
}

fn key_of(records: &Encoded, change: Change) -> &[u8] {
    records.record(change.start()).map_or(&[], |record| record.key())
}

impl Engine {
    /// Applies a batch: all of it or nothing, after any crash. What names no table is of `table`.
    pub(crate) fn apply(&self, table: &Table, batch: &Batch, until: Until) -> Result<Option<Wait>> {
        let _pass = self.health.enter()?;
        let _timer = self.observer.time(Timed::Batch);
        batch.check()?;
        self.check_tables(batch)?;
        let mut groups = self.changes_of(table, batch)?;
        groups.iter_mut().for_each(|group| keep_last(&mut group.list, batch.records()));
        let changes = len(&groups);
        if changes == 0 {
            return Ok(None);
        }
        let mut links = Vec::new();
        let mut rewritten = Encoded::default();
        // Records say which table they are of.
        let whole = changes == batch.records().records() && (table.id() == TableId::MAIN || batch.names_all_tables());
        let result = if whole && batch.longest_value() as u64 <= self.blob_threshold() {
            self.apply_records(Changes { records: batch.records(), groups, links: Vec::new() })
        } else {
            self.rewrite(batch.records(), &mut groups, &mut rewritten, &mut links)
                .and_then(|()| self.apply_records(Changes { records: &rewritten, groups, links: links.clone() }))
        };
        match result {
            Ok(appended) => {
                self.counts.count_batch();
                let wait = self.after_append(appended, until)?;
                if changes >= MANY {
                    self.after_many();
                } else {
                    self.mind_freed_blobs();
                }
                Ok(wait)
            }
            Err(error) => {
                self.give_up_blobs(links.into_iter().map(|(_, link)| link));
                Err(error)
            }
        }
    }

    /// The tables that a batch names must be this store's, and there.
    fn check_tables(&self, batch: &Batch) -> Result<()> {
        for named in batch.tables() {
            named.check_there()?;
            if !self.tables.get(named.id()).is_some_and(|table| Arc::ptr_eq(&table.shared(), named)) {
                // Dropped between the two looks.
                named.check_there()?;
                let (path, name) = (self.path.clone(), named.name().unwrap_or_else(|| named.id().to_string()));
                return Err(Error::ForeignTable { path, name });
            }
        }
        Ok(())
    }

    /// All changes by tables, in the order of their pages, and those of a page in the order of the batch.
    ///
    /// # Errors
    /// `TableDropped`. A record of a table that the batch does not name is a fault of the batch.
    fn changes_of<'b>(&'b self, table: &'b Table, batch: &'b Batch) -> Result<Vec<Group<'b>>> {
        let records = batch.records();
        let find = |id: TableId| match id {
            _ if id == table.id() => Some(table),
            TableId::MAIN => Some(&**self.tables.main()),
            _ => batch.tables().iter().find(|named| named.id() == id).map(|named| &**named),
        };
        let unknown = || Error::impossible(&self.path, "a batch with a change of a table that it does not name");
        // Most batches have changes of one table.
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (start, record) in records.iter() {
            let id = batch.table_of(start, &record, table.id());
            let at = match groups.last() {
                Some(group) if group.table.id() == id => groups.len() - 1,
                _ => match groups.binary_search_by_key(&id, |group| group.table.id()) {
                    Ok(at) => at,
                    Err(at) => {
                        let room = if groups.is_empty() { records.records() as usize } else { 0 };
                        let table = find(id).ok_or_else(unknown)?;
                        table.check_there()?;
                        groups.insert(at, Group { table, list: Vec::with_capacity(room) });
                        at
                    }
                },
            };
            groups[at].list.push(Change {
                reversed: self.hasher.hash(record.key()).reverse_bits(),
                record: start | u64::from(record.header.kind == Kind::Remove),
            });
        }
        groups.iter_mut().for_each(|group| group.list.sort_unstable());
        Ok(groups)
    }

    /// Step 1, where it is needed: the records that count, in the order of the batch, large values in blobs.
    fn rewrite(
        &self,
        records: &Encoded,
        groups: &mut [Group<'_>],
        rewritten: &mut Encoded,
        links: &mut Vec<(u64, BlobLink)>,
    ) -> Result<()> {
        let mut order = Vec::with_capacity(len(groups) as usize);
        for group in groups {
            let label = Label::of(group.table.id()).aligned(group.table.is_aligned());
            order.extend(group.list.iter_mut().map(|change| (label, change)));
        }
        order.sort_unstable_by_key(|(_, change)| change.start());
        for (label, change) in order {
            let Some(record) = records.record(change.start()) else { continue };
            let (kind, key, value) = (record.header.kind, record.key(), record.value());
            let label = label.until(record.deadline());
            let start = if value.len() as u64 > self.blob_threshold() {
                let link = self.new_blob(value)?;
                links.push((rewritten.len(), link));
                rewritten.push(label, Kind::PutBlob, key, &link.encode())
            } else {
                rewritten.push(label, kind, key, value)
            };
            change.record = start | change.record & 1;
        }
        Ok(())
    }

    /// Steps 2 to 5.
    fn apply_records(&self, changes: Changes<'_>) -> Result<Appended> {
        let frame = changes.records.framed();
        if frame.len() > FRAME_BYTES_MAX {
            return Err(Error::BatchTooLarge { bytes: frame.len(), limit: FRAME_BYTES_MAX });
        }
        let _expected = self.make_room(&changes)?;
        let mut own = OwnSegment::default();
        // One checkpoint makes room for a batch that fits.
        let applied = self.retry_within(2, || {
            if self.log.wants_own_segment(frame, &own) {
                self.with_space(|| {
                    self.checkpointer.provide_meta_room(self.tables.index(), &self.log)?;
                    self.log.provide_own_segment(frame, &mut own)
                })?;
            }
            self.apply_locked(&changes, frame, &own)
        });
        applied.inspect_err(|_| self.log.give_up_own_segment(&own))
    }

    /// Helps growth along, grows each table first that the batch would overfill, and allocates the blocks of its
    /// pages: all that is better done once than found missing, page by page, with the stripes locked. While the returned
    /// values live, the resize job does not take the tables for ones that are too large.
    fn make_room<'c>(&self, changes: &'c Changes<'_>) -> Result<Vec<Expected<'c>>> {
        changes.groups.iter().map(|group| self.make_room_for(group)).collect()
    }

    fn make_room_for<'c>(&self, group: &'c Group<'_>) -> Result<Expected<'c>> {
        let table = group.table;
        self.help_growth_for(table, group.list.len())?;
        let (len, puts) = (table.len(), group.list.len() as u64 - group.removals());
        let expected = table.expect_entries(puts);
        // Some of the puts replace records, it is not known how many: half of them, or as many as there are. A tiny table
        // costs nothing.
        let replacing = if table.is_tiny() { 0 } else { len.min(puts / 2) };
        if len + puts - replacing > table.threshold(table.growth().level()) {
            self.grow_for(table, len + puts)?;
        }
        for (owner, ..) in group.by_page(table.growth()) {
            let page = table.primary_page(owner)?;
            if !page.is_used() && !page.extent.is_allocated(page.id.index.into()) {
                self.satisfy(Need::IndexBlocks(page.id))?;
            }
        }
        Ok(expected)
    }

    /// Steps 3 to 5, but for what is in its own segment already.
    fn apply_locked(&self, changes: &Changes<'_>, frame: Entry<'_>, own: &OwnSegment) -> Step<Appended> {
        let mut stripes = Vec::with_capacity(changes.groups.len());
        for group in &changes.groups {
            let hashes = group.list.iter().map(|change| change.hash());
            let Some(set) = group.table.lock_set(hashes) else {
                return Err(Need::Again(Again::StripesChanged).into());
            };
            stripes.push(set);
        }
        self.reserve_pages(changes, &stripes)?;

        // The records that are superseded, by the number of the change in its group.
        let mut hits = Vec::with_capacity(changes.groups.len());
        for (group, stripes) in changes.groups.iter().zip(&stripes) {
            let mut found = Vec::new();
            for (owner, first, page) in group.by_page(stripes.growth()) {
                let edit = group.table.edit_page(stripes, owner)?;
                for (number, change) in (first..).zip(page) {
                    let mut hit = None;
                    edit.find(change.hash(), |slot| self.is_key(group.table, changes.key(*change), slot, &mut hit))?;
                    found.extend(hit.map(|hit| (number, hit)));
                }
            }
            hits.push(found);
        }
        let removals = changes.removals();
        let only_removals = removals == changes.len();
        let appended = match own.sequence() {
            Some(sequence) => self.log.activate_frame(sequence, frame, removals, only_removals),
            None => self.log.append_frame(frame, removals, only_removals),
        };
        let appended = appended.inspect_err(|shortage| {
            if let Shortage::Error(error) = shortage {
                self.health.poison_if_unknown(error);
            }
        })?;
        // The frame's own record: its changes stand for themselves.
        self.log.add_dead(appended.address, FRAME_BYTES as u64);
        let published = changes
            .groups
            .iter()
            .zip(hits)
            .zip(&stripes)
            .try_for_each(|((group, hits), stripes)| self.publish(changes, group, hits, appended.address, stripes));
        // An error of any nature poisons: the frame is in the log, and memory does not say what it says. Only a recovery
        // can mend that.
        published.inspect_err(|error| self.health.poison(error))?;
        Ok(appended)
    }

    /// Step 5, for one table.
    fn publish(
        &self,
        changes: &Changes<'_>,
        group: &Group<'_>,
        hits: Vec<(usize, Hit<'_>)>,
        base: Address,
        stripes: &StripeSet<'_>,
    ) -> Result<()> {
        let mut hits = hits.into_iter().peekable();
        for (owner, first, page) in group.by_page(stripes.growth()) {
            let mut edit = group.table.edit_page(stripes, owner)?;
            for (number, &change) in (first..).zip(page) {
                let address = Address::new(base.segment(), base.offset() + FRAME_BYTES as u64 + change.start());
                let hit = hits.next_if(|&(of, _)| of == number).map(|(_, hit)| hit);
                let new = (!change.removes()).then_some(address);
                edit.set(change.hash(), hit.as_ref().map(Hit::address), new)?;
                let was_there = hit.as_ref().is_some_and(|hit| !self.is_expired(hit));
                match (change.removes(), &hit) {
                    (true, Some(_)) => edit.tally(Tally::Removed, 1),
                    (true, None) => {}
                    (false, Some(_)) if was_there => edit.tally(Tally::Replaced, 1),
                    (false, _) => edit.tally(Tally::Inserted, 1),
                }
                // The record lies anywhere in the batch: it is fetched only if there is something to note.
                if (change.removes() || changes.records.expires())
                    && let Some(record) = changes.records.record(change.start())
                {
                    if change.removes() {
                        self.log.add_dead(address, record.header.total());
                    } else {
                        self.log.add_deadline(address, record.deadline(), record.header.total());
                    }
                }
                let deadline = || changes.records.record(change.start()).map_or(Deadline::NEVER, |r| r.deadline());
                let linked = changes.link(change).map(|link| Linked { link, deadline: deadline(), address });
                self.supersede(hit.as_ref(), linked);
            }
            edit.trim();
        }
        Ok(())
    }

    /// Everything that can run short, for all keys of a batch, before anything changes: journal blocks,
    /// memory, and an empty slot for every put, whether or not its key is there already.
    fn reserve_pages(&self, changes: &Changes<'_>, stripes: &[StripeSet<'_>]) -> Step<()> {
        let mut missing = Vec::with_capacity(changes.groups.len());
        let mut pages = 0;
        for (group, stripes) in changes.groups.iter().zip(stripes) {
            let (touched, overflow) = missing_pages(group, stripes)?;
            // Perhaps a bitmap page for each.
            pages += touched + touched.min(group.table.bitmap_pages());
            missing.push(overflow);
        }
        self.tables.index().check_journal(pages)?;
        for ((group, stripes), missing) in changes.groups.iter().zip(stripes).zip(missing) {
            let table = group.table;
            let mut free = table.take_free_pages(missing.iter().map(|&(_, overflow)| overflow).sum())?;
            missing.iter().try_for_each(|&(owner, overflow)| {
                table.edit_page(stripes, owner)?.reserve_pages(overflow, &mut free.pages)
            })?;
        }
        Ok(())
    }
}

/// The pages of a group's chains, and how many overflow pages each lacks.
fn missing_pages(group: &Group<'_>, stripes: &StripeSet<'_>) -> Result<(u64, Vec<(u64, usize)>)> {
    /// Changes whose pages are fetched ahead.
    const AHEAD: usize = 16;
    let (mut pages, mut missing) = (0, Vec::new());
    for (owner, first, page) in group.by_page(stripes.growth()) {
        for change in group.list.iter().skip(first + AHEAD).take(page.len()) {
            group.table.prefetch_for_change(change.hash());
        }
        let edit = group.table.edit_page(stripes, owner)?;
        let puts = page.iter().filter(|change| !change.removes()).map(|change| change.hash());
        let overflow = edit.missing_pages(puts);
        missing.push((owner, overflow));
        pages += (1 + edit.overflow_pages() + overflow) as u64;
    }
    Ok((pages, missing))
}

/// Leaves the last change of each key. The changes are sorted, and those of one key in the order of the batch.
fn keep_last(list: &mut Vec<Change>, records: &Encoded) {
    for equal in list.chunk_by_mut(|a, b| a.reversed == b.reversed).filter(|equal| equal.len() > 1) {
        // The last change of a key first: it is the one that stays.
        equal.sort_unstable_by(|a, b| key_of(records, *a).cmp(key_of(records, *b)).then(b.record.cmp(&a.record)));
    }
    list.dedup_by(|later, kept| later.reversed == kept.reversed && key_of(records, *later) == key_of(records, *kept));
}
