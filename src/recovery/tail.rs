//! The tail of the log: the records after the last checkpoint's cut, and where they end.
//!
//! 1. The segment that held the cut is read from there on; then the segment whose header names it as its
//!    predecessor, from its first record; and so on. A segment ends where its successor says so.
//! 2. The first record that does not validate, or that would cross that end, is LSN X. A frame is valid
//!    only whole.
//! 3. Behind X, everything is searched for durable LSNs: those of sync marks and segment headers. One
//!    beyond X means that acknowledged data is lost, and the open is refused. Else what follows X is a torn
//!    tail: it was never acknowledged as durable.
//!
//! Nothing is written here.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::Address;
use crate::address::Lsn;
use crate::checkpoint::meta::SegmentEntry;
use crate::checksum::Uuid;
use crate::error::{Error, IoContext, Location, Result};
use crate::layout::{parse_blob_name, parse_segment_name, segment_path};
use crate::log::reader::{MappedSource, PreadSource, RecordSource};
use crate::log::record::{BlobLink, Kind, Record};
use crate::log::segment::{HeaderState, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader};
use crate::mutant::{Mutant, broken};
use crate::recovery::mentions::Mentions;
use crate::sys::{Disk, DiskFile, OpenMode, PAGE_BYTES, read_up_to};
use crate::table_id::TableId;
use crate::words::some;

/// Where to look.
#[derive(Debug)]
pub(crate) struct TailSource<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) dir: &'a Path,
    pub(crate) uuid: Uuid,
    /// The segments that the checkpoint knows.
    pub(crate) known: &'a [SegmentEntry],
    pub(crate) cut: Lsn,
    /// The header says that the store was closed cleanly at the cut.
    pub(crate) clean: bool,
    pub(crate) access: TailAccess,
}

/// How segments are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TailAccess {
    /// Mapped: what an open does. A block that the device refuses is SIGBUS.
    Map,
    /// By pread: what a check does. A block that the device refuses is an error.
    Pread,
}

/// A segment of the tail.
#[derive(Debug, Clone)]
pub(crate) struct TailSegment {
    pub(crate) sequence: u32,
    pub(crate) slot: u32,
    pub(crate) salt: u64,
    pub(crate) predecessor: u32,
    pub(crate) predecessor_end: u64,
    pub(crate) path: PathBuf,
    /// It was prepared for bulk writing.
    pub(crate) bulk: bool,
    /// Where its valid records end.
    pub(crate) end: u64,
    /// Remove- and clear-records found in its tail part.
    pub(crate) removals: u64,
    /// Bytes of log overhead found in its tail part: marks, frames, removals, clears.
    pub(crate) overhead: u64,
    /// The part of it that lies behind the last clear-record.
    pub(crate) overhead_since_clear: u64,
}

impl TailSegment {
    fn add_overhead(&mut self, bytes: u64) {
        self.overhead += bytes;
        self.overhead_since_clear += bytes;
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Changes to replay: puts, removals, clears.
    pub(crate) changes: usize,
    /// Lsn X: the end of the valid log.
    pub(crate) end: Lsn,
    /// Everything below this LSN is durable for certain.
    pub(crate) durable_lsn: Lsn,
    /// The cut's segment (if the log has one) and those after it, in order.
    pub(crate) segments: Vec<TailSegment>,
    /// Segment files past X, used or not.
    pub(crate) discard: Vec<PathBuf>,
    /// Bytes of records past X that look written; not counted in files that were other segments before.
    pub(crate) discarded_bytes: u64,
    /// Blobs that records of the tail link: number of the change, link.
    pub(crate) linked: Vec<(usize, BlobLink)>,
    /// Where tables are changed.
    pub(crate) mentions: Mentions,
    /// The highest sequence of any segment file.
    pub(crate) sequence_max: u32,
    /// The ids of all blob files.
    pub(crate) blobs: Vec<u64>,
}

/// How far the records of one segment go.
struct Scanned {
    end: u64,
    /// Stopped at something that is not a record.
    torn: bool,
}

impl TailSource<'_> {
    /// Reads the tail.
    ///
    /// # Errors
    /// `LostData`, `WrongStore`, `NewerFormat`, `Corrupt` (a known segment is missing or too short), `Io`.
    pub(crate) fn read(&self) -> Result<Tail> {
        let mut later = self.later_headers()?;
        let mut tail = Tail {
            changes: 0,
            end: self.cut,
            durable_lsn: self.cut,
            segments: Vec::new(),
            discard: Vec::new(),
            discarded_bytes: 0,
            linked: Vec::new(),
            mentions: Mentions::default(),
            sequence_max: later.sequence_max,
            blobs: std::mem::take(&mut later.blobs),
        };
        let successor = |sequence: u32| {
            let named = |header: &&SegmentHeader| header.predecessor == sequence && header.sequence > sequence;
            later.headers.values().find(named)
        };
        let mut current = match self.cut.sequence() {
            0 => None,
            sequence => Some(self.known_segment(sequence)?),
        };
        let mut torn = false;
        if current.is_none() {
            current = successor(0).map(|header| self.tail_segment(header));
        }
        while let Some(mut segment) = current {
            let next = successor(segment.sequence);
            let scanned = self.scan(&mut segment, next.map(|header| header.predecessor_end), &mut tail)?;
            segment.end = scanned.end;
            tail.end = Lsn::new(segment.sequence, scanned.end);
            let sequence = segment.sequence;
            tail.segments.push(segment);
            torn = scanned.torn;
            current = next.filter(|_| !torn).map(|header| {
                tail.durable_lsn = tail.durable_lsn.max(header.durable_lsn);
                self.tail_segment(header)
            });
            debug_assert!(tail.end.sequence() == sequence);
        }
        self.look_behind(&later, torn, &mut tail)?;
        Ok(tail)
    }

