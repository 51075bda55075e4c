//! Churn: the patterns that keep freed space from being reused, with tophash's answers and without them.
//!
//! ```text
//! cargo bench --bench churn                              all patterns, small
//! cargo bench --bench churn -- steady 2000000 20000000   one pattern: live records, steps
//! cargo bench --bench churn -- steady 2000000 20000000 without
//! cargo bench --bench churn -- random 1000000 5000000 ratio=1.2    less space, more copying (`Options::log_ratio`)
//! ```
//!
//! * *steady*: each step removes the oldest record and inserts a new one; 16-byte keys, 100-byte values. Whole
//!   segments die: the log is a ring.
//! * *random*: the same, but any record is removed: segments thin out evenly, and live records must be moved.
//! * *clustered*: removals hit the same pages again and again (keys chosen by their place in a scan), mixed with
//!   updates: pages whose few live slots would soon lie among tombstones if removals did not repair.
//! * *growing*: inserts and removals while the table grows through several doublings.
//! * *emptied*: 95 % of the records are removed; how soon, and how far, does the store get smaller?
//! * *compacted*: as *emptied*, with 24-byte keys and 150-byte values; then `tophash::compact::compact`: how small, how fast?
//!
//! "Without" turns off page rewrites, compaction and shrinking.

mod records;

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use records::{key, mixed, value};
use tophash::{Options, Store, SyncPolicy, Tuning};

/// `Options::log_ratio`, if it was given.
static RATIO: OnceLock<f64> = OnceLock::new();
/// Windows that a run is divided into.
const WINDOWS: u64 = 20;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let without = arguments.iter().any(|argument| argument == "without");
    if let Some(ratio) = arguments.iter().find_map(|argument| argument.strip_prefix("ratio=")) {
        let ratio = ratio.parse()?;
        RATIO.get_or_init(|| ratio);
    }
    arguments.retain(|argument| argument != "without" && !argument.starts_with("ratio="));
    let number = |i: usize, default: u64| -> Result<u64> {
        arguments.get(i).map_or(Ok(default), |text| Ok(text.replace('_', "").parse()?))
    };
    let (live, steps) = (number(1, 200_000)?, number(2, 2_000_000)?);
    match arguments.first().map(String::as_str) {
        None => {
            for reuse in [true, false] {
                steady(live, steps, reuse, false)?;
                steady(live, steps, reuse, true)?;
                clustered(live, steps, reuse)?;
                growing(live, reuse)?;
                emptied(live * 2, reuse)?;
            }
            compacted(live)
        }
        Some("steady") => steady(live, steps, !without, false),
        Some("random") => steady(live, steps, !without, true),
        Some("clustered") => clustered(live, steps, !without),
        Some("growing") => growing(live, !without),
        Some("emptied") => emptied(live, !without),
        Some("compacted") => compacted(live),
        Some(other) => {
            Err(format!("no pattern {other:?}: steady, random, clustered, growing, emptied or compacted").into())
        }
    }
}

fn options(reuse: bool) -> Options {
    let options = Options::new().sync(SyncPolicy::Manual);
    if reuse {
        return RATIO.get().map_or(options.clone(), |&ratio| options.log_ratio(ratio));
    }
    let tuning = Tuning { rewrite_permille: 1000, shrink_permille: 0, ..Tuning::default() };
    options.tuning(tuning).log_ratio(f64::INFINITY)
}

fn open(dir: &Path, reuse: bool) -> Result<Store> {
    Ok(options(reuse).open(dir.join("churn.tophash"))?)
}

