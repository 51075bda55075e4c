//! Bytes in memory and on disk.

use super::Run;
use super::base::Sizes;
use crate::report::{Measured, Section, Unit};

/// Reports what was seen while the base stores were filled.
pub fn report(run: &Run, sizes: &[Sizes]) -> Section {
    let arguments = &run.arguments;
    let records = arguments.records as f64;
    let payload = (arguments.key_bytes + arguments.value_bytes) as f64;
    let mut section = Section::engines("Bytes");
    let mut row = |name: &str, unit, of: &dyn Fn(&Sizes) -> Option<f64>| {
        section.row(name, unit, sizes.iter().map(|sizes| of(sizes).map(Measured::once)));
    };
    let some = |value: f64| (value > 0.0).then_some(value);
    let per_record = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / records);
    row("index per record, worst moment", Unit::BytesPerRecord, &|sizes| some(sizes.peak.index_bytes_per_record));
    row("... records at that moment", Unit::Count, &|sizes| some(sizes.peak.index_records as f64));
    row("index per record, full store", Unit::BytesPerRecord, &|sizes| per_record(sizes.settled.index_bytes));
    row("log per record beyond key and value", Unit::BytesPerRecord, &|sizes| {
        per_record(sizes.settled.log_bytes).map(|bytes| bytes - payload)
    });
    row("disk_bytes per record, open store", Unit::BytesPerRecord, &|sizes| per_record(sizes.settled.disk_bytes));
    row("blocks on disk per record, closed store", Unit::BytesPerRecord, &|sizes| per_record(sizes.disk_bytes));
    row("blocks on disk, closed store", Unit::Bytes, &|sizes| sizes.disk_bytes.map(|bytes| bytes as f64));
    row("anonymous memory, empty store", Unit::Bytes, &|sizes| Some(sizes.anonymous_bytes_empty as f64));
    row("anonymous memory, largest during the fill", Unit::Bytes, &|sizes| some(sizes.peak.anonymous_bytes as f64));
    row("anonymous memory, full store at rest", Unit::Bytes, &|sizes| Some(sizes.settled.anonymous_bytes as f64));
    section.note("worst moment: the largest of samples every 4,096 inserts, from 1 M records (or half of all) on");
    section.note(
        "hashbrown's index: its one allocation, boxes' pointers included; during a doubling it has the old one too",
    );
    section.note("anonymous memory: RssAnon of the engine's process, private copies of index pages included");
    section
}
