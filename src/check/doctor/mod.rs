//! A diagnosis: how the space of a store is used, why it is not reused, and what to do about it.
//!
//! Reads the meta data and the index, by pread and under the store's shared lock, and nothing of the log but its
//! segments' headers and the names of the tables: how much of a segment is dead is what the checkpoint's counters say ([`verify`](crate::verify::verify)
//! compares those with the records). Nothing is written. Memory does not grow with the store: what is kept of a page
//! is its share of sums, histograms and a cell of the heat map.
//!
//! **tables** and **census** count, **diagnosis** is what comes of it, **rules** says what that means; some rules judge each
//! table (**worst**).

mod advice;
mod amounts;
mod census;
mod diagnosis;
mod measures;
mod rules;
#[cfg(test)]
mod rules_tests;
mod tables;
mod worst;

use std::ops::ControlFlow;
use std::path::Path;

pub use advice::{Advice, ParseSeverityError, Severity};
pub use diagnosis::{
    BlobFigures, Diagnosis, DiskBytes, HeatCell, HeatMap, LogFigures, OverflowFigures, PageNote, Reclaimable,
    SegmentFigures, SlotCounts, TableFigures,
};

use super::segments::Segments;
use super::sink::{Input, Sink};
use super::state::{PAGE, State};
use super::{Check, Locked};
use crate::checkpoint::header::{FIRST_META_PAGE, read_headers};
use crate::checkpoint::meta::{Meta, SegmentEntry};
use crate::checksum::KeyHasher;
use crate::compaction::offline::FILL_PERMILLE;
use crate::error::{Error, IoContext, Location, Result};
use crate::layout::{index_path, journal_path, log_path, parse_blob_name, parse_segment_name};
use crate::log::deadlines::Expiring;
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::options::Options;
use crate::progress::{OnProgress, Progress};
use crate::store::Store;
use crate::sys::{Disk, OpenMode, RealDisk};
use crate::table::load::level_for;
use crate::table::region::BITMAP_BITS;
use crate::tuning::Tuning;

/// Diagnoses the store at a path. See [`diagnose_with`].
///
/// ```
/// # fn main() -> tophash::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// for advice in tophash::doctor::diagnose(&path)?.advice {
///     println!("{}: {}. {}", advice.severity, advice.finding, advice.action);
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`diagnose_with`].
pub fn diagnose(path: impl AsRef<Path>) -> Result<Diagnosis> {
    diagnose_with(path, Progress::ignore)
}

