//! The real disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::access::{self, Access, AccessDisk};
use super::{Disk, DiskFile, IndexMap, LockGuard, LockMode, LockOutcome, LogMap, OpenMode, PathKind, mapping};

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        open(path, mode, Access::default())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        access::create_dir(path, Access::default())
    }

    fn with_access(&self, access: Access) -> Option<Arc<dyn Disk>> {
        Some(Arc::new(AccessDisk(access)))
    }

    fn access_of(&self, path: &Path) -> io::Result<Option<Access>> {
        access::access_of(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        kind(fs::metadata(path))
    }

    fn kind_of_name(&self, path: &Path) -> io::Result<PathKind> {
        kind(fs::symlink_metadata(path))
    }

    fn len_of(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Err(access::not_ordinary()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, now) = (fs::metadata(from)?, fs::metadata(to)?);
        if (from.uid(), from.gid()) != (now.uid(), now.gid()) {
            match std::os::unix::fs::chown(to, Some(from.uid()), Some(from.gid())) {
                // Only root gives files away; whoever else may open the store goes on owning it.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        if from.mode() & 0o7777 == now.mode() & 0o7777 {
            return Ok(());
        }
        fs::set_permissions(to, from.permissions())
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        lock(path, mode, Access::default())
    }

    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        mapping::anonymous(bytes)
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(io::Error::other)
    }
}

pub(super) fn open(path: &Path, mode: OpenMode, access: Access) -> io::Result<Arc<dyn DiskFile>> {
    let file = match mode {
        OpenMode::Read => access::open_file(path, false)?,
        OpenMode::Write => access::open_file(path, true)?,
        OpenMode::CreateNew => access::create_file(path, access)?,
    };
    Ok(Arc::new(RealFile { file: Arc::new(file) }))
}

fn kind(meta: io::Result<fs::Metadata>) -> io::Result<PathKind> {
    match meta {
        Ok(meta) if meta.is_dir() => Ok(PathKind::Directory),
        Ok(_) => Ok(PathKind::Other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(PathKind::Missing),
        Err(e) => Err(e),
    }
}

/// Locks a lock file, and the directory it lies in: somebody may remove the file while it is locked and make another
/// one, and the two would be locked by two. The directory they share.
pub(super) fn lock(path: &Path, mode: LockMode, access: Access) -> io::Result<LockOutcome> {
    let (exclusive, operation) = match mode {
        LockMode::Exclusive => (true, FlockOperation::NonBlockingLockExclusive),
        LockMode::Shared => (false, FlockOperation::NonBlockingLockShared),
    };
    let mut file = open_lock(path, exclusive, access)?;
    if !try_lock(&file, operation)? {
        // Readers leave the last writer's id in the file. If a reader's lock can be had, it is readers.
        if try_lock(&file, FlockOperation::NonBlockingLockShared)? {
            return Ok(LockOutcome::Busy(None));
        }
        let mut text = String::new();
        let _ = (&mut file).take(32).read_to_string(&mut text);
        return Ok(LockOutcome::Busy(text.split_whitespace().next().and_then(|pid| pid.parse().ok())));
    }
    let owner = std::process::id();
    let directory = File::open(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let held = try_lock(&directory, operation)?;
    let guard = RealLock { file, directory, owner };
    if !held {
        return Ok(LockOutcome::Busy(None));
    }
    // A second name of the file can be anything of anybody's: it is not written to.
    if exclusive && guard.file.metadata()?.nlink() == 1 {
        // The id is a courtesy for error messages: a full disk must not keep a store from opening.
        // Always as long, so that the file need not be cut off first, which takes longer than the rest of an open.
        let _ = guard.file.write_all_at(format!("{owner:>10}\n").as_bytes(), 0);
    }
    Ok(LockOutcome::Held(Box::new(guard)))
}

fn open_lock(path: &Path, exclusive: bool, access: Access) -> io::Result<File> {
    loop {
        match access::open_file(path, exclusive) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && exclusive => {}
            other => return other,
        }
        match access::create_file(path, access) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.exists() => {}
            other => return other,
        }
    }
}

/// False if somebody else has it locked.
fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Two flocks, held until dropped.
#[derive(Debug)]
struct RealLock {
    file: File,
    directory: File,
    owner: u32,
}

impl LockGuard for RealLock {}

impl Drop for RealLock {
    /// Unlocks, rather than only closing: a child process that is just being spawned holds a copy of the
    /// descriptors until it executes its program. A forked child must leave its parent's locks alone.
    fn drop(&mut self) {
        if std::process::id() == self.owner {
            // Closing follows; if this fails it does the same, a little later.
            let _ = rustix::fs::flock(&self.directory, FlockOperation::NonBlockingUnlock);
            let _ = rustix::fs::flock(&self.file, FlockOperation::NonBlockingUnlock);
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: Arc<File>,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buffer, offset)
    }

    fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        // Mapping and writes go to the same page cache.
        self.file.write_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // Moves the descriptor's position, which nobody uses.
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that cannot tell: everything may be data.
            Err(_) => Ok(Some(offset)),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, bytes) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn map_private(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        mapping::private(&self.file, offset, bytes)
    }

    fn map_fresh(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        mapping::fresh(&self.file, offset, bytes)
    }

    fn map_log(&self, bytes: usize, written: u64, writable: bool) -> io::Result<LogMap> {
        if writable {
            mapping::log_writable(&self.file, bytes, written)
        } else {
            mapping::log(&self.file, bytes, written)
        }
    }
}

/// The memory that this process may use: the smallest of the machine's and its control groups' limits.
pub(crate) fn memory_limit() -> u64 {
    let number = |path: &Path| small_file(path)?.trim().parse::<u64>().ok();
    let machine = rustix::system::sysinfo();
    let mut limit = (machine.totalram as u64).saturating_mul(machine.mem_unit.into());
    // Control group v2: every ancestor's limit counts. v1: the memory controller's own file.
    let group = small_file(Path::new("/proc/self/cgroup")).unwrap_or_default();
    for line in group.lines() {
        if let Some(path) = line.strip_prefix("0::") {
            let mut path = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
            while path.starts_with("/sys/fs/cgroup") {
                limit = limit.min(number(&path.join("memory.max")).unwrap_or(u64::MAX));
                if !path.pop() {
                    break;
                }
            }
        }
    }
    limit.min(number(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes")).unwrap_or(u64::MAX))
}

/// A file of the kernel's, which has no length: without room from the start it would be read in tiny pieces.
fn small_file(path: &Path) -> Option<String> {
    let mut text = String::with_capacity(4096);
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}
