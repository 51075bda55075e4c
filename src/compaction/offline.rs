//! Offline compaction: the store is written anew beside itself, and switched in by one rename.
//!
//! 1. The store is checked by pread, as [`verify`](crate::verify::verify) does, so that neither rot nor a bad sector is met
//!    half-way. It is locked, opened (recovered, if need be) and checkpointed. *Crash:* as at any open.
//! 2. A new log directory, and a new index and journal under `compact.tmp/`, are filled with the live records in
//!    the order of the pages: a table sized for its content, no tombstones, no overflow pages, no dead bytes.
//!    The new index has the old one's identity and a generation at least two higher, so that the old journal
//!    explains nothing in it. *Crash:* what the old header does not name is garbage, which the next writable open
//!    removes.
//! 3. All is synced. If it is not smaller than before, it is removed again.
//! 4. The new journal is renamed over the old one; fsync of the directory. *Crash:* a journal of another
//!    generation than the old index's, which was closed cleanly, so that it needs none.
//! 5. The new index is renamed over the old one; fsync of the directory. *Crash before this is durable:* the old
//!    store or the new one, whole.
//! 6. The old log directory is removed. *Crash:* garbage, as in 2.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use super::options::Options;
use crate::check::verify_disk;
use crate::checkpoint::header::{FIRST_META_PAGE, IndexHeader};
use crate::checkpoint::journal::Journal;
use crate::checkpoint::meta::Meta;
use crate::engine::scan::Scan;
use crate::error::{Error, IoContext, Location, Result};
use crate::layout::{COMPACTING, index_path, journal_path, log_path};
use crate::log::blob::BLOB_HEADER_BYTES;
use crate::log::sizes::Planned;
use crate::mutant::{Mutant, broken};
use crate::options::{Options as StoreOptions, Origin};
use crate::progress::{OnProgress, Progress, tell};
use crate::recovery::create::remove_garbage;
use crate::store::Store;
use crate::sync::Instant;
use crate::sys::{Access, Disk, OpenMode, PAGE_BYTES, RealDisk};
use crate::table::region::ExtentBlocks;
use crate::table::slot::Slot;
use crate::tuning::{SyncPolicy, Tuning};
use crate::words::some;

/// A table is filled to this many thousandths at most: beyond it, one page in some thousands would overflow. (A
/// table between two levels would not do: the pages that are not yet divided hold twice as much as the others.)
pub(crate) const FILL_PERMILLE: u64 = 740;
/// Damaged records that are listed.
const SKIPPED_MAX: usize = 1000;
/// Pages of a journal without images: its head and its trailer.
const JOURNAL_PAGES_LEFT: u64 = 2;
/// Records between two calls of the progress function.
const TELL: u64 = 1 << 14;

/// A store's shape: what its slots and files hold.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Shape {
    /// Records in the store.
    pub records: u64,
    /// Primary pages of the table.
    pub pages: u64,
    /// Overflow pages in use.
    pub overflow_pages: u64,
    /// Slots that hold an entry.
    pub live_slots: u64,
    /// Tombstones: empty slots whose path goes on.
    pub empty_one_slots: u64,
    /// Empty slots whose path ends there.
    pub empty_rest_slots: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of records in them, dead ones included.
    pub log_bytes: u64,
    /// Bytes of dead records, removals and log overhead.
    pub dead_bytes: u64,
    /// Bytes of values in files of their own.
    pub blob_bytes: u64,
    /// Disk blocks of all files, in bytes.
    pub disk_bytes: u64,
}

/// What [`compact`] did, or would do.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Report {
    /// The store before.
    pub before: Shape,
    /// The store after; in a dry run, an estimate.
    pub after: Shape,
    /// True if nothing was changed because that was asked for.
    pub dry_run: bool,
    /// False if nothing was changed because there was nothing to gain.
    pub switched: bool,
    /// Damaged records and values that were left out, up to a bound: file, offset, and the key where that can be read.
    pub skipped: Vec<String>,
    /// All of them.
    pub skipped_total: u64,
    /// Time taken, in nanoseconds.
    pub nanos: u64,
}

impl Report {
    fn skip(&mut self, error: &Error) {
        self.skipped_total += 1;
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(error.to_string());
        }
    }
}

/// Compacts the store at a path. See [`compact_with`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// let report = tophash::compact::compact(&path)?;
/// println!("{} bytes became {}", report.before.disk_bytes, report.after.disk_bytes);
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Errors
/// As [`compact_with`].
pub fn compact(path: impl AsRef<Path>) -> Result<Report> {
    compact_with(path, &Options::new(), Progress::ignore)
}

