//! How sizes, memory and times grow with the number of records, to hold docs/SCALING.md against.
//!
//! ```text
//! cargo bench --bench scale                                    1, 10 and 50 million records
//! cargo bench --bench scale -- 1000000,10000000 100000 memory=134217728
//! ```
//!
//! Arguments: sizes, with commas; random reads and updates of each; `memory=` sets `Options::memory_bytes`. `SCALE_DIR` says
//! where the stores are made; default: the system's directory for temporary files.
//!
//! Each store is filled one record after the other (16-byte keys, 100-byte values), closed, opened, read at random, updated at
//! random, and brought up to date by a checkpoint. `SyncPolicy::Manual`; every answer is checked.

mod records;

use std::time::{Duration, Instant};

use records::{key, mixed, value};
use tophash::{Options, SyncPolicy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut options = Options::new().sync(SyncPolicy::Manual);
    if let Some(at) = arguments.iter().position(|argument| argument.starts_with("memory=")) {
        options = options.memory_bytes(arguments.remove(at)["memory=".len()..].replace('_', "").parse()?);
    }
    let argument = |i: usize, default: &str| arguments.get(i).map_or(default, String::as_str).replace('_', "");
    let sizes = argument(0, "1000000,10000000,50000000");
    let operations: u64 = argument(1, "500000").parse()?;
    println!("\n{operations} random reads and updates each\n");
    println!(
        "| records | inserts/s | slowest | index file, bytes a record | log beyond keys and values, bytes a record | anonymous memory after the fill | close | open and first answer | reads/s | updates/s | anonymous memory then | checkpoint | ... pages of the table written |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for records in sizes.split(',') {
        measure(&options, records.parse()?, operations)?;
    }
    Ok(())
}

fn measure(options: &Options, records: u64, operations: u64) -> Result<()> {
    let dir = std::env::var_os("SCALE_DIR").map_or_else(tempfile::tempdir, tempfile::tempdir_in)?;
    let path = dir.path().join("scale.tophash");
    let store = options.open(&path)?;
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    for n in 0..records {
        let begun = Instant::now();
        assert!(store.insert(key(n), value(n))?.is_none());
        slowest = slowest.max(begun.elapsed());
    }
    let inserts = records as f64 / started.elapsed().as_secs_f64();
    let stats = store.stats();
    let each = |bytes: u64| bytes as f64 / records as f64;
    let (index, log) = (each(stats.index.file_bytes), each(stats.log.bytes) - 116.0);
    let filled = anonymous_bytes()?;

    let started = Instant::now();
    store.close()?;
    let close = started.elapsed();
    let started = Instant::now();
    let store = options.open(&path)?;
    assert!(store.get(key(0))?.is_some());
    let open = started.elapsed();

    let pick = |round: u64, i: u64| mixed(mixed(round * operations + i + 77)) % records;
    let reads = rate(operations, |i| {
        let n = pick(1, i);
        assert_eq!(store.get(key(n))?.as_deref(), Some(&value(n)[..]));
        Ok(())
    })?;
    let updates = rate(operations, |i| {
        let n = pick(2, i);
        assert!(store.insert(key(n), value(n))?.is_some());
        Ok(())
    })?;
    let updated = anonymous_bytes()?;
    let before = store.stats().checkpoint.images;
    let started = Instant::now();
    store.checkpoint()?;
    let checkpoint = started.elapsed();
    let stats = store.stats();
    println!(
        "| {records} | {inserts:.0} | {:.1} ms | {index:.1} | {log:.1} | {} MiB | {:.1} ms | {:.1} ms | {reads:.0} | {updates:.0} | {} MiB | {:.0} ms | {} of {} |",
        millis(slowest),
        filled >> 20,
        millis(close),
        millis(open),
        updated >> 20,
        millis(checkpoint),
        stats.checkpoint.images - before,
        stats.index.pages,
    );
    Ok(store.close()?)
}

/// Operations a second.
fn rate(operations: u64, mut work: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    for i in 0..operations {
        work(i)?;
    }
    Ok(operations as f64 / started.elapsed().as_secs_f64())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Anonymous memory of this process: the heap and private copies of index pages.
fn anonymous_bytes() -> Result<u64> {
    Ok(tophash_bench_support::proc::anonymous_bytes().ok_or("no RssAnon in /proc/self/status")?)
}
