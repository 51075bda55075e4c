//! Reading: from a key to a pinned record.

use std::sync::Arc;

use crate::address::Address;
use crate::engine::Engine;
use crate::error::{Error, Fault, Location};
use crate::expiry::Deadline;
use crate::log::blob::BlobMap;
use crate::log::record::{BlobLink, Header, Invalid, Kind, Record};
use crate::mutant::{Mutant, broken};
use crate::sys::pins::Pinned;
use crate::table::Table;
use crate::table::lookup::{Probe, SeenSlot};
use crate::table::slot::Slot;
use crate::value::{Bytes, Value};

type Result<T> = std::result::Result<T, Fault>;

/// A live record, pinned.
pub(crate) struct Hit<'s> {
    pub(crate) slot: Slot,
    pub(crate) header: Header,
    pinned: Pinned<'s>,
}

impl<'s> Hit<'s> {
    pub(crate) fn new(slot: Slot, header: Header, pinned: Pinned<'s>) -> Self {
        Hit { slot, header, pinned }
    }

    pub(crate) fn address(&self) -> Address {
        self.slot.address()
    }

    /// A copy of the key.
    pub(crate) fn key(&self) -> Vec<u8> {
        Record::at(&self.pinned, self.address().offset()).map_or_else(|_| Vec::new(), |record| record.key().to_vec())
    }

    /// A copy of the value in the record: that of a link, if the value is in a blob file.
    pub(crate) fn value(&self) -> Vec<u8> {
        Record::at(&self.pinned, self.address().offset()).map_or_else(|_| Vec::new(), |record| record.value().to_vec())
    }

    /// From when on the record is expired.
    #[inline(always)]
    pub(crate) fn deadline(&self) -> Deadline {
        if self.header.expires() { self.read_deadline() } else { Deadline::NEVER }
    }

    #[cold]
    fn read_deadline(&self) -> Deadline {
        Record::at(&self.pinned, self.address().offset()).map_or(Deadline::NEVER, |record| record.deadline())
    }

    /// True if the value is in a blob file.
    #[inline]
    pub(crate) fn is_blob(&self) -> bool {
        self.header.kind == Kind::PutBlob
    }

    /// The link, if the value is in a blob file.
    #[inline]
    pub(crate) fn blob(&self) -> Option<BlobLink> {
        if self.is_blob() { self.read_link() } else { None }
    }

    #[cold]
    fn read_link(&self) -> Option<BlobLink> {
        let record = Record::at(&self.pinned, self.address().offset()).ok()?;
        BlobLink::decode(record.value())
    }
}

