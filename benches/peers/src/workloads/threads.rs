//! Durable writes on one thread and on eight: who shares syncs?

use super::Turn;
use crate::protocol::{Insert, Mode};
use crate::section::row;

const THREADS: u64 = 8;

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let (mut worker, _) = turn.start(turn.opening(Mode::Durable))?;
    let mut records = 0;
    for (threads, name) in [(1, row::THREADS_1), (THREADS, row::THREADS_8)] {
        let insert = Insert { first: threads << 40, threads, ..Insert::default() };
        let timed = turn.measure_durable(&mut worker, name, insert)?;
        records += timed.operations;
        let plural = if threads == 1 { "" } else { "s" };
        turn.put_latency(&format!("durable write, {threads} thread{plural},"), &timed);
    }
    turn.settle(&mut worker, records)?;
    worker.close()?;
    turn.section.note(
        "new records into a new store; `limit` is one thread's 200 bytes appended and fdatasync, over and over, measured \
         right before and right after tophash's phase",
    );
    Ok(())
}
