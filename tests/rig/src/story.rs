//! Crashes that were bugs once, as scenarios that say what was lost, so that the tests of the tests can tell them too.

use std::path::Path;

use tophash::{Options, Store, SyncPolicy, Tuning};

use crate::disk::SimDisk;
use crate::faults::{Fault, FaultPlan};
use crate::image::{Change, ChangeKind, Image, Node, NodeId};
use crate::recorder::Boundary;
use crate::run::{STORE, blank, kill};
use crate::world::Call;

/// Where the header of a segment has small numbers: sequence, predecessor, slot.
const SMALL_WORDS: [u64; 3] = [32, 48, 72];

fn options(disk: &SimDisk) -> Options {
    let tuning = Tuning { background: false, level_min: 0, ..Tuning::default() };
    let options = Options::new().sync(SyncPolicy::Manual).segment_bytes(4096).tuning(tuning);
    options.disk(std::sync::Arc::new(disk.clone()))
}

fn open(disk: &SimDisk) -> Result<Store, String> {
    options(disk).open(STORE).map_err(|error| format!("open: {error}"))
}

fn text(error: tophash::Error) -> String {
    error.to_string()
}

/// The file of a segment.
fn segment(image: &Image, sequence: u64) -> Option<NodeId> {
    image.find(&Path::new(STORE).join(format!("log-1/{sequence:08}.log")))
}

/// Bytes of a file from an offset on.
fn bytes<const N: usize>(image: &Image, node: NodeId, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    if let Node::File(data) = &image.nodes[node as usize] {
        data.read(at, &mut bytes);
    }
    bytes
}

/// Where the header of a segment has a word with a single bit. One bit of damage makes it a word that was never written.
fn word_of_one_bit(image: &Image, node: NodeId) -> Option<u64> {
    SMALL_WORDS.into_iter().find(|&at| u64::from_le_bytes(bytes(image, node, at)).count_ones() == 1)
}

/// Writes bytes into a file.
fn overwrite(image: &mut Image, node: NodeId, at: u64, bytes: &[u8]) {
    if let Node::File(data) = &mut image.nodes[node as usize] {
        std::sync::Arc::make_mut(data).write(at, bytes);
    }
}

/// The store that a repair makes of an image.
fn repaired(image: Image) -> Result<Store, String> {
    let disk = SimDisk::untracked(image, 9);
    let (options, mended) = (options(&disk), Path::new(STORE).with_file_name("mended"));
    tophash::repair::repair_disk(&disk, STORE, &mended, &options, tophash::Progress::ignore).map_err(text)?;
    options.open(&mended).map_err(text)
}

/// What a crash can leave just before the checkpoint that `store` runs syncs its journal, and the journal's number.
fn before_the_journal_is_synced(disk: &SimDisk, store: &Store) -> Option<(Boundary, NodeId)> {
    disk.record();
    store.checkpoint().ok()?;
    let journal = disk.cached().find(&Path::new(STORE).join("journal"))?;
    let (boundaries, _) = disk.recorded();
    let of_journal =
        |boundary: &Boundary| boundary.pending.iter().any(|change| change.node == journal && is_head(change));
    let found = boundaries.into_iter().find(|boundary| boundary.call == Call::SyncAll && of_journal(boundary));
    Some((found?, journal))
}

fn crash(boundary: &Boundary, kept: impl Fn(&Change) -> bool) -> SimDisk {
    let changes = boundary.pending.iter().filter(|change| kept(change)).map(|change| (change, None));
    SimDisk::new(Image::after_crash(&boundary.durable, changes), 9)
}

fn is_head(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::Sector(0, _))
}

fn is_hole(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::Hole(_))
}

/// Two checkpoints of one generation, each interrupted: the first one leaves images and trailer in the journal, the
/// second one its head.
///
/// # Errors
/// In words: what was lost.
pub fn journal_of_two_checkpoints() -> Result<(), String> {
    let disk = SimDisk::new(blank(), 7);
    let store = open(&disk)?;
    store.insert("a", "1").map_err(text)?;
    store.checkpoint().map_err(text)?;
    store.insert("b", "2").map_err(text)?;
    let (first, journal) = before_the_journal_is_synced(&disk, &store).ok_or("no boundary before the sync")?;
    kill(&disk, store);

    let disk = crash(&first, |change| !(change.node == journal && is_head(change)));
    let store = open(&disk)?;
    store.insert("c", "3").map_err(text)?;
    store.sync().map_err(text)?;
    let (second, journal) = before_the_journal_is_synced(&disk, &store).ok_or("no second boundary")?;
    kill(&disk, store);

    let store = open(&crash(&second, |change| change.node == journal && is_head(change)))?;
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        if store.get(key).map_err(text)?.as_deref() != Some(value.as_bytes()) {
            return Err(format!("{key} is lost"));
        }
    }
    Ok(())
}

