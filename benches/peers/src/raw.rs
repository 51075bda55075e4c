//! What the machine itself can do: appends with fdatasync, dependent loads, copies.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use memmap2::{Advice, MmapMut};

use crate::interrupt;
use crate::latency::Latencies;
use crate::protocol::Timed;

/// Bytes of one append: a record of a usual size with its header.
const APPEND_BYTES: usize = 200;
/// Size of the prepared file; a longer measurement begins at its start again.
const FILE_BYTES: usize = 16 << 20;
/// The file is filled by pieces of this size: the kernel keeps it in such pieces and writes whole ones.
const PIECE_BYTES: usize = 4 << 10;
/// Loads of a measurement.
const LOADS: u64 = 2_000_000;
/// What a load fetches.
const LINE_BYTES: usize = 64;

/// How the bytes get into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By system call.
    Pwrite,
    /// By a store into a shared mapping.
    Mapping,
}

/// The faster way's rate.
pub fn appends_per_second(dir: &Path, seconds: f64) -> anyhow::Result<f64> {
    let rate = |way| appends(dir, way, seconds / 2.0).map(|timed| timed.rate());
    Ok(rate(Way::Pwrite)?.max(rate(Way::Mapping)?))
}

/// Appends and syncs for so long.
pub fn appends(dir: &Path, way: Way, seconds: f64) -> anyhow::Result<Timed> {
    let path = dir.join("raw");
    let mut file = prepare(&path)?;
    // SAFETY: the file is in this run's own folder; nobody else writes or truncates it while it is mapped.
    let mut map = unsafe { MmapMut::map_mut(&file)? };
    let mut latencies = Latencies::new()?;
    let started = Instant::now();
    let (mut operations, mut next): (u64, usize) = (0, 0);
    while started.elapsed().as_secs_f64() < seconds {
        interrupt::check()?;
        if next + APPEND_BYTES > FILE_BYTES {
            next = 0;
        }
        let bytes = [operations as u8 | 1; APPEND_BYTES];
        latencies.time(|| -> std::io::Result<()> {
            match way {
                Way::Pwrite => file.write_all_at(&bytes, next as u64)?,
                Way::Mapping => map[next..next + APPEND_BYTES].copy_from_slice(&bytes),
            }
            // fdatasync
            file.sync_data()
        })?;
        next += APPEND_BYTES;
        operations += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    file.flush()?;
    std::fs::remove_file(path)?;
    Ok(Timed { operations, seconds, latency: latencies.summary(), peak: None })
}

/// Gaps in the time of a thread that does nothing but read the clock, alone or beside one that writes a mebibyte and syncs it,
/// over and over. No program on this machine can have shorter pauses, if it has as much to write.
pub fn gaps(dir: &Path, beside_writes: bool, seconds: f64) -> anyhow::Result<Gaps> {
    let path = dir.join("gaps");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> anyhow::Result<()> {
            if !beside_writes {
                return Ok(());
            }
            let file = File::create(&path)?;
            let piece = vec![1; 1 << 20];
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                file.write_all_at(&piece, (number % 1024) << 20)?;
                // fdatasync
                file.sync_data()?;
            }
            Ok(std::fs::remove_file(&path)?)
        });
        let mut gaps = Gaps::default();
        let started = Instant::now();
        let mut before = started;
        while started.elapsed().as_secs_f64() < seconds {
            let now = Instant::now();
            let gap = (now - before).as_nanos() as f64;
            gaps.largest = gaps.largest.max(gap);
            gaps.pauses += f64::from(u8::from(gap >= 1e6));
            before = now;
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))??;
        Ok(gaps)
    })
}

/// What [`gaps`] found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Gaps {
    /// Nanoseconds.
    pub largest: f64,
    /// Gaps of a millisecond and more.
    pub pauses: f64,
}

/// A file of zeroes, allocated and synced.
fn prepare(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    for _ in 0..FILE_BYTES / PIECE_BYTES {
        file.write_all(&[0; PIECE_BYTES])?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Nanoseconds of a load whose address is what the load before has read.
pub fn load_nanos(bytes: usize, is_huge: bool) -> anyhow::Result<f64> {
    let mut map = MmapMut::map_anon(bytes)?;
    // A kernel without huge pages refuses; then both figures are the same, and nobody is deceived by much.
    let _ = map.advise(if is_huge { Advice::HugePage } else { Advice::NoHugePage });
    let lines = bytes / LINE_BYTES;
    // One cycle through all lines in a random order.
    let mut order: Vec<u32> = (0..u32::try_from(lines)?).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    for (i, line) in order.iter().enumerate() {
        let next = order[(i + 1) % lines];
        let at = *line as usize * LINE_BYTES;
        map[at..at + 4].copy_from_slice(&next.to_le_bytes());
    }
    let loads = LOADS.min(lines as u64 * 4);
    let mut line = order[0] as usize;
    let started = Instant::now();
    for _ in 0..loads {
        let at = line * LINE_BYTES;
        line = u32::from_le_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]) as usize;
    }
    black_box(line);
    Ok(started.elapsed().as_nanos() as f64 / loads as f64)
}

/// Bytes a second of a copy from memory to memory; the best of five.
pub fn copy_rate(bytes: usize) -> f64 {
    let (from, mut to) = (vec![1_u8; bytes / 2], vec![2_u8; bytes / 2]);
    let copy = || {
        let started = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&to);
        from.len() as f64 / started.elapsed().as_secs_f64()
    };
    std::iter::repeat_with(copy).take(5).fold(0.0, f64::max)
}
