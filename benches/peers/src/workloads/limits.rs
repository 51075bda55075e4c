//! The machine alone.

use super::Run;
use crate::arguments::Workload;
use crate::progress::progress;
use crate::raw;
use crate::section::{Section, Unit};

/// Bytes that random accesses are spread over, and that are copied.
const BYTES: usize = 512 << 20;
const BYTES_SMOKE: usize = 8 << 20;

pub fn measure(run: &Run) -> anyhow::Result<Section> {
    let mut section = Section::of_machine(Workload::Limits);
    let bytes = if run.arguments.smoke { BYTES_SMOKE } else { BYTES };
    let seconds = run.arguments.durable_seconds() / 2.0;
    for round in 0..run.arguments.rounds() {
        progress!("limits, round {} of {}", round + 1, run.arguments.rounds());
        let mut put = |row: &str, unit, value| section.push(row, unit, Section::MACHINE, value);
        put("dependent random load, 4 KiB pages", Unit::Nanos, raw::load_nanos(bytes, false)?);
        put("dependent random load, huge pages", Unit::Nanos, raw::load_nanos(bytes, true)?);
        put("memcpy, 1 thread", Unit::BytesPerSecond, raw::copy_rate(bytes));
        for (name, beside_writes) in [("alone", false), ("beside writes of 1 MiB + fdatasync", true)] {
            let gaps = raw::gaps(run.dir.path(), beside_writes, seconds * 16.0)?;
            put(&format!("a clock read all the time, {name}: largest gap"), Unit::Nanos, gaps.largest);
            put(&format!("... {name}: gaps of 1 ms and more"), Unit::Count, gaps.pauses);
        }
        for (way, name) in [(raw::Way::Pwrite, "pwrite"), (raw::Way::Mapping, "store into a mapping")] {
            let summary = raw::appends(run.dir.path(), way, seconds)?;
            put(&format!("200 bytes by {name} + fdatasync"), Unit::PerSecond, summary.rate());
            for (percentile, nanos) in summary.latency.iter().flat_map(|latency| latency.named()) {
                put(&format!("... {name} {percentile}"), Unit::Nanos, nanos as f64);
            }
        }
    }
    section.note(format!("random loads and the copy go over {} MiB", bytes >> 20));
    section.note(
        "the clock's gaps are those of a thread that does nothing else: on a virtual machine, times in which the host lets \
         something else run",
    );
    section.note(
        "appends go into a file of zeroes that was written in 4 KiB pieces and synced, so that neither allocation nor \
         large pieces are in the way",
    );
    Ok(section)
}
