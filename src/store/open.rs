//! Opening a store, after a clean end or any other.
//!
//! 1. The newest valid header is taken. A slot that does not validate is accepted only if the journal's head
//!    is of that header's generation, or the journal is complete for the next one: then it was torn by the
//!    write that the journal explains.
//! 2. If the journal is complete for the next generation, it is itself written again and synced (it may have
//!    existed in the page cache only), its images are written in place, the file gets the length that the new
//!    generation's extents need, and the header follows.
//! 3. The extents are mapped, the segments opened, the tail of the log read (checkpoint/tail.rs).
//! 4. Unless the store was closed cleanly and nothing follows the cut: **seal**. Segments past the end X are
//!    unlinked; the tail is written again and synced from the last claim on.
//! 5. The store's directory entries are synced. The header is written again, "not clean", and synced (both slots
//!    after an unclean end), before anything can be appended. Then a fresh segment names its predecessor and
//!    X: once it holds a record, bytes past X are never valid again.
//! 6. The tail is replayed into the index.
//!
//! A crash in any step: the next open does the same again, from the same header. A read-only open does 1, 3
//! and 6 in private memory and leaves the disk alone.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::apply_journal;
use super::compact::Compaction;
use super::core::{CheckpointState, Core, Counters, Files, Wake};
use super::create::{
    JOURNAL_PAGES, check_vacant, create, index_path, lock_path, log_path, remove_garbage, sync_parent,
};
use crate::checkpoint::header::{FIRST_META_PAGE, IndexHeader, read_headers};
use crate::checkpoint::journal::{Journal, JournalHead, journal_path};
use crate::checkpoint::meta::{META_PAGES, Meta, SegmentEntry, check_page};
use crate::checkpoint::tail::{Tail, TailAccess, TailSource, map_segment};
use crate::checksum::KeyHasher;
use crate::error::{Error, IoContext, Location, Result};
use crate::index::page::{PageImage, PageKind, image};
use crate::index::region::{BITMAP_START, Group, GroupShape, PageState, RegionKind};
use crate::index::table::{Structure, Table, TableParts};
use crate::log::Position;
use crate::log::append::Appender;
use crate::log::blob::{Blobs, parse_blob_name};
use crate::log::segment::{SEGMENT_HEADER_BYTES, Segment, parse_segment_name, segment_path};
use crate::log::segments::{Log, LogConfig};
use crate::mutant::{Mutant, broken};
use crate::observe::{self, Observer};
use crate::options::{Options, SyncPolicy};
use crate::stats::RecoveryStats;
use crate::sync::{AtomicBool, AtomicU64, Instant, Mutex, OnceLock, Ordering};
use crate::sys::{
    Access, Disk, DiskFile, ForkGuard, LockGuard, LockMode, LockOutcome, LogWriter, OpenMode, PAGE_BYTES, PathKind,
    memory_limit, read_exact_at, read_up_to, write_all_at,
};

/// The page size as files count.
const PAGE: u64 = PAGE_BYTES as u64;
/// The smallest default of `memory_bytes`.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Opens or creates the store at a path.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Core> {
    let started = Instant::now();
    let options = &for_files_of(path, options)?;
    let disk = &*options.disk;
    let mut opening = Opening::begin(path, options)?;
    let (header, journal_redone) = opening.header_and_journal()?;
    let core = opening.build(header)?;
    let mut recovery = RecoveryStats { journal_redone, ..RecoveryStats::default() };
    core.recover(disk, header, &mut recovery)?;
    recovery.open_nanos = started.elapsed().as_nanos() as u64;
    observe::opened(path, &recovery);
    let _ = core.recovery.set(recovery);
    Ok(core)
}

/// Options with a disk that gives new files the right permissions: those of the store's index, if it has one; in an
/// offline compaction those of the old one; in a new store what the options say.
fn for_files_of(path: &Path, options: &Options) -> Result<Options> {
    let home = options.origin.as_ref().map_or(path, |origin| &origin.home);
    let index = index_path(home);
    let access = options.disk.access_of(&index).context("look at", &index)?;
    let access = access.unwrap_or(Access { mode: options.mode, owner: None });
    let disk = options.disk.with_access(access).unwrap_or_else(|| Arc::clone(&options.disk));
    Ok(options.clone().disk(disk))
}

