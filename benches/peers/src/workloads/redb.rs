//! The shape of redb's public benchmark: 24-byte keys, 150-byte values.

use super::{Turn, row, tell};
use crate::protocol::{Insert, Mode, ReadKind, Remove, Request, Timed};
use crate::section::Unit;

/// Counters of records that a phase inserts beside the bulk load; each phase has 2^40.
const SINGLE: u64 = 1 << 40;
const BATCHES: u64 = 2 << 40;
const NOSYNC: u64 = 3 << 40;

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let (seconds, durable_seconds) = (turn.arguments().seconds(), turn.arguments().durable_seconds());
    let records = turn.records;
    let (mut worker, _) = turn.start(turn.opening(Mode::Durable))?;

    let bulk: Timed = worker.ask(&Request::Insert(Insert { records, batch: 0, ..Insert::default() }))?;
    turn.put(row::BULK, Unit::PerSecond, bulk.rate());

    let mut extra = 0;
    if turn.engine.is_persistent() {
        let single = Insert { first: SINGLE, ..Insert::default() };
        let single = turn.measure_durable(&mut worker, row::DURABLE, single)?;
        turn.put_latency("single durable write", &single);
        let batches = Insert { first: BATCHES, records: u64::MAX, batch: 1_000, ..Insert::default() };
        let batches: Timed = worker.ask(&Request::Insert(Insert { seconds_max: Some(durable_seconds), ..batches }))?;
        turn.put(row::DURABLE_BATCHES, Unit::PerSecond, batches.rate());
        extra = single.operations + batches.operations;
    }

    tell(&mut worker, &Request::SetMode(Mode::Buffered))?;
    let nosync = Insert { first: NOSYNC, records: records / 4, batch: 1, ..Insert::default() };
    let nosync: Timed = worker.ask(&Request::Insert(Insert { seconds_max: Some(seconds), ..nosync }))?;
    turn.put_rate(row::NOSYNC, &nosync, records / 4);
    extra += nosync.operations;

    let full = turn.settle(&mut worker, records + extra)?;
    turn.measure_reads(&mut worker, &[1, 2, 4])?;
    turn.put_memory(&full);
    turn.put_size_of("size on disk, full", "... full / live bytes", &full, records + extra);

    tell(&mut worker, &Request::SetMode(Mode::Durable))?;
    let removed: Timed = worker.ask(&Request::Remove(Remove { end: records }))?;
    turn.put(row::REMOVE, Unit::PerSecond, removed.rate());
    let left = records + extra - removed.operations;
    let halved = turn.settle(&mut worker, left)?;
    turn.put_size_of("size on disk, half removed", "... half removed / live bytes", &halved, left);

    let compacted: Option<f64> = worker.ask(&Request::Compact)?;
    if let Some(seconds) = compacted {
        turn.put("compaction", Unit::Nanos, seconds * 1e9);
        let figures = turn.settle(&mut worker, left)?;
        turn.put_size_of("size on disk, compacted", row::COMPACTED, &figures, left);
    }
    turn.read(&mut worker, ReadKind::Halved, 1, records)?;
    worker.close()?;
    turn.section.note(
        "single durable writes: `limit` is 200 bytes appended and fdatasync, over and over, measured right \
         before and right after tophash's phase; reads in one transaction per thread, as that is the fastest way",
    );
    turn.section.note(
        "32 in a call: tophash's get_many; sizes are blocks on the disk of the open store, after a sync; after the \
         compaction half of the keys were looked up: none was missing, none too many",
    );
    Ok(())
}
