//! The log as a device sees it: how fast records become durable one by one, how fast many are taken, and how much disk
//! they take.
//!
//! ```text
//! cargo bench --bench log -- synced 3000      inserts, each followed by `sync`, for each policy
//! cargo bench --bench log -- bulk 2000000     inserts one by one and one batch, `Manual` and the default policy
//! cargo bench --bench log -- space 2000000    blocks of each file: loaded, and after half was removed and compacted
//! cargo bench --bench log -- device           the same without a store: zeroes in pieces of several sizes
//! ```
//!
//! `TOPHASH_BENCH_DIR` says where the store is made. Keys have 24 bytes, values 150.

#[allow(dead_code, reason = "other benchmarks use the rest")]
mod records;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use records::{key, mixed, value};
use tempfile::TempDir;
use tophash::{Batch, Options, Store, SyncPolicy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bytes of a key and a value.
const RECORD: u64 = 24 + 150;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |default: u64| -> Result<u64> {
        arguments.get(1).map_or(Ok(default), |text| Ok(text.replace('_', "").parse()?))
    };
    match arguments.first().map(String::as_str) {
        None => {
            synced(1_000)?;
            bulk(200_000)?;
            space(200_000)
        }
        Some("synced") => synced(number(3_000)?),
        Some("bulk") => bulk(number(2_000_000)?),
        Some("space") => space(number(2_000_000)?),
        Some("device") => device(),
        Some(other) => Err(format!("no work {other:?}: synced, bulk, space or device").into()),
    }
}

