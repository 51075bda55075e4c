//! Reading the changes of a tail again, for the replay.

use super::tail::{Tail, TailSegment};
use crate::address::Address;
use crate::address::Lsn;
use crate::checksum::KeyHasher;
use crate::error::Result;
use crate::log::record::{Invalid, Kind, Record};
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::log::segments::Log;
use crate::table_id::TableId;

/// One change to replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailOp {
    pub(crate) table: TableId,
    pub(crate) hash: u64,
    pub(crate) address: Address,
    pub(crate) kind: Kind,
}

/// Reads the changes of a validated tail again, in pieces, from the mappings of an open store. Checksums are left to the
/// replay, which checks each record that it applies.
pub(crate) struct TailReader<'t> {
    log: &'t Log,
    hasher: &'t KeyHasher,
    segments: std::slice::Iter<'t, TailSegment>,
    cut: Lsn,
    /// The segment that is being read, and where.
    at: Option<(&'t TailSegment, u64)>,
}

impl<'t> TailReader<'t> {
    pub(crate) fn new(log: &'t Log, hasher: &'t KeyHasher, tail: &'t Tail, cut: Lsn) -> Self {
        TailReader { log, hasher, segments: tail.segments.iter(), cut, at: None }
    }

    /// Reads up to `most` changes into `piece`. A clear-record ends a piece, and so does a record of the catalog. False at the end of the tail.
    ///
    /// # Errors
    /// `Corrupt` if the mapping does not show the records that were validated.
    pub(crate) fn read(&mut self, most: usize, piece: &mut Vec<TailOp>) -> Result<bool> {
        piece.clear();
        while piece.len() < most {
            let Some((segment, at)) = self.next_record() else { break };
            let address = Address::new(segment.slot, at);
            let pinned = self.log.pin(address).ok_or_else(|| self.log.invalid_record(address, Invalid::Beyond))?;
            let mut next = at;
            while next < segment.end && piece.len() < most {
                let address = Address::new(segment.slot, next);
                let record = Record::at(&pinned, next).map_err(|why| self.log.invalid_record(address, why))?;
                next += record.header.total();
                let kind = record.header.kind;
                match kind {
                    // The records of a frame follow it as if there were none.
                    Kind::Mark | Kind::Frame => continue,
                    Kind::Put | Kind::PutBlob | Kind::Remove | Kind::Clear => {}
                }
                piece.push(TailOp { table: record.table(), hash: self.hasher.hash(record.key()), address, kind });
                if kind == Kind::Clear || record.table() == TableId::CATALOG {
                    self.at = Some((segment, next));
                    return Ok(true);
                }
            }
            self.at = Some((segment, next));
        }
        Ok(!piece.is_empty())
    }

    /// Where the next record begins.
    fn next_record(&mut self) -> Option<(&'t TailSegment, u64)> {
        loop {
            if let Some((segment, at)) = self.at.filter(|&(segment, at)| at < segment.end) {
                return Some((segment, at));
            }
            let segment = self.segments.next()?;
            let is_cut = segment.sequence == self.cut.sequence();
            self.at = Some((segment, if is_cut { self.cut.offset() } else { SEGMENT_HEADER_BYTES }));
        }
    }
}
