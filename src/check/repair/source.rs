//! What there is to repair: whose store it is, which checkpoint its index and journal tell of (if they do), and
//! the files of its log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::report::Report;
use crate::address::Address;
use crate::address::Lsn;
use crate::check::sink::{Input, Sink, of_the_moment};
use crate::check::state::State;
use crate::checkpoint::header::{Headers, read_headers};
use crate::checkpoint::journal::Journal;
use crate::checksum::Uuid;
use crate::error::{Error, IoContext, REPAIR_HINT, Result};
use crate::layout::{
    COMPACTING, TEMPORARY, index_path, journal_path, log_path, parse_log_name, parse_segment_name, segment_path,
};
use crate::log::reader::{PreadSource, RecordSource};
use crate::log::segment::{HeaderState, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader};
use crate::sys::{Disk, PathKind, read_up_to};

/// A segment file.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) header: HeaderState,
}

/// The files of one log directory, by sequence.
pub(super) type SegmentFiles = BTreeMap<u32, SegmentFile>;

/// The old store.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) uuid: Uuid,
    /// The log's directory.
    pub(super) dir: PathBuf,
    /// The cut of the index header that counts, if one is valid: below it everything was durable.
    pub(super) cut: Option<Lsn>,
    /// What index and journal say, if that can be read.
    pub(super) state: Option<State>,
    pub(super) files: SegmentFiles,
}

impl Source {
    /// Looks at the files of a store.
    ///
    /// # Errors
    /// `NotAStore`, `NewerFormat`, `Io`.
    pub(super) fn find(disk: &dyn Disk, path: &Path, sink: &mut Sink<'_>, report: &mut Report) -> Result<Source> {
        let headers = match index_headers(disk, path)? {
            Ok((index, headers)) => {
                let state = State::find(disk, path, index, &headers, sink)?;
                report.index_findings = std::mem::take(&mut sink.report.findings);
                let found = state.is_some();
                let state = state.filter(ends_at_cut);
                // A cut that contradicts the table says nothing about what was durable, either.
                let is_believed = found == state.is_some();
                if state.is_none() {
                    let why = report.index_findings.last().map(|f| format!("{} in {}", f.kind, f.path));
                    report.index_problem = why.unwrap_or_else(|| "cut: it is not the end of the last segment".into());
                }
                Some((headers.newest, state, is_believed))
            }
            Err(problem) => {
                report.index_problem = problem;
                None
            }
        };
        if let Some((header, state, is_believed)) = headers {
            let header = state.as_ref().map_or(header, |state| state.header);
            let dir = log_path(path, header.log_dir);
            let files = segment_files(disk, &dir)?;
            if files.is_empty() || has_any(&files, header.uuid) || common_uuid(&files).is_none() {
                let cut = is_believed.then_some(header.cut);
                return Ok(Source { uuid: header.uuid, dir, cut, state, files });
            }
            report.index_problem = format!("it is the index of store {}, to which no segment belongs", header.uuid);
        }
        // The segments have to say whose they are.
        let (dir, files) = log_directory(disk, path, report)?;
        let uuid = match common_uuid(&files) {
            None => journal_uuid(disk, path)?,
            found => found,
        };
        let uuid = match uuid {
            Some(uuid) => uuid,
            None => {
                let reason = format!("{}; and there is no segment to save records from", report.index_problem);
                return Err(Error::NotAStore { path: path.to_path_buf(), reason });
            }
        };
        Ok(Source { uuid, dir, cut: None, state: None, files })
    }
}

/// The cut is the end of the last segment of the table, if there is one.
fn ends_at_cut(state: &State) -> bool {
    let last = state.meta.segments.last().map_or((0, 0), |entry| (entry.sequence, entry.end));
    last == (state.header.cut.sequence(), state.header.cut.offset())
}

fn has_any(files: &SegmentFiles, uuid: Uuid) -> bool {
    files.values().any(|file| matches!(file.header, HeaderState::Valid(header) if header.uuid == uuid))
}

