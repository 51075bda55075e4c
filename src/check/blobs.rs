//! Blob files: those that records link, and those that nobody links.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::kind;
use super::records::LiveLink;
use super::sink::{Input, Sink};
use super::state::State;
use crate::checkpoint::header::FIRST_META_PAGE;
use crate::error::{Location, Result};
use crate::layout::blob_path;
use crate::log::blob_header::{BLOB_HEADER_BYTES, header_matches};
use crate::log::record::BlobLink;
use crate::sys::Disk;
use crate::words::some;

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Checks the blobs that live records link.
pub(super) fn check_live(
    disk: &dyn Disk,
    dir: &Path,
    state: &State,
    links: &mut [LiveLink],
    sink: &mut Sink<'_>,
) -> Result<()> {
    links.sort_unstable_by_key(|live| (live.link.id, live.spot));
    links.iter().for_each(|live| sink.expect(live.link.len));
    for pair in links.windows(2) {
        let [first, second] = pair else { continue };
        if first.link.id == second.link.id {
            sink.table = second.table;
            let location = second.spot.location(&state.pages.index.path);
            let found =
                format!("blob {:#x}, as in page {} slot {}", first.link.id, first.spot.page(), first.spot.slot());
            sink.damage(kind::BLOB_SHARED, location, "a blob of its own", found);
        }
    }
    for live in links.chunk_by(|a, b| a.link.id == b.link.id).filter_map(|same| same.first()) {
        sink.table = live.table;
        let referrer = Location { path: Default::default(), ..live.spot.location(&state.pages.index.path) };
        check_blob(disk, dir, state, live.link, &referrer, sink)?;
    }
    sink.table = 0;
    Ok(())
}

/// Checks the blobs that records of the log's tail link.
pub(super) fn check_tail(
    disk: &dyn Disk,
    dir: &Path,
    state: &State,
    links: &[BlobLink],
    sink: &mut Sink<'_>,
) -> Result<()> {
    links.iter().try_for_each(|&link| check_blob(disk, dir, state, link, &Location::default(), sink))
}

/// Checks one blob. Findings name the slot of the record that links it.
fn check_blob(
    disk: &dyn Disk,
    dir: &Path,
    state: &State,
    link: BlobLink,
    referrer: &Location,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let path = blob_path(dir, link.id);
    let at = |offset| Location { path: path.clone(), offset, page: referrer.page, slot: referrer.slot };
    let input = match Input::open(disk, &path)? {
        Ok(input) => input,
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let kind = if missing { kind::BLOB_MISSING } else { kind::UNREADABLE };
            sink.damage(kind, at(None), format!("a blob of {}", some(link.len, "byte")), error);
            return Ok(());
        }
    };
    sink.report.blobs += 1;
    sink.report.blob_bytes += link.len;
    let expected = BLOB_HEADER_BYTES as u64 + link.len;
    if input.len != expected {
        sink.damage(kind::BLOB_LENGTH, at(None), some(expected, "byte"), some(input.len, "byte"));
        return Ok(());
    }
    let mut header = [0; BLOB_HEADER_BYTES];
    input.read(&mut header, 0, sink)?;
    if !header_matches(&header, state.header.uuid, link) {
        sink.damage(kind::BLOB_HEADER, at(Some(0)), format!("the header of blob {:#x}", link.id), "other bytes");
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; PIECE_BYTES.min(link.len as usize)];
    let mut done = 0;
    while done < link.len {
        // Only the last piece is shorter.
        buffer.truncate((link.len - done).min(PIECE_BYTES as u64) as usize);
        input.read(&mut buffer, BLOB_HEADER_BYTES as u64 + done, sink)?;
        hasher.update(&buffer);
        done += buffer.len() as u64;
    }
    let found = hasher.finalize();
    if found != link.crc {
        let text = |crc: u32| format!("crc {crc:#010x}");
        sink.damage(kind::BLOB_CHECKSUM, at(Some(BLOB_HEADER_BYTES as u64)), text(link.crc), text(found));
    }
    Ok(())
}

/// Compares the checkpoint's counters with the blobs that live records link.
pub(super) fn check_accounting(state: &State, links: &[LiveLink], sink: &mut Sink<'_>) {
    let counted = (state.meta.blobs.count, state.meta.blobs.bytes);
    let linked = (links.len() as u64, links.iter().map(|live| live.link.len).sum());
    if counted != linked {
        let text = |(count, bytes): (u64, u64)| format!("{} with {}", some(count, "blob"), some(bytes, "byte"));
        let location = Location::page(&state.pages.index.path, FIRST_META_PAGE);
        sink.harmless(kind::BLOB_ACCOUNTING, location, text(linked), text(counted));
    }
}

/// Counts the blob files that nobody links. `on_disk` are the ids of all.
pub(super) fn check_leftovers(
    dir: &Path,
    state: &State,
    on_disk: &[u64],
    live: &[LiveLink],
    tail: &[BlobLink],
    sink: &mut Sink<'_>,
) {
    let linked: HashSet<u64> = live.iter().map(|live| live.link.id).chain(tail.iter().map(|link| link.id)).collect();
    let blobs = &state.meta.blobs;
    let waiting: HashSet<u64> = blobs.dying.iter().chain(&blobs.in_flight).copied().collect();
    for id in on_disk.iter().filter(|id| !linked.contains(id)) {
        if *id >= blobs.next_id || waiting.contains(id) {
            sink.report.leftover_blobs += 1;
        } else {
            let expected = "a record that links it, or an entry in the list of blobs to unlink";
            sink.harmless(kind::BLOB_ORPHAN, Location::file(&blob_path(dir, *id)), expected, "neither");
        }
    }
}
