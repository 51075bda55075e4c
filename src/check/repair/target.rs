//! The new store while it is being filled.
//!
//! It is made under a name of its own beside its place, and gets its name when it is whole. If that does not come
//! to pass, its files are removed; if the process dies, what is left has a name that says what it is.
//!
//! Changes are made in the order of the old log, so that the last one of each key counts. A change that is known
//! to be lost is kept in mind until a later one of the same key makes it unimportant.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::report::{LostKey, Report};
use crate::check::sink::Input;
use crate::checksum::KeyHasher;
use crate::error::{Error, IoContext, Result};
use crate::expiry::Deadline;
use crate::log::reader::key_at;
use crate::options::Options;
use crate::recovery::create::sync_parent;
use crate::store::Store;
use crate::sys::{Disk, PathKind};

/// Lost changes that are kept in mind; beyond this they are only counted.
const LOST_MAX: usize = 1 << 20;
/// Lost keys that are listed.
const LISTED_MAX: usize = 1000;

/// A change that is known to be lost.
#[derive(Debug)]
struct Lost {
    path: std::rc::Rc<Path>,
    offset: u64,
    reason: String,
    /// It was a removal: if the key is not there, nothing is wrong.
    removal: bool,
}

/// The new store.
pub(super) struct Target {
    options: Options,
    path: PathBuf,
    temporary: PathBuf,
    store: Option<Store>,
    hasher: KeyHasher,
    /// By the hash of the key. Keys can be long: they are read again where they are needed.
    lost: HashMap<u64, Lost>,
    lost_uncounted: u64,
    /// Keys that were there when the last loss was come across.
    stale_max: u64,
}

impl Target {
    /// Begins a new store that will stand at `path`, where there must be nothing. Notes what killed repairs have left.
    pub(super) fn create(options: &Options, old: &Path, path: &Path, report: &mut Report) -> Result<Target> {
        let disk = &*options.disk;
        let refuse = |kind, why: &'static str| Err(Error::io("create", path, std::io::Error::new(kind, why)));
        if path.starts_with(old) {
            return refuse(std::io::ErrorKind::InvalidInput, "it lies inside the store that is to be repaired");
        }
        if disk.kind_of_name(path).context("look at", path)? != PathKind::Missing {
            return refuse(
                std::io::ErrorKind::AlreadyExists,
                "there is something already, and a repair overwrites nothing",
            );
        }
        let Some(name) = path.file_name() else {
            return refuse(std::io::ErrorKind::InvalidInput, "it has no name");
        };
        let mut random = [[0; 8]; 3];
        disk.random(random.as_flattened_mut()).context("get random bytes for", path)?;
        let [number, hash_key @ ..] = random.map(u64::from_le_bytes);
        let unfinished = format!("{}.unfinished-", name.to_string_lossy());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A directory that cannot be listed can still take a new entry.
        let names = disk.read_dir(parent).unwrap_or_default();
        let left = names.iter().filter(|name| name.starts_with(&unfinished));
        report.unfinished = left.map(|name| path.with_file_name(name).display().to_string()).collect();
        let mut temporary_name = name.to_os_string();
        temporary_name.push(format!(".unfinished-{number:016x}"));
        let temporary = path.with_file_name(temporary_name);
        // Fails if there is anything of that name.
        disk.create_dir(&temporary).context("create", &temporary)?;
        let mut target = Target {
            options: options.clone(),
            path: path.to_path_buf(),
            temporary,
            store: None,
            hasher: KeyHasher::new(hash_key.into()),
            lost: HashMap::new(),
            lost_uncounted: 0,
            stale_max: 0,
        };
        target.store = Some(options.open(&target.temporary)?);
        Ok(target)
    }

    fn store(&self) -> Result<&Store> {
        self.store.as_ref().ok_or_else(|| Error::NotFound { path: self.temporary.clone() })
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], deadline: Deadline) -> Result<()> {
        self.store()?.expiring(deadline.time()).set(key, value)?;
        self.found(key);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.store()?.remove(key)?;
        self.found(key);
        Ok(())
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        if !self.store()?.is_empty() {
            self.store()?.clear()?;
        }
        self.lost.clear();
        (self.lost_uncounted, self.stale_max) = (0, 0);
        Ok(())
    }

    /// A change of the key was found: what was lost before it does not matter any more.
    fn found(&mut self, key: &[u8]) {
        if !self.lost.is_empty() {
            self.lost.remove(&self.hasher.hash(key));
        }
    }

    /// Something is lost at this point of the log: any key can have been changed there.
    pub(super) fn gap(&mut self) -> Result<()> {
        self.stale_max = self.store()?.len();
        Ok(())
    }

    /// A change of this key is lost. Its record begins at `offset`.
    pub(super) fn lose(&mut self, key: &[u8], path: &std::rc::Rc<Path>, offset: u64, reason: String, removal: bool) {
        let hash = self.hasher.hash(key);
        if self.lost.len() < LOST_MAX || self.lost.contains_key(&hash) {
            self.lost.insert(hash, Lost { path: path.clone(), offset, reason, removal });
        } else {
            self.lost_uncounted += 1;
        }
    }

    /// Completes the new store, gives it its name, and reports the keys that are lost.
    pub(super) fn finish(mut self, old: &dyn Disk, report: &mut Report) -> Result<()> {
        report.keys = self.store()?.len();
        report.stale_keys_max = self.stale_max.min(report.keys);
        report.lost_keys_total = self.lost_uncounted;
        let mut lost: Vec<Lost> = self.lost.drain().map(|(_, lost)| lost).collect();
        lost.sort_unstable_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        for Lost { path, offset, reason, removal } in lost {
            let input = Input::open(old, &path)?;
            let key = input.ok().and_then(|input| key_at(&*input.file, offset)).unwrap_or_default();
            let older_value_kept = self.store()?.contains_key(&key)?;
            if removal && !older_value_kept {
                continue;
            }
            report.lost_keys_total += 1;
            if report.lost_keys.len() < LISTED_MAX {
                let (key, path) = (key.escape_ascii().to_string(), path.display().to_string());
                report.lost_keys.push(LostKey { key, path, offset, reason, older_value_kept });
            }
        }
        if let Some(store) = self.store.take() {
            store.close()?;
        }
        let disk = &*self.options.disk;
        if disk.kind_of_name(&self.path).context("look at", &self.path)? != PathKind::Missing {
            let error = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it was made while the repair ran");
            return Err(Error::io("rename to", &self.path, error));
        }
        disk.rename(&self.temporary, &self.path).context("rename to", &self.path)?;
        sync_parent(disk, &self.path)
    }
}

impl Drop for Target {
    /// Removes what was not finished. After [`Target::finish`] there is nothing of the temporary name.
    fn drop(&mut self) {
        drop(self.store.take());
        // An error here leaves files whose name says that they are not a finished store.
        let _ = remove_all(&*self.options.disk, &self.temporary);
    }
}

/// Removes a store's directory and its log directory.
fn remove_all(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    if disk.kind_of_name(dir)? != PathKind::Directory {
        return Ok(());
    }
    for name in disk.read_dir(dir)? {
        let path = dir.join(name);
        match disk.kind_of_name(&path)? {
            PathKind::Directory => remove_all(disk, &path)?,
            _ => disk.unlink(&path)?,
        }
    }
    disk.remove_dir(dir)
}
