//! Opening a store, after a clean end or any other: its files, from the lock to the table in memory. The log, and
//! what a crash has left of it, is recovery.rs.
//!
//! 0. The store's directory and its parent are synced: the last process may have died between a rename and its fsync.
//!    Nothing is written or removed before that, because an older index could come back and need it.
//! 1. The newest valid header is taken. A slot that does not validate is accepted only if the journal's head
//!    is of that header's generation, or the journal is complete for the next one: then it was torn by the
//!    write that the journal explains.
//! 2. If the journal is complete for the next generation, it is itself written again and synced (it may have
//!    existed in the page cache only), its images are written in place, the file gets the length that the new
//!    generation's extents need, and the header follows.
//! 3. The extents are mapped. Steps 4 to 7: recovery.rs.
//!
//! A crash in any step: the next open does the same again, from the same header. A read-only open does 1 and 3 in
//! private memory, with the journal's images laid over the file's pages, and leaves the disk alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::create::{check_vacant, create, sync_parent};
use crate::awaited::Awaited;
use crate::background::wake::Wake;
use crate::checkpoint::checkpointer::{Checkpointer, CheckpointerParts, Files};
use crate::checkpoint::header::{FIRST_META_PAGE, IndexHeader, read_headers};
use crate::checkpoint::journal::{Buffer, Journal, JournalHead};
use crate::checkpoint::meta::{META_PAGES, Meta};
use crate::checkpoint::run::apply_journal;
use crate::checksum::KeyHasher;
use crate::compaction::compactor::Compactor;
use crate::engine::Engine;
use crate::engine::counts::Counts;
use crate::engine::resources::Waits;
use crate::error::{Error, IoContext, Location, Result};
use crate::health::Health;
use crate::layout::{index_path, journal_path, lock_path, log_path};
use crate::log::segments::{Log, LogConfig};
use crate::mutant::{Mutant, broken};
use crate::need::Chance;
use crate::observe::{self, Observer};
use crate::options::Options;
use crate::stats::RecoveryStats;
use crate::sync::{Instant, Mutex, OnceLock};
use crate::sys::{
    Access, Disk, DiskFile, LockGuard, LockHolder, LockMode, LockOutcome, OpenMode, PAGE_BYTES, PathKind, memory_limit,
    read_up_to,
};
use crate::table::index::{Index, IndexParts};
use crate::table::page::{PageImage, image};
use crate::table::tables::Tables;

/// The page size as files count.
pub(super) const PAGE: u64 = PAGE_BYTES as u64;
/// The smallest default of `memory_bytes`.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Opens or creates the store at a path.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Engine> {
    let started = Instant::now();
    let (path, options) = &at_home(path, options)?;
    let disk = &*options.disk;
    let mut opening = Opening::begin(path, options)?;
    let (header, journal_redone) = opening.header_and_journal()?;
    let other_invalid = opening.other_invalid && !journal_redone;
    let engine = opening.build(header)?;
    let mut recovery = RecoveryStats { journal_redone, ..RecoveryStats::default() };
    engine.recover(disk, header, other_invalid, &mut recovery)?;
    recovery.open_nanos = started.elapsed().as_nanos() as u64;
    observe::opened(path, &recovery);
    let _ = engine.recovery.set(recovery);
    Ok(engine)
}

/// Makes the store's directory if need be and holds on to it: from here on its path is only a name for messages, which
/// must mean the same in another working directory. The disk gives new files the right permissions: those of the
/// store's index, if it has one; in an offline compaction those of the old one; in a new store what the options say.
fn at_home(path: &Path, options: &Options) -> Result<(PathBuf, Options)> {
    let chosen = Access { mode: options.mode, owner: None };
    let with = |disk: &Arc<dyn Disk>, access| disk.with_access(access).unwrap_or_else(|| Arc::clone(disk));
    make_home(&*with(&options.disk, chosen), path, options)?;
    let absolute = std::path::absolute(path).context("find the working directory for", path)?;
    let (disk, path) = match options.disk.anchored(&absolute).context("open", path)? {
        Some(disk) => (disk, absolute),
        None => (Arc::clone(&options.disk), path.to_path_buf()),
    };
    let index = index_path(options.origin.as_ref().map_or(&path, |origin| &origin.home));
    let access = disk.access_of(&index).context("look at", &index)?;
    let disk = with(&disk, access.unwrap_or(chosen));
    Ok((path, options.clone().disk(disk)))
}

