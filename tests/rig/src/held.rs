//! A large value that somebody compares with is held, with the address of the record that links it.
//!
//! `update` compares by address: while its function runs, another change of the same key must not come to stand where the
//! old one stood. Here the function itself does everything to bring that about: it replaces the value, has the old
//! record's segment compacted away, fills new segments up to the very offset that the old record had, and replaces the
//! value once more there.

use tophash::{Options, Store, SyncPolicy};

use crate::disk::SimDisk;
use crate::run::{STORE, blank};
use crate::scripts::tiny;

const KEY: &str = "k";
/// More than a segment takes.
const LARGE: usize = 2000;
/// Bytes of the smallest filling record.
const STEP: u64 = 24;
/// Times that the offset is passed: in so many segments, one after the other.
const SEGMENTS: u64 = 8;

fn value(tag: u8) -> Vec<u8> {
    vec![tag; LARGE]
}

fn offset(store: &Store) -> u64 {
    store.stats().log.end_lsn & u64::from(u32::MAX)
}

/// Inserts small records until the next one begins at an offset.
fn fill_to(store: &Store, wanted: u64, n: &mut u32) -> tophash::Result<()> {
    loop {
        let gap = wanted.wrapping_sub(offset(store));
        if gap == 0 {
            return Ok(());
        }
        let bytes = if gap < 1 << 20 && gap > 2 * STEP { STEP + gap % STEP } else { STEP };
        fill(store, bytes, n)?;
    }
}

/// Inserts a record of so many bytes, with its header of 8 and a key of 4.
fn fill(store: &Store, bytes: u64, n: &mut u32) -> tophash::Result<()> {
    *n += 1;
    store.insert(format!("f{:03}", *n % 64), vec![1; bytes as usize - 12]).map(|_| ())
}

/// Returns the number of updates that began anew, as they had to.
///
/// # Errors
/// In words: a change was lost.
pub fn check(seed: u64) -> Result<u64, String> {
    (1..=SEGMENTS).try_for_each(|segments| one(seed, segments)).map(|()| SEGMENTS)
}

fn one(seed: u64, segments: u64) -> Result<(), String> {
    let text = |error: tophash::Error| error.to_string();
    let disk = SimDisk::untracked(blank(), seed);
    let options = Options::new().sync(SyncPolicy::Manual).tuning(tiny()).segment_bytes(4096);
    let store = options.disk(std::sync::Arc::new(disk)).open(STORE).map_err(text)?;
    let mut n = 0;
    (0..20).try_for_each(|_| fill(&store, STEP, &mut n)).map_err(text)?;
    let at = offset(&store);
    store.insert(KEY, value(1)).map_err(text)?;
    let mut seen = Vec::new();
    let mut others = Ok(());
    let meanwhile = |n: &mut u32| {
        store.insert(KEY, value(2))?;
        for _ in 0..3 {
            store.compact()?;
        }
        for _ in 0..segments {
            fill(&store, STEP, n)?;
            fill_to(&store, at, n)?;
        }
        store.insert(KEY, value(3)).map(|_| ())
    };
    let updated = store.update(KEY, |old| {
        seen.push(old.and_then(|old| old.first().copied()));
        if seen.len() == 1 {
            others = meanwhile(&mut n);
        }
        old.map(|old| [old, &[9]].concat())
    });
    drop(updated.map_err(text)?);
    others.map_err(text)?;
    let found = store.get(KEY).map_err(text)?.ok_or("the key is gone")?;
    if seen != [Some(1), Some(3)] || found[..] != [value(3), vec![9]].concat() {
        return Err(format!(
            "the change of another is lost: the update saw {seen:?}, and the value comes from {}",
            found[0]
        ));
    }
    Ok(())
}