fn header(name: &str, reuse: bool, what: &str) {
    println!("\n## {name}, {} reuse: {what}\n", if reuse { "with" } else { "without" });
    println!(
        "| steps | steps/s | live MB | log MB | log / live | disk MB | segments | moved/step | lines, absent key | tombstones met | overflow pages |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
}

/// Prints one line of figures; returns (log bytes, live bytes, largest segment).
fn line(store: &Store, steps: u64, window: u64, took: Duration) -> Result<(u64, u64, u64)> {
    let stats = store.stats();
    let live = stats.log.bytes - stats.log.dead_bytes;
    let (lines, tombstones) = store.survey(20_000, steps)?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "| {steps} | {:.0} | {:.1} | {:.1} | {:.2} | {:.1} | {} | {:.2} | {lines:.3} | {tombstones:.3} | {} |",
        window as f64 / took.as_secs_f64(),
        mb(live),
        mb(stats.log.bytes),
        stats.log.bytes as f64 / live.max(1) as f64,
        mb(store.disk_bytes()?),
        stats.log.segments,
        stats.compaction.moved_records as f64 / steps.max(1) as f64,
        stats.index.overflow_pages,
    );
    Ok((stats.log.bytes, live, stats.log.file_bytes / stats.log.segments.max(1)))
}

fn steady(live: u64, steps: u64, reuse: bool, random: bool) -> Result<()> {
    header(
        if random { "random" } else { "steady" },
        reuse,
        &format!("{live} live records, {steps} steps of remove one + insert one"),
    );
    let dir = tempfile::tempdir()?;
    let store = open(dir.path(), reuse)?;
    for n in 0..live {
        store.insert(key(n), value(n))?;
    }
    // Which records are live; the one to be removed next is at `at`.
    let mut alive: Vec<u64> = (0..live).collect();
    let (mut at, mut state) = (0, 1);
    let mut rates = Vec::new();
    let mut worst: f64 = 0.0;
    let mut slowest = Duration::ZERO;
    let window = (steps / WINDOWS).max(1);
    for w in 0..WINDOWS {
        let started = Instant::now();
        for n in w * window..(w + 1) * window {
            let step = Instant::now();
            let (old, new) = (alive[at], n + live);
            assert!(store.remove(key(old))?.is_some(), "key {old} was lost");
            store.insert(key(new), value(new))?;
            alive[at] = new;
            state = mixed(state + n);
            at = if random { (state % live) as usize } else { (at + 1) % alive.len() };
            slowest = slowest.max(step.elapsed());
        }
        let took = started.elapsed();
        rates.push(window as f64 / took.as_secs_f64());
        let (log, live_bytes, segment) = line(&store, (w + 1) * window, window, took)?;
        // Segments above one and a half times the live bytes.
        worst = worst.max((log as f64 - 1.5 * live_bytes as f64) / segment.max(1) as f64);
    }
    let stats = store.stats();
    println!(
        "\nlast window / second window: {:.3}; all: {:.0} steps/s; slowest step {:.2} ms; log over 1.5 x live: {worst:.2} segments at most; \
         helps {}, waits {}; freed segments {}",
        rates[rates.len() - 1] / rates[1],
        rates.iter().sum::<f64>() / rates.len() as f64,
        slowest.as_secs_f64() * 1e3,
        stats.compaction.helps,
        stats.compaction.throttles,
        stats.compaction.freed_segments,
    );
    Ok(())
}

fn clustered(live: u64, steps: u64, reuse: bool) -> Result<()> {
    header("clustered", reuse, &format!("{live} live records; keys of the same pages removed, updated, inserted"));
    let dir = tempfile::tempdir()?;
    let store = open(dir.path(), reuse)?;
    for n in 0..live {
        store.insert(key(n), value(n))?;
    }
    // Keys in the order of their pages: a thousand of them are two pages or so.
    let order: Vec<Vec<u8>> = store.keys().take(20_000).map(|key| Ok(key?.to_vec())).collect::<Result<_>>()?;
    let window = (steps / WINDOWS).max(1);
    let mut state = 1;
    for w in 0..WINDOWS {
        let started = Instant::now();
        for step in 0..window {
            state = mixed(state + step);
            let hot = &order[(state % order.len() as u64) as usize];
            match state >> 60 {
                0..8 => drop(store.remove(hot)?),
                8..14 => drop(store.insert(hot, value(step))?),
                _ => drop(store.get(hot)?),
            }
        }
        line(&store, (w + 1) * window, window, started.elapsed())?;
    }
    Ok(())
}