/// Sees to it that there is a directory.
fn make_home(disk: &dyn Disk, path: &Path, options: &Options) -> Result<()> {
    match disk.kind(path).context("look at", path)? {
        PathKind::Directory => Ok(()),
        PathKind::Other => Err(Error::NotAStore { path: path.to_path_buf(), reason: "it is no directory".into() }),
        PathKind::Missing if !options.create || options.read_only => Err(Error::NotFound { path: path.to_path_buf() }),
        PathKind::Missing => {
            if options.create_parents {
                make_parents(disk, path)?;
            }
            make_directory(disk, path)
        }
    }
}

fn make_directory(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.create_dir(path) {
        // Somebody else was faster.
        Err(_) if matches!(disk.kind(path), Ok(PathKind::Directory)) => Ok(()),
        made => made.context("create", path),
    }
}

/// Makes the directories above a path, each durable before the next. The store's own is made durable by its creation.
/// *Crash:* some of them are there, empty but for one another.
fn make_parents(disk: &dyn Disk, path: &Path) -> Result<()> {
    let mut missing = Vec::new();
    for parent in path.ancestors().skip(1).take_while(|parent| !parent.as_os_str().is_empty()) {
        match disk.kind(parent).context("look at", parent)? {
            PathKind::Missing => missing.push(parent),
            _ => break,
        }
    }
    for parent in missing.into_iter().rev() {
        make_directory(disk, parent)?;
        sync_parent(disk, parent)?;
    }
    Ok(())
}