/// Writes the store at a path anew: a table sized for its content without tombstones and overflow pages, a log
/// without dead records, in the order of the table. Nobody may have the store open meanwhile. (A store in use
/// keeps its size within bounds by itself; [`Store::compact`] forces that. This gets the last few percent, and
/// the fastest scans.)
///
/// Needs as much free disk space as the store's live records take. The old store stays whole until the new one
/// is switched in by one rename: after a crash there is one of the two. If the result would not be smaller, nothing is
/// changed. `progress` is told how far the work has come, and ends the call by returning [`ControlFlow::Break`]; the store
/// is as it was then.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// use tophash::{Progress, compact};
/// // What would it gain?
/// let report = compact::compact_with(&path, &compact::Options::new().dry_run(true), Progress::ignore)?;
/// assert!(report.dry_run && !report.switched);
/// println!("{} bytes", report.before.disk_bytes.saturating_sub(report.after.disk_bytes));
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Errors
/// [`Error::Corrupt`] if anything in the store is damaged (see [`repair`](crate::repair::repair) and
/// [`Options::skip_damaged`]), [`Error::Locked`], [`Error::DiskFull`], [`Error::Aborted`], and those of
/// [`tophash::Options::open`](crate::Options::open).
pub fn compact_with(
    path: impl AsRef<Path>,
    options: &Options,
    progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    compact_disk(&StoreOptions::new().disk(Arc::new(RealDisk)), path.as_ref(), options, progress)
}

/// Compacts a store on the disk that its options name. See [`compact_with`].
///
/// # Errors
/// As [`compact_with`].
#[doc(hidden)]
pub fn compact_disk(
    store: &StoreOptions,
    path: &Path,
    asked: &Options,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let started = Instant::now();
    let disk = &*store.disk;
    let mut work = Work { progress: &mut progress, done: 0, all: 1 };
    work.check(disk, path, asked)?;

    let tuning = Tuning { background: false, shrink_permille: 0, ..store.tuning };
    let options = store.clone().create(false).sync(SyncPolicy::Manual).log_ratio(f64::INFINITY).tuning(tuning);
    // A dry run changes nothing, not even what a recovery would.
    let old = options.clone().read_only(asked.dry_run).open(path)?;
    // From here on the store is the one that is open, whatever its path leads to.
    let disk = old.engine().log.shared_disk();
    // Nobody but the owner has to get to unfinished files.
    let disk = disk.with_access(Access::default()).unwrap_or_else(|| Arc::clone(disk));
    let path = old.engine().path.clone();
    let (disk, path, options) = (&*disk, &*path, options.disk(Arc::clone(&disk)));
    if !asked.dry_run {
        old.checkpoint()?;
    }
    let before = shape(&old)?;
    let mut report = Report { before, dry_run: asked.dry_run, ..Report::default() };
    if asked.dry_run {
        report.after = estimate(&old, &report.before, &mut work)?;
        if asked.skip_damaged {
            old.iter().filter_map(Result::err).for_each(|error| report.skip(&error));
        }
    } else {
        let header = old.engine().checkpointer.header();
        let build = Build { disk, path, header, options: &options };
        match build.fill(&old, asked, &mut report, &mut work) {
            Ok(after) if after.disk_bytes < report.before.disk_bytes => {
                build.switch(old)?;
                report.after = after;
                report.switched = true;
            }
            Ok(_) => {
                remove_garbage(disk, path, header.log_dir)?;
                report.after = report.before.clone();
                (report.skipped, report.skipped_total) = (Vec::new(), 0);
            }
            Err(error) => {
                // What cannot be removed now is removed by the next open.
                let _ = remove_garbage(disk, path, header.log_dir);
                return Err(error);
            }
        }
    }
    report.nanos = started.elapsed().as_nanos() as u64;
    Ok(report)
}

/// Tells how far the work has come.
struct Work<'w> {
    progress: &'w mut OnProgress<'w>,
    done: u64,
    all: u64,
}

impl Work<'_> {
    fn tell(&mut self) -> Result<()> {
        match tell(self.progress, self.done, self.all) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Aborted { operation: "compact" }),
        }
    }

    /// Step 1: the check counts as the first half of the work.
    fn check(&mut self, disk: &dyn Disk, path: &Path, asked: &Options) -> Result<()> {
        let mut all = 0;
        let report = verify_disk(disk, path, |checked| {
            all = checked.total;
            tell(self.progress, checked.done, 2 * checked.total)
        })?;
        if let Some(finding) = report.findings.iter().find(|finding| !asked.tolerates(finding)) {
            let location = Location {
                path: PathBuf::from(&finding.path),
                offset: finding.offset,
                page: finding.page,
                slot: finding.slot,
            };
            return Err(Error::corrupt("store", location, &finding.expected, &finding.found));
        }
        (self.done, self.all) = (all, 2 * all.max(1));
        Ok(())
    }
}

