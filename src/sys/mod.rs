//! The operating system: files, mappings, locks. The only module with `unsafe` code.
//!
//! Everything above works on two traits, [`Disk`] and [`DiskFile`], at the level of system calls. The real
//! implementation is [`RealDisk`]; crash tests plug a simulated disk in. Memory comes in two shapes:
//!
//! * [`IndexMap`]: a *private* mapping (or anonymous memory), seen as a slice of `AtomicU64`. Whatever is
//!   stored in it never reaches the file by itself.
//! * [`LogMap`]: a *shared* mapping with a watermark. Bytes below the watermark never change and can be read
//!   by anybody; bytes above it are written by the one [`LogWriter`].
//!
//! The `pins` module lets readers hold on to log mappings without a lock and without ever making anybody wait.
#![allow(unsafe_code)]

mod access;
mod anchor;
mod at;
mod buffer;
mod file;
mod fork;
mod limits;
mod locks;
mod map;
mod mapping;
pub(crate) mod memory;
pub(crate) mod pins;
mod real;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use access::Access;
pub(crate) use at::Removed;
pub(crate) use buffer::PageBuffer;
pub(crate) use fork::ForkGuard;
pub(crate) use limits::memory_limit;
pub(crate) use map::prefetch_word;
pub use map::{IndexMap, LogMap, LogWriter};
#[doc(hidden)]
pub use memory::{Advice, Advise, IndexMemory, LogMemory, LogView};
pub use real::RealDisk;

/// The size of index pages, journal blocks and of whatever is mapped.
pub const PAGE_BYTES: usize = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; the file must not exist (not even as a symbolic link).
    CreateNew,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// A file or anything else that is no directory.
    Other,
}

/// How a store is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// One writer, nobody else.
    Exclusive,
    /// Any number of readers, no writer. The lock file is opened read-only.
    Shared,
}

/// What came of an attempt to lock.
#[derive(Debug)]
pub enum LockOutcome {
    /// Locked until the guard is dropped.
    Held(Box<dyn LockGuard>),
    /// Somebody else holds it.
    Busy(LockHolder),
}

/// Who holds a lock, as far as that can be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockHolder {
    /// A process that holds it: this one, if it is among them.
    pub pid: Option<u32>,
    /// It is held for reading.
    pub reading: bool,
}

/// Holds a lock until dropped.
pub trait LockGuard: Send + Sync + Debug {}

