//! YCSB's mixes C, B, A and F, in this order on one store: zipfian (0.99), 2 threads.

use super::Turn;
use crate::protocol::{Mixed, Mode, Request, Timed, Ycsb};
use crate::section::Unit;
use crate::zipf::THETA;

const THREADS: u64 = 2;

/// (name, updates among 100 operations, whether an update reads first)
const MIXES: [(&str, u64, bool); 4] = [("C", 0, false), ("B", 5, false), ("A", 50, false), ("F", 50, true)];

/// The row of a mix's throughput.
pub fn throughput(mix: &str) -> String {
    format!("{mix} operations")
}

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let records = turn.records;
    let (mut worker, _) = turn.start(turn.opening(Mode::Buffered))?;
    let load = turn.fill(&mut worker, 0)?;
    turn.put("load, batches of 10,000", Unit::PerSecond, load.rate());
    turn.settle(&mut worker, records)?;
    for (mix, update_percent, is_read_modify_write) in MIXES {
        let mixed: Mixed = worker.ask(&Request::Ycsb(Ycsb {
            records,
            update_percent,
            is_read_modify_write,
            threads: THREADS,
            operations: records / THREADS,
            seconds_max: turn.arguments().seconds(),
            seed: turn.seed(),
        }))?;
        let operations = mixed.reads.operations + mixed.writes.operations;
        let all = Timed { operations, latency: None, ..mixed.reads };
        turn.put_rate(&throughput(mix), &all, records / THREADS * THREADS);
        turn.put_latency(&format!("{mix} read"), &mixed.reads);
        let update = if is_read_modify_write { "read-modify-write" } else { "update" };
        turn.put_latency(&format!("{mix} {update}"), &mixed.writes);
    }
    let figures = turn.settle(&mut worker, records)?;
    turn.put_memory(&figures);
    turn.put_size("size on disk at the end", &figures);
    worker.close()?;
    turn.section.note(format!(
        "{THREADS} threads, zipfian with theta {THETA}; C: reads; B: 95 % reads, 5 % updates; A: half and half; F: half \
         reads, half read-modify-writes (not atomic); each operation in a transaction of its own, no syncs"
    ));
    Ok(())
}
