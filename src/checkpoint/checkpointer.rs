//! The owner of what checkpoints write: index file, journal, and what is known of the last checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::header::{FIRST_META_PAGE, IndexHeader};
use crate::checkpoint::journal::Journal;
use crate::checkpoint::meta::Meta;
use crate::error::{Error, IoContext, Result};
use crate::health::Health;
use crate::log::segments::Log;
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::stats::CheckpointStats;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::sys::{DiskFile, PAGE_BYTES};
use crate::table::Table;
use crate::table::index::Index;
use crate::table::page::PageImage;
use crate::table::state::TableState;
use crate::table::tables::Tables;

/// The page size as files count.
const PAGE: u64 = PAGE_BYTES as u64;
/// Page images that a new journal has room for, and any journal that is opened.
pub(crate) const JOURNAL_PAGES_NEW: u64 = 6;
/// Page images that one which was longer keeps room for.
const JOURNAL_PAGES_KEPT: u64 = 24;

/// Decides when a checkpoint is due, keeps room for it on the disk, and knows the last one. The protocol is run.rs.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    path: PathBuf,
    /// `None` in a read-only store.
    pub(super) files: Option<Files>,
    /// What the last checkpoint wrote. Held during a checkpoint: one at a time.
    pub(super) state: Mutex<Written>,
    /// A checkpoint is due when the log has grown to this many bytes.
    due: AtomicU64,
    /// Log bytes from one checkpoint to the next, if the user has chosen them.
    interval_bytes: Option<u64>,
    /// Private pages beyond which writers wait for a checkpoint and clean ones are dropped.
    limit_pages: u64,
    /// Pages by which the journal gets longer at a time.
    journal_step: u64,
    /// Generation of the last checkpoint, and the bytes appended at its cut, for the stats.
    generation: AtomicU64,
    total_at_cut: AtomicU64,
    pub(super) counters: Counters,
}

/// What a checkpointer begins with.
#[derive(Debug)]
pub(crate) struct CheckpointerParts<'p> {
    pub(crate) path: &'p Path,
    /// `None` in a read-only store.
    pub(crate) files: Option<Files>,
    pub(crate) header: IndexHeader,
    pub(crate) meta: Meta,
    /// [`Options::checkpoint_bytes`](crate::Options::checkpoint_bytes).
    pub(crate) interval_bytes: Option<u64>,
    pub(crate) limit_pages: u64,
    pub(crate) journal_step: u64,
}

/// The files that checkpoints write.
#[derive(Debug)]
pub(crate) struct Files {
    pub(super) index: Arc<dyn DiskFile>,
    pub(super) index_path: PathBuf,
    pub(super) journal: Journal,
    /// Held while the journal's blocks are allocated.
    pub(super) extending: Mutex<()>,
    /// Meta pages that index and journal have blocks for.
    pub(super) meta_room: AtomicU64,
}

/// What stands in the index file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) header: IndexHeader,
    /// The meta pages as they were last written.
    pub(super) meta_pages: Vec<PageImage>,
    /// The tables as they say that these are.
    pub(super) tables: Vec<TableState>,
    /// The meta data that the store was opened with.
    opened: Meta,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) checkpoints: AtomicU64,
    pub(super) images: AtomicU64,
    pub(super) cut_nanos_max: AtomicU64,
    /// Errors of work that only frees space.
    pub(super) put_off: AtomicU64,
}

impl Files {
    pub(crate) fn new(index: Arc<dyn DiskFile>, index_path: PathBuf, journal: Journal) -> Self {
        Files { index, index_path, journal, extending: Mutex::new(()), meta_room: AtomicU64::new(0) }
    }
}

