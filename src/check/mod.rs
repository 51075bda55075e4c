//! Checking a store's files without opening it.
//!
//! Everything is read by pread, under the store's shared lock, and nothing is written:
//!
//! 1. **state**: header slots, journal, meta data: which checkpoint counts.
//! 2. **extents**: the index's extents and bitmaps. **segments**: the log files that the checkpoint knows.
//! 3. **walk** and **chain**: every page in use, its header, its counters, and the rule of the paths. **keys**:
//!    no key twice. Live slots go to **slots**, which sorts them by address.
//! 4. **scan**: every segment from its first record to its end, with the slots that point there beside;
//!    **records** compares each live slot with its record's key.
//!    **unnamed**: the last put of each key has a slot.
//! 5. The log's tail, as an open would read it (recovery/tail.rs). **blobs**: linked ones and leftovers.
//!
//! Memory is bounded whatever the files say: slots are checked in passes if there are many, findings beyond a
//! thousand are only counted, records and blobs are read in pieces.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

mod blobs;
mod catalog;
mod chain;
pub(crate) mod doctor;
mod extents;
mod keys;
mod kind;
mod records;
pub(crate) mod repair;
mod report;
mod scan;
mod segments;
mod sink;
mod slots;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod unnamed;
mod walk;

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

pub use report::{Finding, Report};

use self::catalog::Catalog;
use self::chain::PageMemory;
use self::keys::KeyReader;
use self::records::{LiveLink, RecordCheck};
use self::scan::Scan;
use self::segments::Segments;
use self::sink::{Input, Sink};
use self::slots::{Collector, LiveSlot, SLOTS_MAX};
use self::state::State;
use self::tables::CheckedTable;
use self::unnamed::Unnamed;
use self::walk::{Walk, Walked};
use crate::address::Address;
use crate::checkpoint::header::{FIRST_META_PAGE, read_headers};
use crate::checksum::KeyHasher;
use crate::error::{Error, IoContext, Location, Result};
use crate::layout::{COMPACTING, TEMPORARY, index_path, lock_path, log_path, parse_blob_name};
use crate::log::record::BlobLink;
use crate::progress::{OnProgress, Progress};
use crate::recovery::create::check_vacant;
use crate::recovery::tail::{Tail, TailAccess, TailSource};
use crate::sync::AtomicU64;
use crate::sys::{Disk, LockGuard, LockMode, LockOutcome, PathKind, RealDisk};
use crate::table_id::TableId;
use crate::words::some;

/// Checks the files of the store at a path. See [`verify_with`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// let report = tophash::verify::verify(&path)?;
/// for finding in &report.findings {
///     println!("{} in {}: {} instead of {}", finding.kind, finding.path, finding.found, finding.expected);
/// }
/// assert!(report.is_clean());
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Errors
/// As [`verify_with`].
pub fn verify(path: impl AsRef<Path>) -> Result<Report> {
    verify_with(path, Progress::ignore)
}

