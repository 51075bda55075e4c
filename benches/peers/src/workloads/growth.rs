//! Growth from empty: inserts one by one, each of them timed.

use super::Turn;
use crate::latency::QUANTILES;
use crate::protocol::{Insert, Mode, Request, Timed};
use crate::section::{Unit, row};

pub fn measure(mut turn: Turn<'_>) -> anyhow::Result<()> {
    let records = turn.records;
    let (mut worker, _) = turn.start(turn.opening(Mode::Buffered))?;
    let inserts: Timed = worker.ask(&Request::Insert(Insert {
        records,
        batch: 1,
        is_timed: true,
        is_watched: true,
        seconds_max: Some(turn.arguments().seconds() * 3.0),
        ..Insert::default()
    }))?;
    turn.put_rate(row::INSERTS, &inserts, records);
    turn.put_latency(row::INSERT_LATENCY, &inserts);
    if let Some(latency) = inserts.latency {
        // As many nines as there are: 0.999 is 3.
        let points = QUANTILES.iter().zip(latency.quantiles).map(|(q, nanos)| (-(1.0 - q).log10(), nanos as f64));
        turn.section.curve(turn.engine.name(), points.collect());
    }
    if let Some(peak) = inserts.peak {
        turn.put("anonymous memory, largest", Unit::Bytes, peak.anonymous_bytes as f64);
        if peak.index_records > 0 {
            turn.put("index per record, worst moment", Unit::BytesPerRecord, peak.index_bytes_per_record);
            turn.put("... records at that moment", Unit::Count, peak.index_records as f64);
        }
    }
    let seconds: f64 = worker.ask(&Request::Sync)?;
    turn.put("sync after the inserts", Unit::Nanos, seconds * 1e9);
    let figures = turn.settle(&mut worker, inserts.operations)?;
    turn.put_memory(&figures);
    if let Some(bytes) = figures.index_bytes {
        turn.put("index per record, at rest", Unit::BytesPerRecord, bytes as f64 / inserts.operations as f64);
    }
    turn.put_size("size on disk", &figures);
    if turn.engine.is_persistent() {
        let each = figures.disk_bytes as f64 / inserts.operations as f64;
        turn.put("... per record of 116 bytes", Unit::BytesPerRecord, each);
    }
    worker.close()?;
    turn.section.note(
        "from empty, without any hint at the size; no syncs are waited for (redb keeps what it got in memory); an engine \
         that was cut off has grown less than the others, in its favour; cut off after three times the usual time",
    );
    turn.section.note(
        "hashbrown's index is its tables' allocations, boxes' pointers included; during a doubling it has the old one too",
    );
    Ok(())
}
