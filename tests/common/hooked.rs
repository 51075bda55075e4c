//! The real disk, with something that happens before its calls.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tophash::sys::{Disk, DiskFile, IndexMap, LockMode, LockOutcome, LogMap, OpenMode, PathKind, RealDisk};

/// What happens before a call of the disk.
pub type Hook = dyn Fn(&'static str, &Path) -> io::Result<()> + Send + Sync;

/// Hooks are called for `create`, `write`, `set_len`, `allocate` and `sync`.
#[derive(Clone)]
pub struct Hooked(pub Arc<Hook>);

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

#[derive(Debug)]
struct HookedFile {
    file: Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    hooked: Hooked,
}

impl HookedFile {
    fn hook(&self, call: &'static str) -> io::Result<()> {
        (self.hooked.0)(call, &self.path)
    }
}

impl Disk for Hooked {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            (self.0)("create", path)?;
        }
        let file = RealDisk.open(path, mode)?;
        Ok(Arc::new(HookedFile { file, path: path.to_path_buf(), hooked: self.clone() }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.read_dir(path)
    }
    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        RealDisk.kind(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        RealDisk.lock(path, mode)
    }
    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        RealDisk.map_anonymous(bytes)
    }
    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        RealDisk.random(buffer)
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.hook("write")?;
        self.file.write_at(buffer, offset)
    }
    fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_mapped_at(buffer, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn allocated(&self) -> io::Result<u64> {
        self.file.allocated()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.hook("set_len")?;
        self.file.set_len(bytes)
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.hook("allocate")?;
        self.file.allocate(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.hook("sync")?;
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.hook("sync")?;
        self.file.sync_all()
    }
    fn map_private(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        self.file.map_private(offset, bytes)
    }
    fn map_fresh(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        self.file.map_fresh(offset, bytes)
    }
    fn map_log(&self, bytes: usize, written: u64, writable: bool) -> io::Result<LogMap> {
        self.file.map_log(bytes, written, writable)
    }
}
