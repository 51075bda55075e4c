//! Changing many keys: batches, bulk removal, clear.
//!
//! **A batch** locks the stripes of all its keys, in ascending order; finds all that can run short; appends
//! one frame; then changes the index key by key. *Crash before the frame is whole:* none of it. *After:* all
//! of it. Readers see it key by key.
//!
//! **Clearing** appends one record under all stripes and empties every page in memory. *Crash before the
//! record is in the log:* everything is there. *After:* nothing is; replay clears again.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::batch::{Batch, BatchOp};
use crate::error::{Error, Result};
use crate::index::chain::{Chain, Found, Spot};
use crate::index::slot::{Place, Slot};
use crate::index::table::{StripeGuard, Table};
use crate::index::{Need, Shortage, Step};
use crate::log::append::Appended;
use crate::log::blob::parse_blob_name;
use crate::log::record::{BlobLink, Encoded, Kind, MARK_BYTES, check_key, check_value};
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::store::core::Core;
use crate::store::read::Hit;
use crate::store::write::with_encoded;

/// One change of a batch, ready to be applied.
struct Change<'b> {
    key: &'b [u8],
    hash: u64,
    /// Where its record starts in the frame.
    start: u64,
    /// Bytes of its record.
    bytes: u64,
    removes: bool,
    link: Option<BlobLink>,
}

impl Core {
    /// Applies a batch: all of it or nothing, after any crash.
    pub(crate) fn apply(&self, batch: &Batch) -> Result<()> {
        self.check_writable()?;
        for op in &batch.ops {
            check_key(op.key())?;
            if let BatchOp::Put { value, .. } = op {
                check_value(value)?;
            }
        }
        // Only the last change of a key counts.
        let mut last = HashMap::with_capacity(batch.len());
        for (i, op) in batch.ops.iter().enumerate() {
            last.insert(op.key(), i);
        }
        let mut kept: Vec<usize> = last.into_values().collect();
        kept.sort_unstable();
        if kept.is_empty() {
            return Ok(());
        }
        let mut links = Vec::new();
        let result = with_encoded(|encoded| {
            let changes = self.encode_batch(batch, &kept, encoded, &mut links)?;
            let mut checkpoints = 0;
            let result = self.retry(|| {
                self.help_growth()?;
                let step = self.apply_locked(&changes, encoded);
                if matches!(step, Err(Shortage::Need(Need::Checkpoint))) {
                    checkpoints += 1;
                    // A batch that touches more pages than the memory limit allows would wait for ever: one
                    // operation alone may exceed the budget.
                    if checkpoints == 2 {
                        self.table.dirty.set_limit_pages(u64::MAX);
                    }
                }
                step
            });
            self.table.dirty.set_limit_pages(self.limit_pages);
            result
        });
        match result {
            Ok(appended) => self.after_append(appended.end, appended.total, appended.running_low),
            Err(error) => {
                links.into_iter().for_each(|link| self.log.give_up_blob(link));
                Err(error)
            }
        }
    }