/// A store that is being opened.
struct Opening<'o> {
    path: &'o Path,
    options: &'o Options,
    lock: Option<Box<dyn LockGuard>>,
    index: Arc<dyn DiskFile>,
    index_path: PathBuf,
    journal: Journal,
    /// Images of a complete journal, for a read-only open: they count instead of what the file holds.
    overlay: HashMap<u64, PageImage>,
    header: Option<IndexHeader>,
    other_invalid: bool,
}

impl<'o> Opening<'o> {
    /// Locks the path and opens or creates the files.
    fn begin(path: &'o Path, options: &'o Options) -> Result<Self> {
        let disk = &*options.disk;
        let index_path = index_path(path);
        let has_index = |disk: &dyn Disk| -> Result<bool> {
            Ok(disk.kind_of_name(&index_path).context("look at", &index_path)? != PathKind::Missing)
        };
        match disk.kind(path).context("look at", path)? {
            PathKind::Other => {
                return Err(Error::NotAStore { path: path.to_path_buf(), reason: "it is no directory".into() });
            }
            PathKind::Missing if !options.create || options.read_only => {
                return Err(Error::NotFound { path: path.to_path_buf() });
            }
            PathKind::Missing => disk.create_dir(path).context("create", path)?,
            PathKind::Directory => {
                if !has_index(disk)? {
                    check_vacant(disk, path)?;
                    if !options.create || options.read_only {
                        return Err(Error::NotFound { path: path.to_path_buf() });
                    }
                } else if options.create_new {
                    return Err(Error::AlreadyExists { path: path.to_path_buf() });
                } else {
                    // Somebody else's directory with a file called "index" must not get a LOCK from us.
                    let file = disk.open(&index_path, OpenMode::Read).context("open", &index_path)?;
                    read_headers(&*file, &index_path, !options.read_only)?;
                }
            }
        }
        let lock_file = lock_path(path);
        let mode = if options.read_only { LockMode::Shared } else { LockMode::Exclusive };
        let lock = match disk.lock(&lock_file, mode).context("lock", &lock_file)? {
            LockOutcome::Held(lock) => lock,
            LockOutcome::Busy(pid) => return Err(Error::Locked { path: path.to_path_buf(), pid }),
        };
        if !has_index(disk)? {
            create(path, options)?;
        } else if options.create_new {
            // Somebody created it between the first look and the lock.
            return Err(Error::AlreadyExists { path: path.to_path_buf() });
        }
        let mode = if options.read_only { OpenMode::Read } else { OpenMode::Write };
        let index = disk.open(&index_path, mode).context("open", &index_path)?;
        let headers = read_headers(&*index, &index_path, !options.read_only)?;
        let journal_path = journal_path(path);
        let file = disk.open(&journal_path, mode).context("open", &journal_path)?;
        let journal = Journal { file, path: journal_path, uuid: headers.newest.uuid };
        Ok(Opening {
            path,
            options,
            lock: Some(lock),
            index,
            index_path,
            journal,
            overlay: HashMap::new(),
            header: Some(headers.newest),
            other_invalid: headers.other_invalid,
        })
    }

