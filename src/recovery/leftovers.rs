//! Large values that no record links and that no list names: an open for writing finds and unlinks them.
//!
//! `clear` frees any number of large values at once, and a checkpoint lists up to 8,192 of them, fewer on a full disk. The
//! process keeps the others in memory until a later checkpoint lists them. If it dies before, nothing tells of their files.
//!
//! 1. An open counts the files that records should link. The checkpoint and the tail say how many records link one. If
//!    there are no more files than that, nothing is left over. This costs no call: the directory was listed for the tail.
//! 2. Else all segments are read, by pread, and the index is asked for each record that links a file. It ends at the first
//!    record that cannot be read, and at each error of the moment. Then all files stay, and the next open tries again.
//! 3. The links must be as many as are counted. Otherwise the index or the counter is wrong, and all files stay.
//! 4. A file is unlinked if no link names it, its id was given out before the last cut, and its header is that of a value
//!    of this store with this id.
//!
//! *Crash in step 4:* the next open counts again. A file that is unlinked here was freed before the checkpoint's cut, so no
//! index and no tail that an open can still come to links it.

use std::collections::HashSet;

use crate::address::Address;
use crate::engine::Engine;
use crate::error::{Error, IoContext, Location, Result};
use crate::log::reader::{PreadSource, RecordSource};
use crate::log::record::Record;
use crate::log::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sys::OpenMode;

impl Engine {
    /// Unlinks the files of large values that nothing links. `kept`: the files that records should link. `next_id`: that of
    /// the checkpoint.
    pub(super) fn unlink_leftovers(&self, kept: &[u64], next_id: u64) {
        if kept.len() as u64 <= self.log.linked_blobs() || broken(Mutant::LeftoversKept) {
            return;
        }
        if let Err(error) = self.find_leftovers(kept, next_id) {
            observe::put_off(&self.path, &error.to_string());
        }
    }

    /// Steps 2 to 4.
    fn find_leftovers(&self, kept: &[u64], next_id: u64) -> Result<()> {
        let mut links = HashSet::new();
        for segment in self.log.segments() {
            let read = self.read_links(&segment, &mut links);
            if !broken(Mutant::LeftoversBlindly) {
                read?;
            }
        }
        let counted = self.log.linked_blobs();
        if links.len() as u64 != counted && !broken(Mutant::LeftoversBlindly) {
            let expected = format!("{counted} links to large values, as the checkpoint counts");
            return Err(Error::corrupt("index", Location::file(self.log.dir()), expected, links.len()));
        }
        let unlinked = kept.iter().copied().filter(|id| *id < next_id && !links.contains(id));
        self.log.unlink_leftovers(unlinked.collect()).map(|_| ())
    }

    /// Adds the links of a segment that slots name.
    fn read_links(&self, segment: &Segment, links: &mut HashSet<u64>) -> Result<()> {
        let (mut at, end) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + self.log.record_bytes(segment));
        let file = self.log.disk().open(&segment.path, OpenMode::Read).context("open", &segment.path)?;
        let mut source = PreadSource::new(file, end);
        while at < end {
            let address = Address::new(segment.slot, at);
            let read = source.record(at, end, segment.salt);
            let read = read.map(|record: Record<'_>| {
                let link = record.blob_link().map(|link| (link.id, record.table(), self.hasher.hash(record.key())));
                (record.header.total(), link)
            });
            if let Some((_, error)) = source.failure() {
                return Err(Error::io("read", &segment.path, error));
            }
            let (bytes, link) = read.map_err(|why| self.log.invalid_record(address, why))?;
            if let Some((id, table, hash)) = link
                && self.tables.names(table, hash, address)?
            {
                links.insert(id);
            }
            at += bytes;
        }
        Ok(())
    }
}
