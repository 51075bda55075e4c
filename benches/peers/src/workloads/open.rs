//! Opens: after a clean close, and after kill -9 of a process that was writing.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::Turn;
use crate::protocol::{Figures, Find, Found, Mode, Opening, Progress, Request, WriteUntilKilled};
use crate::section::{Unit, row};
use crate::{files, interrupt, worker};

/// Times a store is opened, warm and cold.
const TIMES: u64 = 3;
/// Counters of records that only this workload inserts; each kill has 2^40.
const FIRST: u64 = 1 << 40;
/// Records between syncs of the process that is killed.
const SYNC_EVERY: u64 = 10_000;
/// How much of a checkpoint interval is filled: past it the checkpoint could begin before the kill.
const PART: f64 = 0.97;
/// An interval that is filled in no time.
const SMOKE_INTERVAL: u64 = 2 << 20;
/// How often the killer looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let records = turn.records;
    let (mut worker, _) = turn.start(turn.opening(Mode::Buffered))?;
    turn.fill(&mut worker, 0)?;
    let figures = turn.settle(&mut worker, records)?;
    let seconds = worker.close()?;
    turn.put("close", Unit::Nanos, seconds * 1e9);
    turn.put("size when closed", Unit::Bytes, files::allocated_bytes(&turn.path())? as f64);

    // First all the warm ones: after a cold open, hardly anything of the store is in the page cache.
    for is_cold in [false, true] {
        for time in 0..TIMES {
            if is_cold {
                files::drop_from_cache(&turn.path())?;
            }
            // Another record each time: its page is not always the same.
            let opening = Opening { first_answer: Some(time * records / TIMES), ..turn.opening(Mode::Buffered) };
            let (worker, opened) = turn.start(opening)?;
            worker.close()?;
            let name = if is_cold { "clean open and first get, cold" } else { row::OPEN_WARM };
            turn.put(name, Unit::Nanos, opened.nanos as f64);
        }
    }

    kill(&mut turn, FIRST, row::OPEN_KILLED, None)?;
    if turn.engine.is_tophash() {
        let interval = if turn.arguments().smoke { SMOKE_INTERVAL } else { default_interval(&figures) };
        kill(&mut turn, 2 * FIRST, row::OPEN_KILLED_LATE, Some(interval))?;
    }
    turn.section.note(
        "from the call to a value read and compared, each in a new process; cold: the files were dropped from the page \
         cache, the disk's own is as it is",
    );
    turn.section.note(format!(
        "killed: inserts into the full store, one by one, a sync every {SYNC_EVERY}, SIGKILL in the midst of it; \
         tophash once more at {:.0} % of a checkpoint interval, when there is most to replay",
        PART * 100.0
    ));
    Ok(())
}

/// What the documentation of `tophash::Options::checkpoint_bytes` gives as the default for a store of this size. It is
/// set explicitly, so that the kill comes where it should.
fn default_interval(figures: &Figures) -> u64 {
    (figures.index_bytes.unwrap_or_default() * 2).clamp(128 << 20, 1 << 30)
}

/// Kills a writer and opens its store.
fn kill(turn: &mut Turn<'_>, first: u64, name: &str, checkpoint_bytes: Option<u64>) -> anyhow::Result<()> {
    let seconds = turn.arguments().seconds();
    let opening = Opening { checkpoint_bytes, ..turn.opening(Mode::Buffered) };
    let (mut worker, _) = turn.start(opening.clone())?;
    let path = turn.dir().join("progress");
    let stop_bytes = checkpoint_bytes.map(|bytes| (bytes as f64 * PART) as u64);
    worker.tell(&Request::WriteUntilKilled(WriteUntilKilled {
        first,
        sync_every: SYNC_EVERY,
        stop_bytes,
        progress: path.clone(),
    }))?;
    let started = Instant::now();
    let mut progress = Progress::default();
    // At least one sync, however slow; then until the time is over, or the place is reached where it is to be killed.
    loop {
        thread::sleep(LOOK_EVERY);
        interrupt::check()?;
        worker.check_silence()?;
        progress = if path.exists() { worker::read_progress(&path)? } else { progress };
        let is_late = started.elapsed().as_secs_f64() > seconds;
        if progress.is_done == 1 || stop_bytes.is_none() && is_late && progress.synced > 0 {
            break;
        }
        ensure!(started.elapsed() < turn.arguments().timeout(), "the writer does not come to its first sync");
    }
    worker.kill()?;
    let Progress { synced, .. } = worker::read_progress(&path)?;
    std::fs::remove_file(&path)?;
    turn.put("killed: size on disk", Unit::Bytes, files::allocated_bytes(&turn.path())? as f64);

    let opening = Opening { first_answer: Some(first + synced - 1), ..opening };
    let (mut worker, opened) = turn.start(opening)?;
    turn.put(name, Unit::Nanos, opened.nanos as f64);
    if let Some(replayed) = opened.replayed {
        turn.put(&format!("{name}: bytes replayed"), Unit::Bytes, replayed.bytes as f64);
        turn.put(&format!("{name}: records replayed"), Unit::Count, replayed.records as f64);
    }
    let kept: Found = worker.ask(&Request::Find(Find { first, records: synced }))?;
    let base: Found = worker.ask(&Request::Find(Find { first: 0, records: turn.records }))?;
    let later: Found = worker.ask(&Request::Find(Find { first: first + synced, records: SYNC_EVERY }))?;
    worker.close()?;
    let lost = synced - kept.found + turn.records - base.found;
    turn.put("writes that a sync acknowledged before the kill", Unit::Count, synced as f64);
    turn.put(row::LOST, Unit::Count, lost as f64);
    turn.put("later, unsynced writes found", Unit::Count, later.found as f64);
    Ok(())
}