/// Everything is removed while an older segment holds a damaged record, so that it stays. The segment of the
/// clear-record has next to nothing that is live, and is compacted: the clear must stay as well, or a repair without
/// the index would find what is in the older one.
///
/// # Errors
/// In words: what came back.
pub fn a_clear_behind_damage() -> Result<(), String> {
    let disk = SimDisk::new(blank(), 7);
    let store = open(&disk)?;
    let put = |store: &Store, keys: std::ops::Range<u32>| {
        keys.into_iter().try_for_each(|n| store.insert(n.to_le_bytes(), [n as u8; 300]).map(|_| ())).map_err(text)
    };
    put(&store, 0..30)?;
    store.close().map_err(text)?;

    let mut image = disk.cached();
    let node = segment(&image, 1).ok_or("the first segment is gone")?;
    overwrite(&mut image, node, 2000, &[0x5a; 8]);
    let disk = SimDisk::new(image, 8);
    let store = open(&disk)?;
    // Meets the damage.
    _ = store.compact();
    store.clear().map_err(text)?;
    for _ in 0..3 {
        put(&store, 100..130)?;
        _ = store.compact();
        store.checkpoint().map_err(text)?;
    }
    store.close().map_err(text)?;

    let store = repaired(disk.cached().without(&Path::new(STORE).join("index")).ok_or("no index")?)?;
    let back = (0..30u32).filter(|n| store.contains_key(n.to_le_bytes()).unwrap_or(true)).count();
    if store.len() == 30 && back == 0 { Ok(()) } else { Err(format!("{back} keys are back of {}", store.len())) }
}

/// A crash leaves old blocks behind the end of the log: a file system shows in a file what another one held there before.
/// Here these are the records of the first segment at the very offsets that they had: nothing but the segment's salt tells
/// them from records of this one.
///
/// # Errors
/// In words: what came back.
pub fn old_blocks_behind_the_end() -> Result<(), String> {
    let disk = SimDisk::new(blank(), 7);
    let store = open(&disk)?;
    // Records of one length, so that they begin at the same offsets in all segments.
    let put = |round: u64| {
        (0..100u64).try_for_each(|n| store.insert(n.to_le_bytes(), round.to_le_bytes()).map(|_| ())).map_err(text)
    };
    (0..2).try_for_each(put)?;
    let image = disk.cached();
    let old: [u8; 4096] = bytes(&image, segment(&image, 1).ok_or("there is no first segment")?, 0);
    (2..4).try_for_each(put)?;
    let active = store.stats().log.end_lsn;
    kill(&disk, store);

    let (sequence, end) = (active >> 32, (active & u64::from(u32::MAX)) as usize);
    let mut image = disk.cached();
    let node = segment(&image, sequence).ok_or("there is no active segment")?;
    overwrite(&mut image, node, end as u64, &old[end..]);
    let store = open(&SimDisk::new(image, 8))?;
    let is_old = |n: &u64| store.get(n.to_le_bytes()).ok().flatten().as_deref() != Some(&3u64.to_le_bytes()[..]);
    let back = (0..100u64).filter(is_old).count();
    if back == 0 { Ok(()) } else { Err(format!("{back} of 100 keys have earlier values")) }
}

