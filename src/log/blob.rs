//! Values too large for a segment: each has a file of its own, outside the chain of segments.
//!
//! The file begins with a header (blob_header.rs); the value follows.
//!
//! **Writing** takes no lock: 1. the file is written and fsynced; 2. its directory is fsynced; 3. an ordinary
//! record {key, id, length, crc} links it. *Crash before 3 is durable:* the file is an orphan. **Freeing**:
//! 1. the link is superseded, 2. a checkpoint whose cut lies after that is durable, 3. the file is unlinked.
//!
//! Orphans are known without looking at the index: an id that was being written at the last cut, or is above
//! any given out before it, and that no replayed record links. Freed ones are listed in the checkpoint until
//! they are unlinked. So are those that could not be written: the store unlinks them at once, and the checkpoint's fsync of
//! the directory makes that durable. Of those that a full list has no room for, an open finds what a dead process has left
//! (recovery/leftovers.rs).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blob_header::{BLOB_HEADER_BYTES, encode_header, header_matches, is_own};
use super::record::BlobLink;
use crate::checksum::{Uuid, crc32};
use crate::error::{Error, IoContext, Location, Result};
use crate::layout::{BLOB_IDS, blob_path, parse_blob_name};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::{AtomicI64, Mutex, Ordering};
use crate::sys::{Disk, DiskFile, LogMap, OpenMode, read_up_to, write_all_at};
use crate::words::some;

/// Freed blobs that a checkpoint may list; with so many waiting, writers wait for one.
pub(crate) const FREED_MAX: usize = 8192;
/// Ids that are this far above the checkpoint's counter are not ours.
const FOREIGN_IDS: u64 = 1 << 32;

/// The blobs of a log.
#[derive(Debug)]
pub(super) struct Blobs {
    disk: Arc<dyn Disk>,
    /// The log's directory, and the store that it belongs to.
    dir: PathBuf,
    uuid: Uuid,
    /// Freed blobs that a checkpoint lists at the most.
    listed_max: usize,
    state: Mutex<BlobState>,
    mapped: Mapped,
    count: AtomicI64,
    bytes: AtomicI64,
}

#[derive(Debug, Default)]
struct BlobState {
    next_id: u64,
    /// Being written: no record links them yet.
    in_flight: BTreeSet<u64>,
    /// No longer linked since the last cut.
    freed: Vec<Freed>,
    /// Freed before the last cut; unlinked when its checkpoint is durable.
    dying: Vec<Freed>,
}

/// A blob that no record links any more.
#[derive(Debug, Clone, Copy)]
struct Freed {
    id: u64,
    /// Bytes of its value, as far as they are known; of the blobs of one `clear` only the sum is right.
    len: u64,
}

impl BlobState {
    fn waiting(&self) -> impl Iterator<Item = Freed> {
        self.freed.iter().chain(&self.dying).copied()
    }
}

/// Mapped blobs by id.
type Mapped = Arc<Mutex<BTreeMap<u64, MappedBlob>>>;

#[derive(Debug)]
struct MappedBlob {
    mappings: u64,
    bytes: u64,
    unlinked: bool,
}

/// A mapped blob. As long as it lives, the file keeps its blocks, unlinked or not.
#[derive(Debug)]
pub(crate) struct BlobMap {
    map: LogMap,
    _counted: Counted,
}

impl BlobMap {
    /// The value.
    pub(crate) fn value(&self) -> &[u8] {
        let start = BLOB_HEADER_BYTES as u64;
        self.map.read(start, self.map.len().saturating_sub(start)).unwrap_or(&[])
    }
}

/// One mapping of a blob, counted.
#[derive(Debug)]
struct Counted {
    id: u64,
    mapped: Mapped,
}

impl Counted {
    fn new(mapped: &Mapped, id: u64, bytes: u64) -> Self {
        let new = || MappedBlob { mappings: 0, bytes, unlinked: false };
        mapped.lock().entry(id).or_insert_with(new).mappings += 1;
        Counted { id, mapped: Arc::clone(mapped) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.mapped.lock().entry(self.id) {
            entry.get_mut().mappings -= 1;
            if entry.get().mappings == 0 {
                entry.remove();
            }
        }
    }
}

/// What a checkpoint says about blobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlobSnapshot {
    pub(crate) next_id: u64,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// Being written at the cut.
    pub(crate) in_flight: Vec<u64>,
    /// To be unlinked.
    pub(crate) dying: Vec<u64>,
}

