//! Which segments the log consists of, in order, and where each one ends.
//!
//! With a checkpoint: the segments of its table, each up to the end that the table gives it, then those behind
//! the cut. Without one: all of this store's segments. Of segments that no table speaks of, each header names
//! the predecessor and its end. Two things follow:
//!
//! * A segment ends where its successor says. What lies behind was declared dead, and stays so.
//! * A segment that a later one skips (its predecessor is an earlier one) was dead when the later one began:
//!   left behind by a crash, or waiting to be unlinked.
//!
//! A predecessor that is not there is a gap, and so is a segment whose header is damaged and whose salt no table
//! knows. Without a table, a gap can also be a segment that was freed: its live records were moved on first.

use std::path::PathBuf;

use super::report::Report;
use super::source::{SegmentFile, Source};
use crate::address::Address;
use crate::address::Lsn;
use crate::check::sink::Input;
use crate::checkpoint::meta::SegmentEntry;
use crate::error::Result;
use crate::layout::segment_path;
use crate::log::reader::{PreadSource, RecordSource};
use crate::log::segment::{HeaderState, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::sys::Disk;

/// One segment of the log.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) sequence: u32,
    pub(super) path: PathBuf,
    /// Bytes of the file; `None` if there is none.
    pub(super) len: Option<u64>,
    pub(super) header: Option<SegmentHeader>,
    /// There is a header, but it is damaged.
    pub(super) bad_header: bool,
    /// What its records' checksums are mixed with; `None` if nothing tells.
    pub(super) salt: Option<u64>,
    /// Where its records end, if a table or a successor says so.
    pub(super) end: Option<u64>,
}

impl Part {
    /// The bytes that can hold records.
    pub(super) fn limit(&self) -> u64 {
        self.len.unwrap_or(0).min(self.end.unwrap_or(u64::MAX))
    }
}

/// The log as it is going to be read.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    /// Everything below was durable, as far as anything tells.
    pub(super) durable_lsn: Lsn,
}

impl Plan {
    pub(super) fn make(disk: &dyn Disk, source: &Source, report: &mut Report) -> Result<Plan> {
        let table: &[SegmentEntry] = source.state.as_ref().map_or(&[], |state| &state.meta.segments);
        let cut = source.state.as_ref().map_or(0, |state| state.header.cut.sequence());
        let mut parts = Vec::new();
        let sealed = later(source, cut, &mut parts, report);
        for entry in table.iter().rev() {
            let seal = sealed.filter(|&(sequence, _)| sequence == entry.sequence).map(|(_, end)| end);
            parts.push(known(source, entry, cut, seal, report));
        }
        parts.sort_by_key(|part| part.sequence);
        seal_by_successors(&mut parts, cut);
        for (&sequence, file) in source.files.range(..=cut) {
            if table.iter().all(|entry| entry.sequence != sequence) {
                leave_out(report, file, "the checkpoint does not name it: it was waiting to be unlinked");
            }
        }
        let durable_lsn = durable_lsn(disk, source, &parts)?;
        Ok(Plan { parts, durable_lsn })
    }

    /// Bytes that are going to be read.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(Part::limit).sum()
    }
}

fn leave_out(report: &mut Report, file: &SegmentFile, why: &str) {
    report.files_left_out.push(format!("{}: {why}", file.path.display()));
}

/// A segment of the checkpoint's table.
fn known(source: &Source, entry: &SegmentEntry, cut: u32, seal: Option<u64>, report: &mut Report) -> Part {
    let mut part = Part {
        sequence: entry.sequence,
        path: segment_path(&source.dir, entry.sequence),
        len: None,
        header: None,
        bad_header: false,
        salt: Some(entry.salt),
        // The cut's segment goes on behind the cut.
        end: if entry.sequence == cut { seal } else { Some(entry.end) },
    };
    let Some(file) = source.files.get(&entry.sequence) else { return part };
    match file.header {
        HeaderState::Valid(header) if header.uuid != source.uuid => {
            leave_out(report, file, "it belongs to another store");
            return part;
        }
        HeaderState::Valid(header) => {
            part.header = Some(header);
            part.salt = Some(header.salt);
        }
        _ => {}
    }
    part.len = Some(file.len);
    part
}