impl Checkpointer {
    pub(crate) fn new(parts: CheckpointerParts<'_>) -> Self {
        let CheckpointerParts { path, files, header, meta, interval_bytes, limit_pages, journal_step } = parts;
        Checkpointer {
            path: path.to_path_buf(),
            files,
            state: Mutex::new(Written { header, meta_pages: meta.pages(), tables: meta.tables.clone(), opened: meta }),
            due: AtomicU64::new(u64::MAX),
            interval_bytes,
            limit_pages,
            journal_step,
            generation: AtomicU64::new(header.generation),
            total_at_cut: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// True if so many bytes of the log ask for a checkpoint.
    #[inline]
    pub(crate) fn is_due(&self, total: u64) -> bool {
        total >= self.due.load(Ordering::Relaxed)
    }

    /// Sets when the first checkpoint after an open is due: at once, if the open replayed so much that the next one should
    /// not.
    pub(crate) fn begin(&self, tables: &Tables, replayed_bytes: u64) {
        let interval = self.interval(tables);
        let due = if replayed_bytes > interval / 2 { 0 } else { interval };
        self.due.store(due, Ordering::Relaxed);
    }

    /// Log bytes from one checkpoint to the next.
    fn interval(&self, tables: &Tables) -> u64 {
        self.interval_bytes.unwrap_or_else(|| (tables.pages() * PAGE * 2).clamp(128 << 20, 1 << 30))
    }

    /// A cut was made at so many bytes of the log.
    pub(super) fn cut_at(&self, tables: &Tables, total: u64) {
        self.due.store(total.saturating_add(self.interval(tables)), Ordering::Relaxed);
    }

    /// The checkpoint with the cut at so many bytes is done.
    pub(super) fn done(&self, generation: u64, total: u64) {
        self.generation.store(generation, Ordering::Relaxed);
        self.total_at_cut.store(total, Ordering::Relaxed);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// Private pages beyond which clean ones are dropped.
    pub(crate) fn limit_pages(&self) -> u64 {
        self.limit_pages
    }

    /// The header that was written last.
    pub(crate) fn header(&self) -> IndexHeader {
        self.state.lock().header
    }

    /// The meta data that the store was opened with.
    pub(crate) fn opened(&self) -> Meta {
        self.state.lock().opened.clone()
    }

    /// Tells and counts what could not be done at this moment, and what a later checkpoint tries again.
    pub(crate) fn put_off(&self, error: &Error) {
        observe::put_off(&self.path, &error.to_string());
        self.counters.put_off.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that the index file occupies on the disk.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.files.as_ref().and_then(|files| files.index.allocated().ok()).unwrap_or(0)
    }

    pub(crate) fn stats(&self, index: &Index, log: &Log) -> CheckpointStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { checkpoints, images, cut_nanos_max, put_off } = &self.counters;
        CheckpointStats {
            count: get(checkpoints),
            generation: get(&self.generation),
            log_bytes_since: log.total().saturating_sub(get(&self.total_at_cut)),
            dirty_pages: index.dirty_pages(),
            private_pages: index.private_pages(),
            images: get(images),
            cut_nanos_max: get(cut_nanos_max),
            put_off: get(put_off) + log.ends_kept(),
            journal_bytes: self.files.as_ref().map_or(0, |_| index.journal_pages() * PAGE),
        }
    }
}

/// Room on the disk, so that a checkpoint never runs out of it.
impl Checkpointer {
    /// Sees to it that the journal has blocks for so many pages of the table.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn extend_journal(&self, index: &Index, pages: u64) -> Result<()> {
        let Some(files) = &self.files else {
            index.set_journal_pages(u64::MAX);
            return Ok(());
        };
        let _one = files.extending.lock();
        let have = index.journal_pages();
        if have >= pages {
            return Ok(());
        }
        // By an eighth at a time: so much more than the dirty set the journal may take.
        let images = pages.max(have + have / 8).next_multiple_of(self.journal_step);
        files.journal.allocate(images + files.meta_room.load(Ordering::Acquire))?;
        index.set_journal_pages(images);
        Ok(())
    }

    /// Sees to it that the meta pages of the next checkpoints have blocks in the journal and in the index.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn provide_meta_room(&self, index: &Index, log: &Log) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        let room = index.listed().with_slack();
        let pages = Meta::pages_for(log.slots_used(), room, log.freed_blobs().0 as usize);
        if pages > files.meta_room.load(Ordering::Acquire) {
            let _one = files.extending.lock();
            files
                .index
                .allocate(0, (FIRST_META_PAGE + pages) * PAGE)
                .context("allocate blocks of", &files.index_path)?;
            files.journal.allocate(index.journal_pages() + pages)?;
            files.meta_room.fetch_max(pages, Ordering::AcqRel);
        }
        index.set_room(room);
        Ok(())
    }

    /// Allocates the journal blocks that a table of twice the size can need, because a growth begins and makes all pages dirty:
    /// a writer that allocates them waits for the disk. What is too much goes back with the next checkpoint.
    pub(crate) fn prepare_journal(&self, table: &Table) {
        let pages = table.growth().pages() * 2 + table.overflow_pages();
        // If the disk is full, the call that needs the blocks says so.
        let _ = self.extend_journal(table.index(), (pages + pages / 16).min(self.limit_pages));
    }

