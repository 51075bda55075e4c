//! Who may use the files of a store, and how a file is opened so that it is no other.
//!
//! A new store gets the permissions that its opener chose, less the umask. Later files of a store get those of its index,
//! whoever makes them and whatever the umask: a store that was opened once by root, or by a command without the
//! service's options, stays usable for those who could use it before.
//!
//! * A file is **created** by `O_EXCL`: what is there already, a link to somewhere else included, is an error.
//! * A file is **opened** by `O_NOFOLLOW`, and must be an ordinary one: a link, a pipe (which would make the open wait
//!   for ever) or a device is an error.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::{Disk, DiskFile, IndexMap, LockMode, LockOutcome, OpenMode, PathKind, RealDisk, real};

/// Owner and permissions of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permissions of files. Whoever may read or write a store's files may do so with its directories.
    pub mode: u32,
    /// Owner and group, if they are to be those of another file; then the umask takes nothing.
    pub owner: Option<(u32, u32)>,
}

impl Default for Access {
    fn default() -> Self {
        Access { mode: 0o600, owner: None }
    }
}

impl Access {
    /// The permissions for a directory: to read files, one must be able to reach them.
    fn dir_mode(self) -> u32 {
        self.mode | (self.mode & 0o444) >> 2
    }

    /// Makes a file that this process has just created what it is to be. It was made with no more permissions.
    fn apply(self, file: &File, mode: u32) -> io::Result<()> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (user, group) {
            match std::os::unix::fs::fchown(file, Some(user), Some(group)) {
                // Only root gives files away; whoever else may open the store goes on owning what it makes.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        if now.mode() & 0o777 == mode { Ok(()) } else { file.set_permissions(Permissions::from_mode(mode)) }
    }
}

/// Flags of every open. Without `NONBLOCK` a pipe in the place of a file would make the open wait; files ignore it.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

fn ordinary(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(not_ordinary())
}

pub(super) fn not_ordinary() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no ordinary file")
}

/// Opens a file that exists.
pub(super) fn open_file(path: &Path, write: bool) -> io::Result<File> {
    ordinary(OpenOptions::new().read(true).write(write).custom_flags(flags()).open(path)?)
}

/// Creates a file.
pub(super) fn create_file(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(access.mode).custom_flags(flags());
    let file = options.open(path)?;
    access.apply(&file, access.mode)?;
    Ok(file)
}

/// Creates a directory.
pub(super) fn create_dir(path: &Path, access: Access) -> io::Result<()> {
    fs::DirBuilder::new().mode(access.dir_mode()).create(path)?;
    if access.owner.is_none() {
        return Ok(());
    }
    let options = OpenOptions::new().read(true).custom_flags(flags() | OFlags::DIRECTORY.bits().cast_signed()).clone();
    access.apply(&options.open(path)?, access.dir_mode())
}

/// Owner and permissions of an ordinary file; `None` if there is no such thing.
pub(super) fn access_of(path: &Path) -> io::Result<Option<Access>> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => {
            Ok(Some(Access { mode: meta.mode() & 0o777, owner: Some((meta.uid(), meta.gid())) }))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The real disk, where new files get certain permissions.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccessDisk(pub(super) Access);

impl Disk for AccessDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        real::open(path, mode, self.0)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        create_dir(path, self.0)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        real::lock(path, mode, self.0)
    }

    fn with_access(&self, access: Access) -> Option<Arc<dyn Disk>> {
        RealDisk.with_access(access)
    }

    fn access_of(&self, path: &Path) -> io::Result<Option<Access>> {
        RealDisk.access_of(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.read_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        RealDisk.kind(path)
    }

    fn kind_of_name(&self, path: &Path) -> io::Result<PathKind> {
        RealDisk.kind_of_name(path)
    }

    fn len_of(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.len_of(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.copy_owner(from, to)
    }

    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        RealDisk.map_anonymous(bytes)
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        RealDisk.random(buffer)
    }
}
