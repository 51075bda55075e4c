//! Changing many keys: bulk removal, clear.
//!
//! **Clearing** appends one record under all stripes and empties every page in memory. *Crash before the
//! record is in the log:* everything is there. *After:* nothing is; replay clears again.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::index::chain::{Chain, Found, Spot};
use crate::index::table::Table;
use crate::index::{Need, Step};
use crate::log::Position;
use crate::log::append::Appended;
use crate::log::blob::parse_blob_name;
use crate::log::record::{Encoded, Kind, check_key};
use crate::observe::Timed;
use crate::store::core::Core;
use crate::store::read::Hit;
use crate::store::write::with_encoded;

impl Core {
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
            self.help_growth(first)?;
            let (count, keys_done) = with_encoded(|encoded| self.retry(|| self.remove_run(first, rest, encoded)))?;
            removed += count;
            rest = &rest[keys_done..];
        }
        self.after_many()?;
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
        let appended = self.log.append(encoded.singles(), found.len() as u64, true)?;
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
        if let Some(appended) = appended {
            self.after_append(appended.end, appended.total, appended.running_low)?;
        }
        self.after_many()
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
                let appended = self.log.append(encoded.singles(), 1, true)?;
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
