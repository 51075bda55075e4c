//! Changing one key.
//!
//! **The steps of a change**
//!
//! 1. Values too large for a segment are written to a blob file and synced. The record is encoded. Growth, if
//!    under way, is helped along by one page. No lock is held.
//! 2. The key's stripe is locked and the key looked up. If it is not as the caller expects, nothing happens.
//! 3. Everything that can run short is found: the pages become dirty (journal blocks, disk blocks, memory),
//!    an overflow page is linked if the path is full. On a shortage all locks are released, the shortage is
//!    mended, and everything starts again.
//! 4. The record is appended to the log. *From here on the change survives the death of the process.*
//! 5. The slot is published: readers see it. Removals repair the paths. From 4 on nothing fails the change.
//! 6. The stripe is unlocked. Upkeep, if due, is done; its errors are put off. With `SyncPolicy::Always`, the call
//!    waits until its record is durable, and only an error of this sync is returned. A caller that is not to wait gets
//!    the wait as a value (awaited.rs), whatever the policy.
//!
//! A crash before 4 leaves the old value, after 4 the new one; power loss may leave either until the record
//! is durable, and never a mixture.

use std::cell::Cell;
use std::sync::Arc;

use crate::address::Address;
use crate::awaited::Wait;
use crate::engine::read::{Fetched, Hit};
use crate::engine::{Engine, Until};
use crate::error::{Error, Location, Result};
use crate::expiry::Deadline;
use crate::log::appender::Appended;
use crate::log::blob::BlobMap;
use crate::log::encode::Encoded;
use crate::log::large::Linked;
use crate::log::record::{BlobLink, Invalid, Kind, Label, Record, check_key, check_value};
use crate::need::{Again, Need, Step};
use crate::observe::Timed;
use crate::sync::thread_local;
use crate::table::Table;
use crate::table::chain::OVERFLOW_MAX;
use crate::table::lookup::{Probe, SeenSlot};
use crate::table::slot::{Slot, Tag};
use crate::table::stripes::Tally;
use crate::value::Value;

/// A key of a table.
#[derive(Clone, Copy)]
pub(crate) struct KeyOf<'k> {
    pub(crate) table: &'k Table,
    pub(crate) key: &'k [u8],
    pub(crate) hash: u64,
}

/// What a key is to become.
#[derive(Clone, Copy)]
pub(crate) enum New<'a> {
    Put(&'a [u8], Deadline),
    /// The large value that the key's record links already, with another deadline.
    Relinked(BlobLink, Deadline),
    Remove,
}

/// What the key must be at this moment, or nothing is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Anything,
    Absent,
    /// The record at this address. The caller keeps it pinned, so the address cannot have been recycled.
    At(Address),
}

/// What a caller wants to have back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Whether anything was done.
    Nothing,
    /// The value that was there before. It is read and checked before anything changes.
    Previous,
    /// The value that is there now.
    Stored,
}

/// What came of a change.
#[derive(Default)]
pub(crate) struct Changed<'s> {
    /// The record that was there before.
    pub(crate) previous: Option<Hit<'s>>,
    /// Its value, if that is a blob and the caller wanted it: mapped before it could be unlinked.
    pub(crate) previous_blob: Option<Arc<BlobMap>>,
    /// The record that is there now, if the caller wanted it and the key was not removed.
    pub(crate) stored: Option<Hit<'s>>,
    /// Its value, if that is a blob: mapped before anybody could supersede it.
    pub(crate) stored_blob: Option<Arc<BlobMap>>,
    /// False if the key was not as expected: nothing has changed, and `previous` is what is there.
    pub(crate) done: bool,
    /// The blob of a record that was there before is free.
    frees_blob: bool,
    /// The wait for the sync of the change, if the caller is to wait for it.
    pub(crate) wait: Option<Wait>,
}

/// What a change carries from one attempt to the next.
struct Attempt<'s> {
    expect: Expect,
    want: Want,
    /// How often growth was helped along because the key's chain is long.
    helped: u32,
    /// The previous value is this blob, which must be checked before it is superseded.
    unchecked: Option<Hit<'s>>,
    /// A blob that was checked, and the record that links it: pinned, so its address cannot have been recycled.
    checked: Option<(Hit<'s>, Arc<BlobMap>)>,
    /// What the last attempt has done. It is filled in here because it is large.
    changed: Changed<'s>,
}