    fn encode_batch<'b>(
        &self,
        batch: &'b Batch,
        kept: &[usize],
        encoded: &mut Encoded,
        links: &mut Vec<BlobLink>,
    ) -> Result<Vec<Change<'b>>> {
        let mut changes = Vec::with_capacity(kept.len());
        encoded.begin_frame();
        for &i in kept {
            let op = &batch.ops[i];
            let (key, mut link) = (op.key(), None);
            let start = match op {
                BatchOp::Put { value, .. } if value.len() as u64 > self.blob_threshold() => {
                    let blob = self.new_blob(value)?;
                    links.push(blob);
                    link = Some(blob);
                    encoded.push(Kind::PutBlob, key, &blob.encode())
                }
                BatchOp::Put { value, .. } => encoded.push(Kind::Put, key, value),
                BatchOp::Remove { .. } => encoded.push(Kind::Remove, key, &[]),
            };
            let limit = Place::SEGMENT_BYTES_MAX - SEGMENT_HEADER_BYTES - MARK_BYTES as u64;
            if encoded.len() > limit {
                return Err(Error::BatchTooLarge { bytes: encoded.len(), limit });
            }
            let removes = matches!(op, BatchOp::Remove { .. });
            let bytes = encoded.len() - start;
            changes.push(Change { key, hash: self.hasher.hash(key), start, bytes, removes, link });
        }
        encoded.end_frame();
        Ok(changes)
    }

    fn apply_locked(&self, changes: &[Change<'_>], encoded: &mut Encoded) -> Step<Appended> {
        let table = &self.table;
        let Some(guards) = self.lock_stripes(changes) else { return Err(Need::Nothing.into()) };
        let (_, first) = &guards[0];
        let growth = first.growth;

        // Everything that can run short, for all keys, before anything changes.
        let mut by_page: HashMap<u64, usize> = HashMap::new();
        for change in changes {
            *by_page.entry(growth.page_of(change.hash)).or_default() += usize::from(!change.removes);
        }
        let mut reserved: HashMap<u64, Vec<u64>> = HashMap::new();
        let give_back = |reserved: HashMap<u64, Vec<u64>>| table.pool.give(reserved.into_values().flatten());
        let prepared = by_page.iter().try_for_each(|(&owner, &puts)| -> Step<()> {
            let chain = table.chain(owner)?;
            table.touch_chain(&chain, owner, growth)?;
            // Any key of the page can fall back to the stash and the overflow pages.
            let missing = puts.saturating_sub(chain.shared_room());
            let pages = missing.div_ceil(self.table.geometry.slots());
            let Some(free) = table.pool.take(pages) else { return Err(Need::Overflow { pages: pages as u64 }.into()) };
            reserved.insert(owner, free);
            Ok(())
        });
        let linked = prepared.and_then(|()| {
            for (&owner, pages) in &mut reserved {
                let mut chain = table.chain(owner)?;
                while let Some(page) = pages.last().copied() {
                    table.link_overflow(&mut chain, owner, page)?;
                    pages.pop();
                }
            }
            Ok(())
        });
        let hits = linked.and_then(|()| -> Step<Vec<Option<Hit<'_>>>> {
            let find = |change: &Change<'_>| {
                let chain = table.chain(growth.page_of(change.hash))?;
                let marks = chain.primary.state.load().has_marks();
                let mut hit = None;
                chain.find(Table::tag(&chain, change.hash), marks, |slot| self.is_key(change.key, slot, &mut hit))?;
                Ok(hit)
            };
            changes.iter().map(find).collect()
        });
        let hits = match hits {
            Ok(hits) => hits,
            Err(shortage) => {
                // Pages that were linked already stay, empty; the rest goes back.
                give_back(reserved);
                return Err(shortage);
            }
        };
        let removals = changes.iter().filter(|change| change.removes).count() as u64;
        let appended = self.log.append(encoded, removals, removals == changes.len() as u64)?;

        let base = appended.place;
        for (change, hit) in changes.iter().zip(hits) {
            let place = Place::new(base.segment(), base.offset() + change.start);
            let guard = guard_of(&guards, growth.stripe_of(change.hash));
            self.apply_change(change, hit, place, guard)?;
        }
        Ok(appended)
    }

    /// Locks the stripes of all changes in ascending order; `None` if their number changed meanwhile.
    fn lock_stripes(&self, changes: &[Change<'_>]) -> Option<Vec<(usize, StripeGuard<'_>)>> {
        let growth = self.table.growth();
        let mut stripes: Vec<usize> = changes.iter().map(|change| growth.stripe_of(change.hash)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let guards: Vec<_> = stripes.into_iter().map(|stripe| (stripe, self.table.lock_number(stripe))).collect();
        // With all of them held, the growth word that counts is the one of now: a cursor that moved while
        // the locks were being taken concerns other stripes, or was seen by the guard taken last.
        let now = self.table.growth();
        (now.stripes_log2() == growth.stripes_log2()).then(|| {
            guards
                .into_iter()
                .map(|(stripe, mut guard)| {
                    guard.growth = now;
                    (stripe, guard)
                })
                .collect()
        })
    }

    /// Publishes one change of a batch. Everything it needs was found before.
    fn apply_change(
        &self,
        change: &Change<'_>,
        hit: Option<Hit<'_>>,
        place: Place,
        guard: &StripeGuard<'_>,
    ) -> Step<()> {
        let table = &self.table;
        let owner = guard.growth.page_of(change.hash);
        let mut chain = table.chain(owner)?;
        let tag = Table::tag(&chain, change.hash);
        // Repairs of the changes before this one may have moved the entry: look for its place again.
        let old = hit.as_ref().map(Hit::place);
        let found = chain.find(tag, false, |slot| Ok::<_, Error>(Some(slot.place()) == old))?;
        match (found, change.removes) {
            (Found::Hit(spot, _), true) => {
                chain.primary.state.begin_move();
                let moves = chain.remove(spot);
                let trimmed = table.trim(&mut chain);
                chain.primary.state.end_move();
                table.counters.repairs.fetch_add(u64::from(moves), Ordering::Relaxed);
                guard.add_count(-1);
                trimmed?;
            }
            (Found::Hit(spot, _), false) => chain.replace(spot, Slot::new(tag, place)),
            (Found::Miss(_), true) => {}
            (Found::Miss(free), false) => {
                // The room was reserved; not finding it would be a bug in the reservation.
                let spot = free.ok_or(Need::Nothing)?;
                if chain.fill(spot, Slot::new(tag, place)) {
                    table.counters.into_empty_one.fetch_add(1, Ordering::Relaxed);
                }
                let count = guard.add_count(1);
                if table.is_crowded(guard, count) {
                    self.want_growth();
                }
            }
        }
        if change.removes {
            self.log.add_dead(place, change.bytes);
        }
        if let Some(hit) = hit {
            self.log.add_dead(hit.place(), hit.header.total());
            if let Some(link) = hit.blob() {
                self.log.blobs.freed(link);
            }
        }
        if let Some(link) = change.link {
            self.log.blobs.linked(link);
        }
        Ok(())
    }

    /// Removes keys, page by page: one lock, one append and at most one rewrite for all keys of a page.
    pub(crate) fn remove_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64> {
        self.check_writable()?;
        let growth = self.table.growth();
        let mut hashed = Vec::with_capacity(keys.len());
        for key in keys {
            check_key(key.as_ref())?;
            hashed.push((self.hasher.hash(key.as_ref()), key.as_ref()));
        }
        hashed.sort_unstable_by_key(|&(hash, key)| (growth.page_of(hash), hash, key));
        hashed.dedup();
        let mut removed = 0;
        let mut rest = &hashed[..];
        while let Some(&(first, _)) = rest.first() {
            let (count, keys_done) = with_encoded(|encoded| {
                self.retry(|| {
                    self.help_growth()?;
                    self.remove_run(first, rest, encoded)
                })
            })?;
            removed += count;
            rest = &rest[keys_done..];
        }
        Ok(removed)
    }

    /// Removes the keys at the front of `keys` that belong to the page of `first`. Returns the number removed
    /// and the number of keys dealt with.
    fn remove_run(&self, first: u64, keys: &[(u64, &[u8])], encoded: &mut Encoded) -> Step<(u64, usize)> {
        /// Bytes of one append: bounds the time under the stripe.
        const RUN_BYTES_MAX: u64 = 16 << 10;
        let table = &self.table;
        let guard = table.lock(first);
        let owner = guard.growth.page_of(first);
        let mut chain = table.chain(owner)?;
        let marks = chain.primary.state.load().has_marks();
        let mut found: Vec<(Spot, Hit<'_>)> = Vec::new();
        let mut done = 0;
        encoded.clear();
        for &(hash, key) in keys {
            if guard.growth.page_of(hash) != owner || encoded.len() > RUN_BYTES_MAX {
                break;
            }
            done += 1;
            let mut hit = None;
            let search = chain.find(Table::tag(&chain, hash), marks, |slot| self.is_key(key, slot, &mut hit))?;
            if let (Found::Hit(spot, _), Some(hit)) = (search, hit) {
                encoded.push(Kind::Remove, key, &[]);
                found.push((spot, hit));
            }
        }
        if found.is_empty() {
            return Ok((0, done));
        }
        table.touch_chain(&chain, owner, guard.growth)?;
        let appended = self.log.append(encoded, found.len() as u64, true)?;
        self.log.add_dead(appended.place, encoded.len());
        for (spot, hit) in &found {
            chain.remove_unrepaired(*spot);
            self.log.add_dead(hit.place(), hit.header.total());
            if let Some(link) = hit.blob() {
                self.log.blobs.freed(link);
            }
        }
        guard.add_count(-(found.len() as i64));
        if chain.pages().any(|page| table.is_littered(page)) {
            table.rewrite(&mut chain, owner, guard.growth)?;
        }
        drop(guard);
        self.after_append(appended.end, appended.total, appended.running_low)?;
        Ok((found.len() as u64, done))
    }

    /// Removes everything.
    pub(crate) fn clear(&self) -> Result<()> {
        self.check_writable()?;
        let appended = with_encoded(|encoded| {
            encoded.push(Kind::Clear, &[], &[]);
            self.retry(|| self.clear_locked(Some(encoded)))
        })?;
        match appended {
            Some(appended) => self.after_append(appended.end, appended.total, appended.running_low),
            None => Ok(()),
        }
    }

    /// Empties every page, under all stripes. `record` is the clear-record, `None` in a replay.
    pub(crate) fn clear_locked(&self, record: Option<&mut Encoded>) -> Step<Option<Appended>> {
        let table = &self.table;
        let blobs = if self.log.blobs.count() > 0 { self.blob_ids()? } else { Vec::new() };
        let structure = table.structure.lock();
        let pages = table.primary.pages() + table.overflow.pages();
        let bitmaps: u64 = [&table.primary, &table.overflow]
            .iter()
            .flat_map(|region| region.groups().map(|(_, group)| group.bitmap_pages))
            .sum();
        if table.dirty.journal_pages() < pages + bitmaps {
            return Err(Need::Journal { pages: pages + bitmaps }.into());
        }
        let all = table.lock_all();
        let growth = table.growth();
        table.dirty.set_limit_pages(u64::MAX);
        let touched = (0..growth.pages()).try_for_each(|number| -> Step<()> {
            let chain = table.chain(number)?;
            if chain.primary.page.kind() != 0 { table.touch_chain(&chain, number, growth) } else { Ok(()) }
        });
        let result = touched.and_then(|()| {
            let appended = record.map(|encoded| self.log.append(encoded, 1, true)).transpose()?;
            for number in 0..growth.pages() {
                let mut chain = table.chain(number)?;
                if chain.primary.page.kind() == 0 {
                    continue;
                }
                empty_chain(table, &mut chain)?;
            }
            table.spread_count(growth.stripes_log2(), 0);
            self.log.all_dead();
            self.log.blobs.free_all(&blobs);
            Ok(appended)
        });
        table.dirty.set_limit_pages(self.limit_pages);
        drop(all);
        drop(structure);
        result
    }

    /// Ids of all blob files.
    fn blob_ids(&self) -> Result<Vec<u64>> {
        let dir = self.log.dir();
        let names = self.log.config.disk.read_dir(dir).map_err(|error| Error::io("list", dir, error))?;
        Ok(names.iter().filter_map(|name| parse_blob_name(name)).collect())
    }
}

fn empty_chain(table: &Table, chain: &mut Chain<'_>) -> Step<()> {
    chain.primary.state.begin_move();
    for page in chain.pages() {
        page.page.clear_slots();
    }
    let unlinked = table.trim(chain);
    chain.primary.state.unset(crate::index::region::PageState::MARKS);
    chain.primary.state.end_move();
    unlinked
}

fn guard_of<'g, 't>(guards: &'g [(usize, StripeGuard<'t>)], stripe: usize) -> &'g StripeGuard<'t> {
    let at = guards.partition_point(|(number, _)| *number < stripe);
    &guards[at].1
}
