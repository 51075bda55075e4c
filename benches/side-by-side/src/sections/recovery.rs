//! Opening a store whose process was killed just before its next checkpoint, until the first answer.

use super::Run;
use super::base::{PURPOSE, Sizes};
use crate::engine::EngineName;
use crate::files;
use crate::progress::progress;
use crate::protocol::{FillInterval, Interval, Opened, Opening, Request};
use crate::report::{Measured, Section, Unit};

/// Times each store is killed, for the warm row and for the cold one.
const TIMES: u64 = 3;
/// Counters of records that only this section inserts; each kill has 2^32.
const FIRST: u64 = 1 << 42;
/// How much of an interval is filled: past it the checkpoint could begin before the kill.
const PART: f64 = 0.97;

/// What a kill and an open gave.
struct Reopened {
    interval: Interval,
    opened: Opened,
}

/// Kills processes that fill the base stores.
pub fn measure(run: &Run, sizes: &[Sizes]) -> anyhow::Result<Section> {
    let (mut warm, mut cold): ([Measured; 3], [Measured; 3]) = Default::default();
    let (mut records, mut bytes, mut written): ([Measured; 3], [Measured; 3], [Measured; 3]) = Default::default();
    let interval = run.arguments.checkpoint_bytes.unwrap_or_else(|| default_interval(sizes));
    for time in 0..TIMES * 2 {
        progress!("recovery: kill {} of {}", time + 1, TIMES * 2);
        let is_cold = time % 2 == 1;
        for (i, engine) in EngineName::ALL.into_iter().enumerate().filter(|(_, engine)| engine.is_persistent()) {
            let reopened = kill_and_open(run, engine, interval, FIRST + (time << 32), is_cold)?;
            let times = if is_cold { &mut cold[i] } else { &mut warm[i] };
            times.push(reopened.opened.nanos as f64);
            written[i].push(reopened.interval.bytes as f64);
            if let Some(replayed) = reopened.opened.replayed {
                records[i].push(replayed.records as f64);
                bytes[i].push(replayed.bytes as f64);
            }
        }
    }
    let mut section = Section::engines("Open after kill -9, until the first answer");
    section.row("warm", Unit::Nanos, warm.map(Measured::some));
    section.row("cold", Unit::Nanos, cold.map(Measured::some));
    section.row("bytes written since the last checkpoint", Unit::Bytes, written.map(Measured::some));
    section.row("bytes replayed", Unit::Bytes, bytes.map(Measured::some));
    section.row("records replayed", Unit::Count, records.map(Measured::some));
    section.note(format!(
        "a process inserts new records into the full store and is killed at {:.0} % of a checkpoint interval of {}; \
         {TIMES} times warm, {TIMES} times cold; the first answer is the last record that was written",
        PART * 100.0,
        Unit::Bytes.text(interval as f64)
    ));
    section.note(
        "heed replays nothing: it inserts as many bytes in batches, and opens the last transaction. After a power loss, \
         unlike after a kill, MDB_NOSYNC promises nothing",
    );
    section.note("cold: the files were synced and their pages dropped from the page cache");
    Ok(section)
}

/// What the documentation of `tophash::Options::checkpoint_bytes` gives as the default for a store of this size. It is
/// set explicitly, so that it stays the same while the store grows from one kill to the next.
fn default_interval(sizes: &[Sizes]) -> u64 {
    let index_bytes = sizes[0].settled.index_bytes.unwrap_or_default();
    (index_bytes * 2).clamp(128 << 20, 1 << 30)
}

fn kill_and_open(
    run: &Run,
    engine: EngineName,
    interval_bytes: u64,
    first: u64,
    is_cold: bool,
) -> anyhow::Result<Reopened> {
    let opening = Opening { checkpoint_bytes: Some(interval_bytes), ..run.opening(engine, PURPOSE) };
    let (mut worker, _) = run.start(engine, opening.clone())?;
    let interval: Interval = worker.ask(&Request::FillInterval(FillInterval {
        first,
        bytes: (interval_bytes as f64 * PART) as u64,
        batch: if engine == EngineName::Heed { run.arguments.batch } else { 1 },
    }))?;
    worker.kill()?;
    if is_cold {
        files::drop_from_cache(&opening.path)?;
    }
    let (worker, opened) = run.start(engine, Opening { first_answer: Some(interval.last), ..opening })?;
    worker.close()?;
    Ok(Reopened { interval, opened })
}