/// The header slots; else what is wrong with them.
fn index_headers(disk: &dyn Disk, path: &Path) -> Result<std::result::Result<(Input, Headers), String>> {
    let index_path = index_path(path);
    let index = match Input::open(disk, &index_path)? {
        Ok(index) => index,
        Err(error) => return Ok(Err(Error::io("open", &index_path, error).to_string())),
    };
    match read_headers(&*index.file, &index_path, false) {
        Ok(headers) => Ok(Ok((index, headers))),
        Err(error @ Error::NewerFormat { .. }) => Err(error),
        Err(Error::Corrupt { location, expected, found, .. }) => {
            Ok(Err(format!("no valid header: {location}: expected {expected}, found {found}")))
        }
        // Without the advice to repair it: that is what happens here.
        Err(error) => Ok(Err(error.to_string().replace(REPAIR_HINT, ""))),
    }
}

/// The log directory of a store without a header. With several of them, an offline compaction was making one, or was
/// removing the other, and its directory says which:
///
/// * An index in `compact.tmp`: the new index was not switched in. The oldest log counts.
/// * `compact.tmp` without an index: it was switched in, or not begun. The newest log with a segment counts.
/// * No `compact.tmp`: no compaction explains this. The log with most bytes of valid records counts. (The size of the
///   files says nothing: a segment gets its blocks before its records.)
fn log_directory(disk: &dyn Disk, path: &Path, report: &mut Report) -> Result<(PathBuf, SegmentFiles)> {
    let mut found: Vec<(u64, PathBuf, SegmentFiles)> = Vec::new();
    for name in disk.read_dir(path).context("list", path)? {
        let Some(id) = parse_log_name(&name) else { continue };
        let dir = path.join(&name);
        if disk.kind(&dir).context("look at", &dir)? == PathKind::Directory {
            let files = segment_files(disk, &dir)?;
            found.push((id, dir, files));
        }
    }
    let compacting = path.join(COMPACTING);
    let exists = |path: &Path| Ok::<_, Error>(disk.kind(path).context("look at", path)? != PathKind::Missing);
    // The last one counts.
    if exists(&index_path(&compacting))? || exists(&compacting.join(TEMPORARY))? {
        found.sort_by_key(|&(id, ..)| std::cmp::Reverse(id));
    } else if exists(&compacting)? {
        let has_any = |files: &SegmentFiles| files.values().any(|file| matches!(file.header, HeaderState::Valid(_)));
        found.sort_by_key(|(id, _, files)| (has_any(files), *id));
    } else if found.len() > 1 {
        let mut bytes = BTreeMap::new();
        for (id, _, files) in &found {
            let mut sum = 0;
            for file in files.values() {
                sum += record_bytes(disk, file)?;
            }
            bytes.insert(*id, sum);
        }
        found.sort_by_key(|(id, ..)| (bytes.get(id).copied(), *id));
    }
    let (_, dir, files) = found.pop().unwrap_or_else(|| (0, log_path(path, 1), SegmentFiles::new()));
    for (_, other, _) in found {
        let (name, dir) = (other.display(), dir.display());
        report
            .files_left_out
            .push(format!("{name}: another log directory; an offline compaction left it beside {dir}"));
    }
    if exists(&path.join(TEMPORARY))? {
        report.files_left_out.push(format!("{}: an index that was not finished", path.join(TEMPORARY).display()));
    }
    Ok((dir, files))
}

/// Bytes of the valid records at the front of a segment.
fn record_bytes(disk: &dyn Disk, file: &SegmentFile) -> Result<u64> {
    let HeaderState::Valid(header) = file.header else { return Ok(0) };
    let Ok(input) = Input::open(disk, &file.path)? else { return Ok(0) };
    let mut source = PreadSource::new(input.file, file.len);
    let mut at = SEGMENT_HEADER_BYTES;
    while let Ok(record) = source.record(at, file.len, header.salt) {
        at += record.header.total();
    }
    Ok(at - SEGMENT_HEADER_BYTES)
}

