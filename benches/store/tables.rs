//! Many tables: what an open takes, in time and memory, beside a store of one table with as many records; what making, clearing
//! and dropping a table takes.
//!
//! ```text
//! cargo bench --bench tables                          10,000,000 records in 1,000 tables
//! cargo bench --bench tables -- 1000000 100 5
//! ```
//!
//! Arguments: records; tables; rounds. `TABLES_DIR` says where the stores are made; default: the system's directory for
//! temporary files.
//!
//! Each open is that of a process of its own. Its memory is what the kernel counts for the process beyond that of one that opens
//! an empty store: private memory, and all of it with the page cache that is mapped.

mod records;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use records::{key, value};
use tophash::{Batch, Options, Store, SyncPolicy, Table};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Set in the process that opens a store: its path.
const OPENER: &str = "TOPHASH_TABLES_OPENER";

fn main() -> Result<()> {
    if let Some(path) = std::env::var_os(OPENER) {
        return opener(Path::new(&path));
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let argument = |i: usize, default: &str| arguments.get(i).map_or(default, String::as_str).replace('_', "").parse();
    let (records, tables, rounds): (u64, u64, u64) =
        (argument(0, "10000000")?, argument(1, "1000")?, argument(2, "5")?);
    let dir = std::env::var_os("TABLES_DIR").map_or_else(tempfile::tempdir, tempfile::tempdir_in)?;
    let (empty, one, many) = (dir.path().join("empty"), dir.path().join("one"), dir.path().join("many"));
    let sync = Options::new().sync(SyncPolicy::Manual);
    sync.open(&empty)?.close()?;
    let store = sync.open(&one)?;
    fill(&store, 0..records)?;
    store.close()?;
    let store = sync.open(&many)?;
    for n in 0..tables {
        fill(&store.table(&name(n))?, n * records / tables..(n + 1) * records / tables)?;
    }
    store.close()?;

    println!("{records} records of 16 + 100 bytes, {rounds} rounds, page cache warm: medians\n");
    println!("| store | open | private memory | resident memory | index file |");
    println!("|---|---:|---:|---:|---:|");
    let base = opened(&empty, rounds)?;
    for (what, path) in [("one table".to_string(), &one), (format!("{tables} tables"), &many)] {
        let opened = opened(path, rounds)?;
        println!(
            "| {what} | {:.1} ms | {:.1} MB | {:.1} MB | {:.1} MB |",
            opened.micros as f64 / 1e3,
            opened.private.saturating_sub(base.private) as f64 / 1e6,
            opened.resident.saturating_sub(base.resident) as f64 / 1e6,
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path.join("index"))?) as f64 * 512.0 / 1e6,
        );
    }
    println!();
    let store = sync.open(&many)?;
    changes(&store, records / tables, rounds)
}

fn name(number: u64) -> String {
    format!("table {number}")
}

fn fill(table: &Table, keys: std::ops::Range<u64>) -> Result<()> {
    let mut batch = Batch::new();
    for n in keys.clone() {
        batch.table(table).insert(key(n), value(n));
        if batch.len() == 10_000 || n + 1 == keys.end {
            table.store().apply(&batch)?;
            batch.clear();
        }
    }
    Ok(())
}

/// Medians of some opens.
struct Opened {
    micros: u64,
    /// Bytes.
    private: u64,
    resident: u64,
}

fn opened(path: &Path, rounds: u64) -> Result<Opened> {
    let (mut micros, mut private, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let output = Command::new(std::env::current_exe()?).env(OPENER, path).output()?;
        let text = String::from_utf8(output.stdout)?;
        let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        let &[time, own, all] = &numbers[..] else { return Err(format!("an opener says {text:?}").into()) };
        micros.push(time);
        private.push(own);
        resident.push(all);
    }
    Ok(Opened { micros: median(&mut micros), private: median(&mut private), resident: median(&mut resident) })
}

/// Opens a store, reads a key of each table, and tells how long the open took and what memory the process has.
fn opener(path: &Path) -> Result<()> {
    let started = Instant::now();
    let store = Store::open(path)?;
    let micros = started.elapsed().as_micros();
    for name in store.tables()? {
        store.existing_table(&name)?.get(key(0))?;
    }
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let of = |field: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0) * 1024
    };
    println!("{micros} {} {}", of("Private_Dirty:"), of("Rss:"));
    Ok(())
}

/// What it takes to make, clear and drop a table of so many records.
fn changes(store: &Store, records: u64, rounds: u64) -> Result<()> {
    let (mut made, mut cleared, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    let timed = |times: &mut Vec<Duration>, work: &dyn Fn() -> tophash::Result<()>| -> Result<()> {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed());
        Ok(())
    };
    for _ in 0..rounds {
        timed(&mut made, &|| store.table("another").map(drop))?;
        let table = store.table("another")?;
        fill(&table, 0..records)?;
        timed(&mut cleared, &|| table.clear())?;
        fill(&table, 0..records)?;
        timed(&mut dropped, &|| store.drop_table("another").map(drop))?;
    }
    println!("| a table of {records} records | |");
    println!("|---|---:|");
    for (what, times) in [("made", &mut made), ("cleared", &mut cleared), ("dropped", &mut dropped)] {
        println!("| {what} | {:.3} ms |", median(times).as_secs_f64() * 1e3);
    }
    Ok(())
}

fn median<T: Copy + Ord>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}
