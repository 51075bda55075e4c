//! One live slot against the record that it points to.

use std::path::Path;

use super::kind;
use super::sink::Sink;
use super::slots::{LiveSlot, Spot};
use super::tables::CheckedTable;
use crate::checksum::KeyHasher;
use crate::log::record::{BlobLink, Kind, Record};
use crate::table::slot::Tag;
use crate::table_id::TableId;

/// A live record's link to a blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveLink {
    pub(super) link: BlobLink,
    pub(super) spot: Spot,
    /// The number of the table.
    pub(super) table: u16,
}

/// Checks records that live slots point to.
pub(super) struct RecordCheck<'c> {
    pub(super) index: &'c Path,
    pub(super) hasher: &'c KeyHasher,
    pub(super) tables: &'c [CheckedTable<'c>],
    /// Blobs that live records link.
    pub(super) links: Vec<LiveLink>,
}

impl RecordCheck<'_> {
    /// Checks a record whose checksum is right. True if it is a value, whatever else is wrong with it.
    pub(super) fn check(&mut self, live: &LiveSlot, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        sink.table = live.table();
        let is_value = self.check_record(live, record, sink);
        sink.table = 0;
        is_value
    }

    /// False, and a finding, if the record belongs to another table than the slot.
    pub(super) fn is_own(&self, live: &LiveSlot, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        let Some(table) = self.tables.get(usize::from(live.table())) else { return true };
        if record.table() == table.id() {
            return true;
        }
        sink.table = live.table();
        let expected = format!("a record of {}", table.id());
        let location = live.spot.location(self.index);
        sink.damage(kind::RECORD_TABLE, location, expected, format!("one of {}", record.table()));
        sink.table = 0;
        false
    }

    fn check_record(&mut self, live: &LiveSlot, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        let location = || live.spot.location(self.index);
        match record.header.kind {
            Kind::Put => {}
            Kind::PutBlob => match BlobLink::decode(record.value()) {
                Some(link) => self.links.push(LiveLink { link, spot: live.spot, table: live.table() }),
                None => sink.damage(kind::BLOB_LINK, location(), "a link to a blob", "other bytes"),
            },
            other => {
                sink.damage(kind::RECORD_KIND, location(), "a record with a value", format!("{other:?}"));
                return false;
            }
        }
        let Some(table) = self.tables.get(usize::from(live.table())) else { return true };
        if table.id() != TableId::CATALOG {
            sink.report.records += 1;
            sink.report.record_bytes += record.header.total();
        }
        if !self.is_own(live, record, sink) {
            return true;
        }
        let hash = self.hasher.hash(record.key());
        let page = table.state.growth.page_of(hash);
        if page != live.owner() {
            let expected = format!("a key of page {}", live.owner());
            sink.damage(kind::WRONG_PAGE, location(), expected, format!("a key of page {page}"));
        }
        let (expected, found) = (Tag::of(hash, live.split_base()), live.slot.tag());
        if expected.fingerprint() != found.fingerprint() {
            sink.damage(kind::SLOT_FINGERPRINT, location(), format!("{expected:?}"), format!("{found:?}"));
        } else if expected != found {
            sink.damage(kind::SLOT_SPLIT, location(), format!("{expected:?}"), format!("{found:?}"));
        }
        true
    }
}
