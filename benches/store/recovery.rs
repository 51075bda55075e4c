//! Opening after kill -9: the time goes with the tail of the log since the last checkpoint, not with the store.
//!
//! ```text
//! cargo bench --bench recovery                        1,000,000 and 10,000,000 records, a tail of 100,000
//! cargo bench --bench recovery -- 100000 20000000,1000000 9
//! ```
//!
//! Arguments: records in the tail; sizes of the stores, with commas; rounds. `RECOVERY_DIR` says where the stores are
//! made; default: the system's directory for temporary files.
//!
//! In each round, for each store in turn: a process opens it, runs a checkpoint, replaces as many records (16-byte keys
//! chosen at random, 100-byte values) as the tail has, and is killed. Then the store is opened; the clock stops when the last
//! record that was written has been read. A thousand records of the tail are compared afterwards.

mod records;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use records::{key, mixed};
use tophash::{Options, Store, SyncPolicy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Set in the process that is to be killed: path, records, tail, round.
const VICTIM: &str = "TOPHASH_RECOVERY_VICTIM";

fn main() -> Result<()> {
    if let Ok(order) = std::env::var(VICTIM) {
        return victim(&order);
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let argument = |i: usize, default: &str| arguments.get(i).map_or(default, String::as_str).replace('_', "");
    let tail: u64 = argument(0, "100000").parse()?;
    let sizes: Vec<u64> =
        argument(1, "1000000,10000000").split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let rounds: u64 = argument(2, "5").parse()?;
    let dir = std::env::var_os("RECOVERY_DIR").map_or_else(tempfile::tempdir, tempfile::tempdir_in)?;

    let path = |records: u64| dir.path().join(records.to_string());
    for &records in &sizes {
        fill(&path(records), records)?;
    }
    let mut figures = vec![Figures::default(); sizes.len()];
    for round in 1..=rounds {
        for (&records, figures) in sizes.iter().zip(&mut figures) {
            kill_while_writing(&path(records), records, tail, round)?;
            reopen(&path(records), records, tail, round, figures)?;
        }
    }
    println!("\nA tail of {tail} replaced records, {rounds} rounds, page cache warm: medians (and slowest)\n");
    println!(
        "| records | open and first answer | ... per record of the tail | open of the same store after a close | records replayed | bytes replayed | index pages of the table | ... touched by the tail |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (records, mut figures) in sizes.iter().zip(figures) {
        let (unclean, slowest) =
            (median(&mut figures.unclean), figures.unclean.iter().max().copied().unwrap_or_default());
        println!(
            "| {records} | {:.1} ms ({:.1}) | {:.2} us | {:.1} ms | {} | {:.1} MB | {} | {} |",
            millis(unclean),
            millis(slowest),
            unclean.as_secs_f64() * 1e6 / tail as f64,
            millis(median(&mut figures.clean)),
            figures.replayed,
            figures.bytes as f64 / 1e6,
            figures.pages,
            figures.touched,
        );
    }
    Ok(())
}

#[derive(Debug, Clone, Default)]
struct Figures {
    unclean: Vec<Duration>,
    clean: Vec<Duration>,
    replayed: u64,
    bytes: u64,
    pages: u64,
    touched: u64,
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that step `i` of a round writes: 100 bytes.
fn value(round: u64, i: u64) -> [u8; 100] {
    let mut value = records::value(i);
    value[..8].copy_from_slice(&round.to_le_bytes());
    value[8..16].copy_from_slice(&i.to_le_bytes());
    value
}

/// The record that step `i` of a round replaces. A step later in the round may choose the same.
fn chosen(round: u64, i: u64, records: u64) -> u64 {
    mixed(mixed(round << 40 | i)) % records
}

/// No checkpoint but those that are asked for, and nothing that moves records.
fn options() -> Options {
    Options::new().sync(SyncPolicy::Manual).checkpoint_bytes(u64::MAX / 4).log_ratio(f64::INFINITY)
}

fn fill(path: &Path, records: u64) -> Result<()> {
    let started = Instant::now();
    let store = options().create_new(true).capacity(records).open(path)?;
    for n in 0..records {
        store.insert(key(n), value(0, n))?;
    }
    store.close()?;
    println!("{records} records in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// What the process does that is to be killed.
fn victim(order: &str) -> Result<()> {
    let mut parts = order.rsplitn(4, ' ');
    let mut number = || -> Result<u64> { Ok(parts.next().ok_or("too few parts")?.parse()?) };
    let (round, tail, records) = (number()?, number()?, number()?);
    let store = options().open(parts.next().ok_or("no path")?)?;
    store.checkpoint()?;
    for i in 0..tail {
        store.insert(key(chosen(round, i, records)), value(round, i))?;
    }
    std::io::stdout().write_all(b"written\n")?;
    // Until it is killed.
    std::io::stdin().read_exact(&mut [0])?;
    Err("nobody killed this process".into())
}

fn kill_while_writing(path: &Path, records: u64, tail: u64, round: u64) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(VICTIM, format!("{} {records} {tail} {round}", path.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let written = BufReader::new(output).lines().map_while(std::result::Result::ok).any(|line| line == "written");
    child.kill()?;
    child.wait()?;
    if written { Ok(()) } else { Err("the process that was to be killed failed by itself".into()) }
}

fn reopen(path: &Path, records: u64, tail: u64, round: u64, figures: &mut Figures) -> Result<()> {
    let check = |store: &Store, i: u64| -> Result<()> {
        let n = chosen(round, i, records);
        let last = (i..tail).rfind(|&later| chosen(round, later, records) == n).unwrap_or(i);
        let found = store.get(key(n))?.ok_or("an acknowledged record is missing")?;
        if found == value(round, last)[..] { Ok(()) } else { Err("a wrong value".into()) }
    };
    let started = Instant::now();
    let store = options().open(path)?;
    check(&store, tail - 1)?;
    figures.unclean.push(started.elapsed());
    let stats = store.stats();
    if !stats.recovery.was_unclean || stats.recovery.replayed_records != tail || store.len() != records {
        return Err(format!("not what was to be measured: {:?}, {} records", stats.recovery, store.len()).into());
    }
    figures.replayed = stats.recovery.replayed_records;
    figures.bytes = stats.recovery.replayed_bytes;
    figures.pages = stats.index.pages;
    figures.touched = stats.checkpoint.dirty_pages;
    for i in (0..tail).step_by((tail as usize / 1000).max(1)) {
        check(&store, i)?;
    }
    store.close()?;
    let started = Instant::now();
    let store = options().open(path)?;
    check(&store, tail - 1)?;
    figures.clean.push(started.elapsed());
    store.close()?;
    Ok(())
}