/// A large batch has its segment, the frame stands in it, and of the header all words are on the disk but one of a single
/// bit. An interrupted write leaves that, so an open takes the batch for one that never was.
///
/// # Errors
/// In words: how a repair differs from the open.
pub fn a_header_without_a_word() -> Result<(), String> {
    let disk = SimDisk::new(blank(), 7);
    let store = open(&disk)?;
    store.insert("before", "1").map_err(text)?;
    let mut batch = tophash::Batch::new();
    (0..14u8).for_each(|n| _ = batch.insert([n], [n; 500]));
    store.apply(&batch).map_err(text)?;
    kill(&disk, store);

    let mut image = disk.cached();
    let used = |&node: &NodeId| bytes::<128>(&image, node, 0) != [0; 128];
    let last = (1..9).rev().filter_map(|sequence| segment(&image, sequence)).find(used).ok_or("no segment")?;
    let word = word_of_one_bit(&image, last).ok_or("each word of the header has several bits, or none")?;
    overwrite(&mut image, last, word, &[0; 8]);
    let contents = |store: &Store| {
        let entries = store.iter().map(|entry| entry.map(|entry| entry.key().to_vec()));
        entries.collect::<Result<std::collections::BTreeSet<_>, _>>().map_err(text)
    };
    let opened = contents(&open(&SimDisk::untracked(image.clone(), 8))?)?;
    let repaired = contents(&repaired(image)?)?;
    if repaired == opened { Ok(()) } else { Err(format!("an open yields {opened:?}, a repair {repaired:?}")) }
}

/// Of the header of a segment, one bit has rotted that was the only one of its word; a later segment says that the records
/// were durable. An open refuses the store, and a repair must save them.
///
/// # Errors
/// In words: what an open or a repair did instead.
pub fn a_rotten_header_before_a_durable_lsn() -> Result<(), String> {
    const KEYS: u64 = 300;
    let disk = SimDisk::new(blank(), 7);
    let store = open(&disk)?;
    store.checkpoint().map_err(text)?;
    // Three segments, and a sync in the last one.
    (0..KEYS).try_for_each(|n| store.insert(n.to_le_bytes(), [7; 16]).map(|_| ())).map_err(text)?;
    store.sync().map_err(text)?;
    store.insert("after the sync", "").map_err(text)?;
    kill(&disk, store);

    let image = disk.cached();
    let mut rotted = 0;
    for sequence in 2..5 {
        let (Some(node), Some(behind)) = (segment(&image, sequence), segment(&image, sequence + 1)) else { continue };
        // A segment behind it must be one that is in use.
        let is_used = bytes::<8>(&image, behind, 0) != [0; 8];
        let Some(word) = word_of_one_bit(&image, node).filter(|_| is_used) else { continue };
        rotted += 1;
        let mut rotten = image.clone();
        overwrite(&mut rotten, node, word, &[0; 8]);
        if let Ok(store) = open(&SimDisk::untracked(rotten.clone(), 8)) {
            return Err(format!("an open takes {} of {KEYS} keys", store.len()));
        }
        let saved = repaired(rotten)?.len();
        if saved != KEYS + 1 {
            return Err(format!("a repair saves {saved} of {} keys", KEYS + 1));
        }
    }
    if rotted > 0 { Ok(()) } else { Err("no segment has a word with a single bit, and a segment behind it".into()) }
}

/// The power fails, and all that was pending has reached the disk but that files were unlinked.
fn unlinked_again(boundary: &Boundary) -> Image {
    let kept = boundary.pending.iter().filter(|change| !matches!(&change.kind, ChangeKind::Unlink(_)));
    Image::after_crash(&boundary.durable, kept.map(|change| (change, None)))
}

/// The next open and its checkpoint leave no file of a large value.
fn no_large_value_is_left(image: Image) -> Result<(), String> {
    let disk = SimDisk::new(image, 12);
    let store = open(&disk)?;
    store.checkpoint().map_err(text)?;
    kill(&disk, store);
    let image = disk.cached();
    let log = image.find(&Path::new(STORE).join("log-1")).and_then(|node| image.nodes[node as usize].as_dir());
    let left: Vec<_> = log.ok_or("no log")?.keys().filter(|name| name.ends_with(".blob")).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("no record links {left:?}")) }
}

/// The file of a large value cannot be written, because the disk is full. The store unlinks it; a checkpoint follows. Then
/// the power fails, and the file is back.
///
/// # Errors
/// In words: what is left.
pub fn a_large_value_given_up() -> Result<(), String> {
    let disk = SimDisk::new(blank(), 7);
    let store = open(&disk)?;
    store.insert("small", "value").map_err(text)?;
    disk.set_faults(Some(FaultPlan::new(1, Fault::Io, false)));
    if store.insert("large", vec![7; 300 << 10]).is_ok() {
        return Err("the write did not fail".into());
    }
    disk.set_faults(None);
    store.checkpoint().map_err(text)?;
    let moment = disk.moment();
    kill(&disk, store);
    no_large_value_is_left(unlinked_again(&moment))
}

