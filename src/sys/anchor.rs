//! Where names are resolved: a store's directory is opened once, and everything in it is reached through that descriptor.
//!
//! A path is resolved anew by each call that is given one. A directory that was removed and made again, moved, or
//! named relative to a working directory that changes, is another directory then: a handle would write into a store that
//! is not its own, and unlink the files there. So an [`AnchoredDisk`] resolves every path that begins with the store's
//! relative to descriptors: openat, mkdirat, renameat, unlinkat, fstatat, fsync of the descriptor itself.
//!
//! * The store's own directory may be reached by a symbolic link. Callers refuse links inside of it
//!   ([`Disk::kind_of_name`]).
//! * The directories in it are opened at their first use and kept, so that syncing one needs no new descriptor.
//! * The store's parent directory is held too, because the store's own name becomes durable by syncing it.
//! * In a directory that was removed nothing can be made: the error is [`Removed`].
//! * Other paths (the new store of a repair) are resolved as ever.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, OFlags};
use rustix::io::retry_on_intr;

use super::access::{self, Access};
use super::at::{self, At};
use super::{Disk, DiskFile, IndexMap, LockMode, LockOutcome, OpenMode, PathKind, file, mapping};
use crate::mutant::{Mutant, broken};
use crate::sync::Mutex;

/// The descriptors of a store's directories.
#[derive(Debug)]
struct Anchor {
    /// The path by which the store is known. Only compared, never resolved.
    home: PathBuf,
    dir: Arc<OwnedFd>,
    /// `None` if this process may not open it.
    parent: Option<Arc<OwnedFd>>,
    /// The directories in the store's that were used, by their names in it.
    inner: Mutex<BTreeMap<PathBuf, Arc<OwnedFd>>>,
}

impl Anchor {
    fn new(home: &Path) -> io::Result<Self> {
        let dir = Arc::new(At::path(home).open_dir(OFlags::empty())?);
        let parent = At::new(Arc::clone(&dir), Path::new(".."));
        let parent = parent.open_dir(OFlags::empty()).ok().map(Arc::new);
        Ok(Anchor { home: home.to_path_buf(), dir, parent, inner: Mutex::default() })
    }

    /// The store's directory, or one in it.
    fn directory(&self, relative: &Path) -> io::Result<Arc<OwnedFd>> {
        if relative.as_os_str().is_empty() {
            return Ok(Arc::clone(&self.dir));
        }
        if let Some(known) = self.inner.lock().get(relative) {
            return Ok(Arc::clone(known));
        }
        let opened = Arc::new(At::new(Arc::clone(&self.dir), relative).open_dir(OFlags::empty())?);
        Ok(Arc::clone(self.inner.lock().entry(relative.to_path_buf()).or_insert(opened)))
    }

    fn forget(&self, relative: &Path) {
        self.inner.lock().remove(relative);
    }
}

/// The real disk with a store's directory held open, or without: then every path is the system's to resolve. New files
/// and directories get certain permissions.
#[derive(Debug, Clone)]
pub(super) struct AnchoredDisk {
    anchor: Option<Arc<Anchor>>,
    access: Access,
}

impl AnchoredDisk {
    pub(super) const fn new(access: Access) -> Self {
        AnchoredDisk { anchor: None, access }
    }

