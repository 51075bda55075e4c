//! The real disk.

use std::io::{self};
use std::path::Path;
use std::sync::Arc;

use super::access::Access;
use super::anchor::AnchoredDisk;
use super::{Disk, DiskFile, IndexMap, LockMode, LockOutcome, OpenMode, PathKind};

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// Every path is resolved by the system, and new files are their maker's alone.
const PLAIN: &AnchoredDisk = &AnchoredDisk::new(Access { mode: 0o600, owner: None });

impl Disk for RealDisk {
    fn anchored(&self, home: &Path) -> io::Result<Option<Arc<dyn Disk>>> {
        PLAIN.anchored(home)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        PLAIN.open(path, mode)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        PLAIN.create_dir(path)
    }

    fn with_access(&self, access: Access) -> Option<Arc<dyn Disk>> {
        PLAIN.with_access(access)
    }

    fn access_of(&self, path: &Path) -> io::Result<Option<Access>> {
        PLAIN.access_of(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        PLAIN.read_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        PLAIN.kind(path)
    }

    fn kind_of_name(&self, path: &Path) -> io::Result<PathKind> {
        PLAIN.kind_of_name(path)
    }

    fn len_of(&self, path: &Path) -> io::Result<Option<u64>> {
        PLAIN.len_of(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        PLAIN.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        PLAIN.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        PLAIN.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        PLAIN.sync_dir(path)
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        PLAIN.copy_owner(from, to)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        PLAIN.lock(path, mode)
    }

    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        PLAIN.map_anonymous(bytes)
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        PLAIN.random(buffer)
    }
}
