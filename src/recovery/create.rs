//! Creating a store.
//!
//! 1. The directory, if it is not there.
//! 2. LOCK.
//! 3. `log-1/`.
//! 4. The journal, empty.
//! 5. The index under a temporary name: header slots, meta pages, bitmap pages; the bucket pages are holes.
//! 6. fsync of all, of both directories.
//! 7. The index is renamed to its name; fsync of the directory and of its parent.
//!
//! A crash before 7 leaves a directory without an index, which the next open completes; after 7 a store.

use std::io::ErrorKind;
use std::path::Path;

use crate::address::Lsn;
use crate::checkpoint::checkpointer::JOURNAL_PAGES_NEW;
use crate::checkpoint::header::{self, FIRST_META_PAGE, IndexHeader};
use crate::checkpoint::journal::{self, Journal};
use crate::checkpoint::meta::{META_PAGES, Meta};
use crate::checksum::Uuid;
use crate::error::{Error, IoContext, REPAIR_HINT, Result};
use crate::layout::{
    COMPACTING, INDEX, JOURNAL, LOCK, TEMPORARY, index_path, journal_path, log_path, parse_blob_name, parse_log_name,
    parse_segment_name,
};
use crate::log::blob::BlobSnapshot;
use crate::options::Options;
use crate::sys::{Disk, OpenMode, PAGE_BYTES, PathKind, read_up_to, write_all_at};
use crate::table::growth::Growth;
use crate::table::load::level_for;
use crate::table::page::{Geometry, PageKind, image};
use crate::table::region::ExtentShape;
use crate::table::state::TableState;
use crate::table_id::TableId;

/// The first generation: what creation writes.
const FIRST_GENERATION: u64 = 1;

/// Whether a directory may become a store: it is empty, or holds what an interrupted creation left.
pub(crate) fn check_vacant(disk: &dyn Disk, path: &Path) -> Result<()> {
    for name in disk.read_dir(path).context("list", path)? {
        let ours = match name.as_str() {
            LOCK | JOURNAL | TEMPORARY => true,
            "log-1" if disk.kind_of_name(&path.join(&name)).context("look at", path)? == PathKind::Directory => disk
                .read_dir(&path.join(&name))
                .context("list", path)?
                .iter()
                .all(|file| parse_segment_name(file).is_none() && parse_blob_name(file).is_none()),
            _ => false,
        };
        if !ours {
            // What a store's log looks like is worth a hint: a store that lost its index alone has lost nothing.
            let hint = if name.starts_with("log-") { REPAIR_HINT } else { "" };
            let reason = format!("the directory holds no index, but {name:?}{hint}");
            return Err(Error::NotAStore { path: path.to_path_buf(), reason });
        }
    }
    Ok(())
}

/// Removes what an offline compaction has left that did not come to its end: log directories that the header does
/// not name, and the unfinished index. Files that are not ours are left alone.
///
/// The log directories go first, and durably: as long as there are two, `compact.tmp` tells a repair without an index which
/// of them counts.
pub(crate) fn remove_garbage(disk: &dyn Disk, path: &Path, log_dir: u64) -> Result<()> {
    let mut names = disk.read_dir(path).context("list", path)?;
    names.sort_by_key(|name| name == COMPACTING);
    let mut removed = false;
    for name in names {
        if removed && name == COMPACTING {
            disk.sync_dir(path).context("sync", path)?;
        }
        let is_log = parse_log_name(&name).is_some_and(|id| id != log_dir);
        let directory = path.join(&name);
        if !(is_log || name == COMPACTING)
            || disk.kind_of_name(&directory).context("look at", &directory)? != PathKind::Directory
        {
            continue;
        }
        let files = disk.read_dir(&directory).context("list", &directory)?;
        let is_ours = |file: &String| match is_log {
            true => parse_segment_name(file).is_some() || parse_blob_name(file).is_some(),
            false => [LOCK, INDEX, JOURNAL, TEMPORARY].contains(&file.as_str()),
        };
        for file in files.iter().filter(|file| is_ours(file)) {
            let file = directory.join(file);
            disk.unlink(&file).context("unlink", &file)?;
        }
        if files.iter().all(is_ours) {
            disk.remove_dir(&directory).context("remove", &directory)?;
        }
        removed = true;
    }
    if removed { disk.sync_dir(path).context("sync", path) } else { Ok(()) }
}

