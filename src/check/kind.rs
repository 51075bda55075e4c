//! The kinds of findings. The names are stable: programs may compare them.

/// Header slot of the index: its bytes are no header, and no interrupted write explains them.
pub(super) const HEADER: &str = "header";
/// The journal does not belong to the header: its generation or its cut is another one.
pub(super) const JOURNAL: &str = "journal";
/// The journal file does not exist.
pub(super) const JOURNAL_MISSING: &str = "journal-missing";
/// A page that the journal would write lies outside the index, or its growth state is not that of the meta data.
pub(super) const JOURNAL_CONTENT: &str = "journal-content";
/// A meta page, or a field in the meta data, is damaged.
pub(super) const META: &str = "meta";
/// The extents do not suffice for the pages that the growth word leads to.
pub(super) const GROWTH: &str = "growth";
/// An extent lies outside the pages that the meta data speaks of.
pub(super) const EXTENT: &str = "extent";
/// Two extents overlap.
pub(super) const EXTENT_OVERLAP: &str = "extent-overlap";
/// The index file ends before its last extent.
pub(super) const INDEX_LENGTH: &str = "index-length";
/// A block could not be read from the device.
pub(super) const UNREADABLE: &str = "unreadable";

/// A bitmap page is damaged.
pub(super) const BITMAP: &str = "bitmap-page";
/// A bitmap page has bits for pages that its extent does not have.
pub(super) const BITMAP_BITS: &str = "bitmap-bits";
/// A page's checksum is not that of its bytes.
pub(super) const PAGE_CHECKSUM: &str = "page-checksum";
/// A page says another number than its own.
pub(super) const PAGE_NUMBER: &str = "page-number";
/// A page is of another kind than it must be.
pub(super) const PAGE_KIND: &str = "page-kind";
/// A page was written by a later checkpoint than the one that counts.
pub(super) const PAGE_GENERATION: &str = "page-generation";
/// A reserved field of a page's header is not zero.
pub(super) const PAGE_RESERVED: &str = "page-reserved";
/// A page's level is not the one that the growth word gives it.
pub(super) const PAGE_LEVEL: &str = "page-level";
/// A page's split base does not fit its level, or is not that of its chain.
pub(super) const PAGE_SPLIT_BASE: &str = "page-split-base";
/// A page belongs to another chain.
pub(super) const PAGE_OWNER: &str = "page-owner";
/// A page has another position in its chain.
pub(super) const CHAIN_POSITION: &str = "chain-position";
/// A link leads to a page that does not exist or is not in use.
pub(super) const CHAIN_LINK: &str = "chain-link";
/// A link leads to a page that a chain has already: a cycle or a cross-link.
pub(super) const CHAIN_CROSS_LINK: &str = "chain-cross-link";
/// An overflow page is marked as used, but no chain has it.
pub(super) const OVERFLOW_ORPHAN: &str = "overflow-orphan";
/// A primary page that is not in use is not zero.
pub(super) const PAGE_NOT_ZERO: &str = "page-not-zero";
/// A page beyond the growth cursor holds entries.
pub(super) const PAGE_BEYOND_CURSOR: &str = "page-beyond-cursor";
/// A page's header counts other live slots than there are.
pub(super) const PAGE_LIVE_COUNT: &str = "page-live-count";
/// A page's header counts other tombstones than there are.
pub(super) const PAGE_TOMBSTONE_COUNT: &str = "page-tombstone-count";