fn policies() -> [(&'static str, SyncPolicy); 3] {
    [("Always", SyncPolicy::Always), ("Every", SyncPolicy::default()), ("Manual", SyncPolicy::Manual)]
}

fn scratch() -> Result<TempDir> {
    Ok(match std::env::var_os("TOPHASH_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    })
}

fn open(dir: &TempDir, policy: SyncPolicy) -> Result<Store> {
    Ok(Options::new().sync(policy).open(dir.path().join("log.tophash"))?)
}

fn long_key(n: u64) -> [u8; 24] {
    let mut long = [0; 24];
    long[..16].copy_from_slice(&key(n));
    long[16..].copy_from_slice(&mixed(!n).to_be_bytes());
    long
}

fn long_value(n: u64) -> [u8; 150] {
    let mut long = [7; 150];
    long[..100].copy_from_slice(&value(n));
    long
}

/// One of a thousand, counted from the front.
fn permille(sorted: &[Duration], part: usize) -> f64 {
    sorted[(sorted.len() * part / 1000).min(sorted.len() - 1)].as_secs_f64() * 1e6
}

/// The stores take turns, in blocks short enough for the noise of a shared machine to hit all of them.
fn synced(count: u64) -> Result<()> {
    const BLOCK: u64 = 50;
    const LOADED: u64 = 200_000;
    println!("| policy | log | insert + sync, k/s | / Always | p50 us | p99 us | KiB written each |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    let dirs = [scratch()?, scratch()?, scratch()?];
    let mut stores = Vec::new();
    for ((name, policy), dir) in policies().into_iter().zip(&dirs) {
        stores.push((name, open(dir, policy)?));
    }
    let mut next = 0;
    for log in ["new", "loaded"] {
        if log == "loaded" {
            for first in (next..next + LOADED).step_by(1_000) {
                let mut batch = Batch::new();
                (first..first + 1_000).for_each(|n| _ = batch.insert(long_key(n), long_value(n)));
                stores.iter().try_for_each(|(_, store)| store.apply(&batch))?;
            }
            next += LOADED;
            stores.iter().try_for_each(|(_, store)| store.sync())?;
            std::thread::sleep(Duration::from_secs(1));
        }
        let mut rows = [const { (Vec::new(), Vec::new(), 0) }; 3];
        for _ in 0..count / BLOCK {
            for ((_, store), (rates, times, bytes)) in stores.iter().zip(&mut rows) {
                let written = written_bytes();
                let started = Instant::now();
                for n in next..next + BLOCK {
                    let one = Instant::now();
                    store.insert(long_key(n), long_value(n))?;
                    store.sync()?;
                    times.push(one.elapsed());
                }
                rates.push(BLOCK as f64 / started.elapsed().as_secs_f64() / 1e3);
                *bytes += written_bytes() - written;
            }
            next += BLOCK;
        }
        let always = rows[0].0.clone();
        for ((name, _), (rates, mut times, bytes)) in stores.iter().zip(rows) {
            let ratio = median(rates.iter().zip(&always).map(|(rate, always)| rate / always).collect());
            let rate = median(rates);
            times.sort_unstable();
            let (half, most) = (permille(&times, 500), permille(&times, 990));
            let each = bytes as f64 / count as f64 / 1024.0;
            println!("| {name} | {log} | {rate:.2} | {ratio:.2} | {half:.0} | {most:.0} | {each:.1} |");
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What this process has handed to the device.
fn written_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn bulk(records: u64) -> Result<()> {
    println!("| policy | inserts, k/s | p99 us | p99.9 us | p99.99 us | one batch, synced, k/s |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, policy) in policies().into_iter().skip(1) {
        let dir = scratch()?;
        let store = open(&dir, policy)?;
        let mut times = Vec::with_capacity(records as usize);
        let mut last = Instant::now();
        let started = last;
        for n in 0..records {
            store.insert(long_key(n), long_value(n))?;
            let now = Instant::now();
            times.push(now - last);
            last = now;
        }
        let rate = records as f64 / started.elapsed().as_secs_f64() / 1e3;
        times.sort_unstable();
        drop(store);
        drop(dir);
        let dir = scratch()?;
        let store = open(&dir, policy)?;
        let mut batch = Batch::new();
        (0..records).for_each(|n| _ = batch.insert(long_key(n), long_value(n)));
        let started = Instant::now();
        store.apply(&batch)?;
        store.sync()?;
        let batched = records as f64 / started.elapsed().as_secs_f64() / 1e3;
        println!(
            "| {name} | {rate:.0} | {:.2} | {:.2} | {:.1} | {batched:.0} |",
            permille(&times, 990),
            permille(&times, 999),
            times[(times.len() as u64 * 9999 / 10000) as usize].as_secs_f64() * 1e6,
        );
    }
    Ok(())
}

fn space(records: u64) -> Result<()> {
    println!("| policy | loaded | when | log MB | index MB | journal MB | all / keys and values | segments |");
    println!("|---|---|---|---:|---:|---:|---:|---:|");
    for (name, policy) in policies() {
        // A sync for each record would take the time.
        let few = if policy == SyncPolicy::Always { 1_000 } else { 1 };
        for (load, each) in [(if few == 1 { "one by one" } else { "by the thousand" }, few), ("one batch", records)] {
            let dir = scratch()?;
            let path = dir.path().join("log.tophash");
            let store = open(&dir, policy)?;
            in_pieces(
                &store,
                each,
                0..records,
                |batch, n| _ = batch.insert(long_key(n), long_value(n)),
                |n| store.insert(long_key(n), long_value(n)).map(drop),
            )?;
            let row = |when: &str, records: u64| -> Result<()> {
                print!("| {name} | {load} | {when} ");
                blocks(&path, records)
            };
            row("at once", records)?;
            store.checkpoint()?;
            row("after `checkpoint`", records)?;
            std::thread::sleep(Duration::from_secs(2));
            row("2 s later", records)?;
            in_pieces(
                &store,
                few,
                (0..records).step_by(2),
                |batch, n| _ = batch.remove(long_key(n)),
                |n| store.remove(long_key(n)).map(drop),
            )?;
            store.compact()?;
            row("half removed, `compact`", records / 2)?;
            std::thread::sleep(Duration::from_secs(2));
            row("2 s later", records / 2)?;
            store.close()?;
            row("closed", records / 2)?;
        }
    }
    Ok(())
}

/// Makes changes in batches of so many, or one by one.
fn in_pieces(
    store: &Store,
    each: u64,
    numbers: impl Iterator<Item = u64>,
    add: impl Fn(&mut Batch, u64),
    mut one: impl FnMut(u64) -> tophash::Result<()>,
) -> Result<()> {
    let mut numbers = numbers.peekable();
    if each == 1 {
        return Ok(numbers.try_for_each(&mut one)?);
    }
    while numbers.peek().is_some() {
        let mut batch = Batch::new();
        numbers.by_ref().take(each as usize).for_each(|n| add(&mut batch, n));
        store.apply(&batch)?;
    }
    Ok(())
}

/// Prints what the files take.
fn blocks(path: &Path, records: u64) -> Result<()> {
    let bytes = |file: &Path| -> Result<u64> { Ok(fs::metadata(file)?.blocks() * 512) };
    let mut log = 0;
    let segments = fs::read_dir(path.join("log-1"))?.collect::<std::result::Result<Vec<_>, _>>()?;
    for file in &segments {
        // The background may free a segment meanwhile.
        log += file.metadata().map_or(0, |meta| meta.blocks() * 512);
    }
    let (index, journal) = (bytes(&path.join("index"))?, bytes(&path.join("journal"))?);
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let ratio = (log + index + journal) as f64 / (records * RECORD) as f64;
    let segments = segments.len();
    println!("| {:.1} | {:.1} | {:.1} | {ratio:.3} | {segments} |", mb(log), mb(index), mb(journal));
    Ok(())
}

/// Appends of 200 bytes with a sync each, into a file of zeroes that were written in pieces of one size.
fn device() -> Result<()> {
    use std::os::unix::fs::FileExt;
    const BYTES: u64 = 64 << 20;
    println!("| pieces, KiB | 200 B + fdatasync, k/s | p50 us | p99 us | KiB written each |");
    println!("|---:|---:|---:|---:|---:|");
    let mut rows = [4, 16, 32, 64, 128, 256, 1024, 4096].map(|kib: usize| (kib, Vec::new()));
    for _ in 0..5 {
        for (kib, rounds) in &mut rows {
            let dir = scratch()?;
            let file = File::create_new(dir.path().join("file"))?;
            let zeroes = vec![0; *kib << 10];
            for at in (0..BYTES).step_by(zeroes.len()) {
                file.write_all_at(&zeroes, at)?;
            }
            file.sync_all()?;
            let written = written_bytes();
            let mut times = Vec::new();
            for i in 0..1_000 {
                let one = Instant::now();
                file.write_all_at(&[1; 200], i * 200)?;
                file.sync_data()?;
                times.push(one.elapsed());
            }
            let all: Duration = times.iter().sum();
            times.sort_unstable();
            let written = (written_bytes() - written) as f64 / 1024.0 / 1e3;
            rounds.push([1.0 / all.as_secs_f64(), permille(&times, 500), permille(&times, 990), written]);
        }
    }
    for (kib, rounds) in rows {
        let of = |column: usize| median(rounds.iter().map(|round: &[f64; 4]| round[column]).collect());
        println!("| {kib} | {:.2} | {:.0} | {:.0} | {:.1} |", of(0), of(1), of(2), of(3));
    }
    Ok(())
}