/// Checks the files of the store at a path: every checksum, every page, every record, every link between them, in both
/// directions: each slot names a record of its key, and the last record of each key is the one that a slot names. (A
/// store with dead records is read twice for that, or more often if there are millions of them.)
///
/// Changes nothing. `progress` is told how many bytes were read, and ends the check by returning
/// [`ControlFlow::Break`].
///
/// Damage is no error: it is in the report.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// use tophash::verify::verify_with;
/// let report = verify_with(&path, |progress| {
///     eprint!("\r{} of {} bytes", progress.done, progress.total);
///     std::ops::ControlFlow::Continue(())
/// })?;
/// assert!(report.is_clean());
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Errors
/// If the check cannot be carried out: [`Error::NotFound`], [`Error::NotAStore`], [`Error::Locked`] (a writer
/// has the store open), [`Error::NewerFormat`], [`Error::Io`]; [`Error::Corrupt`] or [`Error::WrongStore`] if
/// neither header slot tells what the store is; [`Error::Aborted`] if `progress` said so.
pub fn verify_with(path: impl AsRef<Path>, progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<Report> {
    verify_disk(&RealDisk, path, progress)
}

/// Checks the files of a store on any disk. See [`verify_with`].
///
/// # Errors
/// As [`verify_with`].
#[doc(hidden)]
pub fn verify_disk(
    disk: &dyn Disk,
    path: impl AsRef<Path>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    check(disk, path.as_ref(), &mut progress, SLOTS_MAX)
}

/// Checks a store with that many slots in memory at a time.
fn check(disk: &dyn Disk, path: &Path, progress: &mut OnProgress<'_>, slots_max: usize) -> Result<Report> {
    let locked = Locked::for_reading(disk, path)?;
    let disk = locked.disk(disk);
    let index_path = index_path(path);
    let index = Input::open(disk, &index_path)?.context("open", &index_path)?;
    let headers = read_headers(&*index.file, &index_path, false)?;
    let mut sink = Sink::new("verify", progress);
    sink.expect(index.len);
    sink.advance(2 * state::PAGE)?;
    if let Some(state) = State::find(disk, path, index, &headers, &mut sink)? {
        let dir = log_path(path, state.header.log_dir);
        let check = Check { disk, path, dir: &dir, hasher: KeyHasher::new(state.header.hash_key), state: &state };
        check.run(&mut sink, slots_max)?;
        // What an open refuses must not pass here, whatever else was looked at.
        if sink.report.is_clean()
            && let Err(error) = state.meta.check_against(&index_path, &state.header)
        {
            sink.error(kind::META, error);
        }
    }
    sink.finish()
}

/// Holds on to a store's directory, where the disk can do that.
///
/// # Errors
/// `NotFound` if there is nothing, `NotAStore` if it is no directory, `Io`.
fn hold_directory(disk: &dyn Disk, path: &Path) -> Result<Option<Arc<dyn Disk>>> {
    match disk.kind(path).context("look at", path)? {
        PathKind::Missing => Err(Error::NotFound { path: path.to_path_buf() }),
        PathKind::Other => Err(Error::NotAStore { path: path.to_path_buf(), reason: "it is no directory".into() }),
        PathKind::Directory => disk.anchored(path).context("open", path),
    }
}

/// A store that nobody has open for writing while this lives.
struct Locked {
    _lock: Box<dyn LockGuard>,
    /// By which the store is reached that is locked, if that is another disk.
    anchored: Option<Arc<dyn Disk>>,
}

impl Locked {
    /// The disk with which the store is read.
    fn disk<'d>(&'d self, disk: &'d dyn Disk) -> &'d dyn Disk {
        self.anchored.as_deref().unwrap_or(disk)
    }

    /// Makes sure that there is a store, and locks it.
    fn for_reading(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let index_path = index_path(path);
        let anchored = hold_directory(disk, path)?;
        let disk = anchored.as_deref().unwrap_or(disk);
        if disk.kind(&index_path).context("look at", &index_path)? == PathKind::Missing {
            check_vacant(disk, path)?;
            return Err(Error::NotFound { path: path.to_path_buf() });
        }
        let lock_file = lock_path(path);
        match disk.lock(&lock_file, LockMode::Shared).context("lock", &lock_file)? {
            LockOutcome::Held(lock) => Ok(Locked { _lock: lock, anchored }),
            LockOutcome::Busy(holder) => Err(Error::locked(path, holder)),
        }
    }
}

/// A check whose checkpoint is known.
struct Check<'c> {
    disk: &'c dyn Disk,
    path: &'c Path,
    dir: &'c Path,
    hasher: KeyHasher,
    state: &'c State,
}