/// Creates the store's files. The directory exists and is locked, and has no index.
pub(crate) fn create(path: &Path, options: &Options) -> Result<()> {
    let disk = &*options.disk;
    let origin = options.origin.as_ref();
    let log = log_path(origin.map_or(path, |origin| &origin.home), origin.map_or(1, |origin| origin.log_dir));
    // What is no directory makes this fail, a symbolic link to one included.
    if disk.kind_of_name(&log).context("look at", &log)? != PathKind::Directory {
        disk.create_dir(&log).context("create", &log)?;
    }
    disk.sync_dir(&log).context("sync", &log)?;
    let mut random = [[0; 8]; 4];
    disk.random(random.as_flattened_mut()).context("get random bytes for", path)?;
    let [uuid_front, uuid_back, hash_key @ ..] = random;
    let uuid = Uuid(bytemuck::cast([uuid_front, uuid_back]));
    let hash_key = options.tuning.hash_key.unwrap_or(hash_key.map(u64::from_le_bytes).into());
    let (uuid, hash_key) = origin.map_or((uuid, hash_key), |origin| (origin.uuid, origin.hash_key));

    let tuning = &options.tuning;
    let geometry = Geometry { homes: tuning.home_buckets.into(), stash: tuning.stash_buckets.into() };
    if !geometry.is_valid() {
        let value = format!("{} + {} buckets a page", tuning.home_buckets, tuning.stash_buckets);
        return Err(Error::InvalidOption { option: "tuning", value, reason: "impossible page geometry" });
    }
    let level = level_for(geometry, tuning, options.capacity);
    let growth = Growth::resting(level, level.min(tuning.stripes_log2_max));
    let header = IndexHeader {
        uuid,
        hash_key,
        serial: 0,
        generation: origin.map_or(FIRST_GENERATION, |origin| origin.generation),
        cut: Lsn::default(),
        log_dir: origin.map_or(1, |origin| origin.log_dir),
        clean: true,
        geometry,
    };
    let first = FIRST_META_PAGE + META_PAGES;
    let main = TableState {
        id: TableId::MAIN,
        primary_log2: level,
        overflow_log2: tuning.overflow_log2_min,
        growth,
        records: 0,
        floor: options.capacity,
        primary_extents: vec![first],
        overflow_extents: Vec::new(),
    };
    write_journal(disk, path, &header, growth)?;
    write_index(disk, path, &header, main)?;
    let index = index_path(path);
    disk.sync_dir(path).context("sync", path)?;
    disk.rename(&path.join(TEMPORARY), &index).context("rename to", &index)?;
    disk.sync_dir(path).context("sync", path)?;
    sync_parent(disk, path)
}

/// Makes the store's own directory entry durable.
pub(crate) fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => disk.sync_dir(Path::new(".")).context("sync", parent),
        Some(parent) => disk.sync_dir(parent).context("sync", parent),
        None => Ok(()),
    }
}

/// Makes a file in the place of what an interrupted creation may have left. Such a file begins with its magic number or,
/// unfinished, with zeroes; anything else is not ours to remove.
fn fresh(disk: &dyn Disk, path: &Path, magic: [u8; 8]) -> Result<std::sync::Arc<dyn crate::sys::DiskFile>> {
    match disk.open(path, OpenMode::CreateNew) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.context("create", path),
    }
    if disk.kind_of_name(path).context("look at", path)? == PathKind::Other && disk.len_of(path).is_ok() {
        let mut start = [0; 8];
        let file = disk.open(path, OpenMode::Read).context("open", path)?;
        read_up_to(&*file, &mut start, 0).context("read", path)?;
        if start == magic || start == [0; 8] {
            disk.unlink(path).context("unlink", path)?;
        }
    }
    disk.open(path, OpenMode::CreateNew).context("create", path)
}

fn write_journal(disk: &dyn Disk, store: &Path, header: &IndexHeader, growth: Growth) -> Result<()> {
    let path = journal_path(store);
    let journal = Journal { file: fresh(disk, &path, journal::HEAD_MAGIC)?, path, uuid: header.uuid };
    journal.allocate(JOURNAL_PAGES_NEW)?;
    journal.reset(header.generation, header.cut, growth.word())
}

fn write_index(disk: &dyn Disk, store: &Path, header: &IndexHeader, main: TableState) -> Result<()> {
    let path = store.join(TEMPORARY);
    let file = fresh(disk, &path, header::MAGIC)?;
    let (first, shape) = (FIRST_META_PAGE + META_PAGES, ExtentShape::of(main.primary_log2, 0));
    let meta = Meta {
        tables: vec![main],
        next_table: TableId::FIRST.raw(),
        end_page: first + shape.total(),
        next_sequence: 1,
        expiring: Vec::new(),
        swept: 0,
        segments: Vec::new(),
        blobs: BlobSnapshot { next_id: 1, ..BlobSnapshot::default() },
    };
    file.set_len(meta.end_page * PAGE_BYTES as u64).context("extend", &path)?;
    let bitmaps = (first..first + shape.bitmap_pages).map(|number| image::empty(PageKind::Bitmap, number));
    for mut page in meta.pages().into_iter().chain(bitmaps) {
        let number = image::number(&page);
        image::seal(&mut page, header.uuid, header.generation);
        write_all_at(&*file, &page[..], number * PAGE_BYTES as u64).context("write", &path)?;
    }
    for serial in [0, 1] {
        IndexHeader { serial, ..*header }.write(&*file, &path)?;
    }
    file.sync_all().context("sync", &path)
}