fn growing(live: u64, reuse: bool) -> Result<()> {
    header("growing", reuse, &format!("from nothing to {live} records, one removal for every two inserts"));
    let dir = tempfile::tempdir()?;
    let store = open(dir.path(), reuse)?;
    let window = (2 * live / WINDOWS).max(1);
    let (mut next, mut oldest) = (0, 0);
    for w in 0..WINDOWS {
        let started = Instant::now();
        for _ in 0..window {
            store.insert(key(next), value(next))?;
            next += 1;
            if next % 2 == 0 {
                assert!(store.remove(key(oldest))?.is_some(), "key {oldest} was lost");
                oldest += 1;
            }
        }
        line(&store, (w + 1) * window, window, started.elapsed())?;
    }
    assert_eq!(store.len(), next - oldest);
    Ok(())
}

fn emptied(records: u64, reuse: bool) -> Result<()> {
    header("emptied", reuse, &format!("{records} records, then 95 % of them removed"));
    let dir = tempfile::tempdir()?;
    let store = open(dir.path(), reuse)?;
    for n in 0..records {
        store.insert(key(n), value(n))?;
    }
    line(&store, records, 0, Duration::from_secs(1))?;
    let started = Instant::now();
    let gone: Vec<[u8; 16]> = (0..records).filter(|n| n % 20 != 0).map(key).collect();
    let removed: u64 = gone.chunks(10_000).map(|keys| store.remove_many(keys)).sum::<tophash::Result<u64>>()?;
    assert_eq!(removed, gone.len() as u64);
    line(&store, removed, removed, started.elapsed())?;
    let started = Instant::now();
    for tenths in 1..=100 {
        std::thread::sleep(Duration::from_millis(100));
        let live = store.stats().log.bytes - store.stats().log.dead_bytes;
        let small = store.disk_bytes()? <= 2 * live;
        if small || tenths % 20 == 0 {
            line(&store, removed, 0, Duration::from_secs(1))?;
        }
        if small {
            println!("\ndisk at most twice the live bytes after {:.1} s", started.elapsed().as_secs_f64());
            return Ok(());
        }
    }
    println!("\ndisk not yet twice the live bytes after {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn compacted(records: u64) -> Result<()> {
    println!("\n## compacted: {records} records of 24 + 150 bytes, kept in part, compacted offline\n");
    println!("| kept | records | disk before MB | after MB | after / (key + value) | pages | records/s |");
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for kept_of_20 in [20, 10, 1] {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("compacted.tophash");
        let store = options(true).open(&path)?;
        let key = |n: u64| -> Vec<u8> { [&key(n)[..], &n.to_be_bytes()].concat() };
        for n in 0..records {
            store.insert(key(n), [&value(n)[..], &[7; 50]].concat())?;
        }
        let gone: Vec<Vec<u8>> = (0..records).filter(|n| n % 20 >= kept_of_20).map(key).collect();
        gone.chunks(10_000).try_for_each(|keys| store.remove_many(keys).map(|_| ()))?;
        store.close()?;
        let report = tophash::compact::compact(&path)?;
        let (before, after) = (&report.before, &report.after);
        let wanted = after.records * 174;
        println!(
            "| {} % | {} | {:.1} | {:.1} | {:.3} | {} | {:.0} |",
            kept_of_20 * 5,
            after.records,
            before.disk_bytes as f64 / 1e6,
            after.disk_bytes as f64 / 1e6,
            after.disk_bytes as f64 / wanted as f64,
            after.pages,
            after.records as f64 / (report.nanos as f64 / 1e9),
        );
    }
    Ok(())
}