    /// Steps 1 and 2. Returns the header that counts, and whether the journal was applied.
    fn header_and_journal(&mut self) -> Result<(IndexHeader, bool)> {
        let Some(mut header) = self.header else {
            return Err(Error::NotFound { path: self.path.to_path_buf() });
        };
        let head = self.journal.head()?;
        let next = match head {
            Some(head) if head.generation == header.generation + 1 && self.journal.is_complete(head)? => Some(head),
            _ => None,
        };
        if self.other_invalid {
            let explained = next.is_some() || head.is_some_and(|head| head.generation == header.generation);
            if !explained {
                let slot = (header.serial + 1) % 2;
                let expected = format!("a header, or a journal of generation {}", header.generation);
                let found = head.map_or("no journal".into(), |h| format!("a journal of generation {}", h.generation));
                return Err(Error::corrupt("header", Location::page(&self.index_path, slot), expected, found));
            }
            // Which of the two slots says "closed cleanly" cannot be told any more.
            header.clean = false;
        }
        let Some(head) = next else {
            let is_current = head.is_some_and(|head| head.generation == header.generation);
            if !is_current && !self.options.read_only {
                // Torn by a crash while it was written. Before the header is written again, the journal must
                // explain a header slot that this write could tear.
                self.journal.reset(header.generation, header.cut, 0)?;
            }
            return Ok((header, false));
        };
        header = IndexHeader { generation: head.generation, cut: head.cut, clean: false, ..header };
        let end = self.check_journal(head, &header)?;
        if self.options.read_only {
            self.load_overlay(head, u64::MAX)?;
            return Ok((header, true));
        }
        if !broken(Mutant::JournalNotRewritten) {
            self.journal.rewrite(head)?;
        }
        if self.index.len().context("look at", &self.index_path)? < end {
            self.index.set_len(end).context("extend", &self.index_path)?;
        }
        let journal =
            Journal { file: Arc::clone(&self.journal.file), path: self.journal.path.clone(), uuid: self.journal.uuid };
        let files = self.files(journal);
        apply_journal(&files, head)?;
        // The extents that the new generation names may reach beyond the last page that was written, and the
        // file's length was not durable before this.
        let meta = Meta::decode(&self.index_path, header.uuid, header.generation, |number| self.read_page(number))?;
        if self.index.len().context("look at", &self.index_path)? < meta.end_page * PAGE {
            self.index.set_len(meta.end_page * PAGE).context("extend", &self.index_path)?;
            self.index.sync_all().context("sync", &self.index_path)?;
        }
        header.serial += 1;
        header.write(&*self.index, &self.index_path)?;
        Ok((header, true))
    }

    /// What a complete journal leads to must make sense before anything is written: its meta data, and that it
    /// writes no page behind the index's end. Returns the end of the last page that it writes.
    fn check_journal(&mut self, head: JournalHead, header: &IndexHeader) -> Result<u64> {
        self.load_overlay(head, FIRST_META_PAGE + META_PAGES)?;
        let meta = Meta::decode(&self.index_path, header.uuid, header.generation, |number| self.read_page(number));
        self.overlay.clear();
        let meta = meta?;
        meta.check_against(&self.index_path, header)?;
        let mut last = 0;
        self.journal.for_each_run(head, |images| {
            last = images.iter().map(image::number).max().unwrap_or(0).max(last);
            Ok(true)
        })?;
        if last >= meta.end_page {
            let expected = format!("images of pages up to {}", meta.end_page - 1);
            return Err(Error::corrupt(
                "journal",
                Location::file(&self.journal.path),
                expected,
                format!("of page {last}"),
            ));
        }
        Ok((last + 1) * PAGE)
    }

    /// Takes the images of pages below a number into memory.
    fn load_overlay(&mut self, head: JournalHead, below: u64) -> Result<()> {
        let overlay = &mut self.overlay;
        self.journal.for_each_run(head, |images| {
            let images = images.iter().map(|page| (image::number(page), page)).filter(|&(number, _)| number < below);
            overlay.extend(images.map(|(number, page)| (number, Box::new(*page))));
            Ok(true)
        })
    }

