//! The real disk, with something that happens before its calls.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::passed_on::passed_on;
use tophash::sys::{Disk, DiskFile, OpenMode, RealDisk};

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
    passed_on!(RealDisk: create_dir read_dir kind rename unlink sync_dir lock map_anonymous random);
}

impl DiskFile for HookedFile {
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.hook("write")?;
        self.file.write_at(buffer, offset)
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
    passed_on!(self.file: read_at write_mapped_at len allocated map_private map_fresh map_log);
}
