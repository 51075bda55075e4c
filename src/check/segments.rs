//! The segments that the checkpoint knows: files and headers, and which slots they answer for.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::kind;
use super::sink::{Input, Sink};
use super::state::State;
use crate::address::Address;
use crate::address::Lsn;
use crate::checkpoint::meta::SegmentEntry;
use crate::error::{Location, Result};
use crate::layout::segment_path;
use crate::log::segment::{HeaderState, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader};
use crate::sys::Disk;
use crate::words::some;

/// A segment, and how far its records have been read.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) entry: SegmentEntry,
    pub(super) path: PathBuf,
    /// There is a file.
    pub(super) exists: bool,
    /// Where the next record begins that has not been read.
    pub(super) at: u64,
    /// Where records begin is not known at `at`.
    pub(super) lost: bool,
    /// Something could not be read: the sums below are not complete.
    pub(super) damaged: bool,
    /// Where the last part of it ends that could not be read; 0 if there is none.
    pub(super) damaged_end: u64,
    /// Bytes of records that did not validate and were read in vain.
    pub(super) wasted: u64,
    /// Records left in a batch's frame, and its end.
    pub(super) frame: Option<(u64, u64)>,
    /// Bytes of records that live slots point to.
    pub(super) live_bytes: u64,
    pub(super) removals: u64,
}

impl Known {
    /// Notes a part that could not be read, and where it ends.
    pub(super) fn set_damaged(&mut self, end: u64) {
        self.damaged = true;
        self.damaged_end = self.damaged_end.max(end);
    }

    /// The position up to which parts of it could not be read.
    pub(super) fn damaged_to(&self) -> Option<Lsn> {
        let end = self.damaged_end.min(u32::MAX.into());
        (end > 0).then(|| Lsn::new(self.entry.sequence, end))
    }
}

/// A figure of each segment that the checkpoint knows, by its segment slot; the default where there is none. Meta data
/// with a slot beyond the last one is refused when it is decoded.
pub(super) fn by_slot<T: Clone + Default>(state: &State, figure: fn(&SegmentEntry) -> T) -> Vec<T> {
    let mut figures = vec![T::default(); Address::SEGMENTS];
    for entry in &state.meta.segments {
        if let Some(value) = figures.get_mut(entry.slot as usize) {
            *value = figure(entry);
        }
    }
    figures
}

/// All segments that the checkpoint knows.
#[derive(Debug)]
pub(super) struct Segments {
    /// In the order of segment slots, which is that of record addresses.
    pub(super) known: Vec<Known>,
    /// Where the records of each segment slot end; 0 if there is no such segment.
    pub(super) ends: Vec<u64>,
    /// Sequence of the segment in each segment slot.
    pub(super) sequences: HashMap<u32, u32>,
}

impl Segments {
    /// Looks at the files and headers of all segments.
    pub(super) fn find(disk: &dyn Disk, dir: &Path, state: &State, sink: &mut Sink<'_>) -> Result<Segments> {
        let ends = by_slot(state, |entry| entry.end);
        let mut segments = Segments { known: Vec::new(), ends, sequences: HashMap::new() };
        for &entry in &state.meta.segments {
            let path = segment_path(dir, entry.sequence);
            let exists = check_file(disk, &path, entry, state, sink)?;
            segments.sequences.insert(entry.slot, entry.sequence);
            segments.known.push(Known {
                entry,
                path,
                exists,
                at: SEGMENT_HEADER_BYTES,
                lost: false,
                damaged: !exists,
                damaged_end: if exists { 0 } else { u64::MAX },
                wasted: 0,
                frame: None,
                live_bytes: 0,
                removals: 0,
            });
            sink.report.segments += 1;
            sink.expect(entry.end);
        }
        segments.known.sort_unstable_by_key(|known| known.entry.slot);
        check_cut(dir, state, sink);
        Ok(segments)
    }