    fn read_page(&self, number: u64) -> Result<PageImage> {
        if let Some(page) = self.overlay.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE_BYTES]);
        read_up_to(&*self.index, &mut page[..], number * PAGE).context("read", &self.index_path)?;
        Ok(page)
    }

    /// Step 3, without the log's tail: the table and the log as the checkpoint knows them.
    fn build(&mut self, header: IndexHeader) -> Result<Core> {
        let options = self.options;
        let meta = Meta::decode(&self.index_path, header.uuid, header.generation, |number| self.read_page(number))?;
        meta.check_against(&self.index_path, &header)?;
        let memory_bytes = options.memory_bytes.unwrap_or_else(|| (memory_limit() / 4).max(MEMORY_BYTES_MIN));
        let limit_pages = (memory_bytes / PAGE).max(1);
        let writable = !options.read_only;
        let table = Table::new(TableParts {
            geometry: header.geometry,
            tuning: options.tuning,
            uuid: header.uuid,
            path: self.index_path.clone(),
            disk: Arc::clone(&options.disk),
            file: writable.then(|| Arc::clone(&self.index)),
            // The stripes are this process's own affair; the file's word was written by another.
            growth: meta.growth.with_stripes(meta.growth.level().min(options.tuning.stripes_log2_max)),
            primary_base_log2: header.primary_log2,
            overflow_base_log2: header.overflow_log2,
            structure: Structure {
                end_page: meta.end_page,
                primary_extents: meta.primary_extents.clone(),
                overflow_extents: meta.overflow_extents.clone(),
                floor: meta.floor,
            },
            records: meta.records,
            limit_pages: if writable { limit_pages } else { u64::MAX },
            generation: header.generation,
        });
        self.map_groups(&table, &header, RegionKind::Primary, &meta.primary_extents)?;
        self.map_groups(&table, &header, RegionKind::Overflow, &meta.overflow_extents)?;
        // A writable open allocates blocks before it sets this, once nothing can refuse the open any more.
        table.dirty.set_journal_pages(if writable { 0 } else { u64::MAX });

        let log = Log::new(
            LogConfig {
                disk: Arc::clone(&options.disk),
                dir: log_path(options.origin.as_ref().map_or(self.path, |origin| &origin.home), header.log_dir),
                uuid: header.uuid,
                sync: options.sync,
                segment_bytes: options.segment_bytes,
                tuning: options.tuning,
                verify_reads: options.verify_reads,
            },
            Blobs::restore(&meta.blobs),
            meta.next_sequence,
        );
        let Some(lock) = self.lock.take() else {
            return Err(Error::Locked { path: self.path.to_path_buf(), pid: None });
        };
        let journal =
            Journal { file: Arc::clone(&self.journal.file), path: self.journal.path.clone(), uuid: header.uuid };
        let files = writable.then(|| self.files(journal));
        Ok(Core {
            path: self.path.to_path_buf(),
            table,
            log,
            hasher: KeyHasher::new(header.hash_key),
            sync: options.sync,
            verify_reads: options.verify_reads,
            tuning: options.tuning,
            checkpoint_bytes: options.checkpoint_bytes,
            limit_pages,
            files,
            checkpoint: Mutex::new(CheckpointState { header, meta_pages: meta.pages(), opened: meta }),
            checkpoint_due: AtomicU64::new(u64::MAX),
            counters: Counters::default(),
            compaction: Compaction::default(),
            log_ratio: options.log_ratio,
            wake: Wake::default(),
            poison: OnceLock::new(),
            closed: AtomicBool::new(false),
            recovering: AtomicBool::new(false),
            generation: AtomicU64::new(header.generation),
            total_at_cut: AtomicU64::new(0),
            fork: ForkGuard::new(),
            recovery: OnceLock::new(),
            observer: Observer::new(self.path),
            _lock: lock,
        })
    }

    fn files(&self, journal: Journal) -> Files {
        Files {
            index: Arc::clone(&self.index),
            index_path: self.index_path.clone(),
            journal,
            extending: Mutex::new(()),
            meta_room: AtomicU64::new(0),
        }
    }

    /// True if an extent beyond the end of the file can be one that the journal's checkpoint has added: no more
    /// than a doubling of what there is.
    fn overlay_reaches(&self, shape: GroupShape, len: u64) -> bool {
        !self.overlay.is_empty() && shape.total() <= 2 * (len / PAGE + self.overlay.len() as u64)
    }

    /// True if no page of an extent was ever written, as in a table that was made large from the start.
    fn is_unused(&self, header: &IndexHeader, first: u64, shape: GroupShape) -> Result<bool> {
        for number in first..first + shape.bitmap_pages {
            let page = self.read_page(number)?;
            check_page(&self.index_path, header.uuid, header.generation, number, PageKind::Bitmap, &page)?;
            if page[BITMAP_START..].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
        Ok(!self.options.read_only)
    }

    fn map_groups(&self, table: &Table, header: &IndexHeader, kind: RegionKind, extents: &[u64]) -> Result<()> {
        let region = table.region(kind);
        for (number, &first) in extents.iter().enumerate() {
            let shape = region.shape(number);
            let bytes = shape.total().checked_mul(PAGE).filter(|&bytes| bytes <= 1 << 50);
            let len = self.index.len().context("look at", &self.index_path)?;
            let end = bytes.and_then(|bytes| (first * PAGE).checked_add(bytes));
            let Some((bytes, end)) = bytes.zip(end) else {
                let location = Location::page(&self.index_path, first);
                return Err(Error::corrupt("extent", location, "a possible size", format!("{} pages", shape.total())));
            };
            let in_file = end <= len;
            let map = if in_file && self.is_unused(header, first, shape)? {
                self.index.map_fresh(first * PAGE, bytes as usize).context("map", &self.index_path)?
            } else if in_file {
                self.index.map_private(first * PAGE, bytes as usize).context("map", &self.index_path)?
            } else if self.options.read_only && self.overlay_reaches(shape, len) {
                self.options
                    .disk
                    .map_anonymous(bytes as usize)
                    .context("reserve memory for pages of", &self.index_path)?
            } else {
                let location = Location::file(&self.index_path);
                return Err(Error::corrupt("index file", location, format!("{end} bytes"), format!("{len} bytes")));
            };
            observe::mapped(&self.index_path, first * PAGE, bytes);
            let group = region.install(number, Group::new(shape, first, map, self.options.read_only));
            for index in 0..shape.total() {
                let number = first + index;
                let Some((page, state)) = group.at(index) else { continue };
                if let Some(image) = self.overlay.get(&number) {
                    page.load(image);
                } else if (!in_file && number * PAGE < len) || index < shape.bitmap_pages {
                    page.load(&*self.read_page(number)?);
                }
                if index < shape.bitmap_pages {
                    let (path, uuid) = (&self.index_path, header.uuid);
                    check_page(path, uuid, header.generation, number, PageKind::Bitmap, &page.image())?;
                    state.set(PageState::VERIFIED);
                } else if self.overlay.is_empty() && in_file {
                    break;
                }
            }
            if kind == RegionKind::Overflow {
                let before = region.pages() - shape.pages;
                let free = (0..shape.pages).rev().filter(|&page| !group.is_used(page));
                table.pool.give(free.map(|page| before + page));
            }
        }
        Ok(())
    }
}