    fn tail_segment(&self, header: &SegmentHeader) -> TailSegment {
        TailSegment {
            sequence: header.sequence,
            slot: header.slot,
            salt: header.salt,
            predecessor: header.predecessor,
            predecessor_end: header.predecessor_end,
            path: segment_path(self.dir, header.sequence),
            bulk: header.bulk,
            end: SEGMENT_HEADER_BYTES,
            removals: 0,
            overhead: 0,
            overhead_since_clear: 0,
        }
    }

    /// The segment of the cut. Its header must be the one that the checkpoint knows.
    fn known_segment(&self, sequence: u32) -> Result<TailSegment> {
        let path = segment_path(self.dir, sequence);
        let Some(entry) = self.known.iter().find(|entry| entry.sequence == sequence) else {
            let expected = format!("segment {sequence}, which holds the cut");
            return Err(Error::corrupt("segment table", Location::file(&path), expected, "no such entry"));
        };
        match self.header_of(&path)? {
            Some(Front { state: HeaderState::Valid(header), .. })
                if (header.sequence, header.salt, header.slot) == (sequence, entry.salt, entry.slot) =>
            {
                Ok(self.tail_segment(&header))
            }
            state => {
                let expected = format!("the header of segment {sequence}");
                let found = state.map_or("no such file".into(), |front| format!("{:?}", front.state));
                Err(Error::corrupt("segment header", Location::at(&path, 0), expected, found))
            }
        }
    }

    /// The header of a segment file; `None` if there is no file.
    fn header_of(&self, path: &Path) -> Result<Option<Front>> {
        let file = match self.disk.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let read = read_up_to(&*file, &mut bytes, 0).context("read", path)?;
        let (found, _) = bytes.split_at(read);
        let state = SegmentHeader::decode(found);
        match state {
            HeaderState::Newer(found) => {
                let path = path.to_path_buf();
                Err(Error::NewerFormat { path, found, supported: SEGMENT_VERSION, access: "read" })
            }
            HeaderState::Valid(header) if header.uuid != self.uuid => Err(Error::WrongStore {
                location: Location::at(path, 16),
                expected: self.uuid.to_string(),
                found: header.uuid.to_string(),
            }),
            state => Ok(Some(Front { state, bytes, file })),
        }
    }

    /// No store makes this number of segments between two checkpoints: a file beyond is none of ours, and its number does
    /// not count.
    fn first_foreign(&self) -> u32 {
        /// Segments of 4 KiB, the smallest, for 64 GiB of log.
        const FOREIGN_SEGMENTS: u32 = 1 << 24;
        let known = self.known.iter().map(|entry| entry.sequence).max().unwrap_or(0);
        known.max(self.cut.sequence()).saturating_add(FOREIGN_SEGMENTS)
    }

