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

fn synced(count: u64) -> Result<()> {
    println!("| policy | insert + sync, k/s | p50 us | p99 us | after a load of 200,000, k/s | KiB written each |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, policy) in policies() {
        let dir = scratch()?;
        let store = open(&dir, policy)?;
        let each = |from: u64| -> Result<(f64, Vec<Duration>, f64)> {
            let written = written_bytes();
            let mut times = Vec::new();
            let started = Instant::now();
            for n in from..from + count {
                let one = Instant::now();
                store.insert(long_key(n), long_value(n))?;
                store.sync()?;
                times.push(one.elapsed());
            }
            let rate = count as f64 / started.elapsed().as_secs_f64() / 1e3;
            times.sort_unstable();
            Ok((rate, times, (written_bytes() - written) as f64 / count as f64 / 1024.0))
        };
        let (rate, times, _) = each(0)?;
        for n in count..count + 200_000 {
            store.insert(long_key(n), long_value(n))?;
        }
        store.sync()?;
        std::thread::sleep(Duration::from_secs(1));
        let (later, _, written) = each(count + 200_000)?;
        println!(
            "| {name} | {rate:.2} | {:.0} | {:.0} | {later:.2} | {written:.1} |",
            permille(&times, 500),
            permille(&times, 990)
        );
    }
    Ok(())
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
    for (name, policy) in policies().into_iter().skip(1) {
        let dir = scratch()?;
        let path = dir.path().join("log.tophash");
        let store = open(&dir, policy)?;
        for n in 0..records {
            store.insert(long_key(n), long_value(n))?;
        }
        store.checkpoint()?;
        println!("\n## {name}: {records} records, loaded one by one, checkpoint");
        blocks(&path, records)?;
        std::thread::sleep(Duration::from_secs(2));
        println!("\n## {name}: 2 s later");
        blocks(&path, records)?;
        for n in (0..records).step_by(2) {
            store.remove(long_key(n))?;
        }
        store.compact()?;
        println!("\n## {name}: half removed, compact()");
        blocks(&path, records / 2)?;
        store.close()?;
        println!("\n## {name}: closed");
        blocks(&path, records / 2)?;
    }
    Ok(())
}

/// Prints what each file takes.
fn blocks(path: &Path, records: u64) -> Result<()> {
    let mut all = 0;
    for dir in [path.to_path_buf(), path.join("log-1")] {
        let mut files = fs::read_dir(dir)?.collect::<std::result::Result<Vec<_>, _>>()?;
        files.sort_unstable_by_key(fs::DirEntry::file_name);
        for file in files {
            let meta = file.metadata()?;
            if meta.is_file() && meta.blocks() > 8 {
                all += meta.blocks() * 512;
                let mb = |bytes: u64| bytes as f64 / 1e6;
                let name = file.file_name();
                println!("{:>14} {:>8.2} MB, length {:>8.2} MB", name.display(), mb(meta.blocks() * 512), mb(meta.len()));
            }
        }
    }
    let wanted = records * RECORD;
    println!("{:>14} {:>8.2} MB = {:.3} x keys and values", "all", all as f64 / 1e6, all as f64 / wanted as f64);
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
        let median = |column: usize| {
            let mut values: Vec<f64> = rounds.iter().map(|round: &[f64; 4]| round[column]).collect();
            values.sort_unstable_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!("| {kib} | {:.2} | {:.0} | {:.0} | {:.1} |", median(0), median(1), median(2), median(3));
    }
    Ok(())
}
