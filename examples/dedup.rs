//! Finds duplicates in a stream of events, and counts them, from several threads. `compare_exchange` tells exactly one
//! thread that it was the first; `update` reads, computes and stores, and does it again if another thread was faster.
//! No lock is held while its closure runs.
//!
//!     cargo run --example dedup

use std::thread;

use tophash::{Result, Store};

const THREADS: u64 = 4;
const EVENTS: u64 = 20_000;
const DISTINCT: u64 = 500;

/// Counts an event; true if it occurred for the first time.
fn count(store: &Store, event: &str) -> Result<bool> {
    if store.compare_exchange(event, None, Some(&1u64.to_le_bytes()))?.is_ok() {
        return Ok(true);
    }
    store.update(event, |old| {
        let old = old.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        Some((old + 1).to_le_bytes().to_vec())
    })?;
    Ok(false)
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tophash-example-dedup-{}", std::process::id()));
    let store = Store::open(&path)?;
    let firsts = thread::scope(|scope| -> Result<u64> {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let store = &store;
                scope.spawn(move || -> Result<u64> {
                    let mut firsts = 0;
                    for i in 0..EVENTS / THREADS {
                        let event = format!("event-{}", (i * THREADS + worker) * 7919 % DISTINCT);
                        firsts += u64::from(count(store, &event)?);
                    }
                    Ok(firsts)
                })
            })
            .collect();
        let mut firsts = 0;
        for worker in workers {
            firsts += worker.join().expect("a worker does not panic")?;
        }
        Ok(firsts)
    })?;
    let mut total = 0;
    for entry in store.iter() {
        let entry = entry?;
        total += entry.value().try_into().map_or(0, u64::from_le_bytes);
    }
    println!("{} distinct events, {total} in all", store.len());
    assert_eq!((store.len(), firsts, total), (DISTINCT, DISTINCT, EVENTS));
    store.close()?;
    // Nobody has it open any more.
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
