//! The new store while it is being filled.
//!
//! It is made under a name of its own beside its place, and gets its name when it is whole. If that does not come
//! to pass, its files are removed; if the process dies, what is left has a name that says what it is.
//!
//! Changes are made in the order of the old log, so that the last one of each key counts. A change that is known
//! to be lost is kept in mind until a later one of the same key makes it unimportant.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::names::{Fate, Names};
use super::report::{LostKey, LostTable, Report};
use super::taker::{Owner, Taker};
use crate::address::Lsn;
use crate::check::sink::Input;
use crate::check::tables::label;
use crate::checksum::KeyHasher;
use crate::error::{Error, IoContext, Result};
use crate::expiry::Deadline;
use crate::log::reader::owner_at;
use crate::options::Options;
use crate::recovery::create::sync_parent;
use crate::store::{Store, Table};
use crate::sys::{Disk, PathKind};
use crate::table_id::TableId;

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
    /// What the catalog says, once a record of a table was met.
    names: Option<Names>,
    /// The tables of the new store, by the ids that they had in the old one.
    tables: HashMap<TableId, Table>,
    /// Those without a name, by the names that they got.
    nameless: BTreeMap<TableId, String>,
    hasher: KeyHasher,
    /// By table and the hash of the key. Keys can be long: they are read again where they are needed.
    lost: HashMap<(TableId, u64), Lost>,
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
            names: None,
            tables: HashMap::new(),
            nameless: BTreeMap::new(),
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

    /// The table of the new store that takes the records of one of the old store.
    fn table(&self, id: TableId) -> Result<&Table> {
        if id == TableId::MAIN {
            return self.store().map(|store| &**store);
        }
        self.tables.get(&id).ok_or_else(|| Error::impossible(&self.temporary, "records of a table that was not made"))
    }

    /// Makes a table for the records of one whose name is lost.
    fn name_table(&mut self, id: TableId) -> Result<()> {
        if self.tables.contains_key(&id) {
            return Ok(());
        }
        let is_taken = |name: &String| self.names.as_ref().is_some_and(|names| names.has(name.as_bytes()));
        let plain = format!("lost {id}");
        let numbered = (2..).map(|number| format!("{plain} ({number})"));
        let Some(name) = std::iter::once(plain.clone()).chain(numbered).find(|name| !is_taken(name)) else {
            return Ok(());
        };
        let table = self.store()?.table(&name)?;
        self.tables.insert(id, table);
        self.nameless.insert(id, name);
        Ok(())
    }

    /// A change of the key was found: what was lost before it does not matter any more.
    fn found(&mut self, (table, key): Owner<'_>) {
        if !self.lost.is_empty() {
            self.lost.remove(&(table, self.hasher.hash(key)));
        }
    }

    /// Records of all tables.
    fn records(&self) -> Result<u64> {
        Ok(self.store()?.engine().tables.records())
    }

    /// Completes the new store, gives it its name, and reports the keys that are lost.
    pub(super) fn finish(mut self, old: &dyn Disk, report: &mut Report) -> Result<()> {
        report.keys = self.records()?;
        report.tables = self.tables.len() as u64;
        for (&id, name) in &self.nameless {
            let reason = "no record of the catalog names it, and one can have stood in what is lost".into();
            let (id_of, records) = (id.raw().into(), self.table(id)?.len());
            report.lost_tables.push(LostTable { id: id_of, saved_as: name.clone(), records, reason });
        }
        report.stale_keys_max = self.stale_max.min(report.keys);
        report.lost_keys_total = self.lost_uncounted;
        let mut lost: Vec<Lost> = self.lost.drain().map(|(_, lost)| lost).collect();
        lost.sort_unstable_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        lost.into_iter().try_for_each(|lost| self.report_lost(lost, old, report))?;
        self.tables.clear();
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

impl Target {
    /// Reports a lost change, unless it matters to nobody.
    fn report_lost(&self, lost: Lost, old: &dyn Disk, report: &mut Report) -> Result<()> {
        let Lost { path, offset, reason, removal } = lost;
        let owner = Input::open(old, &path)?.ok().and_then(|input| owner_at(&*input.file, offset));
        let (id, key) = owner.unwrap_or_default();
        let names = self.names.as_ref();
        let older_value_kept = match id {
            TableId::CATALOG => names.is_some_and(|names| names.has(&key)),
            id => self.table(id)?.contains_key(&key)?,
        };
        if removal && !older_value_kept {
            return Ok(());
        }
        report.lost_keys_total += 1;
        if report.lost_keys.len() < LISTED_MAX {
            let name = names.and_then(|names| names.name(id)).or_else(|| self.nameless.get(&id).map(String::as_str));
            let table = label(id, name).map(|name| name.to_string());
            let (key, path) = (key.escape_ascii().to_string(), path.display().to_string());
            report.lost_keys.push(LostKey { table, key, path, offset, reason, older_value_kept });
        }
        Ok(())
    }
}

impl Taker for Target {
    fn knows(&self, table: TableId) -> bool {
        table == TableId::MAIN || self.names.is_some()
    }

    fn learn(&mut self, names: Names) -> Result<()> {
        for (id, named) in names.iter() {
            let table = self.store()?.add_copied(&named.name, &named.entry, 0)?;
            self.tables.insert(id, table);
        }
        self.names = Some(names);
        Ok(())
    }

    fn counts(&mut self, table: TableId, lsn: Lsn) -> Result<bool> {
        let names = self.names.as_ref().filter(|_| table >= TableId::FIRST);
        match names.map(|names| names.fate(table, lsn)) {
            None | Some(Fate::Saved) => Ok(true),
            Some(Fate::Dead) => Ok(false),
            Some(Fate::Nameless) => self.name_table(table).map(|()| true),
        }
    }

    fn put(&mut self, owner: Owner<'_>, value: &[u8], deadline: Deadline) -> Result<()> {
        let (table, key) = owner;
        // The names are known already.
        if table != TableId::CATALOG {
            self.table(table)?.expiring(deadline.time()).set(key, value)?;
        }
        self.found(owner);
        Ok(())
    }

    fn remove(&mut self, owner: Owner<'_>) -> Result<()> {
        let (table, key) = owner;
        if table != TableId::CATALOG {
            self.table(table)?.remove(key)?;
        }
        self.found(owner);
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        if !self.store()?.is_empty() {
            self.store()?.clear()?;
        }
        self.lost.retain(|&(table, _), _| table != TableId::MAIN);
        if self.tables.is_empty() {
            self.lost_uncounted = 0;
        }
        self.stale_max = self.stale_max.min(self.records()?);
        Ok(())
    }

    fn gap(&mut self) -> Result<()> {
        self.stale_max = self.records()?;
        Ok(())
    }

    fn lose(&mut self, owner: Owner<'_>, path: &std::rc::Rc<Path>, offset: u64, reason: String, removal: bool) {
        let place = (owner.0, self.hasher.hash(owner.1));
        if self.lost.len() < LOST_MAX || self.lost.contains_key(&place) {
            self.lost.insert(place, Lost { path: path.clone(), offset, reason, removal });
        } else {
            self.lost_uncounted += 1;
        }
    }
}

impl Drop for Target {
    /// Removes what was not finished. After [`Target::finish`] there is nothing of the temporary name.
    fn drop(&mut self) {
        self.tables.clear();
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
