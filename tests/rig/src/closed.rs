//! A store is closed by one handle while others write, and opened again at once: what was acknowledged is there.
//!
//! A write that is still under way when the closing checkpoint makes its cut would be appended behind the clean mark. The
//! next opener takes the log's end from there, and writes over it.

use std::path::Path;
use std::time::Duration;

use tophash::{Error, Options, Store, SyncPolicy, Tuning};

use crate::random::Random;
use crate::scripts::tiny;

const WRITERS: u64 = 2;
/// Records that the next opener writes.
const NEXT: u64 = 100;

fn key(writer: u64, n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&writer.to_le_bytes());
    key[8..].copy_from_slice(&n.to_le_bytes());
    key
}

/// Inserts until the store is closed. Returns the number of inserts that were acknowledged.
fn write(store: &Store, writer: u64) -> Result<u64, Error> {
    for n in 0.. {
        match store.insert(key(writer, n), n.to_le_bytes()) {
            Ok(_) => {}
            Err(Error::Closed { .. }) => return Ok(n),
            Err(error) => return Err(error),
        }
    }
    Ok(u64::MAX)
}

/// Returns the number of inserts that were acknowledged.
///
/// # Errors
/// In words: one of them is lost.
pub fn check(directory: &Path, seed: u64) -> Result<u64, String> {
    let mut random = Random::new(seed);
    std::fs::create_dir(directory).map_err(|error| error.to_string())?;
    let mut acknowledged = 0;
    for round in 0..30 {
        let background = round % 2 == 1;
        let options = Options::new().sync(SyncPolicy::Manual).tuning(Tuning { background, ..tiny() });
        let pause = Duration::from_micros(random.below(3000));
        acknowledged += one(&options, &directory.join(round.to_string()), pause)?;
    }
    Ok(acknowledged)
}

fn one(options: &Options, path: &Path, pause: Duration) -> Result<u64, String> {
    let text = |error: Error| error.to_string();
    let store = options.open(path).map_err(text)?;
    let spawn = |writer| {
        let store = store.clone();
        std::thread::spawn(move || write(&store, writer))
    };
    let writers: Vec<_> = (0..WRITERS).map(spawn).collect();
    std::thread::sleep(pause);
    let closed = store.close();
    let again = options.open(path).map_err(text);
    let next = again
        .as_ref()
        .map(|again| (0..NEXT).try_for_each(|n| again.insert(key(WRITERS, n), n.to_le_bytes()).map(drop)));
    // Joined before anything is returned.
    let written: Vec<_> = writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked")).collect();
    closed.map_err(text)?;
    next.map_err(Clone::clone)?.map_err(text)?;
    let again = again?;
    let mut counts = vec![NEXT];
    for count in written.into_iter().rev() {
        counts.insert(0, count?.map_err(text)?);
    }
    all_there(&again, &counts)?;
    again.close().map_err(text)?;
    all_there(&options.open(path).map_err(text)?, &counts)?;
    Ok(counts.iter().take(WRITERS as usize).sum())
}

fn all_there(store: &Store, counts: &[u64]) -> Result<(), String> {
    for (writer, &count) in (0..).zip(counts) {
        for n in 0..count {
            match store.get(key(writer, n)).map_err(|error| error.to_string())? {
                Some(value) if *value == n.to_le_bytes() => {}
                _ => return Err(format!("insert {n} of writer {writer} was acknowledged, and is lost")),
            }
        }
    }
    Ok(())
}
