//! Files and locks of the real disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::access::{self, Access};
use super::at::At;
use super::{DiskFile, IndexMap, LockGuard, LockHolder, LockMode, LockOutcome, LogMap, locks, mapping};
pub(super) fn file(file: File) -> io::Result<Arc<dyn DiskFile>> {
    Ok(Arc::new(RealFile { file: Arc::new(file) }))
}

/// Locks a lock file, and the directory it lies in: somebody may remove the file while it is locked and make another
/// one, and the two would be locked by two. The directory they share.
pub(super) fn lock(at: &At<'_>, directory: Arc<OwnedFd>, mode: LockMode, access: Access) -> io::Result<LockOutcome> {
    let (exclusive, operation) = match mode {
        LockMode::Exclusive => (true, FlockOperation::NonBlockingLockExclusive),
        LockMode::Shared => (false, FlockOperation::NonBlockingLockShared),
    };
    let mut file = open_lock(at, exclusive, access)?;
    if !try_lock(&file, operation)? {
        if let Some(holder) = locks::holder(&file) {
            return Ok(LockOutcome::Busy(holder));
        }
        // Readers leave the last writer's id in the file. If a reader's lock can be had, it is readers.
        if try_lock(&file, FlockOperation::NonBlockingLockShared)? {
            return Ok(LockOutcome::Busy(LockHolder { pid: None, reading: true }));
        }
        let mut text = String::new();
        let _ = (&mut file).take(32).read_to_string(&mut text);
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        return Ok(LockOutcome::Busy(LockHolder { pid, reading: false }));
    }
    let owner = std::process::id();
    let held = try_lock(&directory, operation)?;
    let guard = RealLock { file, directory, owner };
    if !held {
        return Ok(LockOutcome::Busy(locks::holder(&guard.directory).unwrap_or_default()));
    }
    // A second name of the file can be anything of anybody's: it is not written to.
    if exclusive && guard.file.metadata()?.nlink() == 1 {
        // The id is a courtesy for error messages: a full disk must not keep a store from opening.
        // Always as long, so that the file need not be cut off first, which takes longer than the rest of an open.
        let _ = guard.file.write_all_at(format!("{owner:>10}\n").as_bytes(), 0);
    }
    Ok(LockOutcome::Held(Box::new(guard)))
}

fn open_lock(at: &At<'_>, exclusive: bool, access: Access) -> io::Result<File> {
    loop {
        match access::open_file(at, exclusive) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && exclusive => {}
            other => return other,
        }
        match access::create_file(at, access) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
}

/// False if somebody else has it locked.
fn try_lock(file: &impl AsFd, operation: FlockOperation) -> io::Result<bool> {
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
    directory: Arc<OwnedFd>,
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