impl<'s> Attempt<'s> {
    /// The blob of the previous value, if it is one: the last attempt has checked it.
    ///
    /// # Errors
    /// [`Again::BlobUnchecked`] if it was another one; what is to be checked is noted.
    fn take_checked(&mut self, previous: &mut Option<Hit<'s>>) -> Step<Option<Arc<BlobMap>>> {
        let Some(hit) = previous.as_ref().filter(|hit| hit.is_blob()) else { return Ok(None) };
        if let Some((_, map)) = self.checked.take_if(|(checked, _)| checked.address() == hit.address()) {
            return Ok(Some(map));
        }
        (self.checked, self.unchecked) = (None, previous.take());
        Err(Need::Again(Again::BlobUnchecked).into())
    }
}

thread_local! {
    /// The record being encoded by this thread: no allocation per write.
    static ENCODED: Cell<Encoded> = Cell::default();
}

/// Bytes that a thread's buffer keeps. What a large batch took is given back.
const ENCODED_BYTES_KEPT: usize = 1 << 20;

/// Lends the thread's buffer.
pub(crate) fn with_encoded<T>(work: impl FnOnce(&mut Encoded) -> T) -> T {
    // There is none in a thread that ends, where a destructor makes a change, and in a change inside another one.
    let mut encoded = ENCODED.try_with(Cell::take).unwrap_or_default();
    encoded.clear();
    let result = work(&mut encoded);
    if encoded.capacity() <= ENCODED_BYTES_KEPT {
        // As above.
        let _ = ENCODED.try_with(|cell| cell.set(encoded));
    }
    result
}

/// Pages that an insert evacuates for a long chain at first, times two.
const EVACUATED: usize = 4;