/// The new store while it is made.
struct Build<'b> {
    disk: &'b dyn Disk,
    path: &'b Path,
    /// The old store's header.
    header: IndexHeader,
    options: &'b StoreOptions,
}

impl Build<'_> {
    fn log_dir(&self) -> u64 {
        self.header.log_dir + 1
    }

    fn directory(&self) -> PathBuf {
        self.path.join(COMPACTING)
    }

    /// Steps 2 and 3.
    fn fill(&self, old: &Store, asked: &Options, report: &mut Report, work: &mut Work<'_>) -> Result<Shape> {
        remove_garbage(self.disk, self.path, self.header.log_dir)?;
        // Fails if something of that name is left that is not ours.
        self.disk.create_dir(&self.directory()).context("create", &self.directory())?;
        let records = old.len();
        let new = self.open_new(records)?;
        let (start, all) = (work.done, work.all);
        let mut scan = Scan::new(old.engine());
        let mut n = 0;
        while let Some(entry) = scan.next_entry() {
            match entry {
                Ok(entry) => new.expiring(entry.expires_at()).set(entry.key(), entry.value())?,
                Err(error) if asked.skip_damaged && error.is_corruption() => report.skip(&error),
                Err(error) => return Err(error),
            }
            if n % TELL == 0 {
                work.done = start + (all - start) * n / records.max(1);
                work.tell()?;
            }
            n += 1;
        }
        // An entry whose record was unreadable when its page was split is in two pages, and not counted.
        let found = new.len() + scan.expired();
        if found > records || found + report.skipped_total < records {
            let location = Location::file(&index_path(self.path));
            return Err(Error::corrupt("store", location, some(records, "record"), found));
        }
        let mut after = shape(&new)?;
        while after.overflow_pages > 0 {
            // Too full after all: the next size.
            new.engine().double()?;
            after = shape(&new)?;
        }
        work.tell()?;
        new.engine().give_up_reserve();
        let tail = new.engine().log.active_end();
        new.close()?;
        self.shorten_files(tail)?;
        after.disk_bytes = self.disk_bytes()?;
        self.copy_owners()?;
        self.disk.sync_dir(self.path).context("sync", self.path)?;
        Ok(after)
    }

    /// The new store, which continues the old one and has room for so many records.
    fn open_new(&self, records: u64) -> Result<Store> {
        let IndexHeader { uuid, hash_key, generation, geometry, overflow_log2, .. } = self.header;
        let origin = Origin {
            uuid,
            hash_key,
            generation: generation + 2,
            log_dir: self.log_dir(),
            home: self.path.to_path_buf(),
        };
        let tuning = Tuning {
            home_buckets: geometry.homes as u8,
            stash_buckets: geometry.stash as u8,
            overflow_log2_min: overflow_log2,
            ..self.options.tuning
        };
        let capacity = capacity_for(records, &tuning);
        let new = self.options.clone().create(true).create_new(true).tuning(tuning).capacity(capacity).origin(origin);
        new.open(self.directory())
    }

    /// Cuts off what the closed new store needs no more: the unwritten part of its last segment, which ends at `tail`, and
    /// most of its journal.
    fn shorten_files(&self, tail: Option<(PathBuf, u64)>) -> Result<()> {
        if let Some((path, end)) = tail {
            let file = self.disk.open(&path, OpenMode::Write).context("open", &path)?;
            file.set_len(end.next_multiple_of(PAGE_BYTES as u64)).context("shorten", &path)?;
            if !broken(Mutant::SwitchedBeforeSync) {
                file.sync_all().context("sync", &path)?;
            }
        }
        // No image in the journal is needed any more, and it must stay complete; it gets its length when the store is opened.
        let journal = journal_path(&self.directory());
        let file = self.disk.open(&journal, OpenMode::Write).context("open", &journal)?;
        if let Some(uuid) = Journal::uuid_of(&*file) {
            Journal { file: Arc::clone(&file), path: journal.clone(), uuid }.empty()?;
        }
        file.set_len(JOURNAL_PAGES_LEFT * PAGE_BYTES as u64).context("shorten", &journal)?;
        file.sync_all().context("sync", &journal)
    }

    /// Gives the new files the owner and the mode of the old ones.
    fn copy_owners(&self) -> Result<()> {
        for directory in [self.directory(), log_path(self.path, self.log_dir())] {
            for name in self.disk.read_dir(&directory).context("list", &directory)? {
                let path = directory.join(name);
                self.disk.copy_owner(&index_path(self.path), &path).context("set owner and mode of", &path)?;
            }
        }
        let old_log = log_path(self.path, self.header.log_dir);
        let new_log = log_path(self.path, self.log_dir());
        self.disk.copy_owner(&old_log, &new_log).context("set owner and mode of", &new_log)
    }

    /// Disk blocks of the new store's files.
    fn disk_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for directory in [self.directory(), log_path(self.path, self.log_dir())] {
            for name in self.disk.read_dir(&directory).context("list", &directory)? {
                let path = directory.join(name);
                let file = self.disk.open(&path, OpenMode::Read).context("open", &path)?;
                bytes += file.allocated().context("look at", &path)?;
            }
        }
        Ok(bytes)
    }

    /// Steps 4 to 6. The old store is locked until they are done, and writes nothing any more.
    fn switch(&self, old: Store) -> Result<()> {
        old.engine().health.forbid_changes("it was compacted");
        for (from, to) in [
            (journal_path(&self.directory()), journal_path(self.path)),
            (index_path(&self.directory()), index_path(self.path)),
        ] {
            self.disk.rename(&from, &to).context("rename to", &to)?;
            self.disk.sync_dir(self.path).context("sync", self.path)?;
        }
        remove_garbage(self.disk, self.path, self.log_dir())?;
        drop(old);
        Ok(())
    }
}