/// The headers of all segment files. A directory that does not exist has none.
fn segment_files(disk: &dyn Disk, dir: &Path) -> Result<SegmentFiles> {
    let mut files = SegmentFiles::new();
    let mut perhaps_torn = Vec::new();
    if disk.kind(dir).context("look at", dir)? != PathKind::Directory {
        return Ok(files);
    }
    for name in disk.read_dir(dir).context("list", dir)? {
        let Some(sequence) = parse_segment_name(&name) else { continue };
        let path = segment_path(dir, sequence);
        if path.file_name().is_none_or(|own| *own != *name) {
            continue;
        }
        // What cannot be opened or read has no header, and is told as such when its turn comes.
        let Ok(input) = Input::open(disk, &path)? else {
            files.insert(sequence, SegmentFile { path, len: 0, header: HeaderState::Invalid });
            continue;
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let read = match read_up_to(&*input.file, &mut bytes, 0) {
            Ok(read) => read,
            Err(error) => of_the_moment("read", &path, &error).map(|()| 0)?,
        };
        let (found, _) = bytes.split_at(read);
        let mut header = SegmentHeader::decode(found);
        if let HeaderState::Newer(found) = header {
            return Err(Error::NewerFormat { path, found, supported: SEGMENT_VERSION, access: "read" });
        }
        let len = input.len.min(Address::SEGMENT_BYTES_MAX);
        if let (HeaderState::Invalid, Some(mended)) = (header, SegmentHeader::mended(&bytes)) {
            // One bit is wrong. If it is the only bit of its word, an interrupted write can have left this.
            if SegmentHeader::can_be_torn(&bytes, mended.uuid, sequence) {
                perhaps_torn.push((sequence, mended));
            } else {
                header = HeaderState::Valid(mended);
            }
        }
        if let HeaderState::Valid(valid) = header
            && !is_of(valid, sequence)
        {
            header = HeaderState::Invalid;
        }
        files.insert(sequence, SegmentFile { path, len, header });
    }
    for (sequence, mended) in perhaps_torn {
        if is_of(mended, sequence)
            && was_durable(disk, &files, sequence, mended)?
            && let Some(file) = files.get_mut(&sequence)
        {
            file.header = HeaderState::Valid(mended);
        }
    }
    Ok(files)
}

/// True if a header can be that of the file with this number.
fn is_of(header: SegmentHeader, sequence: u32) -> bool {
    header.sequence == sequence && (header.slot as usize) < Address::SEGMENTS
}

/// True if anything says that a record of this segment was durable: a header or a sync mark, in it or in a later one. If
/// nothing does, an open drops a segment whose header can be torn, because no caller was told of its records. A block that
/// cannot be read could say it.
fn was_durable(disk: &dyn Disk, files: &SegmentFiles, sequence: u32, mended: SegmentHeader) -> Result<bool> {
    let first = Lsn::new(sequence, SEGMENT_HEADER_BYTES);
    for (&number, file) in files.range(sequence..) {
        let header = match file.header {
            _ if number == sequence => mended,
            HeaderState::Valid(header) => header,
            _ => continue,
        };
        if header.durable_lsn > first {
            return Ok(true);
        }
        let Ok(input) = Input::open(disk, &file.path)? else { return Ok(true) };
        let mut source = PreadSource::new(input.file, file.len);
        let (marked, _) = source.behind(SEGMENT_HEADER_BYTES, header.salt);
        let unread = source.take_bad();
        for (_, error) in &unread {
            of_the_moment("read", &file.path, error)?;
        }
        if !unread.is_empty() || marked.is_some_and(|lsn| lsn > first) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The store that most segments belong to.
fn common_uuid(files: &SegmentFiles) -> Option<Uuid> {
    let mut counts: BTreeMap<[u8; 16], (u64, u64)> = BTreeMap::new();
    for file in files.values() {
        if let HeaderState::Valid(header) = file.header {
            let (count, bytes) = counts.entry(header.uuid.0).or_default();
            (*count, *bytes) = (*count + 1, *bytes + file.len);
        }
    }
    counts.into_iter().max_by_key(|&(_, count)| count).map(|(uuid, _)| Uuid(uuid))
}

fn journal_uuid(disk: &dyn Disk, path: &Path) -> Result<Option<Uuid>> {
    let input = Input::open(disk, &journal_path(path))?;
    Ok(input.ok().and_then(|input| Journal::uuid_of(&*input.file)))
}