impl Blobs {
    pub(super) fn restore(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        uuid: Uuid,
        listed_max: usize,
        snapshot: &BlobSnapshot,
    ) -> Self {
        Blobs {
            disk,
            dir,
            uuid,
            listed_max,
            state: Mutex::new(BlobState { next_id: snapshot.next_id.max(1), ..BlobState::default() }),
            mapped: Mapped::default(),
            count: AtomicI64::new(snapshot.count as i64),
            bytes: AtomicI64::new(snapshot.bytes as i64),
        }
    }

    /// The cut: what the checkpoint under way will say. The meta pages have room for so many that wait; the rest dies with a
    /// later checkpoint. The caller holds all stripes.
    pub(super) fn freeze(&self, room: usize) -> BlobSnapshot {
        let mut state = self.state.lock();
        let take = state.freed.len().min(room.min(self.listed_max).saturating_sub(state.dying.len()));
        let freed: Vec<Freed> = state.freed.drain(..take).collect();
        state.dying.extend(freed);
        BlobSnapshot {
            next_id: state.next_id,
            count: self.count(),
            bytes: self.bytes(),
            in_flight: state.in_flight.iter().copied().collect(),
            dying: state.dying.iter().map(|blob| blob.id).collect(),
        }
    }

    /// True if so many freed blobs wait that a checkpoint should run first.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting().0 as usize >= FREED_MAX
    }

    /// Freed blobs that wait for a checkpoint: how many, and the bytes of their values.
    pub(super) fn waiting(&self) -> (u64, u64) {
        self.state.lock().waiting().fold((0, 0), |(count, bytes), blob| (count + 1, bytes + blob.len))
    }

    /// Unlinked blobs that readers have mapped: how many, and the bytes of their files.
    pub(super) fn held(&self) -> (u64, u64) {
        let mapped = self.mapped.lock();
        let held = mapped.values().filter(|blob| blob.unlinked);
        held.fold((0, 0), |(count, bytes), blob| (count + 1, bytes + blob.bytes))
    }

    /// A record links the blob now. The caller holds the key's stripe.
    pub(super) fn linked(&self, link: BlobLink) {
        let mut state = self.state.lock();
        state.in_flight.remove(&link.id);
        state.next_id = state.next_id.max(link.id.saturating_add(1));
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(link.len as i64, Ordering::Relaxed);
    }

    /// The record that linked the blob is superseded. The caller holds the key's stripe.
    pub(super) fn freed(&self, link: BlobLink) {
        let len = if broken(Mutant::FreedBlobsUncounted) { 0 } else { link.len };
        self.state.lock().freed.push(Freed { id: link.id, len });
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(link.len as i64, Ordering::Relaxed);
    }

    /// A blob file with this id exists: it is not given out again.
    fn seen(&self, id: u64) {
        let mut state = self.state.lock();
        state.next_id = state.next_id.max(id.saturating_add(1));
    }

    /// Everything was removed: these are all ids that files exist for. The caller holds all stripes.
    pub(super) fn free_all(&self, ids: &[u64]) {
        let mut state = self.state.lock();
        let BlobState { in_flight, freed, dying, .. } = &mut *state;
        let known: BTreeSet<u64> = freed.iter().chain(dying.iter()).map(|blob| blob.id).collect();
        let new = ids.iter().filter(|id| !known.contains(id) && !in_flight.contains(id));
        // The first stands for the bytes of all.
        let mut bytes = self.bytes();
        freed.extend(new.map(|&id| Freed { id, len: std::mem::take(&mut bytes) }));
        self.count.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed).max(0) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).max(0) as u64
    }
}

/// The files.
impl Blobs {
    /// Writes a value into a blob file and makes it durable. To be linked or given up.
    ///
    /// # Errors
    /// `LimitReached` if no id is left; `Io`, `DiskFull`.
    pub(super) fn write(&self, value: &[u8]) -> Result<BlobLink> {
        let id = {
            let mut state = self.state.lock();
            let id = state.next_id.max(1);
            if id >= BLOB_IDS {
                return Err(Error::LimitReached {
                    path: self.dir.clone(),
                    what: "values in files of their own, ever written",
                    limit: BLOB_IDS - 1,
                    remedy: "export the store into a new one (`tophash export`, `tophash import`)",
                });
            }
            state.next_id = id + 1;
            state.in_flight.insert(id);
            id
        };
        let link = BlobLink { id, len: value.len() as u64, crc: crc32(value) };
        let path = blob_path(&self.dir, id);
        let file = self.disk.open(&path, OpenMode::CreateNew).context("create", &path).inspect_err(|_| {
            // There is no file of this call's making. The id is not given out again in this run.
            self.state.lock().in_flight.remove(&id);
        })?;
        let written = self.write_file(&*file, &path, link, value);
        if written.is_err() {
            self.give_up(link);
        }
        written.map(|()| link)
    }

