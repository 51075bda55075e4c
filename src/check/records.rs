//! One live slot against the record that it points to.

use std::path::Path;

use super::kind;
use super::sink::Sink;
use super::slots::{LiveSlot, Spot};
use crate::checksum::KeyHasher;
use crate::log::record::{BlobLink, Kind, Record};
use crate::table::growth::Growth;
use crate::table::slot::Tag;

/// A live record's link to a blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveLink {
    pub(super) link: BlobLink,
    pub(super) spot: Spot,
}

/// Checks records that live slots point to.
pub(super) struct RecordCheck<'c> {
    pub(super) index: &'c Path,
    pub(super) hasher: &'c KeyHasher,
    pub(super) growth: Growth,
    /// Blobs that live records link.
    pub(super) links: Vec<LiveLink>,
}

impl RecordCheck<'_> {
    /// Checks a record whose checksum is right. True if it is a value, whatever else is wrong with it.
    pub(super) fn check(&mut self, live: &LiveSlot, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        let location = || live.spot.location(self.index);
        match record.header.kind {
            Kind::Put => {}
            Kind::PutBlob => match BlobLink::decode(record.value()) {
                Some(link) => self.links.push(LiveLink { link, spot: live.spot }),
                None => sink.damage(kind::BLOB_LINK, location(), "a link to a blob", "other bytes"),
            },
            other => {
                sink.damage(kind::RECORD_KIND, location(), "a record with a value", format!("{other:?}"));
                return false;
            }
        }
        let hash = self.hasher.hash(record.key());
        let page = self.growth.page_of(hash);
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
        sink.report.records += 1;
        sink.report.record_bytes += record.header.total();
        true
    }
}
