//! Iteration in bit-reversed hash order, as Redis SCAN counts.
//!
//! A cursor is a hash with its bits reversed. The low bits of a hash choose its page, so in reversed order
//! each page covers one contiguous range of cursors, whatever the level: a page of level L covers `2^(64-L)`
//! of them, and when it is split, its halves cover the two halves of the range. So a cursor stays meaningful
//! while the table grows.
//!
//! A step takes the slots of one page's chain under its stripe, pins their segments, lets go of the stripe,
//! and emits the entries at or after the cursor in cursor order. A key that is there throughout is seen
//! exactly once; one that comes or goes meanwhile may be seen or not.
//!
//! Damage ends nothing. A damaged record is an error beside the entries of its page. A damaged page is an error in
//! the place of its entries; its range of cursors is known from its number and level, so the next page follows. An
//! error that is no damage (a handle inherited by `fork`) concerns every page, and ends the iteration.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::engine::read::Hit;
use crate::error::{Error, Location, Result};
use crate::log::record::{BlobLink, Invalid, Kind, Record};
use crate::sys::pins::{Pinned, PinnedBytes};
use crate::table::Table;
use crate::table::chain::Chain;
use crate::table::slot::{Slot, Tag};
use crate::value::{Bytes, Entry};
use crate::words::quoted;

/// One entry of a page, with its rank in the order.
pub(crate) struct Scanned<'s> {
    pub(crate) cursor: u64,
    key: PinnedBytes<'s>,
    hit: Hit<'s>,
}

impl Scanned<'_> {
    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key's hash, the bytes of the record, and the link if the value is in a file of its own.
    pub(crate) fn shape(&self) -> (u64, u64, Option<BlobLink>) {
        (self.cursor.reverse_bits(), self.hit.header.total(), self.hit.blob())
    }
}

/// The entries of one page at or after a cursor, in order.
pub(crate) struct PageScan<'s> {
    pub(crate) entries: VecDeque<Scanned<'s>>,
    /// Slots whose records could not be read.
    pub(crate) damaged: Vec<Error>,
    /// Expired entries that were passed over.
    pub(crate) expired: u64,
    /// Where the next page begins; `None` after the last.
    pub(crate) next: Option<u64>,
}

/// What one step of [`Store::scan`](crate::Table::scan) found: a slice of entries, and the damage beside them.
#[non_exhaustive]
pub struct Entries<'s> {
    /// The entries, in the order of the scan.
    pub entries: Vec<Entry<'s>>,
    /// What of the step's range could not be read: [`Error::Corrupt`] for each damaged record, value or index page, and
    /// [`Error::Io`] where the device refuses to read one. The keys are missing among the entries. The cursor that
    /// the step returned lies behind them.
    pub damaged: Vec<Error>,
}

impl<'s> Deref for Entries<'s> {
    type Target = [Entry<'s>];

    fn deref(&self) -> &[Entry<'s>] {
        &self.entries
    }
}

impl<'s> IntoIterator for Entries<'s> {
    type Item = Entry<'s>;
    type IntoIter = std::vec::IntoIter<Entry<'s>>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'e, 's> IntoIterator for &'e Entries<'s> {
    type Item = &'e Entry<'s>;
    type IntoIter = std::slice::Iter<'e, Entry<'s>>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("entries", &self.entries).field("damaged", &self.damaged).finish()
    }
}

/// True for an error that will come again: scans go on behind it. A shortage of descriptors or memory passes.
fn is_lasting(error: &Error) -> bool {
    /// EIO and EUCLEAN: what a device and a file system say of bytes that they cannot give back.
    const REFUSED: [i32; 2] = [5, 117];
    match error {
        Error::Io { source, .. } => source.raw_os_error().is_some_and(|code| REFUSED.contains(&code)),
        other => other.is_corruption(),
    }
}

/// The error of a record or value, with the key that it costs.
fn with_key(error: Error, key: &[u8]) -> Error {
    /// Bytes of a key that are shown.
    const SHOWN: usize = 64;
    let Error::Corrupt { what, location, expected, found } = error else { return error };
    let found = format!("{found} (key {})", quoted(key, SHOWN));
    Error::Corrupt { what, location, expected, found }
}

