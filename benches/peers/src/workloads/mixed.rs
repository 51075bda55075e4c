//! Two readers of everything acknowledged, beside one writer whose every write is durable.

use super::{Turn, tell};
use crate::protocol::{Mixed, Mode, ReadersAndWriter, Request};
use crate::section::Unit;

const READERS: u64 = 2;
/// Counters of records that only the writer inserts.
const FIRST: u64 = 1 << 40;

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let records = turn.records;
    let (mut worker, _) = turn.start(turn.opening(Mode::Buffered))?;
    turn.fill(&mut worker, 0)?;
    turn.settle(&mut worker, records)?;
    tell(&mut worker, &Request::SetMode(Mode::Durable))?;
    let request = ReadersAndWriter {
        records,
        first: FIRST,
        readers: READERS,
        is_written: false,
        seconds: turn.arguments().durable_seconds(),
        seed: turn.seed(),
    };
    let alone: Mixed = worker.ask(&Request::Mixed(request))?;
    let both: Mixed = worker.ask(&Request::Mixed(ReadersAndWriter { is_written: true, ..request }))?;
    turn.put("reads, no writer", Unit::PerSecond, alone.reads.rate());
    turn.put_latency("read without a writer", &alone.reads);
    turn.put("reads beside a durable writer", Unit::PerSecond, both.reads.rate());
    turn.put_latency("read beside a writer", &both.reads);
    turn.put("durable writes beside readers", Unit::PerSecond, both.writes.rate());
    turn.put_latency("durable write beside readers", &both.writes);
    turn.settle(&mut worker, records + both.writes.operations)?;
    worker.close()?;
    turn.section.note(format!(
        "{READERS} reading threads, each read in a transaction of its own, half of them of the last 1,000 records that the \
         writer's call has returned from: each must be found"
    ));
    Ok(())
}
