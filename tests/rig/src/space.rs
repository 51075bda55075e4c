//! What nothing needs any more goes away by itself: the bytes of replaced large values, and of records that were removed when
//! nobody writes any more.

use tophash::{Batch, Options, Store, SyncPolicy};

use crate::disk::SimDisk;
use crate::run::{STORE, blank};
use crate::script::key;
use crate::scripts::tiny;

const MIB: u64 = 1 << 20;
/// Bytes of freed large values that may wait for a checkpoint, whatever else is in the store.
const WAITING: u64 = 16 * MIB;
const SEGMENT: u64 = 64 << 10;
/// How much larger than its live records a log may be, and so many segments more.
const RATIO: f64 = 1.5;
const SEGMENTS: u64 = 4;

fn open(background: bool, seed: u64) -> Result<Store, String> {
    let disk = SimDisk::untracked(blank(), seed);
    let mut tuning = tiny();
    tuning.background = background;
    // Of the size that stores have: the table is not what this is about.
    (tuning.home_buckets, tuning.stash_buckets) = (60, 3);
    if background {
        disk.serve_threads();
    }
    let options = Options::new().sync(SyncPolicy::Manual).tuning(tuning).segment_bytes(SEGMENT).log_ratio(RATIO);
    options.disk(std::sync::Arc::new(disk)).open(STORE).map_err(|error| format!("open: {error}"))
}

/// One large value, replaced over and over. Returns the bytes written.
///
/// # Errors
/// In words: how much waits to be freed.
pub fn replaced(seed: u64) -> Result<u64, String> {
    let store = open(false, seed)?;
    let mut written = 0;
    for n in 0..40 {
        store.insert("large", vec![n; MIB as usize]).map_err(|error| error.to_string())?;
        written += MIB;
        let bytes = store.disk_bytes().map_err(|error| error.to_string())?;
        // Itself, the one that it replaces, and the rest of the store.
        if bytes > WAITING + 4 * MIB {
            return Err(format!("one value of {MIB} bytes, written {} times, takes {bytes} bytes", n + 1));
        }
    }
    Ok(written)
}

/// Nearly everything is removed, and then nobody writes. When the threads of the background have nothing to do any more, the log
/// is within its bound. Returns the bytes that went.
///
/// # Errors
/// In words: what is left.
pub fn removed(seed: u64) -> Result<u64, String> {
    let store = open(true, seed)?;
    let text = |error: tophash::Error| error.to_string();
    let keys: Vec<_> = (0..8000).map(key).collect();
    keys.iter().try_for_each(|key| store.insert(key, [1; 100]).map(|_| ())).map_err(text)?;
    let before = store.stats().log.bytes;
    // In one call: between the parts of `remove_many` the caller would compact most of it, which is not what is asked here.
    let mut batch = Batch::new();
    keys[200..].iter().for_each(|key| _ = batch.remove(key));
    store.apply(&batch).map_err(text)?;
    while !store.rest().1 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let log = store.stats().log;
    let bound = ((log.bytes - log.dead_bytes) as f64 * RATIO) as u64 + SEGMENTS * SEGMENT;
    if log.bytes > bound {
        return Err(format!("nobody writes, and the log stays at {} bytes; its bound is {bound}", log.bytes));
    }
    Ok(before - log.bytes)
}