    /// The headers of all segment files that the checkpoint does not know.
    fn later_headers(&self) -> Result<Later> {
        let mut later = Later::default();
        let known: HashSet<u32> = self.known.iter().map(|entry| entry.sequence).collect();
        for name in self.disk.read_dir(self.dir).context("list", self.dir)? {
            let Some(sequence) = parse_segment_name(&name) else {
                later.blobs.extend(parse_blob_name(&name));
                continue;
            };
            let path = segment_path(self.dir, sequence);
            if known.contains(&sequence) {
                later.sequence_max = later.sequence_max.max(sequence);
                continue;
            }
            if sequence < self.first_foreign() {
                later.sequence_max = later.sequence_max.max(sequence);
            }
            if let Some(Front { state, bytes, file }) = self.header_of(&path)? {
                match state {
                    HeaderState::Valid(header)
                        if header.sequence == sequence && (header.slot as usize) < Address::SEGMENTS =>
                    {
                        later.headers.insert(sequence, header);
                    }
                    _ => self.check_torn(sequence, &path, &bytes, &file)?,
                }
                // A segment is written only when its length is durable, and is never cut off elsewhere.
                let len = file.len().context("look at", &path)?;
                if bytes.iter().any(|&byte| byte != 0) && !len.is_multiple_of(PAGE_BYTES as u64) {
                    let expected = format!("a multiple of {PAGE_BYTES} bytes");
                    return Err(Error::corrupt("segment", Location::file(&path), expected, some(len, "byte")));
                }
            }
            later.files.push((sequence, path));
        }
        Ok(later)
    }

    /// A file without a header of its own must be one that a crash can have left: what was written into it never
    /// became durable, or it was freed. Else its records may have been acknowledged.
    fn check_torn(&self, sequence: u32, path: &Path, bytes: &HeaderBytes, file: &Arc<dyn DiskFile>) -> Result<()> {
        let damaged = |found| Err(Error::corrupt("segment header", Location::at(path, 0), "a valid header", found));
        let is_empty = bytes.iter().all(|&byte| byte == 0);
        if !is_empty && !SegmentHeader::can_be_torn(bytes, self.uuid, sequence) {
            return damaged("bytes that no interrupted write leaves");
        }
        // What compaction frees was durable, and has a lower sequence than the cut.
        if sequence > self.cut.sequence() {
            let len = file.len().context("look at", path)?.min(Address::SEGMENT_BYTES_MAX);
            let mut source = PreadSource::new(Arc::clone(file), len);
            let was_durable = source.tells_own_durable_lsn(sequence);
            readable(path, &mut source)?;
            if was_durable {
                return damaged("none, before records that were durable");
            }
        }
        Ok(())
    }

    /// Collects the valid records of a segment.
    fn scan(&self, segment: &mut TailSegment, end: Option<u64>, tail: &mut Tail) -> Result<Scanned> {
        let mut source = self.source(&segment.path)?;
        let limit = end.unwrap_or(source.len()).min(source.len());
        let mut at = if segment.sequence == self.cut.sequence() { self.cut.offset() } else { SEGMENT_HEADER_BYTES };
        let torn = loop {
            // Not `limit`: a file that is shorter than its successor says has lost its end.
            if end == Some(at) {
                break false;
            }
            match self.unit(&mut *source, segment, at, limit, tail) {
                Some(next) => at = next,
                None => break true,
            }
        };
        readable(&segment.path, &mut *source)?;
        Ok(Scanned { end: at, torn })
    }

    /// One record, or one frame with all its records; returns where the next one begins.
    fn unit(
        &self,
        source: &mut dyn RecordSource,
        segment: &mut TailSegment,
        at: u64,
        limit: u64,
        tail: &mut Tail,
    ) -> Option<u64> {
        let record = source.record(at, limit, segment.salt).ok()?;
        let next = at + record.header.total();
        let Some((records, bytes)) = record.frame() else {
            if record.header.kind == Kind::Frame {
                return None;
            }
            Self::collect(segment, &Self::member(&record, at), tail);
            return Some(next);
        };
        if broken(Mutant::FrameInParts) {
            return Some(next);
        }
        let end = next.checked_add(bytes).filter(|&end| end <= limit)?;
        let mut inner = next;
        let mut members = Vec::new();
        for _ in 0..records {
            let record = source.record(inner, end, segment.salt).ok()?;
            members.push(Self::member(&record, inner));
            inner += record.header.total();
        }
        if inner != end {
            return None;
        }
        segment.add_overhead(next - at);
        for member in &members {
            Self::collect(segment, member, tail);
        }
        Some(end)
    }

    fn member(record: &Record<'_>, at: u64) -> Member {
        let (kind, table) = (record.header.kind, record.table());
        Member { kind, table, at, bytes: record.header.total(), mark: record.mark(), link: record.blob_link() }
    }

