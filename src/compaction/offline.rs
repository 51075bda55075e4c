//! Offline compaction: the store is written anew beside itself, and switched in by one rename.
//!
//! 1. The store is checked by pread, as [`verify`](crate::verify::verify) does, so that neither rot nor a bad sector is met
//!    half-way. It is locked, opened (recovered, if need be) and checkpointed. *Crash:* as at any open.
//! 2. A new log directory, and a new index and journal under `compact.tmp/`, are filled with the live records of one table after
//!    the other in the order of the pages: tables sized for their content, no tombstones, no overflow pages, no dead bytes. The
//!    tables keep their names, and get new ids.
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
pub(crate) use super::shape::FILL_PERMILLE;
use super::shape::{JOURNAL_PAGES_LEFT, Shape, capacity_for, estimate, shape};
use crate::check::verify_disk;
use crate::checkpoint::header::IndexHeader;
use crate::checkpoint::journal::Journal;
use crate::engine::scan::Scan;
use crate::error::{Error, IoContext, Location, Result};
use crate::layout::{COMPACTING, index_path, journal_path, log_path};
use crate::mutant::{Mutant, broken};
use crate::options::{Options as StoreOptions, Origin};
use crate::progress::{OnProgress, Progress, tell};
use crate::recovery::create::remove_garbage;
use crate::store::{Store, Table};
use crate::sync::Instant;
use crate::sys::{Access, Disk, OpenMode, PAGE_BYTES, RealDisk};
use crate::tuning::{SyncPolicy, Tuning};
use crate::words::some;

/// Damaged records that are listed.
const SKIPPED_MAX: usize = 1000;
/// Records between two calls of the progress function.
const TELL: u64 = 1 << 14;

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

/// Writes the store at a path anew: each table sized for its content without tombstones and overflow pages, a log
/// without dead records, in the order of the tables. Nobody may have the store open meanwhile. (A store in use
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
        let mut part = work.part(report.before.records);
        report.after = estimate(&old, &report.before, &mut || part.record())?;
        if asked.skip_damaged {
            report_damage(&old, &mut report);
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

/// Lists what a compaction would leave out.
fn report_damage(store: &Store, report: &mut Report) {
    for table in store.engine().tables.all() {
        let mut scan = Scan::new(store.engine(), &table);
        while let Some(entry) = scan.next_entry() {
            entry.err().iter().for_each(|error| report.skip(error));
        }
    }
}

/// Tells how far the work has come.
struct Work<'w> {
    progress: &'w mut OnProgress<'w>,
    done: u64,
    all: u64,
}

impl<'w> Work<'w> {
    fn tell(&mut self) -> Result<()> {
        match tell(self.progress, self.done, self.all) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Aborted { operation: "compact" }),
        }
    }

    /// The second half of the work, which is as much as there are records.
    fn part<'p>(&'p mut self, records: u64) -> Part<'p, 'w> {
        Part { start: self.done, records: records.max(1), n: 0, work: self }
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

/// Tells how many records the work has come by.
struct Part<'p, 'w> {
    work: &'p mut Work<'w>,
    start: u64,
    records: u64,
    n: u64,
}

impl Part<'_, '_> {
    /// Another one.
    fn record(&mut self) -> Result<()> {
        if self.n.is_multiple_of(TELL) {
            self.work.done = self.start + (self.work.all - self.start) * self.n.min(self.records) / self.records;
            self.work.tell()?;
        }
        self.n += 1;
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
        let new = self.open_new(old.len())?;
        let mut part = work.part(report.before.records);
        self.copy(old, &new, asked, report, &mut part)?;
        let names = old.tables()?;
        if !names.is_empty() {
            new.engine().make_catalog(self.capacity_for(names.len() as u64))?;
        }
        for name in names {
            let table = old.existing_table(&name)?;
            let capacity = self.capacity_for(table.len());
            let copied = new.add_copied(&name, &old.catalog_entry(&name)?, capacity)?;
            self.copy(&table, &copied, asked, report, &mut part)?;
        }
        for table in new.engine().tables.all() {
            while table.stats(0).overflow_pages > 0 {
                // Too full after all: the next size.
                new.engine().double(&table)?;
            }
            new.engine().give_up_reserve(&table);
        }
        let mut after = shape(&new)?;
        work.tell()?;
        let tail = new.engine().log.active_end();
        new.close()?;
        self.shorten_files(tail)?;
        after.disk_bytes = self.disk_bytes()?;
        self.copy_owners()?;
        self.disk.sync_dir(self.path).context("sync", self.path)?;
        Ok(after)
    }

    /// Copies the records of a table.
    fn copy(
        &self,
        from: &Table,
        to: &Table,
        asked: &Options,
        report: &mut Report,
        part: &mut Part<'_, '_>,
    ) -> Result<()> {
        let (records, skipped) = (from.len(), report.skipped_total);
        let mut scan = Scan::new(from.engine(), from.map());
        while let Some(entry) = scan.next_entry() {
            match entry {
                Ok(entry) => to.expiring(entry.expires_at()).set(entry.key(), entry.value())?,
                Err(error) if asked.skip_damaged && error.is_corruption() => report.skip(&error),
                Err(error) => return Err(error),
            }
            part.record()?;
        }
        // An entry whose record was unreadable when its page was split is in two pages, and not counted.
        let found = to.len() + scan.expired();
        if found > records || found + (report.skipped_total - skipped) < records {
            let location = Location::file(&index_path(self.path));
            return Err(Error::corrupt("store", location, some(records, "record"), found));
        }
        Ok(())
    }

    /// The capacity of a new table that will hold a number of records.
    fn capacity_for(&self, records: u64) -> u64 {
        capacity_for(records, &self.options.tuning)
    }

    /// The new store, which continues the old one. Its main table has room for this number of records.
    fn open_new(&self, records: u64) -> Result<Store> {
        let IndexHeader { uuid, hash_key, generation, geometry, .. } = self.header;
        let origin = Origin {
            uuid,
            hash_key,
            generation: generation + 2,
            log_dir: self.log_dir(),
            home: self.path.to_path_buf(),
        };
        let tuning =
            Tuning { home_buckets: geometry.homes as u8, stash_buckets: geometry.stash as u8, ..self.options.tuning };
        let capacity = self.capacity_for(records);
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