    fn write_file(&self, file: &dyn DiskFile, path: &Path, link: BlobLink, value: &[u8]) -> Result<()> {
        let disk = &self.disk;
        let bytes = (BLOB_HEADER_BYTES + value.len()) as u64;
        file.allocate(0, bytes).context("allocate blocks of", path)?;
        write_all_at(file, &encode_header(self.uuid, link), 0).context("write", path)?;
        write_all_at(file, value, BLOB_HEADER_BYTES as u64).context("write", path)?;
        if broken(Mutant::BlobNotSynced) {
            return Ok(());
        }
        file.sync_all().context("sync", path)?;
        disk.sync_dir(&self.dir).context("sync", &self.dir)
    }

    /// Removes a blob that was never linked.
    pub(super) fn give_up(&self, link: BlobLink) {
        // If this fails the file is an orphan, which the next recovery unlinks: the id is still in flight.
        if self.disk.unlink(&blob_path(&self.dir, link.id)).is_ok() {
            let mut state = self.state.lock();
            state.in_flight.remove(&link.id);
            // It is gone for good after the next checkpoint's fsync of the directory, and listed until then.
            state.freed.push(Freed { id: link.id, len: 0 });
        }
    }

    /// Maps a blob. `None` if there is no such file.
    ///
    /// # Errors
    /// `Corrupt` if the file is not the blob that the link names.
    pub(super) fn map(&self, link: BlobLink) -> Result<Option<Arc<BlobMap>>> {
        let bytes = BLOB_HEADER_BYTES as u64 + link.len;
        // Before the file is opened: if it is unlinked from here on, that is noted.
        let counted = Counted::new(&self.mapped, link.id, bytes);
        let path = blob_path(&self.dir, link.id);
        let file = match self.disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", &path, e)),
        };
        let len = file.len().context("look at", &path)?;
        if len != bytes {
            return Err(Error::corrupt("blob", Location::file(&path), some(bytes, "byte"), some(len, "byte")));
        }
        let map = file.map_log(bytes as usize, bytes, false).context("map", &path)?;
        let header = map.read(0, BLOB_HEADER_BYTES as u64).unwrap_or(&[]);
        if !header_matches(header, self.uuid, link) {
            let expected = format!("the header of blob {:#x}", link.id);
            return Err(Error::corrupt("blob", Location::at(&path, 0), expected, "other bytes"));
        }
        observe::mapped(&path, 0, bytes);
        Ok(Some(Arc::new(BlobMap { map, _counted: counted })))
    }

    /// Compares a mapped blob's checksum with its link.
    ///
    /// # Errors
    /// `Corrupt` if they differ.
    pub(super) fn check(&self, link: BlobLink, map: &BlobMap) -> Result<()> {
        let found = crc32(map.value());
        if found == link.crc {
            return Ok(());
        }
        let text = |crc: u32| format!("crc {crc:#010x}");
        let location = Location::at(&blob_path(&self.dir, link.id), BLOB_HEADER_BYTES as u64);
        Err(Error::corrupt("blob", location, text(link.crc), text(found)))
    }

    /// Unlinks the blobs that the durable checkpoint lists as dying. The caller runs the one checkpoint.
    ///
    /// # Errors
    /// If one of them cannot be unlinked, or the directory cannot be synced: all stay listed, and are unlinked with the
    /// next checkpoint.
    pub(super) fn unlink_dying(&self) -> Result<()> {
        let dying: Vec<u64> = self.state.lock().dying.iter().map(|blob| blob.id).collect();
        self.unlink(&dying)?;
        self.state.lock().dying.clear();
        Ok(())
    }

    /// The ids of all files. A store without large values lists no directory.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn ids(&self) -> Result<Vec<u64>> {
        if self.count() == 0 {
            return Ok(Vec::new());
        }
        let names = self.disk.read_dir(&self.dir).context("list", &self.dir)?;
        Ok(names.iter().filter_map(|name| parse_blob_name(name)).collect())
    }

    /// Unlinks blobs that no record links: written when the process died, or listed as dying. `linked`: those that records of
    /// the tail link. What the last process unlinked is gone for good, because the fresh segment's name was synced in the
    /// same directory. Returns the ids of the files that records should link.
    pub(super) fn recover(&self, snapshot: &BlobSnapshot, files: &[u64], linked: &HashSet<u64>) -> Vec<u64> {
        let (mut orphans, mut kept) = (Vec::new(), Vec::new());
        // No store makes this number of large values between two checkpoints: a file beyond is none of ours.
        let foreign = snapshot.next_id.saturating_add(FOREIGN_IDS);
        for &id in files.iter().filter(|&&id| id < foreign) {
            let unlinked = id >= snapshot.next_id || snapshot.in_flight.contains(&id);
            if snapshot.dying.contains(&id) || (unlinked && !linked.contains(&id)) {
                orphans.push(id);
            } else {
                kept.push(id);
            }
            self.seen(id);
        }
        self.unlink_orphans(&orphans);
        // Superseded by the tail.
        let waiting: HashSet<u64> = self.state.lock().waiting().map(|blob| blob.id).collect();
        kept.retain(|id| !waiting.contains(id));
        kept
    }

    /// True if the file of this id begins as a blob of this store does.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn is_own(&self, id: u64) -> Result<bool> {
        let path = blob_path(&self.dir, id);
        let file = self.disk.open(&path, OpenMode::Read).context("open", &path)?;
        let mut header = [0; BLOB_HEADER_BYTES];
        read_up_to(&*file, &mut header, 0).context("read", &path)?;
        Ok(is_own(&header, self.uuid, id))
    }

    /// Unlinks blobs that no record links. What cannot be unlinked now is unlinked with a later checkpoint.
    pub(super) fn unlink_orphans(&self, ids: &[u64]) {
        if let Err(error) = self.unlink(ids) {
            observe::put_off(&self.dir, &error.to_string());
            self.state.lock().freed.extend(ids.iter().map(|&id| Freed { id, len: 0 }));
        }
    }

    /// Unlinks blobs, whether they exist or not.
    fn unlink(&self, ids: &[u64]) -> Result<()> {
        for &id in ids {
            let path = blob_path(&self.dir, id);
            self.disk.unlink_any(&path).context("unlink", &path)?;
            if let Some(mapped) = self.mapped.lock().get_mut(&id) {
                mapped.unlinked = true;
            }
        }
        if ids.is_empty() { Ok(()) } else { self.disk.sync_dir(&self.dir).context("sync", &self.dir) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No id was too large for a new file. A file of such a name is none of ours: the next open would not have known it.
    #[test]
    fn ids_end_before_names_do() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = BlobSnapshot { next_id: BLOB_IDS - 1, ..BlobSnapshot::default() };
        let disk = Arc::new(crate::sys::RealDisk);
        let blobs = Blobs::restore(disk, dir.path().to_path_buf(), Uuid([0; 16]), FREED_MAX, &snapshot);
        let last = blobs.write(b"value").unwrap();
        let name = blob_path(dir.path(), last.id).file_name().unwrap().to_str().unwrap().to_string();
        assert_eq!(crate::layout::parse_blob_name(&name), Some(last.id));
        for _ in 0..2 {
            let error = blobs.write(b"value").unwrap_err();
            assert!(matches!(error, Error::LimitReached { limit, .. } if limit == BLOB_IDS - 1), "{error}");
            assert!(error.to_string().contains("tophash export"), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(blobs.freeze(FREED_MAX).in_flight, [last.id]);
    }

    #[test]
    fn freed_blobs_die_only_after_a_cut() {
        let disk = Arc::new(crate::sys::RealDisk);
        let blobs = Blobs::restore(disk, PathBuf::new(), Uuid([0; 16]), FREED_MAX, &BlobSnapshot::default());
        let link = BlobLink { id: 9, len: 100, crc: 0 };
        blobs.linked(link);
        assert_eq!((blobs.count(), blobs.bytes()), (1, 100));
        blobs.freed(link);
        assert_eq!((blobs.count(), blobs.bytes()), (0, 0));
        assert!(blobs.state.lock().dying.is_empty());
        assert_eq!(blobs.waiting(), (1, 100));
        assert_eq!(blobs.freeze(FREED_MAX).dying, vec![9]);
        assert_eq!(blobs.freeze(FREED_MAX).next_id, 10);
        // A checkpoint on a full disk has room for few of them.
        (10..20).for_each(|id| blobs.freed(BlobLink { id, ..link }));
        assert_eq!(blobs.freeze(3).dying, [9, 10, 11]);
        assert_eq!(blobs.freeze(0).dying, [9, 10, 11]);
        assert_eq!(blobs.freeze(FREED_MAX).dying.len(), 11);
    }
}
