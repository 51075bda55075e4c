//! Tasks that make durable writes, by `spawn_blocking` and by futures, in rounds that take turns:
//! `durable-writers DIRECTORY [WRITERS] [SECONDS OF A ROUND] [ROUNDS]`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::{JoinSet, spawn_blocking};
use tophash::{Options, Store, SyncPolicy};

/// What one round came to.
struct Round {
    writes_per_second: f64,
    p50: Duration,
    p99: Duration,
    writes_per_sync: f64,
    /// Threads of this process while it was under way.
    threads: usize,
    /// Times that a thread of this process gave its processor away, for each write.
    switches_per_write: f64,
}

async fn write(store: &Store, key: Vec<u8>, awaited: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
    if awaited {
        store.set_async(key, [7; 100]).await?;
    } else {
        let store = store.clone();
        spawn_blocking(move || store.set(key, [7; 100])).await??;
    }
    Ok(())
}

async fn round(
    path: &Path,
    writers: u64,
    time: Duration,
    awaited: bool,
) -> Result<Round, Box<dyn Error + Send + Sync>> {
    let store = Options::new().sync(SyncPolicy::Always).open(path)?;
    let (before, switches, begun) = (store.stats().commit, switches()?, Instant::now());
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < time {
                let key = [writer.to_le_bytes(), (latencies.len() as u64 % 1000).to_le_bytes()].concat();
                let started = Instant::now();
                write(&store, key, awaited).await?;
                latencies.push(started.elapsed());
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(latencies)
        });
    }
    tokio::time::sleep(time / 2).await;
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    let mut latencies = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies.extend(task??);
    }
    let (elapsed, after) = (begun.elapsed(), store.stats().commit);
    latencies.sort_unstable();
    let writes = latencies.len() as f64;
    let at = |part: f64| latencies.get((writes * part) as usize).copied().unwrap_or_default();
    let switched = switches.abs_diff(self::switches()?) as f64;
    store.close()?;
    Ok(Round {
        writes_per_second: writes / elapsed.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        writes_per_sync: writes / (after.syncs - before.syncs).max(1) as f64,
        threads,
        switches_per_write: switched / writes,
    })
}

/// Voluntary switches of all threads of this process that live.
fn switches() -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.map_or(Ok(0), |count| count.trim().parse::<u64>())?;
    }
    Ok(sum)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: durable-writers DIRECTORY [WRITERS] [SECONDS] [ROUNDS]")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (writers, seconds, rounds) = (number(64)?, number(3)?, number(5)?);
    let time = Duration::from_secs(seconds);
    println!("{writers} writers, medians of {rounds} rounds of {seconds} s");
    println!("| | writes/s | p50 | p99 | writes a sync | threads | switches a write |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let mut results = [Vec::new(), Vec::new()];
    for n in 0..rounds {
        for awaited in [false, true] {
            let path = Path::new(&directory).join(format!("{n}-{awaited}"));
            // A runtime of its own: the threads of the blocking pool would outlive the round.
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
            results[usize::from(awaited)].push(runtime.block_on(round(&path, writers, time, awaited))?);
            std::fs::remove_dir_all(&path)?;
        }
    }
    for (name, rounds) in ["`spawn_blocking` and `set`", "`set_async`"].into_iter().zip(&results) {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        println!(
            "| {name} | {:.0} | {:.0} us | {:.0} us | {:.1} | {:.0} | {:.2} |",
            of(|round| round.writes_per_second),
            of(|round| round.p50.as_secs_f64() * 1e6),
            of(|round| round.p99.as_secs_f64() * 1e6),
            of(|round| round.writes_per_sync),
            of(|round| round.threads as f64),
            of(|round| round.switches_per_write),
        );
    }
    Ok(())
}
