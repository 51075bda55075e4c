//! Records that expire: when their space comes back with nobody calling, and what a steady stream of them takes.
//!
//! ```text
//! cargo bench --bench expiry                       1 M records that live for 10 s; then a stream for 20 s, each living for 2 s
//! cargo bench --bench expiry -- 10000000 60 60 5 200000
//! ```
//!
//! Arguments: records; how long they live, in seconds; how long the stream is, how long its records live, and how many come a
//! second (100,000; 0: as many as it takes). 16-byte keys, 100-byte values, `SyncPolicy::Manual`.

mod records;

use std::time::{Duration, Instant, SystemTime};

use records::{key, value};
use tophash::{Options, Store, SyncPolicy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |i: usize, default: u64| -> Result<u64> {
        arguments.get(i).map_or(Ok(default), |text| Ok(text.replace('_', "").parse()?))
    };
    let seconds = |i, default| number(i, default).map(Duration::from_secs);
    at_once(number(0, 1_000_000)?, seconds(1, 10)?)?;
    stream(seconds(2, 20)?, seconds(3, 2)?, number(4, 100_000)?)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn line(at: &str, store: &Store) -> Result<()> {
    let stats = store.stats();
    println!(
        "| {at} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
        store.len(),
        megabytes(stats.log.bytes),
        megabytes(stats.log.expired_bytes),
        megabytes(stats.log.expiring_bytes),
        megabytes(store.disk_bytes()?),
        stats.compaction.expired_records,
    );
    Ok(())
}

fn header(what: &str) {
    println!("\n## {what}\n");
    println!("| | entries | log MB | expired MB | expiring MB | disk MB | removed from the index |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
}

/// All records get the same deadline, and then nobody calls but for figures.
fn at_once(records: u64, life: Duration) -> Result<()> {
    header(&format!("{records} records, each for {life:?}"));
    let dir = tempfile::tempdir()?;
    let store = Options::new().sync(SyncPolicy::Manual).open(dir.path().join("expiry.tophash"))?;
    let expiring = store.expiring(life);
    for n in 0..records {
        expiring.set(key(n), value(n))?;
    }
    let last = SystemTime::now() + life;
    line("written", &store)?;
    let full = store.disk_bytes()?;
    std::thread::sleep(last.duration_since(SystemTime::now()).unwrap_or_default());
    line("the last one has expired", &store)?;
    let started = Instant::now();
    let mut told = 0;
    while store.disk_bytes()? > full / 10 {
        std::thread::sleep(Duration::from_millis(50));
        if started.elapsed().as_secs() > told {
            told += 1;
            line(&format!("{told} s later"), &store)?;
        }
        if told > 120 {
            return Err("the space did not come back".into());
        }
    }
    line(&format!("{:.2} s later, at a tenth of the disk", started.elapsed().as_secs_f64()), &store)?;
    Ok(())
}

/// One record after the other, each with a deadline of its own.
fn stream(length: Duration, life: Duration, rate: u64) -> Result<()> {
    header(&format!("a stream for {length:?}, {rate} a second, each record for {life:?}"));
    let dir = tempfile::tempdir()?;
    let store = Options::new().sync(SyncPolicy::Manual).open(dir.path().join("stream.tophash"))?;
    let expiring = store.expiring(life);
    let (started, mut n, mut told) = (Instant::now(), 0, 0);
    let mut worst: f64 = 0.0;
    while started.elapsed() < length {
        for _ in 0..1000 {
            expiring.set(key(n), value(n))?;
            n += 1;
        }
        if let Some(due) = (n * 1000).checked_div(rate).map(Duration::from_millis) {
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        let log = store.stats().log;
        let live = log.bytes - (log.dead_bytes + log.expired_bytes).min(log.bytes);
        // The usual size of a new segment in a log of that size, part of which is dead.
        let segment = (log.bytes / 32).next_power_of_two();
        if started.elapsed() > life {
            worst = worst.max((log.bytes as f64 - 1.5 * live as f64) / segment.max(1) as f64);
        }
        if started.elapsed().as_secs() >= told + length.as_secs().div_ceil(10) {
            told = started.elapsed().as_secs();
            line(&format!("{told} s, {:.0} k/s", n as f64 / started.elapsed().as_secs_f64() / 1e3), &store)?;
        }
    }
    println!("\nlog over 1.5 x live: {worst:.2} usual segments at most");
    Ok(())
}