impl Core {
    /// Steps 3 (the log) to 6.
    fn recover(&self, disk: &dyn Disk, header: IndexHeader, stats: &mut RecoveryStats) -> Result<()> {
        let meta = self.checkpoint.lock().opened.clone();
        if disk.kind_of_name(self.log.dir()).context("look at", self.log.dir())? == PathKind::Other {
            let location = Location::file(self.log.dir());
            return Err(Error::corrupt("log directory", location, "a directory", "a symbolic link or a file"));
        }
        let source = TailSource {
            disk,
            dir: self.log.dir(),
            uuid: header.uuid,
            hasher: &self.hasher,
            known: &meta.segments,
            cut: header.cut,
            clean: header.clean,
            access: TailAccess::Map,
        };
        let tail = source.read()?;
        let writable = self.files.is_some();
        // Clean means: closed cleanly, and nothing was written since.
        let clean = header.clean && tail.end == header.cut;
        stats.was_unclean = !clean;
        stats.discarded_bytes = tail.discarded_bytes;
        stats.replayed_records = tail.ops.len() as u64;

        self.adopt_known(disk, &meta.segments, header.cut)?;
        for found in &tail.segments {
            // Refused before anything is changed.
            map_segment(disk, &found.path, found.salt, found.end, false)?;
        }
        if writable {
            self.allocate_reserve(meta.segments.len())?;
            self.discard(disk, &tail.discard)?;
            if !clean && !broken(Mutant::TailNotRewritten) && !broken(Mutant::NoFreshSegment) {
                self.rewrite_tail(disk, &tail, header.cut)?;
            }
        }
        self.adopt_tail(disk, &tail, (clean || broken(Mutant::NoFreshSegment)) && writable)?;
        {
            let mut registry = self.log.registry.lock();
            registry.next_sequence = registry.next_sequence.max(tail.sequence_max.saturating_add(1));
        }
        if writable {
            let mut state = self.checkpoint.lock();
            let files = self.files.as_ref().ok_or_else(|| Error::ReadOnly { path: self.path.clone() })?;
            // The directory entries too: the last process may have died between a rename and its fsync.
            disk.sync_dir(&self.path).context("sync", &self.path)?;
            sync_parent(disk, &self.path)?;
            // After an unclean end neither slot is trusted to be on the disk as it reads.
            for _ in 0..if clean { 1 } else { 2 } {
                let serial = state.header.serial + 1;
                state.header = IndexHeader { serial, clean: false, ..state.header };
                state.header.write(&*files.index, &files.index_path)?;
            }
            drop(state);
            self.log.commit.set_durable(tail.end);
            if self.log.appender.lock().is_none() {
                self.fresh_segment(&tail)?;
            }
        }
        stats.replayed_bytes = self.replay(&tail, header.cut)?;
        if writable {
            remove_garbage(disk, &self.path, header.log_dir)?;
            self.unlink_orphan_blobs(disk, &meta, &tail)?;
            self.checkpoint_due.store(self.checkpoint_interval(), Ordering::Relaxed);
            if stats.replayed_bytes > self.checkpoint_interval() / 2 {
                self.checkpoint_due.store(0, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// What a checkpoint writes besides bucket pages has its blocks from the start, in the journal and in the
    /// index, and so have the images that the journal's length promises: the length may be there without them.
    fn allocate_reserve(&self, segments: usize) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        let meta_room = Meta::pages_for(segments);
        let capacity = files.journal.capacity()?.max(meta_room + JOURNAL_PAGES);
        files.journal.allocate(capacity)?;
        let index = (FIRST_META_PAGE + meta_room) * PAGE;
        files.index.allocate(0, index).context("allocate blocks of", &files.index_path)?;
        files.meta_room.store(meta_room, Ordering::Release);
        self.table.dirty.set_journal_pages(capacity - meta_room);
        Ok(())
    }

    /// Segments before the cut's: sealed, as the checkpoint says.
    fn adopt_known(&self, disk: &dyn Disk, known: &[SegmentEntry], cut: Position) -> Result<()> {
        for entry in known.iter().filter(|entry| entry.sequence != cut.sequence()) {
            let path = segment_path(self.log.dir(), entry.sequence);
            let (map, len, _) = map_segment(disk, &path, entry.salt, entry.end, false)?;
            self.log.pins.install(entry.slot, Arc::new(map));
            // No more can be dead than there is, whatever the checkpoint says.
            self.log.set_dead(entry.slot, entry.dead.min(entry.end));
            let identity = (entry.sequence, entry.slot, entry.salt);
            let segment = Segment::new(identity, path, len, Some(entry.end), None);
            segment.set_unfit();
            segment.set_removals(entry.removals.min(entry.end), entry.dead.min(entry.end));
            self.log.adopt(Arc::new(segment));
        }
        Ok(())
    }

    /// The cut's segment and those after it. The last one goes on being written if the end was clean.
    fn adopt_tail(&self, disk: &dyn Disk, tail: &Tail, go_on: bool) -> Result<()> {
        let opened = self.checkpoint.lock().opened.segments.clone();
        for (i, found) in tail.segments.iter().enumerate() {
            let taken = self.log.registry.lock().segments.values().any(|segment| segment.slot == found.slot);
            if taken {
                let expected = "a segment slot of its own";
                return Err(Error::corrupt("segment header", Location::at(&found.path, 72), expected, found.slot));
            }
            let active = go_on && i + 1 == tail.segments.len();
            let (map, len, file) = map_segment(disk, &found.path, found.salt, found.end, active)?;
            let known = opened.iter().find(|entry| entry.sequence == found.sequence);
            let dead = known.map_or(0, |entry| entry.dead).saturating_add(found.overhead);
            self.log.set_dead(found.slot, dead.min(found.end));
            let identity = (found.sequence, found.slot, found.salt);
            let end = (!active).then_some(found.end);
            let segment = Segment::new(identity, found.path.clone(), len, end, active.then_some(file));
            segment.set_unfit();
            let removals = known.map_or(0, |entry| entry.removals).saturating_add(found.removals).min(found.end);
            segment.set_removals(removals, self.log.dead(found.slot));
            let segment = Arc::new(segment);
            if active {
                let unsuited = found.bulk && self.sync == SyncPolicy::Always;
                self.log.unsuited.store(unsuited, Ordering::Relaxed);
                let writer = LogWriter::new(map);
                self.log.pins.install(found.slot, Arc::clone(writer.map()));
                *self.log.appender.lock() = Some(Appender::new(Arc::clone(&segment), writer, tail.end));
            } else {
                self.log.pins.install(found.slot, Arc::new(map));
            }
            self.log.adopt(segment);
        }
        Ok(())
    }

    /// Seal, first part: nothing past X remains, nor anything that compaction has freed. The oldest goes first:
    /// a remove-record must not go before what it removes.
    fn discard(&self, disk: &dyn Disk, files: &[PathBuf]) -> Result<()> {
        let mut files = files.to_vec();
        // By sequence, which has more than eight digits some day.
        files.sort_unstable_by_key(|path| {
            path.file_name().and_then(|name| name.to_str()).and_then(parse_segment_name).unwrap_or(u32::MAX)
        });
        for path in files {
            disk.unlink(&path).context("unlink", &path)?;
            disk.sync_dir(self.log.dir()).context("sync", self.log.dir())?;
        }
        Ok(())
    }

    /// Seal, second part: what was read must be on the disk, not in the page cache only. The unused rest of
    /// the last segment is given back.
    fn rewrite_tail(&self, disk: &dyn Disk, tail: &Tail, cut: Position) -> Result<()> {
        let from = tail.claim.max(cut).min(tail.end);
        let last = tail.segments.last().map(|segment| segment.sequence);
        for segment in tail.segments.iter().filter(|segment| segment.sequence >= from.sequence()) {
            let path = &segment.path;
            let file = disk.open(path, OpenMode::Write).context("open", path)?;
            let mut at = if segment.sequence == from.sequence() { from.offset() } else { 0 };
            let mut buffer = vec![0; segment.end.saturating_sub(at).min(1 << 20) as usize];
            while at < segment.end {
                let piece = &mut buffer[..(segment.end - at).min(1 << 20) as usize];
                read_exact_at(&*file, piece, at).context("read", path)?;
                write_all_at(&*file, piece, at).context("write", path)?;
                at += piece.len() as u64;
            }
            if Some(segment.sequence) == last {
                let kept = segment.end.next_multiple_of(PAGE);
                if file.len().context("look at", path)? > kept {
                    file.set_len(kept).context("shorten", path)?;
                }
            }
            file.sync_all().context("sync", path)?;
        }
        Ok(())
    }

    /// Seal, third part: a fresh segment that names its predecessor and its end. An empty last segment is
    /// replaced by it, so that a crash loop does not eat the disk.
    fn fresh_segment(&self, tail: &Tail) -> Result<()> {
        let mut predecessor = (tail.end.sequence(), tail.end.offset());
        if let Some(last) = tail.segments.last() {
            let known = self.checkpoint.lock().opened.segments.iter().any(|entry| entry.sequence == last.sequence);
            if !known && last.end == SEGMENT_HEADER_BYTES {
                predecessor = (last.predecessor, last.predecessor_end);
                self.log.forget(last.sequence)?;
            }
        }
        self.log.provide_segment(0)?;
        if let Some(next) = self.log.take_prepared(0) {
            self.log.activate(next, predecessor, tail.end);
        }
        Ok(())
    }

    /// Unlinks blobs that no record links: written when the process died, or listed as dying.
    fn unlink_orphan_blobs(&self, disk: &dyn Disk, meta: &Meta, tail: &Tail) -> Result<()> {
        let dir = self.log.dir();
        let linked: HashSet<u64> = tail.linked.iter().map(|(_, link)| link.id).collect();
        let mut orphans = Vec::new();
        for name in disk.read_dir(dir).context("list", dir)? {
            let Some(id) = parse_blob_name(&name) else { continue };
            let unlinked = id >= meta.blobs.next_id || meta.blobs.in_flight.contains(&id);
            if meta.blobs.dying.contains(&id) || (unlinked && !linked.contains(&id)) {
                orphans.push(id);
            }
            self.log.blobs.seen(id);
        }
        self.log.unlink_blobs(&orphans)
    }
}
