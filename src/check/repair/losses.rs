//! What is lost: ranges of the log, and the keys that can still be read in them.

use std::path::Path;

use super::report::Loss;
use super::salvage::{Cursor, Salvage};
use crate::address::Lsn;
use crate::error::Result;
use crate::log::reader::{RecordSource, owner_at};
use crate::log::record::{FRAME_BYTES, Kind};

/// Losses that are listed; the rest is counted.
const LOSSES_MAX: usize = 1000;
/// Lost ranges that index entries are compared with.
const RANGES_MAX: usize = 1 << 20;

impl Salvage<'_, '_> {
    /// True if the record at an offset can be one of a batch.
    pub(super) fn is_member(&self, cursor: &mut Cursor<'_>, at: u64) -> bool {
        let record = cursor.source.record(at, cursor.limit, cursor.salt);
        record.is_ok_and(|record| matches!(record.header.kind, Kind::Put | Kind::PutBlob | Kind::Remove))
    }

    /// Notes the keys that can still be read in a lost range. True if the range is one record, whose lengths are
    /// right.
    pub(super) fn lost_keys(&mut self, cursor: &mut Cursor<'_>, from: u64, to: u64, batch: bool) -> Result<bool> {
        let mut at = if batch { from + FRAME_BYTES as u64 } else { from };
        let mut keys = Vec::new();
        while at < to {
            let Some(header) = cursor.source.header_at(at).filter(|header| at + header.total() <= to) else {
                return Ok(false);
            };
            // Lengths that do not lead to the end of the range name no key.
            if !batch && at + header.total() != to {
                return Ok(false);
            }
            if matches!(header.kind, Kind::Put | Kind::PutBlob | Kind::Remove) {
                keys.push((at, header.kind));
            }
            at += header.total();
        }
        let reason = if batch { "its batch is not whole" } else { "its record is damaged" };
        for (at, kind) in keys {
            let Some((table, key)) = owner_at(&*cursor.input.file, at) else { continue };
            if self.counts(table, Lsn::new(cursor.part.sequence, at))? {
                self.target.lose((table, &key), &cursor.path, at, reason.into(), kind == Kind::Remove);
            }
        }
        Ok(!batch)
    }

    pub(super) fn lose(
        &mut self,
        kind: &str,
        path: &Path,
        sequence: u32,
        range: std::ops::Range<u64>,
        acknowledged: bool,
        reason: String,
    ) -> Result<()> {
        self.target.gap()?;
        let report = &mut *self.report;
        report.losses_total += 1;
        report.acknowledged_losses += u64::from(acknowledged);
        report.lost_bytes += range.end.saturating_sub(range.start);
        if self.ranges.len() < RANGES_MAX {
            let to = if range.end > range.start { range.end } else { u64::MAX };
            self.ranges.push((sequence, range.start, to));
        }
        if report.losses.len() < LOSSES_MAX {
            let (kind, path) = (kind.to_string(), path.display().to_string());
            report.losses.push(Loss { kind, path, from: range.start, to: range.end, acknowledged, reason });
        }
        Ok(())
    }
}
