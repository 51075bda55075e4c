//! The real disk, with scheduling points, and with a memory of what was synced.
//!
//! A system call takes time in which others run: there is a point before each call, and one inside each sync.
//! What a sync makes durable is what stood in the file when it *began*: that is what this disk notes, so a
//! test can tell whether a record really was durable when its writer was told so.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::common::passed_on::passed_on;
use tophash::sys::{Disk, DiskFile, LogMap, OpenMode, RealDisk};

/// Lets the scheduler choose which task goes on.
pub fn point() {
    shuttle::sync::atomic::AtomicBool::new(false).load(shuttle::sync::atomic::Ordering::SeqCst);
}

/// The moment at which everything happens, in milliseconds since 1970.
const NOW: u64 = 1_700_000_000_000;

/// What was synced last of each file, by a number that the file keeps when it is renamed. Never locked across
/// a scheduling point.
#[derive(Debug, Default)]
struct Durable {
    names: HashMap<PathBuf, usize>,
    contents: Vec<Option<Vec<u8>>>,
    /// The number of further times that there are no blocks for the index.
    refused: u64,
    /// Segment files that were unlinked.
    segments_unlinked: u64,
}

impl Durable {
    /// True if a call is to find a full disk.
    fn refuses(&mut self) -> bool {
        let refuses = self.refused > 0;
        self.refused = self.refused.saturating_sub(1);
        refuses
    }
}

#[derive(Debug, Clone, Default)]
pub struct PointDisk(Arc<Mutex<Durable>>);

#[derive(Debug)]
struct PointFile {
    file: Arc<dyn DiskFile>,
    number: usize,
    is_index: bool,
    durable: Arc<Mutex<Durable>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PointDisk {
    /// Segment files that were unlinked so far.
    pub fn segments_unlinked(&self) -> u64 {
        lock(&self.0).segments_unlinked
    }

    /// The next `calls` calls that ask for blocks for the index find a full disk.
    pub fn refuse_blocks(&self, calls: u64) {
        lock(&self.0).refused = calls;
    }

    /// True if a sync has covered these bytes in some log file that was not unlinked.
    pub fn is_durable(&self, bytes: &[u8]) -> bool {
        let durable = lock(&self.0);
        let is_log = |name: &&PathBuf| name.extension().is_some_and(|extension| extension == "log");
        durable.names.keys().filter(is_log).any(|name| {
            let content = durable.contents[durable.names[name]].as_ref();
            content.is_some_and(|content| content.windows(bytes.len()).any(|window| window == bytes))
        })
    }
}

impl PointFile {
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        point();
        let mut content = vec![0; self.file.len()? as usize];
        self.file.read_at(&mut content, 0)?;
        point();
        sync()?;
        lock(&self.durable).contents[self.number] = Some(content);
        Ok(())
    }
}

impl Disk for PointDisk {
    /// The clock stands still, so that a schedule can be repeated.
    fn now(&self) -> u64 {
        NOW
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        point();
        let file = RealDisk.open(path, mode)?;
        let mut durable = lock(&self.0);
        let new = durable.contents.len();
        let number = *durable.names.entry(path.to_path_buf()).or_insert(new);
        if number == new {
            durable.contents.push(None);
        }
        let is_index = path.ends_with("index");
        Ok(Arc::new(PointFile { file, number, is_index, durable: Arc::clone(&self.0) }))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        // The order of a real directory is nobody's choice, and would not repeat.
        RealDisk.read_dir(path).map(|mut names| {
            names.sort();
            names
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        point();
        RealDisk.rename(from, to)?;
        let mut durable = lock(&self.0);
        if let Some(number) = durable.names.remove(from) {
            durable.names.insert(to.to_path_buf(), number);
        }
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        point();
        RealDisk.unlink(path)?;
        let mut durable = lock(&self.0);
        durable.names.remove(path);
        durable.segments_unlinked += u64::from(path.extension().is_some_and(|extension| extension == "log"));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        point();
        RealDisk.sync_dir(path)
    }
    passed_on!(RealDisk: create_dir kind lock map_anonymous random);
}

impl DiskFile for PointFile {
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        point();
        self.file.write_at(buffer, offset)
    }

    fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        point();
        self.file.write_mapped_at(buffer, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        point();
        self.file.set_len(bytes)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        point();
        if self.is_index && lock(&self.durable).refuses() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(offset, bytes)
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        point();
        self.file.punch_hole(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_all())
    }

    fn map_log(&self, bytes: usize, written: u64, writable: bool) -> io::Result<LogMap> {
        point();
        self.file.map_log(bytes, written, writable)
    }
    passed_on!(self.file: read_at len allocated next_data map_private map_fresh);
}
