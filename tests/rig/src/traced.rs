//! A disk that writes down what it is asked for, around any other.
//!
//! The two implementations of [`Disk`], the real one and the simulated one, are held against each other with it: one
//! script, the same random numbers, and the calls must be the same, one after the other, and so must the bytes that a
//! file holds whenever it is synced, those included that were stored through mappings.

use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tophash::sys::{Disk, DiskFile, IndexMap, LockMode, LockOutcome, LogMap, OpenMode, PathKind};

use crate::image::PAGE;
use crate::random::Random;

/// See the module.
#[derive(Clone)]
pub struct TracedDisk {
    inner: Arc<dyn Disk>,
    shared: Arc<Mutex<Trace>>,
}

struct Trace {
    /// Names are told relative to it.
    root: PathBuf,
    calls: Vec<String>,
    random: Random,
    /// Every call fails: the process is dead.
    dead: bool,
}

impl Debug for TracedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TracedDisk({:?})", self.inner)
    }
}

impl TracedDisk {
    /// A disk around another one. Names are written down relative to `root`; random numbers come from the seed.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>, root: &Path, seed: u64) -> Self {
        let trace = Trace { root: root.to_path_buf(), calls: Vec::new(), random: Random::new(seed), dead: false };
        TracedDisk { inner, shared: Arc::new(Mutex::new(trace)) }
    }

    /// The calls so far, which are forgotten.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().calls)
    }

    /// Lets every call fail, or no longer.
    pub fn set_dead(&self, dead: bool) {
        self.shared.lock().dead = dead;
    }

    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.shared.lock().root).unwrap_or(path).display().to_string()
    }

    fn note(&self, call: String) -> io::Result<()> {
        let mut trace = self.shared.lock();
        if trace.dead {
            return Err(io::Error::other("the process is dead"));
        }
        trace.calls.push(call);
        Ok(())
    }
}

impl Disk for TracedDisk {
    fn anchored(&self, home: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        let inner = self.inner.anchored(home)?;
        Ok(inner.map(|inner| -> Arc<dyn Disk> { Arc::new(TracedDisk { inner, ..self.clone() }) }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let name = self.name(path);
        self.note(format!("open {name} {mode:?}"))?;
        Ok(Arc::new(TracedFile { inner: self.inner.open(path, mode)?, disk: self.clone(), name }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.note(format!("create_dir {}", self.name(path)))?;
        self.inner.create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.note(format!("read_dir {}", self.name(path)))?;
        let mut names = self.inner.read_dir(path)?;
        // A directory has no order, and the engine may rely on none.
        names.sort_unstable();
        self.note(format!("names {names:?}"))?;
        Ok(names)
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        let kind = self.inner.kind(path)?;
        self.note(format!("kind {} = {kind:?}", self.name(path)))?;
        Ok(kind)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(format!("rename {} to {}", self.name(from), self.name(to)))?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.note(format!("unlink {}", self.name(path)))?;
        self.inner.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.note(format!("remove_dir {}", self.name(path)))?;
        self.inner.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note(format!("sync_dir {}", self.name(path)))?;
        self.inner.sync_dir(path)
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(format!("copy_owner {} {}", self.name(from), self.name(to)))?;
        self.inner.copy_owner(from, to)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        self.note(format!("lock {} {mode:?}", self.name(path)))?;
        self.inner.lock(path, mode)
    }

    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        self.note(format!("map_anonymous {bytes}"))?;
        self.inner.map_anonymous(bytes)
    }

    /// The clock stands still, so that the same script writes the same bytes.
    fn now(&self) -> u64 {
        crate::script::NOW
    }
    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.note(format!("random {}", buffer.len()))?;
        let mut trace = self.shared.lock();
        for bytes in buffer.chunks_mut(8) {
            let word = trace.random.word().to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct TracedFile {
    inner: Arc<dyn DiskFile>,
    disk: TracedDisk,
    name: String,
}

impl TracedFile {
    fn note(&self, call: &str, numbers: &[u64]) -> io::Result<()> {
        self.disk.note(format!("{call} {} {numbers:?}", self.name))
    }

    /// What the file holds: length and checksum.
    fn content(&self) -> io::Result<[u64; 2]> {
        let len = self.inner.len()?;
        let mut bytes = vec![0; len as usize];
        let mut done = 0;
        while done < bytes.len() {
            match self.inner.read_at(&mut bytes[done..], done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok([len, crc32fast::hash(&bytes).into()])
    }
}

impl DiskFile for TracedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.inner.read_at(buffer, offset)?;
        let crc = crc32fast::hash(&buffer[..read]).into();
        self.note("read_at", &[offset, buffer.len() as u64, read as u64, crc])?;
        Ok(read)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.note("write_at", &[offset, buffer.len() as u64, crc32fast::hash(buffer).into()])?;
        self.inner.write_at(buffer, offset)
    }

    fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.note("write_mapped_at", &[offset, buffer.len() as u64, crc32fast::hash(buffer).into()])?;
        self.inner.write_mapped_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        let len = self.inner.len()?;
        self.note("len", &[len])?;
        Ok(len)
    }

    fn allocated(&self) -> io::Result<u64> {
        // Blocks are the file system's own affair. What is done because of them is to be the same, so the answer is.
        self.note("allocated", &[])?;
        Ok(self.inner.len()?.next_multiple_of(4096))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.note("next_data", &[offset])?;
        // By the bytes: file systems do not agree whether a page is data that was allocated, and read through a mapping.
        let mut page = [0; PAGE];
        for number in offset / PAGE as u64..self.inner.len()?.div_ceil(PAGE as u64) {
            let start = number * PAGE as u64;
            let read = self.inner.read_at(&mut page, start)?;
            if page[..read].iter().any(|&byte| byte != 0) {
                return Ok(Some(offset.max(start)));
            }
        }
        Ok(None)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.note("set_len", &[bytes])?;
        self.inner.set_len(bytes)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.note("allocate", &[offset, bytes])?;
        self.inner.allocate(offset, bytes)
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.note("punch_hole", &[offset, bytes])?;
        self.inner.punch_hole(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note("sync_data", &self.content()?)?;
        self.inner.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.note("sync_all", &self.content()?)?;
        self.inner.sync_all()
    }

    fn map_private(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        self.note("map_private", &[offset, bytes as u64])?;
        self.inner.map_private(offset, bytes)
    }

    fn map_fresh(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        self.note("map_fresh", &[offset, bytes as u64])?;
        self.inner.map_fresh(offset, bytes)
    }

    fn map_log(&self, bytes: usize, written: u64, writable: bool) -> io::Result<LogMap> {
        self.note("map_log", &[bytes as u64, written, writable.into()])?;
        self.inner.map_log(bytes, written, writable)
    }
}
