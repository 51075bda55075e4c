//! Changing many keys: batches, bulk removal, clear.
//!
//! **A batch** locks the stripes of all its keys, in ascending order; finds all that can run short; appends
//! one frame; then changes the index key by key. *Crash before the frame is whole:* none of it. *After:* all
//! of it. Readers see it key by key.
//!
//! **Clearing** appends one record under all stripes and empties every page in memory. *Crash before the
//! record is in the log:* everything is there. *After:* nothing is; replay clears again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::batch::{Batch, BatchOp};
use crate::error::{Error, Result};
use crate::index::chain::{Chain, Found, Spot};
use crate::index::growth::Growth;
use crate::index::slot::{Place, Slot, Tag};
use crate::index::table::{StripeGuard, Table};
use crate::index::{Need, Shortage, Step};
use crate::log::Position;
use crate::log::append::Appended;
use crate::log::blob::parse_blob_name;
use crate::log::record::{BlobLink, Encoded, Kind, MARK_BYTES, check_key, check_value};
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::observe::Timed;
use crate::store::core::Core;
use crate::store::read::Hit;
use crate::store::write::with_encoded;
use crate::sync::Ordering;

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
        let _timer = self.observer.time(Timed::Batch);
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
            self.make_room(&changes)?;
            let (mut tries, mut lift) = (0, None);
            self.retry(|| {
                let step = self.apply_locked(&changes, encoded);
                if matches!(step, Err(Shortage::Need(Need::Checkpoint))) {
                    // One checkpoint makes room. If that is not enough, the batch touches more pages than the
                    // memory limit allows: one operation alone may exceed it.
                    tries += 1;
                    if tries > 1 && lift.is_none() {
                        lift = Some(self.table.dirty.lift_limit());
                    }
                }
                step
            })
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

    /// Helps growth along, and grows the table first if the batch would overfill it.
    fn make_room(&self, changes: &[Change<'_>]) -> Result<()> {
        self.help_growth()?;
        let puts = changes.iter().filter(|change| !change.removes).count() as u64;
        if self.table.len() + puts > self.table.threshold(self.table.growth().level()) + puts / 2 {
            self.grow_for(self.table.len() + puts)?;
        }
        Ok(())
    }

    fn apply_locked(&self, changes: &[Change<'_>], encoded: &mut Encoded) -> Step<Appended> {
        let table = &self.table;
        let Some(guards) = self.lock_stripes(changes) else { return Err(Need::Nothing.into()) };
        let growth = guards.first().map_or_else(|| table.growth(), |(_, guard)| guard.growth);
        self.reserve_pages(changes, growth)?;

        let mut hits = Vec::with_capacity(changes.len());
        for change in changes {
            let chain = table.chain(growth.page_of(change.hash))?;
            let marks = chain.primary.state.load().has_marks();
            let mut hit = None;
            chain.find(Table::tag(&chain, change.hash), marks, |slot| self.is_key(change.key, slot, &mut hit))?;
            hits.push(hit);
        }
        let removals = changes.iter().filter(|change| change.removes).count() as u64;
        let appended = self.log.append(encoded, removals, removals == changes.len() as u64)?;

        let base = appended.place;
        for (change, hit) in changes.iter().zip(hits) {
            let place = Place::new(base.segment(), base.offset() + change.start);
            let guard = guard_of(&guards, growth.stripe_of(change.hash));
            if let Err(error) = self.apply_change(change, hit, place, guard) {
                // The frame is in the log, and memory does not say what it says: only a recovery can mend it.
                self.poison(&error);
                return Err(error.into());
            }
        }
        // In order of pages, here and above: a schedule of the tests can be repeated only if nothing is in random order.
        for owner in changes.iter().map(|change| growth.page_of(change.hash)).collect::<BTreeSet<_>>() {
            let mut chain = table.chain(owner)?;
            if !chain.overflow.is_empty() {
                chain.primary.state.begin_move();
                let trimmed = table.trim(&mut chain);
                chain.primary.state.end_move();
                trimmed?;
            }
        }
        Ok(appended)
    }

    /// Everything that can run short, for all keys of a batch, before anything changes: journal blocks,
    /// memory, and an empty slot for every put, whether or not its key is there already.
    fn reserve_pages(&self, changes: &[Change<'_>], growth: Growth) -> Step<()> {
        let table = &self.table;
        let mut by_owner: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for change in changes {
            let puts = by_owner.entry(growth.page_of(change.hash)).or_default();
            if !change.removes {
                puts.push(change.hash);
            }
        }
        let mut missing: Vec<(u64, usize)> = Vec::new();
        let mut pages = 0;
        for (&owner, puts) in &by_owner {
            let chain = table.chain(owner)?;
            let mut room = chain.room();
            let homeless = puts.iter().filter(|&&hash| !room.take(Tag::of(hash, 0))).count();
            let overflow = homeless.div_ceil(table.geometry.slots());
            missing.push((owner, overflow));
            // Each page, and perhaps a bitmap page for each.
            pages += 2 * (1 + chain.overflow.len() + overflow) as u64;
        }
        if table.dirty.journal_pages() < pages {
            return Err(Need::Journal { pages, alone: pages }.into());
        }
        let total = missing.iter().map(|&(_, overflow)| overflow).sum();
        let Some(mut free) = table.pool.take(total) else {
            return Err(Need::Overflow { pages: total as u64 }.into());
        };
        let linked = missing.iter().try_for_each(|&(owner, overflow)| -> Step<()> {
            let mut chain = table.chain(owner)?;
            table.touch_chain(&chain, owner, growth)?;
            for _ in 0..overflow {
                let Some(&page) = free.last() else { return Err(Need::Nothing.into()) };
                table.link_overflow(&mut chain, owner, page)?;
                free.pop();
            }
            Ok(())
        });
        // Pages that were linked before a shortage stay in their chains, empty; the next attempt counts them.
        table.pool.give(free);
        linked
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
    ) -> Result<()> {
        let table = &self.table;
        let owner = guard.growth.page_of(change.hash);
        let chain = table.chain(owner)?;
        let tag = Table::tag(&chain, change.hash);
        // Repairs of the changes before this one may have moved the entry: look for its place again.
        let old = hit.as_ref().map(Hit::place);
        let found = chain.find(tag, false, |slot| Ok::<_, Error>(Some(slot.place()) == old))?;
        match (found, change.removes) {
            (Found::Hit(spot, _), true) => {
                // No trimming: pages that are empty now may have been reserved for later changes.
                chain.primary.state.begin_move();
                let moves = chain.remove(spot);
                chain.primary.state.end_move();
                table.counters.repairs.fetch_add(u64::from(moves), Ordering::Relaxed);
                let count = guard.add_count(-1);
                if table.is_sparse(guard.growth, count) {
                    self.want_shrink();
                }
            }
            (Found::Hit(spot, _), false) => chain.replace(spot, Slot::new(tag, place)),
            (Found::Miss(_), true) => {}
            (Found::Miss(free), false) => {
                let Some(spot) = free else {
                    let (expected, found) = ("an empty slot, reserved for the batch".into(), "a full path".into());
                    return Err(table.damaged(&chain.primary, "bucket page", expected, found));
                };
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
        let _timer = self.observer.time(Timed::Batch);
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
            self.help_growth()?;
            let (count, keys_done) = with_encoded(|encoded| self.retry(|| self.remove_run(first, rest, encoded)))?;
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
        let count = guard.add_count(-(found.len() as i64));
        // Some of the counts passed by were multiples of sixteen.
        if table.is_sparse(guard.growth, count / 16 * 16) {
            self.want_shrink();
        }
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
            self.retry(|| self.clear_locked(Clear::Record(encoded)))
        })?;
        match appended {
            Some(appended) => self.after_append(appended.end, appended.total, appended.running_low),
            None => Ok(()),
        }
    }

    /// Empties every page, under all stripes.
    pub(crate) fn clear_locked(&self, cause: Clear<'_>) -> Step<Option<Appended>> {
        let table = &self.table;
        let structure = table.structure.lock();
        // Pages in use: whatever else the table once had may have been given back. They have their blocks.
        let growth = table.growth();
        let pages = growth.pages() + table.overflow.pages().saturating_sub(table.pool.len());
        let bitmaps: u64 = [&table.primary, &table.overflow]
            .iter()
            .flat_map(|region| region.groups().map(|(_, group)| group.bitmap_pages))
            .sum();
        if table.dirty.journal_pages() < pages + bitmaps {
            return Err(Need::Journal { pages: pages + bitmaps, alone: pages + bitmaps }.into());
        }
        let _lift = table.dirty.lift_limit();
        let all = table.lock_all();
        for number in 0..growth.pages() {
            let chain = table.chain(number)?;
            if chain.primary.is_used() {
                table.touch_chain(&chain, number, growth)?;
            }
        }
        // Under the stripes, so that no link is missed; a store without blobs does not come here.
        let mut blobs = if self.log.blobs.count() > 0 { self.blob_ids()? } else { Vec::new() };
        let (appended, until) = match cause {
            Clear::Record(encoded) => {
                let appended = self.log.append(encoded, 1, true)?;
                (Some(appended), appended.end)
            }
            Clear::Replay { end, linked_later } => {
                blobs.retain(|id| !linked_later.contains(id));
                (None, end)
            }
        };
        for number in 0..growth.pages() {
            let mut chain = table.chain(number)?;
            if chain.primary.is_used() {
                empty_chain(table, &mut chain)?;
            }
        }
        table.spread_count(growth.stripes_log2(), 0);
        self.want_shrink();
        self.log.all_dead(until);
        self.log.blobs.free_all(&blobs);
        drop(all);
        drop(structure);
        Ok(appended)
    }

    /// Ids of all blob files.
    fn blob_ids(&self) -> Result<Vec<u64>> {
        let dir = self.log.dir();
        let names = self.log.config.disk.read_dir(dir).map_err(|error| Error::io("list", dir, error))?;
        Ok(names.iter().filter_map(|name| parse_blob_name(name)).collect())
    }
}

/// Why everything is removed.
pub(crate) enum Clear<'a> {
    /// Somebody wants it: this is the record.
    Record(&'a mut Encoded),
    /// A record says so: where it ends, and the blobs that records behind it link.
    Replay { end: Position, linked_later: &'a HashSet<u64> },
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