/// A store that is being opened.
pub(super) struct Opening<'o> {
    path: &'o Path,
    pub(super) options: &'o Options,
    lock: Option<Box<dyn LockGuard>>,
    pub(super) index: Arc<dyn DiskFile>,
    pub(super) index_path: PathBuf,
    journal: Journal,
    /// Images of a complete journal, for a read-only open: they count instead of what the file holds.
    pub(super) overlay: HashMap<u64, PageImage>,
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
        if !has_index(disk)?
            && let Err(error) = check_vacant(disk, path)
            && !has_index(disk)?
        {
            return Err(error);
        }
        // Whatever is not vacant has an index by now: another opener has completed its creation between two looks.
        if has_index(disk)? {
            if options.create_new {
                return Err(Error::AlreadyExists { path: path.to_path_buf() });
            }
            // Somebody else's directory with a file called "index" must not get a LOCK from us.
            let file = disk.open(&index_path, OpenMode::Read).context("open", &index_path)?;
            read_headers(&*file, &index_path, !options.read_only)?;
        } else if !options.create || options.read_only {
            return Err(Error::NotFound { path: path.to_path_buf() });
        }
        let lock_file = lock_path(path);
        let mode = if options.read_only { LockMode::Shared } else { LockMode::Exclusive };
        let lock = match disk.lock(&lock_file, mode).context("lock", &lock_file)? {
            LockOutcome::Held(lock) => lock,
            LockOutcome::Busy(holder) => return Err(Error::locked(path, holder)),
        };
        if !has_index(disk)? {
            create(path, options)?;
        } else if options.create_new {
            // Somebody created it between the first look and the lock.
            return Err(Error::AlreadyExists { path: path.to_path_buf() });
        }
        if !options.read_only && !broken(Mutant::EntriesNotSynced) {
            disk.sync_dir(path).context("sync", path)?;
            sync_parent(disk, path)?;
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
            if self.options.read_only || broken(Mutant::JournalNotReset) {
                return Ok((header, false));
            }
            let leads_here = match head.filter(|head| head.generation == header.generation) {
                Some(head) if header.clean => self.journal.is_whole_at_front(head)?,
                Some(head) => self.journal.is_complete(head)?,
                None => false,
            };
            if !leads_here {
                // An open that is refused for what the checkpoint says must not have changed anything before.
                let meta = self.read_meta(&header)?;
                // The next checkpoint was being written, so this header is on the disk. Before it is written again, the
                // journal must lead to it from the other slot, because this write could tear the one that counts.
                self.journal.reset(header.generation, header.cut, meta.main().growth.word())?;
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
        let mut buffer = Buffer::new().context("reserve memory for a part of", &self.journal.path)?;
        apply_journal(&self.journal, &*self.index, &self.index_path, head, &mut buffer)?;
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
        let meta = self.read_meta(header);
        self.overlay.clear();
        let meta = meta?;
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

    /// The meta data, as far as it can be checked without the extents.
    fn read_meta(&self, header: &IndexHeader) -> Result<Meta> {
        let read = |number| self.read_page(number);
        let meta = Meta::decode(&self.index_path, header.uuid, header.generation, read)?;
        meta.check_against(&self.index_path, header)?;
        Ok(meta)
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

    pub(super) fn read_page(&self, number: u64) -> Result<PageImage> {
        if let Some(page) = self.overlay.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE_BYTES]);
        read_up_to(&*self.index, &mut page[..], number * PAGE).context("read", &self.index_path)?;
        Ok(page)
    }

    /// The tables as the checkpoint knows them, mapped.
    fn build_tables(&self, header: &IndexHeader, meta: &Meta, limit_pages: u64, wake: &Wake) -> Result<Tables> {
        let options = self.options;
        let writable = !options.read_only;
        let index = Index::new(IndexParts {
            geometry: header.geometry,
            uuid: header.uuid,
            path: self.index_path.clone(),
            disk: Arc::clone(&options.disk),
            file: writable.then(|| Arc::clone(&self.index)),
            end_page: meta.end_page,
            gaps: meta.gaps(),
            listed: meta.listed(),
            limit_pages: if writable { limit_pages } else { u64::MAX },
            generation: header.generation,
            checkpoint_bell: wake.checkpoint.clone(),
            chance: Chance::new(options.tuning.shortages),
        });
        // A writable open allocates blocks before it sets this, once nothing can refuse the open any more.
        index.set_journal_pages(if writable { 0 } else { u64::MAX });
        let index = Arc::new(index);
        let growth_bell = wake.growth.clone();
        let tables = Tables::new(index, &meta.tables, meta.next_table, options.tuning, growth_bell);
        self.map_tables(&tables, header, meta)?;
        Ok(tables)
    }

    /// The log as the checkpoint knows it.
    fn build_log(&self, header: &IndexHeader, meta: &Meta) -> Log {
        let options = self.options;
        let config = LogConfig {
            disk: Arc::clone(&options.disk),
            dir: log_path(options.origin.as_ref().map_or(self.path, |origin| &origin.home), header.log_dir),
            uuid: header.uuid,
            sync: options.sync,
            segment_bytes: options.segment_bytes,
            tuning: options.tuning,
        };
        Log::new(config, &meta.blobs, meta.next_sequence)
    }

    /// Step 3, without the log's tail: the table and the log as the checkpoint knows them.
    fn build(&mut self, header: IndexHeader) -> Result<Engine> {
        let options = self.options;
        let meta = self.read_meta(&header)?;
        let memory_bytes = options.memory_bytes.unwrap_or_else(|| (memory_limit() / 4).max(MEMORY_BYTES_MIN));
        let limit_pages = (memory_bytes / PAGE).max(1);
        let writable = !options.read_only;
        let wake = Wake::new();
        let tables = self.build_tables(&header, &meta, limit_pages, &wake)?;
        let log = self.build_log(&header, &meta);
        let Some(lock) = self.lock.take() else {
            return Err(Error::locked(self.path, LockHolder::default()));
        };
        let journal =
            Journal { file: Arc::clone(&self.journal.file), path: self.journal.path.clone(), uuid: header.uuid };
        let files = writable.then(|| Files::new(Arc::clone(&self.index), self.index_path.clone(), journal));
        Ok(Engine {
            path: self.path.to_path_buf(),
            awaited: Arc::new(Awaited::new(self.path)),
            tables,
            log,
            health: Health::new(self.path, options.read_only),
            hasher: KeyHasher::new(header.hash_key),
            sync: options.sync,
            verify_reads: options.verify_reads,
            tuning: options.tuning,
            checkpointer: Checkpointer::new(CheckpointerParts {
                path: self.path,
                files,
                header,
                meta,
                interval_bytes: options.checkpoint_bytes,
                limit_pages,
                journal_step: options.tuning.journal_step,
            }),
            compactor: Compactor::new(options.log_ratio),
            wake,
            waits: Waits::default(),
            counts: Counts::default(),
            recovery: OnceLock::new(),
            observer: Observer::new(self.path),
            lock: Mutex::new(Some(lock)),
        })
    }
}