    /// Gives back what the journal has beyond the dirty pages of this moment, because nobody writes any more. `waits`: for a
    /// checkpoint that is under way, which needs the journal; else nothing is given back beside one. Not in a poisoned
    /// store, because its journal may be needed. If it fails, the blocks stay, and the failure is counted.
    pub(crate) fn trim_journal(&self, index: &Index, health: &Health, waits: bool) {
        let Some(files) = &self.files else { return };
        let state = if waits { Some(self.state.lock()) } else { self.state.try_lock() };
        let Some(_state) = state else { return };
        if health.check_writable().is_ok()
            && let Err(error) = self.shorten_journal(files, index, index.dirty_pages())
        {
            self.put_off(&error);
        }
    }

    /// Shortens the journal to so many pages and an eighth more, if it is longer than half as much again. It always has room
    /// for some pages, because a removal and an open on a full disk need them.
    ///
    /// 1. Fewer pages may be dirty from here on; more are not.
    /// 2. The journal is emptied, durably: it stays complete for its generation, whose header is durable, because the
    ///    caller holds `state`. *Crash:* the header stands, and the journal explains it or is not complete, and reset.
    /// 3. Its file gets shorter. *Crash:* the old length or the new one; the next open allocates the blocks of either.
    pub(super) fn shorten_journal(&self, files: &Files, index: &Index, pages: u64) -> Result<()> {
        let _one = files.extending.lock();
        // Never less than an open sees to, because an open on a full disk finds no blocks.
        let wanted = (pages + pages / 8).max(JOURNAL_PAGES_KEPT).next_multiple_of(self.journal_step);
        let have = index.journal_pages();
        if have > wanted + wanted / 2 + self.journal_step && index.shrink_journal(wanted) {
            files.journal.empty()?;
            files.journal.shorten(wanted + files.meta_room.load(Ordering::Acquire))?;
        }
        Ok(())
    }

    /// A checkpoint writes meta pages besides bucket pages. An open allocates their blocks in the journal and in the index,
    /// and those of the images that the journal's length promises: the length may be there without them.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn allocate_reserve(&self, index: &Index, log: &Log) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        let _one = files.extending.lock();
        let room = index.listed().with_slack();
        let meta_room = Meta::pages_for(log.slots_used() + 1, room, log.freed_blobs().0 as usize)
            .max(files.meta_room.load(Ordering::Acquire));
        let capacity = files.journal.capacity()?.max(meta_room + JOURNAL_PAGES_NEW);
        files.journal.allocate(capacity)?;
        let meta_end = (FIRST_META_PAGE + meta_room) * PAGE;
        files.index.allocate(0, meta_end).context("allocate blocks of", &files.index_path)?;
        files.meta_room.store(meta_room, Ordering::Release);
        index.set_room(room);
        index.set_journal_pages(capacity - meta_room);
        Ok(())
    }
}

impl Checkpointer {
    /// Writes into both header slots that the store is in use. An open does this before the first append.
    ///
    /// 1. The slot that was read as the newest is written again. After a failed fsync the page cache can show it while the
    ///    disk has an older header there, or a torn one. *Crash:* the other slot is valid, and the journal leads from it
    ///    to this generation.
    /// 2. The other slot is written. *Crash:* the first one is on the disk for certain.
    ///
    /// If the other slot is invalid, it is written first: it was torn by an open that had made sure of this one.
    ///
    /// # Errors
    /// `ReadOnly`, `Io`.
    pub(crate) fn mark_in_use(&self, other_invalid: bool) -> Result<()> {
        let files = self.files.as_ref().ok_or_else(|| Error::ReadOnly { path: self.path.clone() })?;
        let mut state = self.state.lock();
        if state.header.clean && broken(Mutant::AppendedUnmarked) {
            return Ok(());
        }
        // An even step leads to the same slot, an odd one to the other.
        let steps: &[u64] = match other_invalid {
            _ if broken(Mutant::OtherSlotFirst) => &[1],
            true => &[1, 1],
            false => &[2, 1],
        };
        for step in steps {
            let serial = state.header.serial + step;
            state.header = IndexHeader { serial, clean: false, ..state.header };
            state.header.write(&*files.index, &files.index_path)?;
        }
        Ok(())
    }
}