/// A table is dropped, and its pages are given back. The process is killed before the holes are on the disk. The next one makes a
/// table in their place, and the power fails in its checkpoint: the holes are not there, and what the dropped table's pages held is.
///
/// # Errors
/// In words: what verify says, or what is lost.
pub fn a_table_in_the_pages_of_a_dropped_one() -> Result<(), String> {
    let disk = SimDisk::new(blank(), 7);
    // No compaction: its checkpoint would sync the holes.
    let open = |disk: &SimDisk| options(disk).log_ratio(f64::INFINITY).open(STORE).map_err(text);
    let store = open(&disk)?;
    let dropped = store.table("dropped").map_err(text)?;
    (0..2_000u32).try_for_each(|n| dropped.set(n.to_le_bytes(), "value")).map_err(text)?;
    drop(dropped);
    store.checkpoint().map_err(text)?;
    store.drop_table("dropped").map_err(text)?;
    store.checkpoint().map_err(text)?;
    if !disk.moment().pending.iter().any(is_hole) {
        return Err("no hole waits for the disk".into());
    }
    kill(&disk, store);

    let store = open(&disk)?;
    // Its first pages are not in use before it holds something.
    store.table("new").map_err(text)?;
    store.sync().map_err(text)?;
    disk.record();
    store.checkpoint().map_err(text)?;
    let (boundaries, _) = disk.recorded();
    kill(&disk, store);
    for boundary in &boundaries {
        let crashed = crash(boundary, |change| !is_hole(change));
        let report = tophash::verify::verify_disk(&crashed, STORE, tophash::Progress::ignore).map_err(text)?;
        if let Some(finding) = report.findings.iter().find(|finding| !finding.harmless) {
            return Err(format!("before {:?}, {:?}: {finding:?}", boundary.call, boundary.bounds));
        }
        let new = open(&crashed)?.existing_table("new").map_err(text)?;
        let keys = new.keys().collect::<tophash::Result<Vec<_>>>().map_err(text)?.len();
        if keys > 0 || !new.is_empty() {
            return Err(format!("an empty table has {keys} keys, and counts {}", new.len()));
        }
    }
    Ok(())
}

/// More large values are freed than a checkpoint lists, and the process dies. A record rots that lies before the link of one
/// that is still there. The next open cannot tell which files are linked, so it may unlink none.
///
/// # Errors
/// In words: what is lost.
pub fn leftovers_beside_damage() -> Result<(), String> {
    let disk = SimDisk::new(blank(), 7);
    let tuning =
        Tuning { background: false, level_min: 0, blob_bytes_min: 1 << 10, listed_blobs_max: 2, ..Tuning::default() };
    let options = |disk: &SimDisk| options(disk).tuning(tuning).log_ratio(f64::INFINITY);
    let store = options(&disk).open(STORE).map_err(text)?;
    let large = |n: u8| vec![n; 2000];
    (0..9u8).try_for_each(|n| store.set([n], large(n))).map_err(text)?;
    store.clear().map_err(text)?;
    store.set("before", vec![200; 300]).map_err(text)?;
    store.set("large", large(100)).map_err(text)?;
    store.checkpoint().map_err(text)?;
    let address = store.stats().log.end_lsn;
    kill(&disk, store);

    let mut image = disk.cached();
    let node = segment(&image, address >> 32).ok_or("there is no active segment")?;
    let end = (address & u64::from(u32::MAX)) as usize;
    let front: [u8; 4096] = bytes(&image, node, 0);
    let at = front[..end].windows(100).position(|bytes| bytes == [200; 100]).ok_or("the record is elsewhere")?;
    overwrite(&mut image, node, at as u64, &[0x5a; 8]);
    let disk = SimDisk::new(image, 8);
    let store = options(&disk).open(STORE).map_err(text)?;
    match store.get("large") {
        Ok(Some(value)) if *value == *large(100) => Ok(()),
        other => Err(format!("a large value that a record links: {:?}", other.map(|value| value.map(|v| v.len())))),
    }
}