impl Check<'_> {
    fn run(&self, sink: &mut Sink<'_>, slots_max: usize) -> Result<()> {
        let mut segments = Segments::find(self.disk, self.dir, self.state, sink)?;
        let (ends, sequences) = (segments.ends.clone(), segments.sequences.clone());
        let mut catalog = self.read_catalog(&ends, &sequences, sink)?;
        let tables = CheckedTable::find_all(self.state, sink)?;
        let mut walk = self.walk(&tables, &ends, &sequences);

        let mut collector = Collector::new(slots_max);
        let walked = walk.run(sink, &mut |slot| collector.add(slot))?;
        let tables_whole = tables.iter().all(CheckedTable::is_whole);
        let whole = tables_whole && walked.broken.is_empty();
        self.note_walk(&walked, whole, sink);

        let mut links = Vec::new();
        let mut unnamed = Unnamed::new(slots_max, &catalog);
        match collector.finish() {
            Ok(slots) => {
                let all = Address::from_raw(0)..Address::from_raw(1 << 39);
                self.scan(&tables, &mut segments, &slots, all, &mut links, &mut unnamed, sink)?;
            }
            Err(ranges) => {
                sink.expect((ranges.len() as u64).saturating_mul(self.state.pages.index.len));
                for range in ranges {
                    let slots = self.collect(&mut walk, &range, slots_max, sink)?;
                    self.scan(&tables, &mut segments, &slots, range, &mut links, &mut unnamed, sink)?;
                }
            }
        }
        // Where pages are that cannot be told which ones, nobody knows what their slots named.
        if tables_whole && !walked.cut_short {
            unnamed.resolve(self.disk, &self.hasher, &segments.known, sink)?;
            unnamed.check_removed(self.disk, &self.hasher, &segments.known, &mut walk, sink)?;
            unnamed.report(self.disk, &segments, &tables, &walked, sink)?;
        }
        if whole && walked.marked == 0 {
            segments.check_accounting(sink);
        }
        let tail = self.check_tail(&segments, sink)?;
        if let Some(tail) = &tail {
            catalog.follow(self.disk, self.state, tail, sink)?;
        }
        sink.report.tables = catalog.len() as u64;
        blobs::check_live(self.disk, self.dir, self.state, &mut links, sink)?;
        let log_whole = segments.known.iter().all(|known| !known.damaged);
        if whole && log_whole && walked.marked == 0 {
            blobs::check_accounting(self.state, &links, sink);
        }
        self.check_leftovers(tail.as_ref().filter(|_| whole && log_whole), &links, sink)
    }

    /// A walk over some tables.
    fn walk<'w>(
        &'w self,
        tables: &'w [CheckedTable<'w>],
        ends: &'w [u64],
        sequences: &'w HashMap<u32, u32>,
    ) -> Walk<'w> {
        let memory: PageMemory = Rc::new([const { AtomicU64::new(0) }; 512]);
        let keys = KeyReader::new(self.disk, self.dir, &self.hasher, sequences);
        Walk { state: self.state, tables, ends, keys, memory }
    }

    /// What the catalog says; findings name the tables by it from here on.
    fn read_catalog(&self, ends: &[u64], sequences: &HashMap<u32, u32>, sink: &mut Sink<'_>) -> Result<Catalog> {
        let found = (0..).zip(&self.state.meta.tables).find(|(_, table)| table.id == TableId::CATALOG);
        let catalog = match found {
            None => Catalog::empty(),
            Some((number, table)) => {
                // Its pages are looked at again with those of all others.
                sink.muted = true;
                let own = CheckedTable::find(self.state, number, table, sink);
                sink.muted = false;
                let own = [own?];
                sink.labels = tables::labels(self.state, |_| None);
                Catalog::read(self.disk, self.dir, &mut self.walk(&own, ends, sequences), sink)?
            }
        };
        sink.labels = tables::labels(self.state, |id| catalog.name(id));
        Ok(catalog)
    }

    fn note_walk(&self, walked: &Walked, whole: bool, sink: &mut Sink<'_>) {
        let report = &mut sink.report;
        report.pages = walked.primary_pages;
        report.overflow_pages = walked.overflow_pages.len() as u64;
        report.marked_slots = walked.marked;
        report.tombstones = walked.tombstones;
        for (number, (table, &live)) in (0..).zip(self.state.meta.tables.iter().zip(&walked.live)) {
            sink.report.live_slots += if table.id == TableId::CATALOG { 0 } else { live };
            // Pages that could not be read hold slots that were not counted.
            if whole && table.records != live {
                sink.table = number;
                let location = Location::page(&self.state.pages.index.path, FIRST_META_PAGE);
                let (expected, found) = (some(live, "live slot"), some(table.records, "record"));
                sink.damage(kind::RECORD_COUNT, location, expected, found);
            }
        }
        sink.table = 0;
    }

    /// Collects the slots that point into a range of addresses, in a further walk.
    fn collect(
        &self,
        walk: &mut Walk<'_>,
        range: &Range<Address>,
        slots_max: usize,
        sink: &mut Sink<'_>,
    ) -> Result<Vec<LiveSlot>> {
        let (mut slots, mut surplus) = (Vec::new(), None);
        sink.muted = true;
        let walked = walk.run(sink, &mut |slot| {
            if range.contains(&slot.address()) {
                // More than a range has addresses: the ranges were made so that this cannot be.
                if slots.len() < slots_max.max(1 << 19) { slots.push(slot) } else { surplus = Some(slot) }
            }
        });
        sink.muted = false;
        walked?;
        if let Some(slot) = surplus {
            let location = slot.spot.location(&self.state.pages.index.path);
            sink.damage(kind::SHARED_ADDRESS, location, "an address of its own", "more slots than there are addresses");
        }
        slots::sort(&mut slots);
        Ok(slots)
    }

    /// Reads the part of the log that a range of addresses covers.
    #[allow(clippy::too_many_arguments, reason = "what is read, and where what is found goes")]
    fn scan(
        &self,
        tables: &[CheckedTable<'_>],
        segments: &mut Segments,
        slots: &[LiveSlot],
        range: Range<Address>,
        links: &mut Vec<LiveLink>,
        unnamed: &mut Unnamed<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let index = &self.state.pages.index.path;
        let mut check = RecordCheck { index, hasher: &self.hasher, tables, links: std::mem::take(links) };
        for i in 0..segments.known.len() {
            let Some(slot) = segments.known.get(i).map(|known| known.entry.slot) else { break };
            let of_segment = |address: Address| address.segment() as u64;
            // The end of the range can lie inside the segment, at its end or behind it.
            if of_segment(range.end) < u64::from(slot) {
                break;
            }
            let upto = if range.end.raw() >> 27 > u64::from(slot) { u64::MAX } else { range.end.offset() };
            let (_, slots) = slots.split_at(slots.partition_point(|live| live.address().segment() < slot));
            let (slots, _) = slots.split_at(slots.partition_point(|live| live.address().segment() <= slot));
            let mut slots = slots.iter().peekable();
            while let Some(known) = segments.known.get_mut(i) {
                let (check, slots) = (&mut check, &mut slots);
                let swept = self.state.meta.swept;
                let mut scan = Scan { known, check, unnamed: &mut *unnamed, swept, sink: &mut *sink, slots };
                if scan.run(self.disk, upto)? {
                    break;
                }
                unnamed.resolve(self.disk, &self.hasher, &segments.known, sink)?;
            }
        }
        *links = check.links;
        Ok(())
    }

    /// Reads the log's tail as an open would. `None` if that is not possible.
    fn check_tail(&self, segments: &Segments, sink: &mut Sink<'_>) -> Result<Option<Tail>> {
        let header = &self.state.header;
        if !header.cut.offset().is_multiple_of(8) {
            return Ok(None);
        }
        let source = TailSource {
            disk: self.disk,
            dir: self.dir,
            uuid: header.uuid,
            known: &self.state.meta.segments,
            cut: header.cut,
            // A check searches everything, a clean end or not.
            clean: false,
            access: TailAccess::Pread,
        };
        let tail = match source.read() {
            Ok(tail) => tail,
            Err(error) => {
                sink.error(kind::SEGMENT_HEADER, error);
                return Ok(None);
            }
        };
        sink.report.closed_cleanly = header.clean && tail.end == header.cut;
        sink.report.tail_records = tail.changes as u64;
        sink.report.torn_bytes = tail.discarded_bytes;
        sink.report.leftover_segments = tail.discard.len() as u64;
        let mut read = tail.discarded_bytes;
        let mut taken = std::collections::HashSet::new();
        for segment in &tail.segments {
            let from = if segment.sequence == header.cut.sequence() { header.cut.offset() } else { 0 };
            read += segment.end.saturating_sub(from);
            let holder = segments.sequences.get(&segment.slot);
            if holder.is_some_and(|&holder| holder != segment.sequence) || !taken.insert(segment.slot) {
                let location = Location::at(&segment.path, 72);
                sink.damage(kind::SEGMENT_SLOT, location, "a segment slot of its own", segment.slot);
            }
            sink.report.segments += u64::from(holder != Some(&segment.sequence));
        }
        sink.expect(read);
        sink.advance(read)?;
        blobs::check_tail(self.disk, self.dir, self.state, &linked(&tail), sink)?;
        Ok(Some(tail))
    }

    /// Counts what nobody needs. Without the tail it is not known which blobs those are.
    fn check_leftovers(&self, tail: Option<&Tail>, links: &[LiveLink], sink: &mut Sink<'_>) -> Result<()> {
        let log_dir = self.dir.file_name().unwrap_or_default();
        for name in self.disk.read_dir(self.path).context("list", self.path)? {
            let other_log = name.starts_with("log-") && *name != *log_dir;
            sink.report.leftover_files += u64::from(other_log || name == TEMPORARY || name == COMPACTING);
        }
        let Some(tail) = tail else { return Ok(()) };
        let names = match self.disk.read_dir(self.dir) {
            Ok(names) => names,
            Err(error) => {
                sink.note("list", self.dir, &error);
                sink.damage(kind::UNREADABLE, Location::file(self.dir), "the log's directory", error);
                return Ok(());
            }
        };
        let on_disk: Vec<u64> = names.iter().filter_map(|name| parse_blob_name(name)).collect();
        blobs::check_leftovers(self.dir, self.state, &on_disk, links, &linked(tail), sink);
        Ok(())
    }
}

/// The blobs that a tail links.
fn linked(tail: &Tail) -> Vec<BlobLink> {
    tail.linked.iter().map(|&(_, link)| link).collect()
}
