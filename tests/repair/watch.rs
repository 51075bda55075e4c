//! The real disk, which refuses to be written to or mapped, can have a block that cannot be read, and can be short of
//! descriptors and memory for a moment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::passed_on::passed_on;
use tophash::sys::{Disk, DiskFile, IndexMap, LockMode, LockOutcome, LogMap, OpenMode, RealDisk};

#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// A file, and the number of its block of 4096 bytes that cannot be read.
    pub bad: Option<(PathBuf, u64)>,
    pub short: Arc<Short>,
}

/// A lack of the moment: calls with these numbers fail.
#[derive(Debug)]
pub struct Short {
    calls: AtomicU64,
    fails: std::ops::Range<u64>,
    /// What an open fails with, if it does, and a read.
    open: Option<i32>,
    read: i32,
}

impl Default for Short {
    fn default() -> Self {
        Short::new(0..0)
    }
}

impl Short {
    pub fn new(fails: std::ops::Range<u64>) -> Self {
        Short { calls: AtomicU64::new(0), fails, open: Some(EMFILE), read: ENOMEM }
    }

    /// A device that refuses the reads among the calls with these numbers.
    pub fn of_device(fails: std::ops::Range<u64>) -> Self {
        Short { open: None, read: EIO, ..Short::new(fails) }
    }

    /// Calls up to now.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn call(&self, code: Option<i32>) -> io::Result<()> {
        let fails = self.fails.contains(&self.calls.fetch_add(1, Ordering::Relaxed));
        code.filter(|_| fails).map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }
}

/// An error of the device; too many open files in this process; not enough memory.
const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOMEM: i32 = 12;

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn DiskFile>,
    bad: Option<u64>,
    short: Arc<Short>,
}

impl Disk for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        assert_eq!(mode, OpenMode::Read, "{}", path.display());
        self.short.call(self.short.open)?;
        let bad = self.bad.as_ref().filter(|(file, _)| file == path).map(|&(_, block)| block);
        Ok(Arc::new(WatchedFile { inner: RealDisk.open(path, mode)?, bad, short: self.short.clone() }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        panic!("create {}", path.display())
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.short.call(self.short.open)?;
        RealDisk.read_dir(path)
    }
    fn rename(&self, from: &Path, _to: &Path) -> io::Result<()> {
        panic!("rename {}", from.display())
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        panic!("unlink {}", path.display())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        panic!("sync {}", path.display())
    }
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        assert_eq!(mode, LockMode::Shared);
        RealDisk.lock(path, mode)
    }
    fn map_anonymous(&self, _bytes: usize) -> io::Result<IndexMap> {
        panic!("a repair maps nothing of the old store")
    }
    passed_on!(RealDisk: kind random);
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.short.call(Some(self.short.read))?;
        let touched = offset / 4096..(offset + buffer.len() as u64).div_ceil(4096);
        match self.bad {
            Some(block) if touched.contains(&block) => Err(io::Error::other("medium error")),
            _ => self.inner.read_at(buffer, offset),
        }
    }
    fn write_at(&self, _buffer: &[u8], _offset: u64) -> io::Result<usize> {
        panic!("a repair writes nothing")
    }
    fn write_mapped_at(&self, _buffer: &[u8], _offset: u64) -> io::Result<usize> {
        panic!("a repair writes nothing")
    }
    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        panic!("a repair changes no length")
    }
    fn allocate(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        panic!("a repair allocates nothing")
    }
    fn sync_data(&self) -> io::Result<()> {
        panic!("a repair syncs nothing")
    }
    fn sync_all(&self) -> io::Result<()> {
        panic!("a repair syncs nothing")
    }
    fn map_private(&self, _offset: u64, _bytes: usize) -> io::Result<IndexMap> {
        panic!("a repair maps nothing")
    }
    fn map_fresh(&self, _offset: u64, _bytes: usize) -> io::Result<IndexMap> {
        panic!("a repair maps nothing")
    }
    fn map_log(&self, _bytes: usize, _written: u64, _writable: bool) -> io::Result<LogMap> {
        panic!("a repair maps nothing")
    }
    passed_on!(self.inner: len allocated);
}