impl Engine {
    /// The page that a cursor points into. An error that is no damage concerns every page.
    pub(crate) fn scan_page(&self, table: &Table, cursor: u64) -> Result<PageScan<'_>> {
        self.health.check_readable()?;
        let hash = cursor.reverse_bits();
        let mut damaged = Vec::new();
        let (slots, number, growth, split_base) = {
            let guard = table.lock(hash);
            table.check_there()?;
            let number = guard.growth.page_of(hash);
            let range = Range::of(number, guard.growth.level_of(hash));
            let of = |chain: &Chain<'_>| (chain.live_slots(), chain.primary.page.split_base());
            let (slots, split_base) = match table.readable_chain(number) {
                Ok((chain, None)) => of(&chain),
                // The pages before the damaged one hold entries that a lookup finds.
                Ok((chain, Some(error))) if is_lasting(&error) => {
                    damaged.push(range.name(error));
                    of(&chain)
                }
                Err(error) if is_lasting(&error) => {
                    damaged.push(range.name(error));
                    (Vec::new(), 0)
                }
                Ok((_, Some(error))) | Err(error) => {
                    self.health.check_open()?;
                    return Err(error);
                }
            };
            // The pins are taken under the stripe: from here on the records cannot go away.
            let pinned: Vec<_> = slots.into_iter().map(|slot| (slot, self.log.pin(slot.address()))).collect();
            (pinned, number, guard.growth, split_base)
        };
        self.health.check_open()?;
        let next = Range::of(number, growth.level_of(hash)).next;
        let mut scan = PageScan { entries: VecDeque::with_capacity(slots.len()), damaged, expired: 0, next };
        let mut entries = Vec::with_capacity(slots.len());
        for i in 0..slots.len() {
            if let Some((ahead, Some(pinned))) = slots.get(i + 8) {
                pinned.prefetch(ahead.address().offset());
            }
            let (slot, pinned) = &slots[i];
            match self.scanned(table, *slot, pinned.clone()) {
                // A marked slot is in both pages of a split; its key belongs to one.
                Ok(entry) if slot.is_marked() && growth.page_of(entry.cursor.reverse_bits()) != number => {}
                Ok(entry) if entry.cursor < cursor => {}
                Ok(entry) if self.is_expired(&entry.hit) => scan.expired += 1,
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    let is_own = |hash| growth.page_of(hash) == number && Tag::of(hash, split_base) == slot.tag();
                    scan.damaged.push(match self.readable_key(*slot, pinned.as_ref()) {
                        // Slot and key agree, so the damage is elsewhere in the record.
                        Some(key) if is_own(self.hasher.hash(&key)) => with_key(error, &key),
                        _ => error,
                    });
                }
            }
        }
        entries.sort_by_key(|entry| entry.cursor);
        scan.entries = entries.into();
        Ok(scan)
    }

    /// The record of a slot, in the mapping that was pinned under the slot's stripe: by now the segment slot can
    /// stand for another segment.
    fn scanned<'s>(&'s self, table: &Table, slot: Slot, pinned: Option<Pinned<'s>>) -> Result<Scanned<'s>> {
        let address = slot.address();
        let pinned = pinned.ok_or_else(|| self.log.invalid_record(address, Invalid::Beyond))?;
        let record: Record<'_> = self.log.record(&pinned, address)?;
        if !matches!(record.header.kind, Kind::Put | Kind::PutBlob) {
            return Err(self.log.invalid_record(address, Invalid::Header).into());
        }
        if record.table() != table.id() {
            let location = Location::at(&self.log.path_of_slot(address.segment()), address.offset());
            let (expected, found) = (format!("one of {}", table.id()), format!("one of {}", record.table()));
            return Err(Error::corrupt("record", location, expected, found));
        }
        let cursor = self.hasher.hash(record.key()).reverse_bits();
        let header = record.header;
        let key = header.key_range();
        let key = pinned.clone().into_bytes(address.offset() + key.start as u64, key.len() as u64);
        let key = key.ok_or_else(|| self.log.invalid_record(address, Invalid::Beyond))?;
        Ok(Scanned { cursor, key, hit: Hit::new(slot, header, pinned) })
    }

    /// The key of a record that does not validate, if there is one at its address.
    fn readable_key(&self, slot: Slot, pinned: Option<&Pinned<'_>>) -> Option<Vec<u8>> {
        Some(Record::at(pinned?, slot.address().offset()).ok()?.key().to_vec())
    }

    /// Fetches the value of a scanned entry. `None` if the record was superseded and its blob is gone.
    pub(crate) fn entry<'s>(&'s self, table: &Table, scanned: Scanned<'s>) -> Result<Option<Entry<'s>>> {
        let Scanned { key, hit, .. } = scanned;
        let deadline = hit.deadline();
        match self.fetch(hit).map_err(|error| with_key(error.into(), &key))? {
            crate::engine::read::Fetched::Bytes(value) => Ok(Some(Entry { key, value, deadline })),
            // The key has another value now, or none.
            crate::engine::read::Fetched::Gone(_) => {
                let value = self.get_with_address(table, &key, self.hasher.hash(&key));
                let value = value.map_err(|error| with_key(error.into(), &key))?;
                Ok(value.map(|(address, value)| Entry { key, value: value.0, deadline: self.deadline_at(address) }))
            }
        }
    }

    /// Entries at or after a cursor, `limit` of them or a few more where hashes are equal, and the cursor to
    /// go on from. Damage counts like an entry, so that a step ends. A damaged record's rank in the order is not
    /// known: the step that reaches the end of its page tells it.
    pub(crate) fn scan(&self, table: &Table, cursor: Cursor, limit: usize) -> Result<(Entries<'_>, Option<Cursor>)> {
        let limit = limit.max(1);
        let mut found = Entries { entries: Vec::new(), damaged: Vec::new() };
        let mut at = cursor.get();
        loop {
            let mut page = self.scan_page(table, at)?;
            let mut last = None;
            while let Some(entry) = page.entries.pop_front() {
                if found.entries.len() + found.damaged.len() >= limit && last != Some(entry.cursor) {
                    return Ok((found, Some(entry.cursor.into())));
                }
                last = Some(entry.cursor);
                match self.entry(table, entry) {
                    Ok(entry) => found.entries.extend(entry),
                    Err(error) if is_lasting(&error) => found.damaged.push(error),
                    Err(error) => return Err(error),
                }
            }
            found.damaged.append(&mut page.damaged);
            match page.next {
                Some(next) if found.entries.len() + found.damaged.len() < limit => at = next,
                next => return Ok((found, next.map(Cursor::from))),
            }
        }
    }
}