    fn collect(segment: &mut TailSegment, member: &Member, tail: &mut Tail) {
        let Member { kind, table, at, bytes, mark, link } = *member;
        match kind {
            Kind::Mark => {
                if let Some(lsn) = mark {
                    tail.durable_lsn = tail.durable_lsn.max(lsn);
                }
                segment.add_overhead(bytes);
            }
            Kind::Frame => {}
            Kind::Put | Kind::PutBlob | Kind::Remove | Kind::Clear => {
                tail.linked.extend(link.map(|link| (tail.changes, link)));
                tail.mentions.add(table, Lsn::new(segment.sequence, at));
                if matches!(kind, Kind::Remove | Kind::Clear) {
                    segment.removals += 1;
                    segment.add_overhead(bytes);
                }
                if kind == Kind::Clear {
                    segment.overhead_since_clear = 0;
                }
                tail.changes += 1;
            }
        }
    }

    fn source(&self, path: &Path) -> Result<Box<dyn RecordSource>> {
        let file = self.disk.open(path, OpenMode::Read).context("open", path)?;
        let len = file.len().context("look at", path)?.min(Address::SEGMENT_BYTES_MAX);
        Ok(match self.access {
            TailAccess::Map => Box::new(MappedSource(file.map_log(len as usize, len, false).context("map", path)?)),
            TailAccess::Pread => Box::new(PreadSource::new(file, len)),
        })
    }

    /// Decides whether what follows X is a torn tail or lost data, and lists the files to discard.
    fn look_behind(&self, later: &Later, torn: bool, tail: &mut Tail) -> Result<()> {
        if self.clean && tail.end == self.cut && later.files.is_empty() {
            // Nothing was written after the close, so there is nothing to search: the rest of a large segment
            // would cost more than all the rest of a clean open.
            return Ok(());
        }
        let mut durable_lsn = tail.durable_lsn;
        if let Some(last) = tail.segments.last().filter(|_| torn) {
            let mut source = self.source(&last.path)?;
            let (marked, written) = source.behind(last.end, last.salt);
            readable(&last.path, &mut *source)?;
            durable_lsn = durable_lsn.max(marked.unwrap_or_default());
            tail.discarded_bytes += written;
        }
        for (sequence, path) in &later.files {
            if tail.segments.iter().any(|segment| segment.sequence == *sequence) {
                continue;
            }
            tail.discard.push(path.clone());
            let Some(header) = later.headers.get(sequence) else { continue };
            durable_lsn = durable_lsn.max(header.durable_lsn);
            let mut source = self.source(path)?;
            let (marked, written) = source.behind(SEGMENT_HEADER_BYTES, header.salt);
            readable(path, &mut *source)?;
            durable_lsn = durable_lsn.max(marked.unwrap_or_default());
            // A segment of before the cut was freed by compaction.
            let torn = *sequence > self.cut.sequence();
            tail.discarded_bytes += if torn { written } else { 0 };
        }
        if durable_lsn > tail.end {
            let location = match tail.segments.last() {
                Some(last) => Location::at(&last.path, last.end),
                None => Location::file(self.dir),
            };
            return Err(Error::LostData {
                location: Box::new(location),
                valid_to: tail.end.raw(),
                durable_to: durable_lsn.raw(),
            });
        }
        Ok(())
    }
}

/// The first bytes of a segment file, with zeroes for what it is too short for.
type HeaderBytes = [u8; SEGMENT_HEADER_BYTES as usize];

/// The front of a segment file.
struct Front {
    state: HeaderState,
    bytes: HeaderBytes,
    file: Arc<dyn DiskFile>,
}

/// A record of the tail, read and checked.
struct Member {
    kind: Kind,
    table: TableId,
    /// Where it begins in its segment.
    at: u64,
    bytes: u64,
    /// The durable LSN of a sync mark.
    mark: Option<Lsn>,
    link: Option<BlobLink>,
}

/// A block that cannot be read is no end of the log.
fn readable(path: &Path, source: &mut dyn RecordSource) -> Result<()> {
    source.failure().map_or(Ok(()), |(_, error)| Err(Error::io("read", path, error)))
}

/// Segment files that the checkpoint does not know.
#[derive(Debug, Default)]
struct Later {
    headers: BTreeMap<u32, SegmentHeader>,
    files: Vec<(u32, PathBuf)>,
    sequence_max: u32,
    blobs: Vec<u64>,
}