/// A slot does not lie on its entry's path.
pub(super) const SLOT_PATH: &str = "slot-path";
/// An `emptyRest` before the slot ends every lookup of its entry.
pub(super) const SLOT_UNREACHABLE: &str = "slot-unreachable";
/// A slot whose record could not be read when its page was split.
pub(super) const UNREADABLE_AT_SPLIT: &str = "unreadable-at-split";
/// A slot's address lies in no segment of the checkpoint.
pub(super) const SLOT_SEGMENT: &str = "slot-segment";
/// A slot's address lies beyond its segment's end.
pub(super) const SLOT_ADDRESS: &str = "slot-address";
/// Two slots hold one address.
pub(super) const SHARED_ADDRESS: &str = "shared-address";
/// A slot points to something that is no record, or into the middle of one.
pub(super) const SLOT_RECORD: &str = "slot-record";
/// A slot points to a record that is no value.
pub(super) const RECORD_KIND: &str = "record-kind";
/// A slot's record belongs to another table than the slot's page.
pub(super) const RECORD_TABLE: &str = "record-table";
/// The key of a slot's record belongs to another page.
pub(super) const WRONG_PAGE: &str = "wrong-page";
/// A slot's fingerprint is not that of its key.
pub(super) const SLOT_FINGERPRINT: &str = "slot-fingerprint";
/// A slot's split bits are not those of its key.
pub(super) const SLOT_SPLIT: &str = "slot-split";
/// The last change of a key in the log is a put, and no slot names it: no reader finds the key.
pub(super) const RECORD_UNNAMED: &str = "record-unnamed";
/// A slot names a record whose key was removed later in the log.
pub(super) const RECORD_REMOVED: &str = "record-removed";
/// A key is in two slots.
pub(super) const DUPLICATE_KEY: &str = "duplicate-key";
/// The meta data counts other records of a table than it has live slots.
pub(super) const RECORD_COUNT: &str = "record-count";

/// A record of the catalog is no entry of a table, or one that contradicts another.
pub(super) const CATALOG: &str = "catalog";
/// The log's tail changes a table that is not there.
pub(super) const TABLE_UNKNOWN: &str = "table-unknown";

/// A segment's file does not exist.
pub(super) const SEGMENT_MISSING: &str = "segment-missing";
/// A segment's file ends before its records do.
pub(super) const SEGMENT_LENGTH: &str = "segment-length";
/// A segment's header is damaged, or not the one that the checkpoint knows.
pub(super) const SEGMENT_HEADER: &str = "segment-header";
/// A file of another store.
pub(super) const WRONG_STORE: &str = "wrong-store";
/// A file of a newer format version.
pub(super) const NEWER_FORMAT: &str = "newer-format";
/// Two segments of one segment slot.
pub(super) const SEGMENT_SLOT: &str = "segment-slot";
/// Records of a segment that do not validate, live or not.
pub(super) const LOG_RECORD: &str = "log-record";
/// A batch's frame does not hold what it says.
pub(super) const FRAME: &str = "frame";
/// The cut is not the end of the segment that was written last.
pub(super) const CUT: &str = "cut";
/// Harmless: a segment's counters of dead bytes or removals are impossible.
pub(super) const SEGMENT_ACCOUNTING: &str = "segment-accounting";
/// A record that was durable is not there any more.
pub(super) const LOST_DATA: &str = "lost-data";

/// A record's link to a blob makes no sense.
pub(super) const BLOB_LINK: &str = "blob-link";
/// A blob's file does not exist.
pub(super) const BLOB_MISSING: &str = "blob-missing";
/// A blob's file has another length than its link says.
pub(super) const BLOB_LENGTH: &str = "blob-length";
/// A blob's header is not the one of its link.
pub(super) const BLOB_HEADER: &str = "blob-header";
/// A blob's value does not match its checksum.
pub(super) const BLOB_CHECKSUM: &str = "blob-checksum";
/// Two records link one blob.
pub(super) const BLOB_SHARED: &str = "blob-shared";
/// Harmless: the checkpoint counts other blobs or bytes than are linked.
pub(super) const BLOB_ACCOUNTING: &str = "blob-accounting";
/// Harmless: a blob that nobody links and no list names. An open for writing unlinks it, if it can read all records.
pub(super) const BLOB_ORPHAN: &str = "blob-orphan";