    /// Compares the counters of dead bytes and removals with what was read.
    ///
    /// A record is dead or live, so what is not live is dead: superseded records, removals, sync marks, the headers of
    /// batches.
    pub(super) fn check_accounting(&self, sink: &mut Sink<'_>) {
        for known in self.known.iter().filter(|known| !known.damaged) {
            let entry = known.entry;
            let dead = (entry.end - SEGMENT_HEADER_BYTES).saturating_sub(known.live_bytes);
            if entry.dead != dead {
                let expected = some(dead, "dead byte");
                sink.harmless(kind::SEGMENT_ACCOUNTING, Location::file(&known.path), expected, entry.dead);
            }
            if entry.removals != known.removals {
                let expected = some(known.removals, "removal");
                sink.harmless(kind::SEGMENT_ACCOUNTING, Location::file(&known.path), expected, entry.removals);
            }
        }
    }
}

/// The cut is the end of the segment that was the active one, the last that the checkpoint knows.
fn check_cut(dir: &Path, state: &State, sink: &mut Sink<'_>) {
    let cut = state.header.cut;
    let last = state.meta.segments.last();
    let expected = last.map_or((0, 0), |entry| (entry.sequence, entry.end));
    if (cut.sequence(), cut.offset()) != expected || !cut.offset().is_multiple_of(8) {
        let location = last.map_or_else(|| Location::file(dir), |e| Location::file(&segment_path(dir, e.sequence)));
        let expected = format!("segment {} byte {}, where its records end", expected.0, expected.1);
        sink.damage(kind::CUT, location, expected, format!("{cut:?}"));
    }
}

/// Checks a segment's file and header. False if there is no file.
fn check_file(disk: &dyn Disk, path: &Path, entry: SegmentEntry, state: &State, sink: &mut Sink<'_>) -> Result<bool> {
    let input = match Input::open(disk, path)? {
        Ok(input) => input,
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let kind = if missing { kind::SEGMENT_MISSING } else { kind::UNREADABLE };
            let expected = format!("segment {} with {} bytes of records", entry.sequence, entry.end);
            sink.damage(kind, Location::file(path), expected, error);
            return Ok(false);
        }
    };
    if input.len < entry.end {
        let expected = format!("at least {} bytes", entry.end);
        sink.damage(kind::SEGMENT_LENGTH, Location::file(path), expected, some(input.len, "byte"));
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    input.read(&mut bytes, 0, sink)?;
    let header = match SegmentHeader::decode(&bytes) {
        HeaderState::Valid(header) => header,
        HeaderState::Newer(version) => {
            let expected = format!("format version {SEGMENT_VERSION} or older");
            sink.damage(kind::NEWER_FORMAT, Location::at(path, 8), expected, version);
            return Ok(true);
        }
        other => {
            let expected = format!("the header of segment {}", entry.sequence);
            sink.damage(kind::SEGMENT_HEADER, Location::at(path, 0), expected, format!("{other:?}"));
            return Ok(true);
        }
    };
    if header.uuid != state.header.uuid {
        let (expected, found) = (format!("store {}", state.header.uuid), format!("store {}", header.uuid));
        sink.damage(kind::WRONG_STORE, Location::at(path, 16), expected, found);
    }
    let identity = (entry.sequence, entry.salt, entry.slot);
    if (header.sequence, header.salt, header.slot) != identity {
        let text = |(sequence, salt, slot)| format!("sequence {sequence}, salt {salt:#x}, segment slot {slot}");
        let found = text((header.sequence, header.salt, header.slot));
        sink.damage(kind::SEGMENT_HEADER, Location::at(path, 32), text(identity), found);
    }
    check_predecessor(path, header, state, sink);
    Ok(true)
}

/// What a segment's header says about the segment before it.
fn check_predecessor(path: &Path, header: SegmentHeader, state: &State, sink: &mut Sink<'_>) {
    let location = || Location::at(path, 48);
    if header.predecessor >= header.sequence {
        let expected = format!("a predecessor before {}", header.sequence);
        sink.damage(kind::SEGMENT_HEADER, location(), expected, format!("segment {}", header.predecessor));
        return;
    }
    let Some(before) = state.meta.segments.iter().find(|entry| entry.sequence == header.predecessor) else { return };
    if header.predecessor_end != before.end {
        let expected = format!("segment {} ends at {}", before.sequence, before.end);
        sink.damage(kind::SEGMENT_HEADER, location(), expected, format!("at {}", header.predecessor_end));
    }
}