/// Diagnoses the store at a path: how full its pages are, where tombstones are, how much of the log is dead, what
/// compaction would give back, and what to do. Changes nothing. `progress` is told how many bytes were read, and ends
/// the diagnosis by returning [`ControlFlow::Break`].
///
/// If the store was closed, the last checkpoint is all there is. If not, the log's tail is replayed in memory, as a
/// read-only open does: records and log are current then, and the figures of pages and slots are those of the last
/// checkpoint. If that open is refused, the log's figures are of the last checkpoint too, the refusal is in
/// [`Diagnosis::tail_problem`], and no advice is drawn from them.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// use tophash::doctor::{Severity, diagnose_with};
/// let diagnosis = diagnose_with(&path, |progress| {
///     eprint!("\r{} of {} bytes", progress.done, progress.total);
///     std::ops::ControlFlow::Continue(())
/// })?;
/// assert!(diagnosis.worst() < Some(Severity::Warning));
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Errors
/// If the diagnosis cannot be carried out: [`Error::NotFound`], [`Error::NotAStore`], [`Error::Locked`] (a writer
/// has the store open), [`Error::NewerFormat`], [`Error::Io`]; [`Error::Corrupt`] or [`Error::WrongStore`] if
/// the checkpoint cannot be read; [`Error::Aborted`] if `progress` said so. Other damage is in the diagnosis.
pub fn diagnose_with(
    path: impl AsRef<Path>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Diagnosis> {
    let reader = Options::new().read_only(true).create(false);
    examine(&RealDisk, path.as_ref(), Some(&reader), &mut progress)
}

/// Diagnoses a store on any disk, without replaying its log's tail. See [`diagnose_with`].
///
/// # Errors
/// As [`diagnose_with`].
#[doc(hidden)]
pub fn diagnose_disk(
    disk: &dyn Disk,
    path: impl AsRef<Path>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Diagnosis> {
    examine(disk, path.as_ref(), None, &mut progress)
}

/// `reader` opens the store for reading, which replays the log's tail.
fn examine(disk: &dyn Disk, path: &Path, reader: Option<&Options>, progress: &mut OnProgress<'_>) -> Result<Diagnosis> {
    let locked = Locked::for_reading(disk, path)?;
    let disk = locked.disk(disk);
    let index_path = index_path(path);
    let index = Input::open(disk, &index_path)?.context("open", &index_path)?;
    let headers = read_headers(&*index.file, &index_path, false)?;
    let mut sink = Sink::new("doctor", progress);
    let index_bytes = index.file.allocated().context("look at", &index_path)?;
    // Holes are not read.
    sink.expect(index_bytes.min(index.len));
    sink.advance(2 * PAGE)?;
    let mut diagnosis = Diagnosis::default();
    let Some(state) = State::find(disk, path, index, &headers, &mut sink)? else {
        return Err(unreadable(&index_path, &sink));
    };
    let dir = log_path(path, state.header.log_dir);
    diagnosis.disk.index = index_bytes;
    diagnosis.disk.journal = allocated(disk, &journal_path(path));
    diagnosis.uuid = state.header.uuid.to_string();
    diagnosis.generation = state.header.generation;
    diagnosis.closed_cleanly = state.header.clean;
    note_blobs(&state, &mut diagnosis);
    // Looks at the files' headers; what is wrong with them is a finding.
    let known = Segments::find(disk, &dir, &state, &mut sink)?;
    let check = Check { disk, path, dir: &dir, hasher: KeyHasher::new(state.header.hash_key), state: &state };
    tables::examine(&check, &known, &mut sink, &mut diagnosis)?;
    let mut segments: Vec<SegmentFigures> = {
        let (meta, now) = (&state.meta, disk.now());
        meta.segments.iter().map(|entry| figures_of(entry, meta.expiring_of(entry), now)).collect()
    };
    if !state.header.clean {
        match reader.map(|options| options.clone().open(path)) {
            Some(Ok(store)) => {
                segments = note_tail(&store, &mut diagnosis);
                tables::note_tail(&store, &state, &mut diagnosis)?;
            }
            Some(Err(error)) => diagnosis.tail_problem = Some(error.to_string()),
            None => diagnosis.tail_problem = Some("it was not asked for".into()),
        }
    }
    note_log(disk, &dir, segments, &mut diagnosis)?;
    note_reclaimable(&state, &mut diagnosis);
    diagnosis.bytes_read = sink.report.bytes_read;
    diagnosis.damage = std::mem::take(&mut sink.report.findings);
    diagnosis.advise();
    Ok(diagnosis)
}

/// The error for a checkpoint that cannot be read: what was found last says why.
fn unreadable(index: &Path, sink: &Sink<'_>) -> Error {
    match sink.report.findings.last() {
        Some(finding) => {
            let location = Location { offset: finding.offset, page: finding.page, ..Location::file(index) };
            Error::corrupt("checkpoint", location, finding.expected.clone(), finding.found.clone())
        }
        None => Error::corrupt("checkpoint", Location::file(index), "meta data", "none"),
    }
}

fn note_blobs(state: &State, to: &mut Diagnosis) {
    let blobs = &state.meta.blobs;
    to.blobs.count = blobs.count;
    to.blobs.bytes = blobs.bytes;
    to.blobs.dying = blobs.dying.len() as u64;
}

/// A segment, as the checkpoint knows it.
fn figures_of(entry: &SegmentEntry, expiring: Option<Expiring>, now: u64) -> SegmentFigures {
    let bytes = entry.end.saturating_sub(SEGMENT_HEADER_BYTES);
    SegmentFigures {
        sequence: entry.sequence.into(),
        capacity: entry.capacity,
        bytes,
        dead_bytes: entry.dead.min(bytes),
        expiring_bytes: expiring.map_or(0, |expiring| expiring.bytes).min(bytes),
        expired_bytes: expiring.map_or(0, |expiring| expiring.over(now)).min(bytes),
        removals: entry.removals,
    }
}

/// What the log's tail adds: the figures of a store that was opened read-only. Returns its segments.
fn note_tail(store: &Store, to: &mut Diagnosis) -> Vec<SegmentFigures> {
    let stats = store.stats();
    to.tail_records = stats.recovery.replayed_records;
    to.tail_bytes = stats.recovery.replayed_bytes;
    to.blobs.count = stats.log.blobs;
    to.blobs.bytes = stats.log.blob_bytes;
    let log = &store.engine().log;
    let figures = log.segments().into_iter().map(|segment| {
        let bytes = segment.end().unwrap_or(0).saturating_sub(SEGMENT_HEADER_BYTES);
        SegmentFigures {
            sequence: segment.sequence.into(),
            capacity: segment.capacity(),
            bytes,
            dead_bytes: log.dead(segment.slot).min(bytes),
            expiring_bytes: log.kept_deadlines(segment.slot).map_or(0, |expiring| expiring.bytes).min(bytes),
            expired_bytes: log.expired(segment.slot).min(bytes),
            removals: segment.removals(),
        }
    });
    figures.collect()
}

fn note_log(disk: &dyn Disk, dir: &Path, segments: Vec<SegmentFigures>, to: &mut Diagnosis) -> Result<()> {
    for figures in segments {
        to.log.segments += 1;
        to.log.bytes += figures.bytes;
        to.log.dead_bytes += figures.dead_bytes;
        to.log.expiring_bytes += figures.expiring_bytes;
        to.log.expired_bytes += figures.expired_bytes;
        to.log.removals = to.log.removals.saturating_add(figures.removals);
        to.segments.push(figures);
    }
    for name in disk.read_dir(dir).context("list", dir)? {
        let bytes = allocated(disk, &dir.join(&name));
        if parse_blob_name(&name).is_some() {
            to.disk.blobs += bytes;
        } else if let Some(sequence) = parse_segment_name(&name) {
            to.disk.log += bytes;
            if !to.segments.iter().any(|segment| segment.sequence == u64::from(sequence)) {
                to.log.other_files += 1;
                to.log.other_bytes += bytes;
            }
        }
    }
    Ok(())
}

/// What offline compaction leaves: a table filled to its measure, the live records, hardly any journal.
fn note_reclaimable(state: &State, to: &mut Diagnosis) {
    if !to.log_is_current() {
        return;
    }
    let tuning = Tuning { grow_permille: FILL_PERMILLE as u32, ..Tuning::default() };
    let of_table = |records| {
        let pages = 1u64 << level_for(state.header.geometry, &tuning, records).min(38);
        pages.div_ceil(BITMAP_BITS) + pages
    };
    let catalog = (to.tables.len() > 1).then(|| of_table(to.tables.len() as u64));
    let pages: u64 = to.tables.iter().map(|table| of_table(table.records)).chain(catalog).sum();
    let meta_pages = Meta::pages_for(to.segments.len(), state.meta.listed().with_slack(), 0);
    let needed = (FIRST_META_PAGE + meta_pages + pages) * PAGE;
    let gone = to.log.dead_bytes.saturating_add(to.log.expired_bytes);
    let live = to.log.bytes.saturating_sub(gone);
    let segments = to.log.segments * PAGE;
    to.reclaimable.index_bytes = to.disk.index.saturating_sub(needed);
    to.reclaimable.log_bytes = to.disk.log.saturating_sub(live + segments);
    to.reclaimable.journal_bytes = to.disk.journal.saturating_sub(2 * PAGE);
    to.reclaimable.overflow_pages = to.overflow.used;
    to.reclaimable.tombstones = to.slots.empty_one;
}

/// Bytes of a file on the disk; 0 if there is none.
fn allocated(disk: &dyn Disk, path: &Path) -> u64 {
    disk.open(path, OpenMode::Read).and_then(|file| file.allocated()).unwrap_or(0)
}
