//! 8-byte keys, 8-byte values.

use super::Turn;
use crate::protocol::{Insert, Mode, Request, Timed};
use crate::section::{Unit, row};

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let records = turn.records;
    let (mut worker, _) = turn.start(turn.opening(Mode::Buffered))?;
    let inserts = Insert { records, batch: 1, ..Insert::default() };
    let seconds_max = Some(turn.arguments().seconds());
    let inserts: Timed = worker.ask(&Request::Insert(Insert { seconds_max, ..inserts }))?;
    turn.put_rate(row::INSERTS, &inserts, records);
    let seconds: f64 = worker.ask(&Request::Sync)?;
    turn.put("sync after the inserts", Unit::Nanos, seconds * 1e9);
    turn.fill(&mut worker, inserts.operations)?;
    let full = turn.settle(&mut worker, records)?;
    turn.measure_reads(&mut worker, &[1])?;
    turn.put_memory(&full);
    turn.put_size("size on disk", &full);
    if turn.engine.is_persistent() {
        turn.put("... per record of 16 bytes", Unit::BytesPerRecord, full.disk_bytes as f64 / records as f64);
    }
    worker.close()?;
    turn.section.note("inserts that were cut off: the rest came in batches, so reads and sizes are of all records");
    Ok(())
}
