//! Readers without locks beside writers, with real threads on a real disk, for a short time: what is always there must
//! always be found, and what is found must be whole.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tophash::{Options, Store, SyncPolicy, Tuning};

use crate::random::Random;

/// Keys that are always there.
const PERMANENT: u64 = 300;
/// Keys that come and go.
const PASSING: u64 = 1500;

/// Every value has the same length, so that offsets of one segment are offsets of another.
fn value(key: u64, version: u64) -> [u8; 40] {
    let mut value = [version as u8; 40];
    value[..8].copy_from_slice(&key.to_le_bytes());
    value[8..16].copy_from_slice(&version.to_le_bytes());
    value
}

/// Runs readers and writers for some time. Returns the number of reads.
///
/// # Errors
/// In words: what a reader met that cannot be.
///
/// # Panics
/// If the store cannot be set up.
pub fn run(directory: &Path, time: Duration, seed: u64) -> Result<u64, String> {
    let tuning = Tuning {
        level_min: 0,
        home_buckets: 3,
        stash_buckets: 1,
        grow_permille: 1500,
        tiny_pages: 2,
        shrink_permille: 700,
        overflow_log2_min: 2,
        chain_help: 3,
        stripes_log2_max: 4,
        background: true,
        ..Tuning::default()
    };
    let options = Options::new().tuning(tuning).sync(SyncPolicy::Manual).segment_bytes(16 << 10).log_ratio(1.1);
    let store = options.checkpoint_bytes(64 << 10).create_new(true).open(directory).expect("a new store");
    for key in 0..PERMANENT {
        store.insert(key.to_le_bytes(), value(key, 0)).expect("an insert");
    }
    let (stop, reads, found) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(None));
    let until = Instant::now() + time;
    let over = || stop.load(Ordering::Relaxed) || Instant::now() > until;
    let violated = |what: String| {
        stop.store(true, Ordering::Relaxed);
        found.lock().get_or_insert(what);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(seed);
            while !over() {
                if let Err(error) = write(&store, &mut random, &over) {
                    violated(format!("a writer: {error}"));
                }
            }
        });
        for reader in 0..2 {
            let (over, violated, reads, store) = (&over, &violated, &reads, &store);
            scope.spawn(move || {
                let mut random = Random::new(seed ^ (reader + 1));
                let mut seen = vec![0; PERMANENT as usize];
                while !over() {
                    let key = random.below(PERMANENT);
                    reads.fetch_add(1, Ordering::Relaxed);
                    if let Err(what) = read(store, key, &mut seen[key as usize]) {
                        violated(what);
                    }
                }
            });
        }
    });
    drop(store);
    found.into_inner().map_or(Ok(reads.load(Ordering::Relaxed)), Err)
}

fn read(store: &Store, key: u64, seen: &mut u64) -> Result<(), String> {
    let found = store.get(key.to_le_bytes()).map_err(|error| format!("a reader: {error}"))?;
    let found = found.ok_or_else(|| format!("key {key} is always there and was not found"))?;
    let words = found.as_chunks::<8>().0;
    let (of, version) = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
    if of != key || found[..] != value(key, version) {
        return Err(format!("the value of key {key} is one of key {of}, version {version}"));
    }
    if version < *seen {
        return Err(format!("the value of key {key} went back from version {seen} to {version}"));
    }
    *seen = version;
    Ok(())
}

/// One tide: keys come, the table grows; keys go, it shrinks; the permanent ones are replaced all the while. Then
/// nothing moves in the table for a while, and segments come and go.
fn write(store: &Store, random: &mut Random, over: &dyn Fn() -> bool) -> tophash::Result<()> {
    static VERSION: AtomicU64 = AtomicU64::new(1);
    let replace = |random: &mut Random| {
        let key = random.below(PERMANENT);
        store.insert(key.to_le_bytes(), value(key, VERSION.fetch_add(1, Ordering::Relaxed))).map(|_| ())
    };
    let high = 100 + random.below(PASSING - 100);
    for up in [true, false] {
        for n in 0..high {
            if over() {
                return Ok(());
            }
            let passing = PERMANENT + n;
            if up {
                store.insert(passing.to_le_bytes(), value(passing, 1))?;
            } else {
                store.remove(passing.to_le_bytes())?;
            }
            if n % 2 == 0 {
                replace(random)?;
            }
        }
    }
    for _ in 0..30_000 {
        if over() {
            break;
        }
        replace(random)?;
    }
    Ok(())
}