/// The shape of an open store that nobody changes.
fn shape(store: &Store) -> Result<Shape> {
    let engine = store.engine();
    let stats = store.stats();
    let mut shape = Shape {
        records: stats.records,
        pages: stats.index.pages,
        overflow_pages: stats.index.overflow_pages,
        segments: stats.log.segments,
        log_bytes: stats.log.bytes,
        dead_bytes: stats.log.dead_bytes,
        blob_bytes: stats.log.blob_bytes,
        disk_bytes: store.disk_bytes()?,
        ..Shape::default()
    };
    engine.table.each_slot(&mut |slot: Slot| {
        let count = if slot.is_live() {
            &mut shape.live_slots
        } else if slot.is_empty_one() {
            &mut shape.empty_one_slots
        } else {
            &mut shape.empty_rest_slots
        };
        *count += 1;
    })?;
    Ok(shape)
}

/// The capacity that a new store is given for so many records.
fn capacity_for(records: u64, tuning: &Tuning) -> u64 {
    let grow = u64::from(tuning.grow_permille.clamp(1, 1000));
    if grow > FILL_PERMILLE { records * grow / FILL_PERMILLE } else { records }
}

/// What a compaction would leave. Goes through the keys, as it would: the sizes of the records decide where segments end, and the
/// hashes which pages of the table are used.
fn estimate(store: &Store, before: &Shape, work: &mut Work<'_>) -> Result<Shape> {
    let engine = store.engine();
    let table = &engine.table;
    let pages = 1u64 << table.level_for(capacity_for(before.records, &engine.tuning));
    let page = PAGE_BYTES as u64;
    let (start, all) = (work.done, work.all);
    let mut log = Planned::new(engine.log.fixed_segment_bytes());
    let mut table_blocks = ExtentBlocks::new(pages);
    let (mut live, mut blob_bytes) = (0, 0);
    let mut scan = Scan::new(engine);
    let mut n = 0;
    while let Some(scanned) = scan.next_scanned() {
        if n % TELL == 0 {
            work.done = start + (all - start) * n / before.records.max(1);
            work.tell()?;
        }
        n += 1;
        // What is damaged is left out, or would have ended the check.
        let Ok(scanned) = scanned else { continue };
        let (hash, bytes, link) = scanned.shape();
        log.append(bytes);
        live += bytes;
        table_blocks.use_page(hash & (pages - 1));
        if let Some(link) = link {
            blob_bytes += (BLOB_HEADER_BYTES as u64 + link.len).next_multiple_of(page);
        }
    }
    // What has expired is not copied, and the table is made for all that there was.
    let (records, live_slots) =
        [before.records, before.live_slots].map(|all| all.saturating_sub(scan.expired())).into();
    // Header slots and meta pages, the table, a journal without images, LOCK.
    let index = FIRST_META_PAGE + Meta::pages_for(log.segments as usize, 0) + table_blocks.pages();
    let files = (index + JOURNAL_PAGES_LEFT + 1) * page;
    Ok(Shape {
        records,
        pages,
        overflow_pages: 0,
        live_slots,
        empty_one_slots: 0,
        empty_rest_slots: table.slots_of(pages).saturating_sub(live_slots),
        segments: log.segments,
        log_bytes: live,
        dead_bytes: 0,
        blob_bytes: before.blob_bytes,
        disk_bytes: (files + log.disk_bytes() + blob_bytes).min(before.disk_bytes),
    })
}
