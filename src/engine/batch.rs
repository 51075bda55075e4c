//! Applying a batch.
//!
//! 1. The last change of each key counts. If that leaves some out, or values must go to blobs, the records are written
//!    anew; blobs are synced. No lock is held.
//! 2. A frame that is too large for the segments at hand gets one of its own, and is written there now
//!    (log/frame.rs). *Crash:* a file without a header, which recovery unlinks.
//! 3. The stripes of all keys are locked, in ascending order, and all that can run short is found.
//! 4. The frame is appended, or its segment becomes the active one. *Crash before the frame is whole, and named:* none
//!    of it. *After:* all of it.
//! 5. The index is changed key by key, and so readers see it.
//!
//! Everything but the frame goes in the order of the pages: a page is fetched from memory once for each step, not once
//! for each of its keys.

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
use crate::log::record::{BlobLink, FRAME_BYTES, Kind};
use crate::need::{Again, Need, Shortage, Step};
use crate::observe::Timed;
use crate::table::edit::StripeSet;
use crate::table::growth::Growth;
use crate::table::load::Expected;
use crate::table::stripes::Tally;

/// After a batch of so many changes the log's space is looked at, however few bytes it has.
const MANY: usize = 256;

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

/// The changes of a batch that count, ready to be applied.
struct Changes<'b> {
    records: &'b Encoded,
    /// In the order of their pages.
    list: Vec<Change>,
    /// Links to the values in blobs, by the start of their records.
    links: Vec<(u64, BlobLink)>,
}

impl Changes<'_> {
    /// The changes of each page, and the number of the first.
    fn by_page(&self, growth: Growth) -> impl Iterator<Item = (u64, usize, &[Change])> {
        let pages = self.list.chunk_by(move |a, b| growth.page_of(a.hash()) == growth.page_of(b.hash()));
        pages.scan(0, move |passed, page| {
            let first = *passed;
            *passed += page.len();
            Some((growth.page_of(page.first()?.hash()), first, page))
        })
    }

    fn key(&self, change: Change) -> &[u8] {
        key_of(self.records, change)
    }

    fn link(&self, change: Change) -> Option<BlobLink> {
        let at = self.links.binary_search_by_key(&change.start(), |&(start, _)| start).ok()?;
        Some(self.links[at].1)
    }

    fn removals(&self) -> u64 {
        self.list.iter().filter(|change| change.removes()).count() as u64
    }
}

fn key_of(records: &Encoded, change: Change) -> &[u8] {
    records.record(change.start()).map_or(&[], |record| record.key())
}

