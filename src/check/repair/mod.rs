//! Building a new store from whatever of a damaged one's log is valid.
//!
//! The log is the truth, so the index is not needed; nothing of it gets into the new store. Nor is the old store
//! changed: all is read by pread, under a shared lock, and not even the lock file is written.
//!
//! 1. **source**: whose store it is. Header, journal and meta data are read as verify reads them; if they are
//!    not whole, the segments have to say it.
//! 2. **plan**: which segments the log consists of, in which order, where each ends, and up to where anything
//!    declares it durable.
//! 3. **salvage**: every record that validates, in the order of the log, goes into the new store (**target**,
//!    **value**), where the last change of each key counts. Damage is skipped and noted (**report**, **losses**). Each table
//!    is saved under the name that the catalog gives it at the end of the log (**names**).
//! 4. **entries**: if the index can be read, it tells how many keys had their value in what is lost.
//! 5. The new store is closed and gets its name.

mod entries;
mod losses;
mod name_reader;
mod names;
mod plan;
mod report;
mod salvage;
mod source;
mod taker;
mod target;
mod value;

use std::ops::ControlFlow;
use std::path::Path;

pub use report::{Loss, LostKey, LostTable, Report};

use self::plan::Plan;
use self::salvage::Salvage;
use self::source::Source;
use self::target::Target;
use super::sink::Sink;
use crate::error::{Error, Result};
use crate::layout::lock_path;
use crate::options::Options;
use crate::progress::Progress;
use crate::sys::{Disk, LockMode, LockOutcome, RealDisk};
use crate::tuning::SyncPolicy;

/// Builds a new store at `new_path` from whatever of the log of the store at `path` is valid. See
/// [`repair_with`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # let store = tophash::Store::open(&path)?;
/// # store.insert("a", "1")?;
/// # store.close()?;
/// let report = tophash::repair::repair(&path, path.with_extension("repaired"))?;
/// println!("{} keys saved", report.keys);
/// for lost in &report.lost_keys {
///     println!("the last change of {} is lost", lost.key);
/// }
/// assert!(report.is_complete());
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Errors
/// As [`repair_with`].
pub fn repair(path: impl AsRef<Path>, new_path: impl AsRef<Path>) -> Result<Report> {
    repair_with(path, new_path, Progress::ignore)
}

/// Builds a new store at `new_path`, where there must be nothing, from whatever of the log of the store at `path`
/// is valid. The old store is not changed. Index and journal are not needed; where they are whole, they help to
/// tell damage from the end of the log. `progress` is told how many bytes were read, and ends the repair by returning
/// [`ControlFlow::Break`].
///
/// Damage is no error: what was lost is in the report. Each key gets the value of its last change that is left; the
/// report says how many keys may have had a later one. Of a batch that is known to have been committed, every record
/// that validates is saved; one of which nothing says that it was durable is saved whole or not at all.
///
/// Each table is saved under its name. Records of a table that was dropped are left out, and so are those below a clearing of
/// their table. Where the record with a table's name can be lost, the table's records are saved under another name, which is in
/// [`Report::lost_tables`].
///
/// The new store needs as much disk as the old one. It has its name only when it is whole; after an error nothing
/// of it is left. A process that is killed leaves `NEW.unfinished-` and sixteen hex digits beside it, which may be
/// removed; the next repair to the same name lists it in [`Report::unfinished`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// use tophash::repair::repair_with;
/// let report = repair_with(&path, path.with_extension("repaired"), |progress| {
///     eprint!("\r{} of {} bytes", progress.done, progress.total);
///     std::ops::ControlFlow::Continue(())
/// })?;
/// assert!(report.is_complete());
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Errors
/// If the repair cannot be carried out: [`Error::NotFound`], [`Error::NotAStore`] (neither a header nor a segment
/// can be found), [`Error::Locked`] (a writer has the store open), [`Error::NewerFormat`], [`Error::Io`] (also if
/// there is something at `new_path`), [`Error::DiskFull`]; [`Error::Aborted`] if `progress` said so.
pub fn repair_with(
    path: impl AsRef<Path>,
    new_path: impl AsRef<Path>,
    progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    repair_disk(&RealDisk, path, new_path, &Options::new(), progress)
}

/// Repairs a store on any disk into one with any options. See [`repair_with`].
///
/// # Errors
/// As [`repair_with`].
#[doc(hidden)]
pub fn repair_disk(
    disk: &dyn Disk,
    path: impl AsRef<Path>,
    new_path: impl AsRef<Path>,
    options: &Options,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let (path, new_path) = (path.as_ref(), new_path.as_ref());
    let anchored = super::hold_directory(disk, path)?;
    let disk = anchored.as_deref().unwrap_or(disk);
    let mut report = Report::default();
    let lock_file = lock_path(path);
    let _lock = match disk.lock(&lock_file, LockMode::Shared) {
        Ok(LockOutcome::Held(lock)) => Some(lock),
        Ok(LockOutcome::Busy(holder)) => return Err(Error::locked(path, holder)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            report.unlocked = true;
            None
        }
        Err(error) => return Err(Error::io("lock", &lock_file, error)),
    };
    let mut sink = Sink::new("repair", &mut progress);
    let source = Source::find(disk, path, &mut sink, &mut report)?;
    report.uuid = source.uuid.to_string();
    let plan = Plan::make(disk, &source, &mut report)?;
    sink.expect(plan.bytes());
    let expected = source.state.as_ref().map_or(0, |state| state.meta.main().records).min(plan.bytes() / 16);
    let options = options.clone().create(true).create_new(true).read_only(false);
    let options = options.sync(SyncPolicy::Manual).capacity(expected);
    let mut target = Target::create(&options, path, new_path, &mut report)?;
    let ranges = {
        let mut salvage = Salvage {
            disk,
            dir: &source.dir,
            uuid: source.uuid,
            plan: &plan,
            trusted: source.state.is_some(),
            sink: &mut sink,
            report: &mut report,
            target: &mut target,
            meta: source.state.as_ref().map(|state| &state.meta),
            ended: false,
            ranges: Vec::new(),
        };
        salvage.run()?;
        salvage.ranges
    };
    if let Some(state) = &source.state {
        report.index_entries_lost = entries::count_lost(disk, &source.dir, state, ranges, &mut sink)?;
    }
    report.bytes_read = sink.report.bytes_read;
    target.finish(disk, &mut report)?;
    Ok(report)
}