/// A file system, as far as a store needs one.
pub trait Disk: Send + Sync + Debug {
    /// The same disk, with the directory of a store held open: a path that begins with `home` is resolved in that
    /// directory from now on, whatever becomes of its names. Where `home` is inside such a directory already, or
    /// paths cannot lead elsewhere later, `None`.
    fn anchored(&self, _home: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(None)
    }
    /// Milliseconds since 1970: the clock that records expire by. It can jump.
    fn now(&self) -> u64 {
        crate::expiry::system_now()
    }
    /// Opens a file. New files get mode 0600 (less the umask), unless [`with_access`](Disk::with_access) says
    /// otherwise; symbolic links are not followed.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory with mode 0700 (less the umask).
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>>;
    /// The same disk, but new files and directories get these permissions. `None` where there are no permissions.
    fn with_access(&self, _access: Access) -> Option<Arc<dyn Disk>> {
        None
    }
    /// Owner and permissions of a file. `None` if there is no file, or no permissions.
    fn access_of(&self, _path: &Path) -> io::Result<Option<Access>> {
        Ok(None)
    }
    /// What lies at a path, symbolic links followed: for a store's own directory, which may be reached by one.
    fn kind(&self, path: &Path) -> io::Result<PathKind>;
    /// What lies at a path inside a store: a symbolic link is [`PathKind::Other`], wherever it leads to.
    fn kind_of_name(&self, path: &Path) -> io::Result<PathKind> {
        self.kind(path)
    }
    /// The length of an ordinary file, symbolic links not followed; `None` if there is no such file.
    fn len_of(&self, path: &Path) -> io::Result<Option<u64>> {
        match self.open(path, OpenMode::Read) {
            Ok(file) => file.len().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
    /// Renames a file, replacing the target. Durable after [`sync_dir`](Disk::sync_dir) of the directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`sync_dir`](Disk::sync_dir) of the directory.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes a file, or finds that there is none: what was gone before is as good.
    fn unlink_any(&self, path: &Path) -> io::Result<()> {
        match self.unlink(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
    /// Removes an empty directory. Durable after [`sync_dir`](Disk::sync_dir) of its parent.
    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// True if a directory of which a descriptor is held has no name any more.
    fn is_removed(&self, _dir: &Path) -> bool {
        false
    }
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives `to` the owner and the permissions of `from`, as far as this process may; both are files or both
    /// directories, or `from` is a file and `to` takes over what applies to it.
    fn copy_owner(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Locks a lock file and the directory that it lies in; `Exclusive` creates it if need be and writes the process
    /// id into it.
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome>;
    /// Zeroed private memory.
    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap>;
    /// Fills the buffer with random bytes.
    fn random(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// An open file.
#[allow(clippy::len_without_is_empty)] // A system call, not a collection.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes up to `buffer.len()` bytes.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;
    /// The same under a writable mapping of the log, at or above its watermark: the mapping shows the bytes.
    fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Bytes that the file occupies on the disk.
    fn allocated(&self) -> io::Result<u64>;
    /// An offset at or after the given one before which there are only holes, which read as zeroes; `None` if
    /// there are only holes up to the end.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
    /// Sets the length; new bytes are a hole that reads as zeroes.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes sure that writes into the range cannot run out of space; extends the file if need be.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives the blocks of a range back, where the file system can: it reads as zeroes then. The length stays.
    /// Where it cannot, nothing changes.
    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let _ = (offset, bytes);
        Ok(())
    }
    /// Makes the file's bytes durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the file's bytes and its length durable (fsync).
    fn sync_all(&self) -> io::Result<()>;
    /// Maps a part privately, writable in memory only.
    fn map_private(&self, offset: u64, bytes: usize) -> io::Result<IndexMap>;
    /// Memory for a part of the file that holds nothing yet: zeroes, in huge pages where the system has them.
    /// Dropping private pages replaces them by the file's.
    fn map_fresh(&self, offset: u64, bytes: usize) -> io::Result<IndexMap>;
    /// Maps the first `bytes` bytes for sharing with the file. The watermark starts at `written`. For a writable
    /// mapping all of them must have been [allocated](DiskFile::allocate): a store to a hole for which there is no
    /// block ends the process.
    fn map_log(&self, bytes: usize, written: u64, writable: bool) -> io::Result<LogMap>;
}

/// Lets other threads go before the calling one. Only advice: it works without.
pub(crate) fn lower_priority(by: i32) {
    // On Linux a priority is a thread's, and "none" is the calling one.
    #[cfg(target_os = "linux")]
    if let Ok(now) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, now.saturating_add(by));
    }
}

/// Writes much to a file in the background, while others wait for small syncs: what the kernel collects is passed on to the
/// device after each mebibyte, so that their bytes never stand behind more than that.
#[derive(Debug)]
pub(crate) struct Paced<'f> {
    file: &'f dyn DiskFile,
    unsynced: u64,
}

impl<'f> Paced<'f> {
    /// Bytes that may be collected.
    const BYTES: u64 = 1 << 20;

    pub(crate) fn new(file: &'f dyn DiskFile) -> Self {
        Paced { file, unsynced: 0 }
    }

    /// Notes that so many bytes were written. What is written last is not synced here.
    pub(crate) fn wrote(&mut self, bytes: u64) -> io::Result<()> {
        self.unsynced += bytes;
        if self.unsynced < Self::BYTES {
            return Ok(());
        }
        self.unsynced = 0;
        self.file.sync_data()
    }
}

/// Reads exactly `buffer.len()` bytes.
pub(crate) fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends; returns the number of bytes read.
pub(crate) fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Fills the buffer as far as the file and the device allow: blocks that cannot be read are zeroed and passed
/// to `bad`, with their offset. Returns the number of bytes up to the file's end.
pub(crate) fn read_around(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    offset: u64,
    bad: &mut dyn FnMut(u64, io::Error),
) -> usize {
    if let Ok(read) = read_up_to(file, buffer, offset) {
        return read;
    }
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let block = (PAGE_BYTES - at as usize % PAGE_BYTES).min(buffer.len() - done);
        let bytes = &mut buffer[done..done + block];
        match read_up_to(file, bytes, at) {
            Ok(read) if read < block => return done + read,
            Ok(_) => {}
            Err(error) => {
                bytes.fill(0);
                bad(at, error);
            }
        }
        done += block;
    }
    done
}

/// Writes all of `buffer`.
pub(crate) fn write_all_at(file: &dyn DiskFile, buffer: &[u8], offset: u64) -> io::Result<()> {
    write_all(buffer, offset, |rest, at| file.write_at(rest, at))
}

/// The same where the log is mapped.
pub(crate) fn write_mapped_all_at(file: &dyn DiskFile, buffer: &[u8], offset: u64) -> io::Result<()> {
    write_all(buffer, offset, |rest, at| file.write_mapped_at(rest, at))
}

fn write_all(mut buffer: &[u8], mut offset: u64, write: impl Fn(&[u8], u64) -> io::Result<usize>) -> io::Result<()> {
    while !buffer.is_empty() {
        match write(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                buffer = &buffer[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