impl Engine {
    /// Applies a batch: all of it or nothing, after any crash.
    pub(crate) fn apply(&self, batch: &Batch, until: Until) -> Result<Option<Wait>> {
        let _pass = self.health.enter()?;
        let _timer = self.observer.time(Timed::Batch);
        batch.check()?;
        let mut list = self.changes_of(batch.records());
        keep_last(&mut list, batch.records());
        if list.is_empty() {
            return Ok(None);
        }
        let many = list.len() >= MANY;
        let mut links = Vec::new();
        let mut rewritten = Encoded::default();
        let whole = list.len() as u64 == batch.records().records();
        let result = if whole && batch.longest_value() as u64 <= self.blob_threshold() {
            self.apply_records(Changes { records: batch.records(), list, links: Vec::new() })
        } else {
            self.rewrite(batch.records(), &mut list, &mut rewritten, &mut links)
                .and_then(|()| self.apply_records(Changes { records: &rewritten, list, links: links.clone() }))
        };
        match result {
            Ok(appended) => {
                self.counts.count_batch();
                let wait = self.after_append(appended, until)?;
                if many {
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

    /// All changes, in the order of their pages, and those of a page in the order of the batch.
    fn changes_of(&self, records: &Encoded) -> Vec<Change> {
        let mut list = Vec::with_capacity(records.records() as usize);
        list.extend(records.iter().map(|(start, record)| Change {
            reversed: self.hasher.hash(record.key()).reverse_bits(),
            record: start | u64::from(record.header.kind == Kind::Remove),
        }));
        list.sort_unstable();
        list
    }

    /// Step 1, where it is needed: the records that count, in the order of the batch, large values in blobs.
    fn rewrite(
        &self,
        records: &Encoded,
        list: &mut [Change],
        rewritten: &mut Encoded,
        links: &mut Vec<(u64, BlobLink)>,
    ) -> Result<()> {
        let mut order: Vec<usize> = (0..list.len()).collect();
        order.sort_unstable_by_key(|&number| list[number].start());
        for number in order {
            let change = &mut list[number];
            let Some(record) = records.record(change.start()) else { continue };
            let (kind, key, value) = (record.header.kind, record.key(), record.value());
            let start = if value.len() as u64 > self.blob_threshold() {
                let link = self.new_blob(value)?;
                links.push((rewritten.len(), link));
                rewritten.push_until(record.deadline(), Kind::PutBlob, key, &link.encode())
            } else {
                rewritten.push_until(record.deadline(), kind, key, value)
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
                    self.checkpointer.provide_meta_room(self.table.index(), &self.log)?;
                    self.log.provide_own_segment(frame, &mut own)
                })?;
            }
            self.apply_locked(&changes, frame, &own)
        });
        applied.inspect_err(|_| self.log.give_up_own_segment(&own))
    }

    /// Helps growth along, grows the table first if the batch would overfill it, and allocates the blocks of its
    /// pages: all that is better done once than found missing, page by page, with the stripes locked. While the returned
    /// value lives, the resize job does not take the table for one that is too large.
    fn make_room(&self, changes: &Changes<'_>) -> Result<Expected<'_>> {
        self.help_growth_for(changes.list.len())?;
        let (len, puts) = (self.table.len(), changes.list.len() as u64 - changes.removals());
        let expected = self.table.expect_entries(puts);
        // Some of the puts replace records, it is not known how many: half of them, or as many as there are. A tiny table
        // costs nothing.
        let replacing = if self.table.is_tiny() { 0 } else { len.min(puts / 2) };
        if len + puts - replacing > self.table.threshold(self.table.growth().level()) {
            self.grow_for(len + puts)?;
        }
        for (owner, ..) in changes.by_page(self.table.growth()) {
            let page = self.table.primary_page(owner)?;
            if !page.is_used() && !page.extent.is_allocated(page.id.index.into()) {
                self.satisfy(Need::IndexBlocks(page.id))?;
            }
        }
        Ok(expected)
    }

    /// Steps 3 to 5, but for what is in its own segment already.
    fn apply_locked(&self, changes: &Changes<'_>, frame: Entry<'_>, own: &OwnSegment) -> Step<Appended> {
        let hashes = changes.list.iter().map(|change| change.hash());
        let Some(stripes) = self.table.lock_set(hashes) else {
            return Err(Need::Again(Again::StripesChanged).into());
        };
        self.reserve_pages(changes, &stripes)?;

        // The records that are superseded, by the number of the change.
        let mut hits = Vec::new();
        for (owner, first, page) in changes.by_page(stripes.growth()) {
            let edit = self.table.edit_page(&stripes, owner)?;
            for (number, change) in (first..).zip(page) {
                let mut hit = None;
                edit.find(change.hash(), |slot| self.is_key(changes.key(*change), slot, &mut hit))?;
                hits.extend(hit.map(|hit| (number, hit)));
            }
        }
        let removals = changes.removals();
        let only_removals = removals == changes.list.len() as u64;
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
        let published = self.publish(changes, hits, appended.address, &stripes);
        // An error of any nature poisons: the frame is in the log, and memory does not say what it says. Only a recovery
        // can mend that.
        published.inspect_err(|error| self.health.poison(error))?;
        Ok(appended)
    }

    /// Step 5.
    fn publish(
        &self,
        changes: &Changes<'_>,
        hits: Vec<(usize, Hit<'_>)>,
        base: Address,
        stripes: &StripeSet<'_>,
    ) -> Result<()> {
        let mut hits = hits.into_iter().peekable();
        for (owner, first, page) in changes.by_page(stripes.growth()) {
            let mut edit = self.table.edit_page(stripes, owner)?;
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
    fn reserve_pages(&self, changes: &Changes<'_>, stripes: &StripeSet<'_>) -> Step<()> {
        /// Changes whose pages are fetched ahead.
        const AHEAD: usize = 16;
        let table = &self.table;
        let mut missing: Vec<(u64, usize)> = Vec::new();
        let mut pages = 0;
        for (owner, first, page) in changes.by_page(stripes.growth()) {
            for change in changes.list.iter().skip(first + AHEAD).take(page.len()) {
                table.prefetch_for_change(change.hash());
            }
            let edit = table.edit_page(stripes, owner)?;
            let puts = page.iter().filter(|change| !change.removes()).map(|change| change.hash());
            let overflow = edit.missing_pages(puts);
            missing.push((owner, overflow));
            pages += (1 + edit.overflow_pages() + overflow) as u64;
        }
        // Perhaps a bitmap page for each.
        pages += pages.min(table.bitmap_pages());
        table.index().check_journal(pages)?;
        let mut free = table.take_free_pages(missing.iter().map(|&(_, overflow)| overflow).sum())?;
        missing.iter().try_for_each(|&(owner, overflow)| {
            table.edit_page(stripes, owner)?.reserve_pages(overflow, &mut free.pages)
        })
    }
}

/// Leaves the last change of each key. The changes are sorted, and those of one key in the order of the batch.
fn keep_last(list: &mut Vec<Change>, records: &Encoded) {
    for equal in list.chunk_by_mut(|a, b| a.reversed == b.reversed).filter(|equal| equal.len() > 1) {
        // The last change of a key first: it is the one that stays.
        equal.sort_unstable_by(|a, b| key_of(records, *a).cmp(key_of(records, *b)).then(b.record.cmp(&a.record)));
    }
    list.dedup_by(|later, kept| later.reversed == kept.reversed && key_of(records, *later) == key_of(records, *kept));
}
