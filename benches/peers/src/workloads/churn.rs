//! Churn: remove one live record, insert a fresh one; rates and sizes by windows.

use super::{Turn, row, tell};
use crate::protocol::{Churn, Mode, Opening, Request, Timed};
use crate::section::Unit;

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let (records, seed) = (turn.records, turn.seed());
    let live_bytes = (records * turn.population().record_bytes()) as f64;
    let (mut worker, _) = turn.start(turn.opening(Mode::Buffered))?;
    turn.fill(&mut worker, 0)?;
    let filled = turn.settle(&mut worker, records)?;
    turn.put_size("size after the fill", &filled);
    let (mut done, mut seconds, mut largest) = (0, 0.0, 0_u64);
    let mut points = Vec::new();
    let windows = turn.arguments().windows;
    for window in 1..=windows {
        let request = Churn { records, done, steps: records, seconds_max: turn.arguments().seconds(), seed };
        let timed: Timed = worker.ask(&Request::Churn(request))?;
        done += timed.operations;
        seconds += timed.seconds;
        let name = format!("steps, window {window}");
        turn.put_rate(&name, &timed, records);
        points.push((window as f64, timed.rate()));
        // Not settled: the size that there really is.
        let seconds: f64 = worker.ask(&Request::Sync)?;
        turn.put(&format!("... sync after window {window}"), Unit::Nanos, seconds * 1e9);
        let size = if turn.engine.is_persistent() { crate::files::allocated_bytes(&turn.path())? } else { 0 };
        largest = largest.max(size);
        if turn.engine.is_persistent() {
            turn.put(&format!("... size after window {window}"), Unit::Bytes, size as f64);
        }
    }
    turn.section.curve(turn.engine.name(), points);
    let all = Timed { operations: done, seconds, latency: None, peak: None };
    turn.put_rate(row::CHURN, &all, records * windows);
    if turn.engine.is_persistent() {
        turn.put(row::CHURN_SIZE, Unit::TimesLive, largest as f64 / live_bytes);
    }
    let check = Request::CheckChurn(Churn { records, done, steps: 0, seconds_max: 0.0, seed });
    tell(&mut worker, &check)?;
    let figures = turn.settle(&mut worker, records)?;
    turn.put_memory(&figures);
    let seconds = worker.close()?;
    if turn.engine.is_persistent() {
        turn.put("close", Unit::Nanos, seconds * 1e9);
        turn.put("size when closed", Unit::Bytes, crate::files::allocated_bytes(&turn.path())? as f64);
        let opening = turn.opening(Mode::Buffered);
        let (mut worker, opened) = turn.start(Opening { first_answer: None, ..opening })?;
        tell(&mut worker, &check)?;
        worker.close()?;
        turn.put("open again", Unit::Nanos, opened.nanos as f64);
    }
    turn.section.note(
        "a step removes a live record, neither the oldest nor the newest, and inserts a new one, each by itself, no syncs \
         within a window; a window has as many steps as there are records",
    );
    Ok(())
}
