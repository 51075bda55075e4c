//! Changing many keys: bulk removal, clear.
//!
//! **Clearing** appends one record under all stripes and empties every page in memory. *Crash before the
//! record is in the log:* everything is there. *After:* nothing is; replay clears again.

use std::collections::HashSet;

use crate::address::Lsn;
use crate::engine::read::Hit;
use crate::engine::write::with_encoded;
use crate::engine::{Engine, Until};
use crate::error::Result;
use crate::log::appender::Appended;
use crate::log::encode::Encoded;
use crate::log::record::{Kind, Label, check_key};
use crate::need::{Shortage, Step};
use crate::observe::Timed;
use crate::table::Table;
use crate::table::edit::Sought;
use crate::table::stripes::Tally;

impl Engine {
    /// Removes keys, page by page: one lock, one append and at most one rewrite for all keys of a page.
    pub(crate) fn remove_many<K: AsRef<[u8]>>(&self, table: &Table, keys: &[K]) -> Result<u64> {
        drop(self.health.enter()?);
        let _timer = self.observer.time(Timed::Batch);
        let growth = table.growth();
        let mut hashed = Vec::with_capacity(keys.len());
        for key in keys {
            check_key(key.as_ref())?;
            hashed.push((self.hasher.hash(key.as_ref()), key.as_ref()));
        }
        hashed.sort_unstable_by_key(|&(hash, key)| (growth.page_of(hash), hash, key));
        hashed.dedup();
        // From here on no code of the caller's runs.
        let _pass = self.health.enter()?;
        let (mut removed, mut dead) = (0, 0);
        let mut rest = &hashed[..];
        while let Some(&(first, _)) = rest.first() {
            self.help_growth(table, first)?;
            let run = with_encoded(|encoded| self.retry(|| self.remove_run(table, first, rest, encoded)))?;
            removed += run.removed;
            dead += run.dead;
            rest = &rest[run.keys..];
        }
        self.after_removals(dead);
        Ok(removed)
    }

    /// Removes the keys at the front of `keys` that belong to the page of `first`.
    fn remove_run(&self, table: &Table, first: u64, keys: &[(u64, &[u8])], encoded: &mut Encoded) -> Step<Run> {
        /// Bytes of one append: bounds the time under the stripe.
        const RUN_BYTES_MAX: u64 = 16 << 10;
        let mut edit = table.edit(first)?;
        let mut found: Vec<(Sought, Hit<'_>)> = Vec::new();
        let mut done = 0;
        encoded.clear();
        for &(hash, key) in keys {
            if !edit.covers(hash) || encoded.len() > RUN_BYTES_MAX {
                break;
            }
            done += 1;
            let mut hit = None;
            let sought = edit.find(hash, |slot| self.is_key(table, key, slot, &mut hit))?;
            if let Some(hit) = hit {
                encoded.push(Label::of(table.id()), Kind::Remove, key, &[]);
                found.push((sought, hit));
            }
        }
        if found.is_empty() {
            return Ok(Run { keys: done, removed: 0, dead: 0 });
        }
        edit.reserve_removals()?;
        let appended = self.log.append(encoded.singles(), found.len() as u64, true)?;
        edit.remove_many(found.iter().map(|(sought, _)| sought));
        edit.tally(Tally::Removed, found.len() as u64);
        self.log.add_dead(appended.address, encoded.len());
        found.iter().for_each(|(_, hit)| self.supersede(Some(hit), None));
        let dead = found.iter().map(|(_, hit)| hit.header.total()).sum();
        let there = found.iter().filter(|(_, hit)| !self.is_expired(hit)).count() as u64;
        let run = Run { keys: done, removed: there, dead };
        drop(edit);
        self.after_append(appended, Until::Policy)?;
        Ok(run)
    }

    /// Removes everything.
    pub(crate) fn clear(&self, table: &Table) -> Result<()> {
        let _pass = self.health.enter()?;
        let _one = self.tables.begin_change();
        let appended = if self.tables.is_alone() {
            with_encoded(|encoded| {
                encoded.push(Label::of(table.id()), Kind::Clear, &[], &[]);
                self.retry(|| self.clear_locked(table, Clear::Record(encoded)))
            })?
        } else {
            Some(self.clear_beside_others(table)?)
        };
        if let Some(appended) = appended {
            self.after_append(appended, Until::Policy)?;
        }
        self.after_many();
        Ok(())
    }

    /// Empties every page, under all stripes.
    pub(crate) fn clear_locked(&self, table: &Table, cause: Clear<'_>) -> Step<Option<Appended>> {
        let mut is_appended = false;
        let cleared = table.clear(None, || {
            // Under the stripes, so that no link is missed; a store without blobs lists no directory.
            let mut blobs = self.log.blob_ids()?;
            Ok(match cause {
                Clear::Record(encoded) => {
                    let appended = self.log.append(encoded.singles(), 1, true)?;
                    is_appended = true;
                    (Some(appended), appended.end, blobs)
                }
                Clear::Replay { end, linked_later } => {
                    blobs.retain(|id| !linked_later.contains(id));
                    (None, end, blobs)
                }
            })
        });
        if let Err(Shortage::Error(error)) = &cleared
            && is_appended
        {
            // Of whatever nature: the log says that nothing is there, and memory does not.
            self.health.poison(error);
        }
        let ((appended, until, blobs), emptied) = cleared?;
        self.log.cleared(until, &blobs);
        drop(emptied);
        Ok(appended)
    }
}

/// A part of the keys to remove, all of one page.
struct Run {
    /// Keys dealt with.
    keys: usize,
    /// Those of them that were there.
    removed: u64,
    /// Bytes of their records, which are dead now.
    dead: u64,
}

/// Why everything is removed.
pub(crate) enum Clear<'a> {
    /// Somebody wants it: this is the record.
    Record(&'a mut Encoded),
    /// A record says so: where it ends, and the blobs that records behind it link.
    Replay { end: Lsn, linked_later: &'a HashSet<u64> },
}
