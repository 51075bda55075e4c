//! Applying a batch.
//!
//! 1. The last change of each key counts. Blobs are written and synced; all records are encoded as one frame, in the
//!    order of the batch. No lock is held.
//! 2. The stripes of all keys are locked, in ascending order, and all that can run short is found.
//! 3. The frame is appended. *Crash before the frame is whole:* none of it. *After:* all of it.
//! 4. The index is changed key by key, and so readers see it.
//!
//! Everything but the frame goes in the order of the pages: a page is fetched from memory once for each step, not once
//! for each of its keys.

use crate::batch::{Batch, BatchOp};
use crate::error::{Error, Result};
use crate::index::chain::{Chain, Found};
use crate::index::growth::Growth;
use crate::index::slot::{Place, Slot, Tag};
use crate::index::table::{StripeGuard, Table};
use crate::index::{Need, Shortage, Step};
use crate::log::append::Appended;
use crate::log::record::{BlobLink, Encoded, FRAME_BYTES, HEADER_BYTES_MAX, Kind, MARK_BYTES, check_key, check_value};
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

/// The changes of one page.
fn by_page<'c, 'b>(changes: &'c [Change<'b>], growth: Growth) -> impl Iterator<Item = (u64, &'c [Change<'b>])> {
    let same_page = move |a: &Change<'_>, b: &Change<'_>| growth.page_of(a.hash) == growth.page_of(b.hash);
    changes.chunk_by(same_page).filter_map(move |page| Some((growth.page_of(page.first()?.hash), page)))
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
        let order = self.page_order(batch);
        if order.is_empty() {
            return Ok(());
        }
        let mut links = Vec::new();
        let result = with_encoded(|encoded| {
            let changes = self.encode_batch(batch, &order, encoded, &mut links)?;
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
                links.into_iter().for_each(|(_, link)| self.log.give_up_blob(link));
                Err(error)
            }
        }
    }

    /// The changes that count, the last of each key, as (hash with its bits reversed, number in the batch), in
    /// ascending order. The low bits of a hash choose its page, so this brings the keys of a page together, whatever
    /// the level of the table.
    fn page_order(&self, batch: &Batch) -> Vec<(u64, usize)> {
        let ops = &batch.ops;
        let mut order: Vec<(u64, usize)> =
            ops.iter().enumerate().map(|(i, op)| (self.hasher.hash(op.key()).reverse_bits(), i)).collect();
        order.sort_unstable();
        for equal in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|equal| equal.len() > 1) {
            // The last change of a key first: it is the one that stays.
            equal.sort_unstable_by(|a, b| ops[a.1].key().cmp(ops[b.1].key()).then(b.1.cmp(&a.1)));
        }
        order.dedup_by(|later, kept| later.0 == kept.0 && ops[later.1].key() == ops[kept.1].key());
        order
    }

    /// Step 1. Returns the changes in the order of their pages.
    fn encode_batch<'b>(
        &self,
        batch: &'b Batch,
        order: &[(u64, usize)],
        encoded: &mut Encoded,
        links: &mut Vec<(usize, BlobLink)>,
    ) -> Result<Vec<Change<'b>>> {
        let mut counts = vec![false; batch.ops.len()];
        order.iter().for_each(|&(_, i)| counts[i] = true);
        // Where the record of each change starts, and its length.
        let mut records = vec![(0u32, 0u32); batch.ops.len()];
        let threshold = self.blob_threshold() as usize;
        let bytes = |op: &BatchOp| {
            let value = match op {
                BatchOp::Put { value, .. } if value.len() <= threshold => value.len(),
                _ => 0,
            };
            (HEADER_BYTES_MAX + op.key().len() + value).next_multiple_of(8)
        };
        encoded.reserve(order.len() + 1, FRAME_BYTES + batch.ops.iter().map(bytes).sum::<usize>());
        encoded.begin_frame();
        for (i, op) in batch.ops.iter().enumerate().filter(|&(i, _)| counts[i]) {
            let key = op.key();
            let start = match op {
                BatchOp::Put { value, .. } if value.len() as u64 > self.blob_threshold() => {
                    let blob = self.new_blob(value)?;
                    links.push((i, blob));
                    encoded.push(Kind::PutBlob, key, &blob.encode())
                }
                BatchOp::Put { value, .. } => encoded.push(Kind::Put, key, value),
                BatchOp::Remove { .. } => encoded.push(Kind::Remove, key, &[]),
            };
            let limit = Place::SEGMENT_BYTES_MAX - SEGMENT_HEADER_BYTES - MARK_BYTES as u64;
            if encoded.len() > limit {
                return Err(Error::BatchTooLarge { bytes: encoded.len(), limit });
            }
            records[i] = (start as u32, (encoded.len() - start) as u32);
        }
        encoded.end_frame();
        let link_of = |i| links.binary_search_by_key(&i, |&(number, _)| number).ok().map(|at| links[at].1);
        let change = |&(reversed, i): &(u64, usize)| Change {
            key: batch.ops[i].key(),
            hash: reversed.reverse_bits(),
            start: records[i].0.into(),
            bytes: records[i].1.into(),
            removes: matches!(batch.ops[i], BatchOp::Remove { .. }),
            link: link_of(i),
        };
        Ok(order.iter().map(change).collect())
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

    /// Steps 2 to 4.
    fn apply_locked(&self, changes: &[Change<'_>], encoded: &mut Encoded) -> Step<Appended> {
        let table = &self.table;
        let Some(guards) = self.lock_stripes(changes) else { return Err(Need::Nothing.into()) };
        let growth = guards.first().map_or_else(|| table.growth(), |(_, guard)| guard.growth);
        self.reserve_pages(changes, growth)?;

        // The records that are superseded, by the number of the change.
        let mut hits = Vec::new();
        let mut number = 0;
        for (owner, page) in by_page(changes, growth) {
            let chain = table.chain(owner)?;
            let marks = chain.primary.state.load().has_marks();
            for change in page {
                let mut hit = None;
                chain.find(Table::tag(&chain, change.hash), marks, |slot| self.is_key(change.key, slot, &mut hit))?;
                hits.extend(hit.map(|hit| (number, hit)));
                number += 1;
            }
        }
        let removals = changes.iter().filter(|change| change.removes).count() as u64;
        let appended = self.log.append(encoded, removals, removals == changes.len() as u64)?;
        // If it fails, the frame is in the log, and memory does not say what it says: only a recovery can mend it.
        let published = self.publish(changes, hits, appended.place, &guards, growth);
        published.inspect_err(|error| self.poison(error))?;
        for (owner, _) in by_page(changes, growth) {
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

    /// Step 4.
    fn publish(
        &self,
        changes: &[Change<'_>],
        hits: Vec<(usize, Hit<'_>)>,
        base: Place,
        guards: &[(usize, StripeGuard<'_>)],
        growth: Growth,
    ) -> Result<()> {
        let mut hits = hits.into_iter().peekable();
        let mut number = 0;
        for (owner, page) in by_page(changes, growth) {
            let chain = self.table.chain(owner)?;
            let guard = guard_of(guards, growth.stripe_of(owner));
            for change in page {
                let place = Place::new(base.segment(), base.offset() + change.start);
                let hit = hits.next_if(|&(of, _)| of == number).map(|(_, hit)| hit);
                self.apply_change(change, hit, place, &chain, guard)?;
                number += 1;
            }
        }
        Ok(())
    }

    /// Everything that can run short, for all keys of a batch, before anything changes: journal blocks,
    /// memory, and an empty slot for every put, whether or not its key is there already.
    fn reserve_pages(&self, changes: &[Change<'_>], growth: Growth) -> Step<()> {
        let table = &self.table;
        let mut missing: Vec<(u64, usize)> = Vec::new();
        let mut pages = 0;
        for (owner, page) in by_page(changes, growth) {
            let chain = table.chain(owner)?;
            let mut room = chain.room();
            let puts = page.iter().filter(|change| !change.removes);
            let homeless = puts.filter(|change| !room.take(Tag::of(change.hash, 0))).count();
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
        let mut wanted = vec![false; 1 << growth.stripes_log2()];
        changes.iter().for_each(|change| wanted[growth.stripe_of(change.hash)] = true);
        let stripes = wanted.iter().enumerate().filter(|&(_, &wanted)| wanted);
        let guards: Vec<_> = stripes.map(|(stripe, _)| (stripe, self.table.lock_number(stripe))).collect();
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
        chain: &Chain<'_>,
        guard: &StripeGuard<'_>,
    ) -> Result<()> {
        let table = &self.table;
        let tag = Table::tag(chain, change.hash);
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
}

fn guard_of<'g, 't>(guards: &'g [(usize, StripeGuard<'t>)], stripe: usize) -> &'g StripeGuard<'t> {
    let at = guards.partition_point(|(number, _)| *number < stripe);
    &guards[at].1
}