/// The segments behind the cut's, the last one first. Returns the segment that the first of them names as its
/// predecessor, and that one's end.
fn later(source: &Source, cut: u32, parts: &mut Vec<Part>, report: &mut Report) -> Option<(u32, u64)> {
    let part = |sequence, end| Part {
        sequence,
        path: segment_path(&source.dir, sequence),
        len: None,
        header: None,
        bad_header: false,
        salt: None,
        end,
    };
    // What the segment above names as its predecessor, and that one's end.
    let mut named: Option<(u32, u64)> = None;
    for (&sequence, file) in source.files.range(cut + 1..).rev() {
        if let HeaderState::Valid(header) = file.header
            && header.uuid != source.uuid
        {
            leave_out(report, file, "it belongs to another store");
            continue;
        }
        if named.is_some_and(|(expected, _)| sequence > expected) {
            if file.header != HeaderState::Unused {
                leave_out(report, file, "a later segment skips it: it was dead already");
            }
            continue;
        }
        if let Some((expected, end)) = named.filter(|&(expected, _)| expected > sequence) {
            parts.push(part(expected, Some(end)));
            named = None;
        }
        let end = named.map(|(_, end)| end);
        match file.header {
            HeaderState::Valid(header) => {
                let (header, salt) = (Some(header), Some(header.salt));
                parts.push(Part { len: Some(file.len), header, salt, ..part(sequence, end) });
                named = header.map(|header| (header.predecessor, header.predecessor_end));
            }
            // Prepared, and never used: the header comes with the first record.
            HeaderState::Unused if end.is_none() => {}
            _ => {
                // Where the header was wiped, the segment was freed; or it is lost. So with one that is not there.
                let bad_header = file.header != HeaderState::Unused;
                parts.push(Part { len: bad_header.then_some(file.len), bad_header, ..part(sequence, end) });
                named = None;
            }
        }
    }
    if let Some((expected, end)) = named.filter(|&(expected, _)| expected > cut) {
        parts.push(part(expected, Some(end)));
    }
    named
}

/// No segment goes on behind the end that its successor gives it, whatever the table says.
fn seal_by_successors(parts: &mut [Part], cut: u32) {
    let mut rest = &mut *parts;
    while let [before, after @ ..] = rest {
        if let Some(header) = after.first().and_then(|next| next.header)
            && before.sequence == header.predecessor
        {
            let ends_at_cut = before.sequence == cut && before.end.is_none();
            let end = before.end.unwrap_or(u64::MAX).min(header.predecessor_end.max(SEGMENT_HEADER_BYTES));
            before.end = (!ends_at_cut || end < u64::MAX).then_some(end);
        }
        rest = after;
    }
    for part in parts {
        part.end = part.end.map(|end| end.min(Address::SEGMENT_BYTES_MAX));
    }
}

/// The highest durable LSN of the cut, the headers and the marks. They only grow, so the marks that matter stand behind
/// the last valid header.
fn durable_lsn(disk: &dyn Disk, source: &Source, parts: &[Part]) -> Result<Lsn> {
    let mut durable_lsn = source.cut.unwrap_or_default();
    durable_lsn =
        parts.iter().filter_map(|part| part.header).map(|header| header.durable_lsn).fold(durable_lsn, Lsn::max);
    let last = parts.iter().rposition(|part| part.header.is_some()).unwrap_or(0);
    for part in parts.iter().skip(last) {
        let (Some(salt), Some(_)) = (part.salt, part.len) else { continue };
        let Ok(input) = Input::open(disk, &part.path)? else { continue };
        let mut reader = PreadSource::new(input.file, part.limit());
        let (marked, _) = reader.behind(SEGMENT_HEADER_BYTES, salt);
        durable_lsn = durable_lsn.max(marked.unwrap_or_default());
    }
    Ok(durable_lsn)
}
