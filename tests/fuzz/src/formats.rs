//! Texts to import: records or an error, and what was read is written and read again.

use crate::format::{Format, ReadError, ReadOptions, Record, WriteOptions, reader, writer};

/// A text in one of the formats.
///
/// # Panics
/// If something is wrong with a reader or writer.
pub fn formats(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let format = [Format::Jsonl, Format::Tsv, Format::Dump][choice as usize % 3];
    let options = ReadOptions { line_bytes_max: 4096, database: None, last_wins: choice & 64 != 0 };
    // A bad line can be skipped: all of them are looked at.
    let (mut input, mut record, mut records) = (reader(format, text, &options), Record::default(), Vec::new());
    for _ in 0..=text.len() {
        match input.next(&mut record) {
            Ok(true) => records.push(record.clone()),
            Ok(false) => break,
            Err(ReadError::Bad { reason, .. }) if reason.is_skippable() => {}
            Err(_) => break,
        }
    }
    assert!(input.line() <= text.len() as u64 + 1);
    let mut again = Vec::new();
    let print = choice & 128 != 0;
    let mut output = writer(format, &mut again, &WriteOptions { print, ..WriteOptions::default() }).expect("memory");
    records.iter().for_each(|record| output.write(&record.key, &record.value, record.expires_ms).expect("memory"));
    output.finish().expect("memory");
    drop(output);
    let options = ReadOptions { line_bytes_max: 1 << 20, last_wins: true, ..options };
    let mut input = reader(format, &again[..], &options);
    for expected in &records {
        assert!(input.next(&mut record).expect("what was written") && record == *expected);
    }
    assert!(!input.next(&mut record).expect("an end"));
}