/// What became of a record's value.
pub(crate) enum Fetched<'s> {
    Bytes(Bytes<'s>),
    /// The blob file is gone: the record has been superseded since it was read. It is still pinned, so that its address
    /// stands for it.
    Gone(Hit<'s>),
}

impl Engine {
    /// Decides whether a slot is the key's: pins its segment, looks at the slot again, compares the key, and
    /// checks the record. If it is the key's, `hit` is set, and only `verify` asks for the check.
    #[inline(always)]
    pub(crate) fn probe<'s>(
        &'s self,
        table: &Table,
        key: &[u8],
        seen: SeenSlot<'_>,
        verify: bool,
        hit: &mut Option<Hit<'s>>,
    ) -> Result<Probe> {
        let slot = seen.slot;
        let address = slot.address();
        seen.pause();
        let pinned = self.log.pin(address);
        if !seen.is_unchanged() {
            return Ok(Probe::Changed);
        }
        let Some(pinned) = pinned else { return Err(self.log.invalid_record(address, Invalid::Beyond)) };
        let invalid = |why| self.log.invalid_record(address, why);
        let record = Record::at(&pinned, address.offset()).map_err(invalid)?;
        let is_key = record.key() == key;
        if verify || !is_key || self.verify_reads && record.header.kind == Kind::PutBlob {
            // A rotten key must not read as "absent", so another key's record is checked as well. A rotten link must not
            // free another key's blob.
            record.check(pinned.salt(), address.offset()).map_err(invalid)?;
        }
        if !is_key {
            return Ok(Probe::Other);
        }
        if !matches!(record.header.kind, Kind::Put | Kind::PutBlob) {
            return Err(invalid(Invalid::Header));
        }
        if record.table() != table.id() {
            return Err(self.of_another_table(table, &record, address));
        }
        let header = record.header;
        *hit = Some(Hit { slot, header, pinned });
        Ok(Probe::Hit)
    }

    /// The error for a record that a slot of a table names, and that is one of another table.
    #[cold]
    fn of_another_table(&self, table: &Table, record: &Record<'_>, address: Address) -> Fault {
        let location = Location::at(&self.log.path_of_slot(address.segment()), address.offset());
        Error::corrupt("record", location, table.id().to_string(), record.table().to_string()).into()
    }

    /// True if the record is expired. The clock is looked at only if it has a deadline.
    #[inline(always)]
    pub(crate) fn is_expired(&self, hit: &Hit<'_>) -> bool {
        hit.header.expires() && hit.deadline().is_over(self.log.now())
    }

    /// Checks a record that is going to be copied, and gets a new checksum with that.
    pub(crate) fn check_whole(&self, hit: &Hit<'_>) -> Result<()> {
        let address = hit.address();
        let record = Record::at(&hit.pinned, address.offset());
        let checked = record.and_then(|record| record.check(hit.pinned.salt(), address.offset()));
        checked.map_err(|why| self.log.invalid_record(address, why))
    }

    /// The deadline of the record at an address, which the caller keeps from being recycled.
    pub(crate) fn deadline_at(&self, address: Address) -> Deadline {
        let Some(pinned) = self.log.pin(address) else { return Deadline::NEVER };
        Record::at(&pinned, address.offset()).map_or(Deadline::NEVER, |record| record.deadline())
    }

    /// The record of a key. One that is expired is none.
    #[inline(always)]
    pub(crate) fn find(&self, table: &Table, key: &[u8], hash: u64) -> Result<Option<Hit<'_>>> {
        self.health.check_readable()?;
        let mut hit = None;
        let looked_up = table.lookup(hash, |seen| self.probe(table, key, seen, self.verify_reads, &mut hit));
        self.health.check_open()?;
        // First: whatever the pages of a dropped table show, it may be another table's by now.
        table.check_there()?;
        looked_up?;
        Ok(hit.filter(|hit| !self.is_expired(hit)))
    }

    /// The value of a record.
    #[inline(always)]
    pub(crate) fn fetch<'s>(&'s self, hit: Hit<'s>) -> Result<Fetched<'s>> {
        if hit.is_blob() {
            return self.fetch_blob(hit);
        }
        let start = hit.address().offset() + hit.header.value_start() as u64;
        let len = hit.header.len() - hit.header.value_start();
        let address = hit.address();
        let bytes = hit.pinned.into_bytes(start, len as u64);
        bytes
            .map(|bytes| Fetched::Bytes(Bytes::Log(bytes)))
            .ok_or_else(|| self.log.invalid_record(address, Invalid::Beyond))
    }

    #[cold]
    fn fetch_blob<'s>(&'s self, hit: Hit<'s>) -> Result<Fetched<'s>> {
        let link = hit.blob().ok_or_else(|| self.log.invalid_record(hit.address(), Invalid::Header))?;
        let mapped = self.log.map_blob(link);
        // The next opener may have unlinked it.
        self.health.check_open()?;
        let Some(map) = mapped? else { return Ok(Fetched::Gone(hit)) };
        self.check_blob(link, &map)?;
        Ok(Fetched::Bytes(self.blob_bytes(hit, map)?))
    }

    /// With verified reads: compares a mapped blob's checksum with its link.
    pub(crate) fn check_blob(&self, link: BlobLink, map: &BlobMap) -> Result<()> {
        if self.verify_reads { Ok(self.log.check_blob(link, map)?) } else { Ok(()) }
    }

    /// The value in a blob, which the record of `hit` links.
    pub(crate) fn blob_bytes<'s>(&'s self, hit: Hit<'s>, map: Arc<BlobMap>) -> Result<Bytes<'s>> {
        let (address, len) = (hit.address(), hit.header.len() as u64);
        let link = hit.pinned.into_bytes(address.offset(), len);
        let link = link.ok_or_else(|| self.log.invalid_record(address, Invalid::Beyond))?;
        Ok(Bytes::Blob { _link: (!broken(Mutant::BlobUnpinned)).then_some(link), map })
    }

    /// The error for a link whose blob file does not exist.
    #[cold]
    pub(crate) fn missing_blob(&self, address: Address) -> Fault {
        let location = Location::at(&self.log.path_of_slot(address.segment()), address.offset());
        Error::corrupt("blob", location, "the blob file that the record links", "no such file").into()
    }

    /// The value of a key, with its record's address.
    #[inline]
    pub(crate) fn get_with_address(
        &self,
        table: &Table,
        key: &[u8],
        hash: u64,
    ) -> Result<Option<(Address, Value<'_>)>> {
        let mut previous: Option<Hit<'_>> = None;
        loop {
            let Some(hit) = self.find(table, key, hash)? else { return Ok(None) };
            let address = hit.address();
            match self.fetch(hit)? {
                Fetched::Bytes(bytes) => return Ok(Some((address, Value(bytes)))),
                // A blob can be unlinked between the two looks, if the key has changed meanwhile; if it has
                // not, the file is missing.
                Fetched::Gone(hit) if previous.is_none_or(|before| before.address() != address) => previous = Some(hit),
                Fetched::Gone(_) => return Err(self.missing_blob(address)),
            }
        }
    }

    /// The values of many keys. Each stage touches memory that the stage before has asked for.
    pub(crate) fn get_many<K: AsRef<[u8]>>(&self, table: &Table, keys: &[K]) -> Result<Vec<Option<Value<'_>>>> {
        /// Keys in flight: enough to keep the memory busy, few enough to stay in the cache.
        const GROUP: usize = 32;
        let mut values = Vec::with_capacity(keys.len());
        let mut hashes = [0; GROUP];
        for group in keys.chunks(GROUP) {
            for (hash, key) in hashes.iter_mut().zip(group) {
                *hash = self.hasher.hash(key.as_ref());
                table.prefetch(*hash);
            }
            for &hash in &hashes[..group.len()] {
                if let Some(slot) = table.guess(hash) {
                    self.log.prefetch(slot.address());
                }
            }
            for (&hash, key) in hashes.iter().zip(group) {
                values.push(self.get_with_address(table, key.as_ref(), hash)?.map(|(_, value)| value));
            }
        }
        let hits = values.iter().flatten().count();
        self.counts.count_reads(hits as u64, (values.len() - hits) as u64);
        Ok(values)
    }
}