    /// The part of a path that is resolved in the store's directory.
    fn inside<'p>(&self, path: &'p Path) -> Option<(&Arc<Anchor>, &'p Path)> {
        if broken(Mutant::NamesResolvedLate) {
            return None;
        }
        let anchor = self.anchor.as_ref()?;
        Some((anchor, path.strip_prefix(&anchor.home).ok()?))
    }

    fn at<'p>(&self, path: &'p Path) -> io::Result<At<'p>> {
        let Some((anchor, relative)) = self.inside(path) else { return Ok(At::path(path)) };
        let (Some(name), Some(dir)) = (relative.file_name(), relative.parent()) else {
            return Ok(At::new(Arc::clone(&anchor.dir), Path::new(".")));
        };
        Ok(At::new(anchor.directory(dir)?, Path::new(name)))
    }

    /// The same for calls to which a directory that is not there is a name that is not there.
    fn at_if_any<'p>(&self, path: &'p Path) -> io::Result<Option<At<'p>>> {
        match self.at(path) {
            Ok(at) => Ok(Some(at)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A directory's descriptor: one that is held, if the directory is the store's.
    fn directory(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        if let Some((anchor, relative)) = self.inside(path) {
            return anchor.directory(relative);
        }
        if let Some(anchor) = self.anchor.as_ref().filter(|anchor| anchor.home.parent() == Some(path))
            && let Some(parent) = &anchor.parent
            && !broken(Mutant::NamesResolvedLate)
        {
            return Ok(Arc::clone(parent));
        }
        At::path(path).open_dir(OFlags::empty()).map(Arc::new)
    }

    fn forget(&self, path: &Path) {
        if let Some((anchor, relative)) = self.inside(path) {
            anchor.forget(relative);
        }
    }
}

impl Disk for AnchoredDisk {
    fn anchored(&self, home: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        // A store that is made inside of another one (an offline compaction) belongs to that.
        if self.inside(home).is_some() {
            return Ok(None);
        }
        Ok(Some(Arc::new(AnchoredDisk { anchor: Some(Arc::new(Anchor::new(home)?)), access: self.access })))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let at = self.at(path)?;
        file::file(match mode {
            OpenMode::Read => access::open_file(&at, false)?,
            OpenMode::Write => access::open_file(&at, true)?,
            OpenMode::CreateNew => access::create_file(&at, self.access)?,
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.forget(path);
        access::create_dir(&self.at(path)?, self.access)
    }

    fn with_access(&self, access: Access) -> Option<Arc<dyn Disk>> {
        Some(Arc::new(AnchoredDisk { anchor: self.anchor.clone(), access }))
    }

    fn access_of(&self, path: &Path) -> io::Result<Option<Access>> {
        self.at_if_any(path)?.map_or(Ok(None), |at| access::access_of(&at))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        // Through a descriptor of its own, because a position in a directory belongs to the descriptor.
        for entry in rustix::fs::Dir::read_from(self.directory(path)?)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        self.at_if_any(path)?.map_or(Ok(PathKind::Missing), |at| at.kind(AtFlags::empty()))
    }

    fn kind_of_name(&self, path: &Path) -> io::Result<PathKind> {
        self.at_if_any(path)?.map_or(Ok(PathKind::Missing), |at| at.kind(AtFlags::SYMLINK_NOFOLLOW))
    }

    fn len_of(&self, path: &Path) -> io::Result<Option<u64>> {
        match self.at_if_any(path)?.map_or(Ok(None), |at| at.look())? {
            Some(stat) if access::is_file(&stat) => Ok(Some(stat.st_size.cast_unsigned())),
            Some(_) => Err(access::not_ordinary()),
            None => Ok(None),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.at(from)?, self.at(to)?);
        old.call(|dir, name| rustix::fs::renameat(dir, name, new.dir(), new.name()))?;
        self.forget(from);
        self.forget(to);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.unlink()
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.remove(AtFlags::REMOVEDIR)?;
        self.forget(path);
        Ok(())
    }

    fn is_removed(&self, dir: &Path) -> bool {
        self.inside(dir).and_then(|(anchor, name)| anchor.directory(name).ok()).is_some_and(|dir| at::is_removed(&dir))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = self.directory(path)?;
        Ok(retry_on_intr(|| rustix::fs::fsync(&dir))?)
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        access::copy_owner(&self.at(from)?, &self.at(to)?)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = self.directory(parent)?;
        file::lock(&self.at(path)?, directory, mode, self.access)
    }

    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        mapping::anonymous(bytes)
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(io::Error::other)
    }
}