/// The cursors that a page covers.
struct Range {
    start: u64,
    /// Where the next page begins; `None` after the last.
    next: Option<u64>,
}

impl Range {
    fn of(number: u64, level: u8) -> Range {
        let start = number.reverse_bits();
        let next = if level == 0 { None } else { start.checked_add(1 << (64 - level)) };
        Range { start, next }
    }

    /// The error of a damaged page, with the range of keys that it hides.
    fn name(&self, error: Error) -> Error {
        let Error::Corrupt { what, location, expected, found } = error else { return error };
        let last = self.next.map_or(u64::MAX, |next| next - 1);
        let found = format!("{found} (the keys from cursor {} to {last} are hidden by it)", self.start);
        Error::Corrupt { what, location, expected, found }
    }
}

/// Goes through the whole store.
pub(crate) struct Scan<'s> {
    engine: &'s Engine,
    table: &'s Table,
    page: Option<PageScan<'s>>,
    next: Option<u64>,
    expired: u64,
}

impl<'s> Scan<'s> {
    pub(crate) fn new(engine: &'s Engine, table: &'s Table) -> Self {
        Scan { engine, table, page: None, next: Some(0), expired: 0 }
    }

    /// Where the next page begins; `None` if there is no further one.
    pub(crate) fn next_page(&self) -> Option<Cursor> {
        self.next.map(Cursor::from)
    }

    /// Expired entries that were passed over so far.
    pub(crate) fn expired(&self) -> u64 {
        self.expired
    }

    /// The next record.
    pub(crate) fn next_scanned(&mut self) -> Option<Result<Scanned<'s>>> {
        loop {
            if let Some(page) = &mut self.page {
                if let Some(error) = page.damaged.pop() {
                    return Some(Err(error));
                }
                if let Some(entry) = page.entries.pop_front() {
                    return Some(Ok(entry));
                }
            }
            match self.engine.scan_page(self.table, self.next?) {
                Ok(page) => {
                    self.next = page.next;
                    self.expired += page.expired;
                    self.page = Some(page);
                }
                Err(error) => {
                    // No damage, which is told beside the entries: every further page would say the same.
                    self.next = None;
                    self.page = None;
                    return Some(Err(error));
                }
            }
        }
    }

    /// The next key, without its value.
    pub(crate) fn next_key(&mut self) -> Option<Result<Bytes<'s>>> {
        self.next_scanned().map(|scanned| scanned.map(|entry| Bytes::Log(entry.key)))
    }

    /// The next entry.
    pub(crate) fn next_entry(&mut self) -> Option<Result<Entry<'s>>> {
        loop {
            match self.next_scanned()?.and_then(|scanned| self.engine.entry(self.table, scanned)) {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