impl Engine {
    /// Changes a key if it is as expected; returns when the policy says.
    #[inline]
    pub(crate) fn change<'s>(&'s self, of: KeyOf<'_>, new: New<'_>, expect: Expect, want: Want) -> Result<Changed<'s>> {
        self.change_until(Until::Policy, of, new, expect, want)
    }

    /// Changes a key if it is as expected.
    #[inline]
    pub(crate) fn change_until<'s>(
        &'s self,
        until: Until,
        of: KeyOf<'_>,
        new: New<'_>,
        expect: Expect,
        want: Want,
    ) -> Result<Changed<'s>> {
        let KeyOf { table, key, hash } = of;
        let _pass = self.health.enter()?;
        check_key(key)?;
        let _timer = self.observer.sample(Timed::Change);
        // On its way while the record is encoded.
        table.prefetch_for_change(hash);
        let (mut link, label) = (None, Label::of(table.id()).aligned(table.is_aligned()));
        let changed = Changed::default();
        let mut attempt = Attempt { expect, want, helped: 0, unchecked: None, checked: None, changed };
        let result = with_encoded(|encoded| {
            match new {
                New::Put(value, deadline) => {
                    check_value(value)?;
                    if value.len() as u64 > self.blob_threshold() {
                        let blob = self.new_blob(value)?;
                        encoded.push(label.until(deadline), Kind::PutBlob, key, &blob.encode());
                        link = Some(blob);
                    } else {
                        encoded.push(label.until(deadline), Kind::Put, key, value);
                    }
                }
                New::Relinked(blob, deadline) => {
                    encoded.push(label.until(deadline), Kind::PutBlob, key, &blob.encode());
                    link = Some(blob);
                }
                New::Remove => _ = encoded.push(label, Kind::Remove, key, &[]),
            }
            if let Some(link) = link.filter(|_| want == Want::Stored) {
                attempt.changed.stored_blob = self.log.map_blob(link)?;
            }
            self.help_growth(table, hash)?;
            self.retry(|| {
                if let Some(hit) = attempt.unchecked.take() {
                    self.check_previous_blob(table, hit, &mut attempt)?;
                }
                self.change_locked(of, encoded, link, &mut attempt)
            })
        });
        if let Some(blob) = link
            && !matches!(new, New::Relinked(..))
            && (result.is_err() || !attempt.changed.done)
        {
            self.give_up_blobs([blob]);
        }
        let appended = result?;
        let mut changed = attempt.changed;
        if let Some(appended) = appended {
            changed.wait = self.after_append(appended, until)?;
        }
        if changed.frees_blob {
            self.mind_freed_blobs();
        }
        Ok(changed)
    }

    /// Values longer than this go to a blob file.
    pub(crate) fn blob_threshold(&self) -> u64 {
        let limit = self.tuning.blob_bytes_min;
        self.log.fixed_segment_bytes().map_or(limit, |segment| limit.min(segment / 4))
    }

    /// Writes a value into a blob. If far too much of what was freed waits for a checkpoint, that comes first.
    pub(crate) fn new_blob(&self, value: &[u8]) -> Result<BlobLink> {
        if self.log.is_crowded_with_blobs() || self.log.freed_blobs().1 > 2 * self.compactor.freed_blobs_max(&self.log)
        {
            // Once: what cannot be unlinked at this moment is no reason to refuse the value.
            self.satisfy(Need::BlobList)?;
        }
        self.with_space(|| self.log.write_blob(value))
    }

    /// Removes large values that no record links after all. Not in a poisoned store: its log may hold the record that links
    /// them, and the next open knows.
    pub(super) fn give_up_blobs(&self, links: impl IntoIterator<Item = BlobLink>) {
        if self.health.check_writable().is_ok() {
            links.into_iter().for_each(|link| self.log.give_up_blob(link));
        }
    }

    /// Steps 2 to 5.
    fn change_locked<'s>(
        &'s self,
        of: KeyOf<'_>,
        encoded: &Encoded,
        link: Option<BlobLink>,
        attempt: &mut Attempt<'s>,
    ) -> Step<Option<Appended>> {
        let KeyOf { table, key, hash } = of;
        let mut edit = table.edit(hash)?;
        let mut previous: Option<Hit<'s>> = None;
        // A value that nobody wants is not read.
        let verify = self.verify_reads && attempt.want == Want::Previous;
        let sought = edit.find(hash, |slot| self.is_key_with(table, key, slot, verify, &mut previous))?;

        // An expired record is superseded like any other, and to the caller it is none.
        let is_expired = previous.as_ref().is_some_and(|hit| self.is_expired(hit));
        let as_expected = match attempt.expect {
            Expect::Anything => true,
            Expect::Absent => previous.is_none() || is_expired,
            Expect::At(address) => previous.as_ref().is_some_and(|hit| hit.address() == address),
        };
        let removing = encoded_removes(encoded);
        // An expired record is removed like any other: the clock may be put back.
        if !as_expected || (removing && previous.is_none()) {
            let previous = previous.filter(|_| !is_expired);
            attempt.changed = Changed { previous, done: as_expected, ..Changed::default() };
            return Ok(None);
        }
        let is_wanted = attempt.want == Want::Previous && !is_expired;
        let previous_blob = if is_wanted { attempt.take_checked(&mut previous)? } else { None };

        if sought.is_full() && self.is_to_help_first(edit.overflow_pages(), attempt) {
            let length = edit.overflow_pages();
            drop(edit);
            self.help_with_long_chain(table, length, attempt)?;
            return Err(Need::Again(Again::LongChain).into());
        }

        let reserved = if removing { edit.reserve_removal(sought)? } else { Some(edit.reserve_put(sought)?) };
        let Some(reserved) = reserved else {
            return Err(Error::impossible(&self.path, "a removal of a key that was found and is not there").into());
        };
        let appended = self.log.append(encoded.singles(), u64::from(removing), removing)?;
        edit.publish(reserved, appended.address);
        let tally = match previous {
            _ if removing => Tally::Removed,
            Some(_) if !is_expired => Tally::Replaced,
            _ => Tally::Inserted,
        };
        edit.tally(tally, u64::from(!(removing && is_expired)));
        if removing {
            // A removal is dead weight from the start.
            self.log.add_dead(appended.address, encoded.len());
        }
        self.log.add_deadline(appended.address, encoded.deadline(), encoded.len());
        let linked = |link| Linked { link, deadline: encoded.deadline(), address: appended.address };
        self.supersede(previous.as_ref(), link.map(linked));
        let changed = &mut attempt.changed;
        changed.frees_blob = previous.as_ref().is_some_and(Hit::is_blob);
        changed.previous = previous.filter(|_| !is_expired);
        changed.previous_blob = previous_blob;
        // Pinned under the stripe: from here on the record cannot go away, whatever becomes of the key.
        if attempt.want == Want::Stored && !removing {
            changed.stored = self.stored_hit(appended.address);
        }
        changed.done = true;
        Ok(Some(appended))
    }

    fn stored_hit(&self, address: Address) -> Option<Hit<'_>> {
        let pinned = self.log.pin(address)?;
        let header = Record::at(&pinned, address.offset()).ok()?.header;
        Some(Hit::new(Slot::new(Tag::of(0, 0), address), header, pinned))
    }

    /// Maps and checks the blob that the last attempt found as the previous value, with no lock held: it is
    /// returned to the caller, and a damaged one must be reported before anything changes.
    #[cold]
    fn check_previous_blob<'s>(&'s self, table: &Table, hit: Hit<'s>, attempt: &mut Attempt<'s>) -> Result<()> {
        let link = hit.blob().ok_or_else(|| self.log.invalid_record(hit.address(), Invalid::Header))?;
        // No such file: superseded and unlinked meanwhile, or missing. The next attempt tells.
        if let Some(map) = self.log.map_blob(link)? {
            self.check_blob(link, &map)?;
            attempt.checked = Some((hit, map));
        } else if self
            .find(table, &hit.key(), self.hasher.hash(&hit.key()))?
            .is_some_and(|now| now.address() == hit.address())
        {
            return Err(self.missing_blob(hit.address()).into());
        }
        Ok(())
    }

    /// Asks about a slot under the stripe; keeps the hit.
    pub(crate) fn is_key<'s>(
        &'s self,
        table: &Table,
        key: &[u8],
        slot: Slot,
        hit: &mut Option<Hit<'s>>,
    ) -> Result<bool> {
        self.is_key_with(table, key, slot, self.verify_reads, hit)
    }

    /// The same. `verify` says whether the key's own record is checked as a whole.
    pub(crate) fn is_key_with<'s>(
        &'s self,
        table: &Table,
        key: &[u8],
        slot: Slot,
        verify: bool,
        hit: &mut Option<Hit<'s>>,
    ) -> Result<bool> {
        let is_key = self.probe(table, key, SeenSlot::held(slot), verify, hit)? == Probe::Hit;
        if let Some(found) = hit.as_ref().filter(|_| is_key && slot.is_marked()) {
            // Its twin in the other half of an earlier split cannot be told from it.
            let location = Location::at(&self.log.path_of_slot(found.address().segment()), found.address().offset());
            return Err(Error::corrupt("record", location, "readable when its page was split", "unreadable then"));
        }
        Ok(is_key)
    }

    /// What a published change leaves behind: the space of the record before it, and its blob. `linked` is the blob of its
    /// own record.
    #[inline]
    pub(crate) fn supersede(&self, old: Option<&Hit<'_>>, linked: Option<Linked>) {
        if let Some(old) = old {
            self.log.bury(old.address(), old.deadline(), old.header.total());
        }
        self.log.relink(old.and_then(Hit::blob), linked);
    }

    /// True if an insert that would make a chain longer does something about growth before. The longer the chain, the
    /// more often.
    fn is_to_help_first(&self, length: usize, attempt: &Attempt<'_>) -> bool {
        length as u32 >= self.tuning.chain_help && attempt.helped <= length.max(1).ilog2()
    }

    /// Growth that stands still keeps no change from being made, up to a point.
    #[cold]
    fn help_with_long_chain(&self, table: &Table, length: usize, attempt: &mut Attempt<'_>) -> Result<()> {
        attempt.helped += 1;
        match self.retry(|| table.shorten_chains(EVACUATED << attempt.helped.min(6), self)) {
            Err(error) if length >= OVERFLOW_MAX || !error.can_wait() => Err(error),
            _ => Ok(()),
        }
    }

    /// The value that a change has just stored.
    pub(crate) fn stored_value<'s>(&'s self, changed: Changed<'s>) -> Result<Option<Value<'s>>> {
        let Some(hit) = changed.stored else { return Ok(None) };
        if let Some(map) = changed.stored_blob {
            return Ok(Some(Value(self.blob_bytes(hit, map)?)));
        }
        match self.fetch(hit)? {
            Fetched::Bytes(bytes) => Ok(Some(Value(bytes))),
            Fetched::Gone(_) => Ok(None),
        }
    }

    /// The value that was there before a change, or that stood in its way.
    pub(crate) fn previous_value<'s>(&'s self, changed: Changed<'s>) -> Result<Option<Value<'s>>> {
        let Some(hit) = changed.previous else { return Ok(None) };
        if let Some(map) = changed.previous_blob {
            return Ok(Some(Value(self.blob_bytes(hit, map)?)));
        }
        let address = hit.address();
        match self.fetch(hit)? {
            Fetched::Bytes(bytes) => Ok(Some(Value(bytes))),
            Fetched::Gone(_) => Err(self.missing_blob(address).into()),
        }
    }
}

/// True if the encoded record is a removal.
fn encoded_removes(encoded: &Encoded) -> bool {
    encoded.singles().first_kind() == Some(Kind::Remove)
}
