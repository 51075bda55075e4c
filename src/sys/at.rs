//! A name as the system is asked for it: in a directory that is held, or as a path.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::PathKind;

/// The directory in which a name was to be found or made has been removed. Inside an [`io::Error`].
#[derive(Debug)]
pub(crate) struct Removed;

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the directory was removed")
    }
}

impl std::error::Error for Removed {}

/// A name, and the directory from which it is resolved.
#[derive(Debug)]
pub(super) struct At<'p> {
    /// `None`: the working directory, for a path that belongs to no store that is open.
    dir: Option<Arc<OwnedFd>>,
    name: &'p Path,
}

impl<'p> At<'p> {
    /// A name in a directory that is held.
    pub(super) fn new(dir: Arc<OwnedFd>, name: &'p Path) -> Self {
        At { dir: Some(dir), name }
    }

    /// A path, resolved by the system.
    pub(super) fn path(path: &'p Path) -> Self {
        At { dir: None, name: path }
    }

    pub(super) fn name(&self) -> &Path {
        self.name
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(CWD, |dir| dir.as_fd())
    }

    /// Calls the system with the directory and the name.
    pub(super) fn call<T>(
        &self,
        mut call: impl FnMut(BorrowedFd<'_>, &Path) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        retry_on_intr(|| call(self.dir(), self.name)).map_err(|error| self.explain(error))
    }

    /// Tells a name that is not there from a directory that is no more.
    fn explain(&self, error: Errno) -> io::Error {
        match &self.dir {
            Some(dir) if error == Errno::NOENT && is_removed(dir) => io::Error::other(Removed),
            _ => error.into(),
        }
    }

    /// Opens what the name stands for. The flags say how; the mode counts if it is made.
    pub(super) fn open(&self, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.call(|dir, name| rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, mode))
    }

    /// Opens a directory, for syncing it and for finding names in it.
    pub(super) fn open_dir(&self, flags: OFlags) -> io::Result<OwnedFd> {
        self.open(OFlags::RDONLY | OFlags::DIRECTORY | flags, Mode::empty())
    }

    /// What the name itself stands for, a symbolic link not followed. `None` if there is nothing.
    pub(super) fn look(&self) -> io::Result<Option<Stat>> {
        self.stat(AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn stat(&self, flags: AtFlags) -> io::Result<Option<Stat>> {
        match retry_on_intr(|| rustix::fs::statat(self.dir(), self.name, flags)) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn kind(&self, flags: AtFlags) -> io::Result<PathKind> {
        Ok(match self.stat(flags)? {
            None => PathKind::Missing,
            Some(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() => PathKind::Directory,
            Some(_) => PathKind::Other,
        })
    }

    pub(super) fn make_dir(&self, mode: Mode) -> io::Result<()> {
        self.call(|dir, name| rustix::fs::mkdirat(dir, name, mode))
    }

    /// Removes a file's name.
    pub(super) fn unlink(&self) -> io::Result<()> {
        self.remove(AtFlags::empty())
    }

    pub(super) fn remove(&self, flags: AtFlags) -> io::Result<()> {
        // The plain error: a name that is no more was removed, whoever did it.
        Ok(retry_on_intr(|| rustix::fs::unlinkat(self.dir(), self.name, flags))?)
    }
}

/// True if a directory has no name any more.
pub(super) fn is_removed(dir: &OwnedFd) -> bool {
    rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_nlink == 0)
}
