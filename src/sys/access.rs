//! Who may use the files of a store, and how a file is opened so that it is no other.
//!
//! A new store gets the permissions that its opener chose, less the umask. Later files of a store get those of its index,
//! whoever makes them and whatever the umask: a store that was opened once by root, or by a command without the
//! service's options, stays usable for those who could use it before.
//!
//! * A file is **created** by `O_EXCL`: what is there already, a link to somewhere else included, is an error.
//! * A file is **opened** by `O_NOFOLLOW`, and must be an ordinary one: a link, a pipe (which would make the open wait
//!   for ever) or a device is an error.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::at::At;

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
        if now.mode() & (0o777 | mode) == mode { Ok(()) } else { file.set_permissions(Permissions::from_mode(mode)) }
    }
}

/// Flags of every open. Without `NONBLOCK` a pipe in the place of a file would make the open wait; files ignore it.
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file()
}

pub(super) fn not_ordinary() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no ordinary file")
}

/// Opens a file that exists.
pub(super) fn open_file(at: &At<'_>, write: bool) -> io::Result<File> {
    let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let file = File::from(at.open(flags | FLAGS, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_ordinary()) }
}

/// Creates a file. After an error there is none, unless there was one before.
pub(super) fn create_file(at: &At<'_>, access: Access) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FLAGS;
    let file = File::from(at.open(flags, Mode::from_raw_mode(access.mode))?);
    if let Err(error) = access.apply(&file, access.mode) {
        // What this call has made. If that fails too, an empty file is left.
        let _ = at.unlink();
        return Err(error);
    }
    Ok(file)
}

/// Creates a directory.
pub(super) fn create_dir(at: &At<'_>, access: Access) -> io::Result<()> {
    at.make_dir(Mode::from_raw_mode(access.dir_mode()))?;
    if access.owner.is_none() {
        return Ok(());
    }
    access.apply(&File::from(at.open_dir(FLAGS)?), access.dir_mode())
}

/// Owner and permissions of an ordinary file; `None` if there is no such thing.
pub(super) fn access_of(at: &At<'_>) -> io::Result<Option<Access>> {
    match at.look() {
        Ok(Some(stat)) if is_file(&stat) => {
            Ok(Some(Access { mode: stat.st_mode & 0o777, owner: Some((stat.st_uid, stat.st_gid)) }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives what stands at `to` the owner and the permissions of what stands at `from`.
pub(super) fn copy_owner(from: &At<'_>, to: &At<'_>) -> io::Result<()> {
    let Some(from) = from.look()? else { return Err(io::ErrorKind::NotFound.into()) };
    let to = File::from(to.open(OFlags::RDONLY | FLAGS, Mode::empty())?);
    let access = Access { mode: from.st_mode & 0o7777, owner: Some((from.st_uid, from.st_gid)) };
    access.apply(&to, access.mode)
}
